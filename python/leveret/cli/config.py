"""`leveret config`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from leveret import config
from leveret.cli import _common

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["cflags", "command", "libs"]


@click.group(
    "config",
    invoke_without_command=True,
    epilog="Example: g++ -std=c++17 work.cpp -o work $(leveret config --cflags --libs)",
)
@click.option("--cflags", "want_cflags", is_flag=True, help="What the compiler needs to find the headers.")
@click.option("--libs", "want_libs", is_flag=True, help="What the linker needs for programs: the library and its path.")
@click.option("--cmakedir", "want_cmakedir", is_flag=True, help="The folder for find_package: -Dleveret_DIR=…")
@_common.as_json
@click.pass_context
def command(ctx: click.Context, want_cflags: bool, want_libs: bool, want_cmakedir: bool, as_json: bool) -> None:
    """Show the configuration (`show`), or print what compilers and CMake need to build tasks in C++ by hand."""
    wanted = {"cflags": want_cflags, "libs": want_libs, "cmakedir": want_cmakedir}
    if ctx.invoked_subcommand is not None:
        if as_json or any(wanted.values()):
            raise click.UsageError(f"Options belong behind {ctx.invoked_subcommand}.")
        return
    folder = installed()
    known = {
        "cflags": " ".join(cflags()),
        "libs": " ".join(libs()),
        "cmakedir": str(folder / "lib/cmake/leveret"),
    }
    if as_json:
        _common.emit(known)
        return
    if not any(wanted.values()):
        raise click.UsageError("Say what: show, --cflags, --libs or --cmakedir.")
    print(" ".join(known[name] for name, want in wanted.items() if want))


@command.command("show", epilog="Example: leveret config show --json")
@_common.as_json
def show(as_json: bool) -> None:
    """Show every setting and where its value came from: a variable, the nearest pyproject.toml, or the default.

    A command's own flags come before all of them. Variables that begin with LEVERET_ and mean nothing are named on
    standard error.
    """
    found = config.settings()
    file = config.project_file()
    shown = {
        setting.key: {
            "value": _shown(setting),
            "source": setting.source,
        }
        for setting in found
    }
    for _, text in config.unknown_variables():
        print(f"leveret config: {text}", file=sys.stderr)
    if as_json:
        _common.emit({"file": file, "settings": shown})
        return
    print(f"pyproject.toml: {file or 'none here or above'}")
    rows = [
        [key, _text(setting["value"]), "pyproject.toml" if setting["source"] == file else setting["source"]]
        for key, setting in shown.items()
    ]
    _common.print_table(["key", "value", "from"], rows)


def _shown(setting: config.Setting) -> Any:
    """Return a setting's value without passwords and secrets."""
    if setting.value is not None and config.KEYS[setting.key].kind == "secret":
        return "(hidden)"
    return _common.shown_url(setting.value) if setting.key == "url" else setting.value


def _text(value: Any) -> str:
    """Return a value for people."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, (str, int, float)) else ", ".join(value)


def installed() -> Path:
    """Return the folder with headers and library. Raises ValueError where the package was not built with them."""
    folder = _common.package_folder()
    if not (folder / "include/leveret/worker.hpp").is_file():
        raise ValueError(
            f"there are no C++ headers in {folder}: install the package (pip install .), or run make setup"
        )
    return folder


def cflags() -> list[str]:
    """Return the compiler's options."""
    return [f"-I{installed() / 'include'}"]


def libs() -> list[str]:
    """Return the linker's options."""
    folder = installed() / "lib"
    return [f"-L{folder}", f"-Wl,-rpath,{folder}", "-lleveret"]
