"""The tasks of tests/system/plugins/effects.cpp as Python declares them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import leveret


class Effects:
    """Native tasks of one app, in one queue."""

    def __init__(self, app: leveret.App, queue: str, *, ignore_result: bool = False) -> None:
        """Declare them."""
        native = app.native(queue=queue, ignore_result=ignore_result)

        @native
        def effect(path: str, n: int) -> int:
            raise NotImplementedError

        @native
        def spin(path: str, n: int, microseconds: int) -> int:
            raise NotImplementedError

        @native
        def polite(path: str, n: int) -> int:
            raise NotImplementedError

        @native
        def fail_until(path: str, n: int, attempts: int) -> int:
            raise NotImplementedError

        @native
        def reject(why: str) -> None:
            raise NotImplementedError

        @native
        def words(words: list[str]) -> list[str]:
            raise NotImplementedError

        self.effect = effect
        self.spin = spin
        self.polite = polite
        self.fail_until = fail_until
        self.reject = reject
        self.words = words
