"""Short runs with faults. `make soak` makes long ones."""

from __future__ import annotations

import pytest

from faults.run import BROKERS, one, parse


@pytest.mark.parametrize("broker", list(BROKERS))
def test_no_accepted_job_is_lost(broker: str) -> None:
    found = one(broker, parse([broker, "--seconds", "20"]))
    assert found["good"], found
    assert found["accepted"] > 1_000
    assert found["faults"] > 5
