"""The pytest plugin: the fixture `leveret_engine`. The package's entry point names it; imports nothing before use."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from leveret.app import App
    from leveret.testing import Engine

__all__ = ["leveret_engine"]


@pytest.fixture
def leveret_engine() -> Iterator[Callable[..., Engine]]:
    """Make engines for apps' jobs, which end with the test: call it with an app.

    Other arguments are those of `leveret.testing.Engine`.
    """
    from leveret.testing import Engine

    with ExitStack() as stack:

        def start(app: App, **settings: Any) -> Engine:
            return stack.enter_context(Engine(app, **settings))

        yield start
