"""`leveret completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from leveret.cli import _common

__all__ = ["command"]

_SHELLS = ("bash", "zsh")


@click.command("completion", epilog="Example: leveret completion bash >> ~/.bashrc")
@click.argument("shell", type=click.Choice(_SHELLS))
@_common.as_json
@click.pass_context
def command(ctx: click.Context, shell: str, as_json: bool) -> None:
    """Print what makes SHELL complete commands and options by the Tab key."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has both
    source = kind(ctx.find_root().command, {}, "leveret", "_LEVERET_COMPLETE").source()
    if as_json:
        _common.emit({"shell": shell, "script": source})
    else:
        print(source)
