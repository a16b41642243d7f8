"""The checker of the fault runs finds what is planted in a history."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults.checker import check
from faults.history import KEYS, NUMBERS, Effects, Event, Log, key_of, read_effects, read_log

if TYPE_CHECKING:
    from pathlib import Path

SECOND = NUMBERS


def events(*said: tuple[str, int, int]) -> list[Event]:
    return [Event(what, first, count, float(at)) for at, (what, first, count) in enumerate(said)]


def effects(*numbers: int) -> Effects:
    made = Effects()
    for place, number in enumerate(numbers):
        made.numbers.append(number)
        made.places.append(place)
        made.workers.append(1)
    return made


def by_producer(number: int) -> int:
    return number // NUMBERS


def test_a_good_history_is_good() -> None:
    sent = events(("invoke", 0, 3), ("ok", 0, 3), ("invoke", SECOND, 2), ("ok", SECOND, 2))
    verdict = check(sent, effects(0, 1, SECOND, 2, SECOND + 1), order=by_producer)
    assert verdict.good
    assert (verdict.accepted, verdict.ran, verdict.dead, verdict.recovered) == (5, 5, 0, 0)
    assert verdict.duplicates == []


def test_an_accepted_job_that_never_ran_is_lost() -> None:
    verdict = check(events(("invoke", 0, 3), ("ok", 0, 3)), effects(0, 2))
    assert not verdict.good
    assert verdict.lost == [1]


def test_a_dead_job_is_not_lost() -> None:
    verdict = check(events(("invoke", 0, 2), ("ok", 0, 2)), effects(0), dead=[1])
    assert verdict.good
    assert verdict.dead == 1


@pytest.mark.parametrize("what", ["invoke", "unknown"])
def test_what_nobody_knows_of_may_run_or_not(what: str) -> None:
    verdict = check(events(("invoke", 0, 2), (what, 0, 2)), effects(1))
    assert verdict.good
    assert (verdict.accepted, verdict.recovered) == (0, 1)


def test_a_run_of_what_was_not_sent_is_unexpected() -> None:
    sent = events(("invoke", 0, 2), ("ok", 0, 1), ("fail", 1, 1))
    verdict = check(sent, effects(0, 1, 7, SECOND))
    assert not verdict.good
    assert verdict.unexpected == [1, 7, SECOND]
    assert check(sent, effects(0), dead=[9]).unexpected == [9]


def test_runs_after_the_first_are_counted_where_they_are() -> None:
    verdict = check(events(("invoke", 0, 2), ("ok", 0, 2)), effects(0, 1, 0, 0))
    assert verdict.good
    assert verdict.duplicates == [2, 3]


def test_first_runs_out_of_order_are_found_where_order_was_promised() -> None:
    sent = events(("invoke", 0, 3), ("ok", 0, 3))
    assert check(sent, effects(1, 0, 2), order=by_producer).misordered == [0]
    assert check(sent, effects(1, 0, 2)).good
    assert check(sent, effects(0, 1, 0, 2), order=by_producer).good, "a run again is none of its business"
    told_nothing = events(("invoke", 0, 1), ("unknown", 0, 1), ("invoke", 1, 2), ("ok", 1, 2))
    assert check(told_nothing, effects(1, 0, 2), order=by_producer).good, "nobody knows when it was sent"


def test_keys_have_orders_of_their_own() -> None:
    first, count = SECOND, 2 * KEYS
    sent = events(("invoke", first, count), ("ok", first, count), ("invoke", 0, 2), ("ok", 0, 2))
    assert [key_of(n) for n in (0, 1, first, first + 1, first + KEYS)] == [None, None, KEYS, KEYS + 1, KEYS]
    others_first = [1, 0, *range(first + count - 1, first + KEYS - 1, -1)]
    assert check(sent, effects(*(n - KEYS if n >= first else n for n in others_first)), order=key_of).misordered == []
    assert check(sent, effects(first + KEYS, first), order=key_of).misordered == [first]


def test_what_was_written_is_read_back_and_a_line_cut_short_is_not(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    log.note("invoke", 5, 2)
    log.note("ok", 5, 2)
    log.note("unknown", 7, 0)
    with (tmp_path / "log").open("a") as file:
        file.write("invoke 9")
    assert [(e.what, e.first, e.count) for e in read_log(tmp_path / "log")] == [("invoke", 5, 2), ("ok", 5, 2)]
    (tmp_path / "effects").write_text("\n5 a/1 0 77\n\n6 a/2 0 78\n\n8 a/3\n9 a/4 0 79\n\n7 a/")
    found = read_effects(tmp_path / "effects")
    assert list(found.numbers) == [5, 6, 9]
    assert list(found.places) == [1, 13, 31]
    assert list(found.workers) == [77, 78, 79]
    assert not read_effects(tmp_path / "none").numbers
