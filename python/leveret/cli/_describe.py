"""`leveret worker … --describe`: what tasks a worker would have, with their signatures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from leveret.cli import _common

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["describe"]


def describe(targets: Sequence[str], *, as_json: bool) -> int:
    """Print the tasks of apps and plugins; as JSON in the form that standalone C++ workers print."""
    from leveret import _core
    from leveret.handler import described
    from leveret.loading import is_app, load_app

    plugins = [target for target in targets if not is_app(target)]
    tasks: list[dict[str, Any]] = [
        {
            "task": task["name"],
            "queue": task["queue"],
            "max_retries": None if task["max_retries"] < 0 else task["max_retries"],
            "signature": json.loads(task["signature"]) if task["signature"] else None,
        }
        for task in (_core.load_plugins(plugins) if plugins else [])
    ]
    for target in targets:
        if is_app(target):
            tasks += described(load_app(target))
    if as_json:
        print(json.dumps(tasks, ensure_ascii=False))
        return 0
    rows = [(task["task"], task["queue"], task["max_retries"], _shown(task["signature"])) for task in tasks]
    _common.print_table(("task", "queue", "max_retries", "signature"), rows)
    return 0


def _shown(signature: dict[str, Any] | None) -> str:
    if signature is None:
        return "?"
    arguments = ", ".join(
        f"{each['name'] or '_'}: {each['type']}{'' if each['required'] else ' = …'}" for each in signature["args"]
    )
    return f"({arguments}) -> {signature['returns']}"
