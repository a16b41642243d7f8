"""Help pages of the commands, set by rich."""

from __future__ import annotations

import click
import rich_click

__all__ = ["rich_command"]


def rich_command(command: click.Command) -> click.Command:
    """Return the same command with a help page set by rich."""
    if isinstance(command, click.Group):
        return rich_click.RichGroup(
            name=command.name,
            commands={name: rich_command(sub) for name, sub in command.commands.items()},
            params=command.params,
            callback=command.callback,
            invoke_without_command=command.invoke_without_command,
            help=command.help,
            epilog=command.epilog,
        )
    return rich_click.RichCommand(
        name=command.name, params=command.params, callback=command.callback, help=command.help, epilog=command.epilog
    )
