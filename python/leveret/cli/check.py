"""`leveret check`: whether apps and plugins agree on their native tasks."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from leveret.cli import _common

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from leveret.app import App
    from leveret.tasks import NativeTask

__all__ = ["command"]


class _Parameter(NamedTuple):
    name: str
    words: str
    required: bool
    by_name: bool
    """Sent in `kwargs`: a keyword-only parameter."""


@click.command("check", epilog="Example: leveret check tasks:app work.so")
@click.argument("targets", nargs=-1, required=True, metavar="APP|PLUGIN...")
@_common.as_json
def command(targets: tuple[str, ...], as_json: bool) -> int:
    """Compare the signatures of native tasks with those of the C++ functions.

    Give apps (module:name) and plugins (files) together. Named is every @app.native task that no plugin has, and every
    difference in arguments and result that would make jobs dead. Exit code 1 if there is one.
    """
    from leveret import _core
    from leveret.loading import is_app, load_app

    apps = [load_app(target) for target in targets if is_app(target)]
    plugins = [target for target in targets if not is_app(target)]
    if not apps or not plugins:
        raise ValueError("give at least one app (module:name) and one plugin (a file): leveret check tasks:app work.so")
    registered: dict[str, Any] = {task["name"]: task for task in _core.load_plugins(plugins)}
    found = [(name, what) for app in apps for name, what in _problems(app, registered)]
    checked = sum(len(app.load()) for app in apps)
    if as_json:
        _common.emit({"tasks": checked, "mismatches": [{"task": name, "what": what} for name, what in found]})
    else:
        for name, what in found:
            print(f"{name}: {what}")
        print(f"{len(registered)} tasks in plugins, {checked} in apps, {len(found)} mismatches")
    return 1 if found else 0


def _problems(app: App, registered: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give (task, what is wrong) of an app's tasks."""
    from leveret.tasks import Task

    for name, task in sorted(app.load().items()):
        native = registered.get(name)
        if isinstance(task, Task):
            if native is not None:
                yield name, f"it is a Python task ({task.place}), and a task of {native['source']}: rename one"
        elif native is None:
            known = ", ".join(sorted(registered)) or "none"
            yield name, f"no plugin has it ({task.place}); they have: {known}"
        else:
            yield from ((name, f"{what} ({task.place})") for what in _differences(task, native))


def _differences(task: NativeTask[..., Any], native: Mapping[str, Any]) -> Iterator[str]:
    """Give what is different between a declaration and its C++ function."""
    from leveret.fits import misfits
    from leveret.signature import hints_of
    from leveret.words import type_words

    if task.queue != native["queue"]:
        yield f'it is sent to queue "{task.queue}", but its worker consumes "{native["queue"]}" unless told otherwise'
    signature = json.loads(native["signature"]) if native["signature"] else None
    if signature is None:
        return
    hints = hints_of(task.function)
    given = list(_parameters(task, hints))
    taken: list[dict[str, Any]] = signature["args"]
    yield from _differences_of_arguments(given, taken)
    names = {argument["name"] for argument in taken}
    yield from (
        f'"{each.name}" is sent by name, but not taken' for each in given if each.by_name and each.name not in names
    )
    returns = hints.get("return", Any)
    if returns is not None and (wrong := misfits(signature["returns"], type_words(returns))):
        yield f"result: {wrong}"


def _differences_of_arguments(given: Sequence[_Parameter], taken: Sequence[dict[str, Any]]) -> Iterator[str]:
    from leveret.fits import misfits

    positional = [each for each in given if not each.by_name]
    if len(positional) > len(taken):
        yield f"{len(positional)} arguments are sent, {len(taken)} are taken"
    by_name = {each.name: each for each in given}
    for i, argument in enumerate(taken):
        sent = positional[i] if i < len(positional) else by_name.get(argument["name"])
        label = f'args[{i}] "{argument["name"]}"'
        if sent is None:
            if argument["required"]:
                yield f"{label}: it is required, but never sent"
            continue
        if argument["name"] not in {"", sent.name}:
            yield f'{label}: it is called "{sent.name}" in Python'
        if wrong := misfits(sent.words, argument["type"]):
            yield f"{label}: {wrong}"


def _parameters(task: NativeTask[..., Any], hints: Mapping[str, Any]) -> Iterator[_Parameter]:
    from leveret.words import type_words

    for name, parameter in inspect.signature(task.function).parameters.items():
        if parameter.kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            continue
        required = parameter.default is inspect.Parameter.empty
        by_name = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        yield _Parameter(name, type_words(hints.get(name, Any)), required, by_name)
