"""`leveret build`."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click

from leveret.cli import _common, config

__all__ = ["command"]


@click.command("build", epilog="Example: leveret build work.cpp more.cpp -o work.so -- -O3 -lcrypto")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-o", "output", metavar="PATH", help="Where to put it. Default: here, by the first file's name: work.so, or work."
)
@click.option("--exe", is_flag=True, help="A program with a worker's command line instead of a plugin.")
@_common.as_json
@click.pass_obj
def command(extra: list[str], files: tuple[str, ...], output: str | None, exe: bool, as_json: bool) -> int:
    """Compile C++ FILEs to a plugin for `leveret worker`, or to a program of its own.

    What follows `--` is given to the compiler. CXX names another compiler.
    """
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"there is no file {file}")
    made = Path(output) if output else Path(Path(files[0]).stem + ("" if exe else ".so"))
    if not made.absolute().parent.is_dir():
        raise ValueError(f"cannot write {made}: there is no folder {made.absolute().parent}")
    call = [
        *compiler(),
        "-std=c++17",
        "-O2",
        *([] if exe else ["-fPIC", "-shared", "-fvisibility=hidden", "-fvisibility-inlines-hidden"]),
        *config.cflags(),
        *files,
        "-o",
        str(made),
        *extra,
        # A plugin needs no libleveret: the worker that loads it brings one.
        *(config.libs() if exe else []),
        "-pthread",
    ]
    if subprocess.run(call, check=False).returncode != 0:  # noqa: S603 - the user's own compiler and files
        raise click.ClickException(f"the compiler refused: {shlex.join(call)}")
    tasks = [] if exe else tasks_of(made)
    if as_json:
        _common.emit({"output": str(made.absolute()), "tasks": tasks})
    else:
        print(made)
        for task in tasks:
            print(f"  {signature_text(task)}")
    return 0


def compiler() -> list[str]:
    """Return the C++ compiler's command. Raises ValueError where there is none."""
    chosen = os.environ.get("CXX")
    if chosen:
        words = shlex.split(chosen)
        if words and shutil.which(words[0]):
            return words
        raise ValueError(f"cannot run the compiler {chosen!r} that the variable CXX names; correct or unset it")
    for name in ("g++", "c++", "clang++"):
        path = shutil.which(name)
        if path is not None:
            return [path]
    raise ValueError("there is no C++ compiler: install g++ (Debian, Ubuntu: apt-get install g++)")


def tasks_of(plugin: Path) -> list[dict[str, Any]]:
    """Return the tasks of a plugin: proof that a worker can load it."""
    from leveret import _core

    try:
        tasks = _core.load_plugins([str(plugin.absolute())])
    except ValueError as error:
        raise click.ClickException(f"it compiled, but no worker could load it: {error}") from None
    return [
        {
            "task": task["name"],
            "queue": task["queue"],
            "max_retries": task["max_retries"] if task["max_retries"] >= 0 else None,
            "signature": json.loads(task["signature"]) if task["signature"] else None,
        }
        for task in tasks
    ]


def signature_text(task: dict[str, Any]) -> str:
    """Return a task for people: "work(id: integer, value: integer = ...) -> integer, queue native"."""
    signature = task["signature"]
    name = str(task["task"])
    if signature:
        parts = [
            f"{arg.get('name') or i}: {arg.get('type')}" + ("" if arg.get("required", True) else " = ...")
            for i, arg in enumerate(signature.get("args", []))
        ]
        name += f"({', '.join(parts)})"
        if signature.get("returns"):
            name += f" -> {signature['returns']}"
    return f"{name}, queue {task['queue']}"
