"""A worker's process that runs handlers: `leveret worker` starts it, with the descriptors to talk through.

It imports what it is told to, and nothing is run before that succeeded: a mistake in an app ends it with exit code 2,
and one paragraph on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from leveret.loading import is_app, load_app

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["command", "main"]

_SET_UP = 2


def command(targets: Sequence[str], *, concurrency: int, log_level: str, log_format: str) -> list[str]:
    """Return what starts such a process.

    Args:
        targets: Apps (`module:name`) and plugins (files).
        concurrency: How many coroutines run at once in it, at most.
        log_level: As `leveret worker` takes it.
        log_format: Likewise.
    """
    words = [sys.executable, "-m", "leveret._child", "--concurrency", str(concurrency)]
    words += ["--log-level", log_level, "--log-format", log_format]
    return [*words, *(f"--app={each}" if is_app(each) else f"--plugin={each}" for each in targets)]


def _serve(arguments: argparse.Namespace) -> None:
    """Load everything, and run handlers until the worker ends."""
    from leveret import _core
    from leveret.handler import Handlers
    from leveret.keys import ordered_queues
    from leveret.logs import configure

    _core.end_with_parent()  # also while an app's import takes long
    configure(arguments.log_level, arguments.log_format)
    apps = [load_app(target) for target in arguments.app]
    with Handlers(apps, concurrency=arguments.concurrency) as handlers:
        child = _core.PoolChild(
            arguments.memory,
            arguments.news,
            arguments.child,
            arguments.plugin,
            handlers,
            arguments.log_level,
            arguments.log_format,
        )
        urls = sorted({app.broker_url() for app in apps})
        if len(urls) == 1:
            child.tell("url", urls[0])
        if ordered := ordered_queues(*apps):
            child.tell("ordered", ",".join(ordered))
        if handlers.has_coroutines:
            child.tell("defers", "yes")
        child.serve()
        del child


def main() -> NoReturn:
    """Run the process."""
    parser = argparse.ArgumentParser(prog="leveret worker")
    for name in ("memory", "news", "child", "concurrency"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--log-level", required=True)
    parser.add_argument("--log-format", required=True)
    parser.add_argument("--app", action="append", default=[])
    parser.add_argument("--plugin", action="append", default=[])
    arguments = parser.parse_args()
    try:
        _serve(arguments)
    except (ValueError, TypeError, ImportError) as error:
        print(f"leveret worker: {error}", file=sys.stderr)  # noqa: T201 - a program that talks to people
        sys.stderr.flush()
        os._exit(_SET_UP)
    sys.exit(0)


if __name__ == "__main__":
    main()
