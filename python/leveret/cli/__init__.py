"""The command line `leveret`: one module per command, loaded when it is called.

Exit codes: 0; 1 failure; 2 usage and set-up. An error is one line on standard error.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["main"]

FAILED = 1
USAGE = 2

COMMANDS = {
    "init": "Write a small project that runs at once.",
    "demo": "Run the main job: Python publishes, C++ executes, every result is checked.",
    "worker": "Run a worker: execute jobs of the tasks in plugins.",
    "build": "Compile C++ tasks to a plugin, or to a program.",
    "check": "Compare the native tasks of apps with those of plugins.",
    "config": "Show the configuration, and what compilers need to know.",
    "send": "Send a job, or a file of jobs.",
    "queues": "Show queues and what waits in them.",
    "top": "Show live what happens: queues, rates, workers.",
    "inspect": "Show workers and what they run.",
    "jobs": "List, show, cancel and retry jobs.",
    "dead": "Show jobs that ended dead.",
    "purge": "Remove what waits in queues.",
    "backup": "Copy a SQLite file while it is in use.",
    "recover": "Save what a damaged SQLite file still holds.",
    "setup": "Make queues and policies on RabbitMQ.",
    "bench": "Measure publishing and draining on this machine.",
    "completion": "Print what completes commands in bash or zsh.",
    "doctor": "Check url, file system, broker, libraries and compiler.",
}


class Commands(click.Group):
    """The commands; a module is loaded when its command is called, so that `leveret --help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of a newcomer's need."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command, with the defaults that the nearest pyproject.toml gives its options."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"leveret.cli.{cmd_name}").command
        if _settings_of(command) and "--help" not in sys.argv:
            from leveret.config import from_project

            project = from_project()
            ctx.default_map = {cmd_name: _defaults(command, project)} if project else None
        if "--help" in sys.argv:
            # Rich costs a tenth of a second, and is needed for help pages alone.
            from leveret.cli._help import rich_command

            return rich_command(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without loading the commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _settings_of(command: click.Command) -> bool:
    """Tell whether an option of the command is a setting, and have help and errors name its variable."""
    found = False
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar:
            option.show_envvar = found = True
    subs = command.commands.values() if isinstance(command, click.Group) else ()
    return any([found, *map(_settings_of, subs)])


def _defaults(command: click.Command, project: Mapping[str, Any]) -> dict[str, Any]:
    """Return the project's values by parameter, as click's default_map wants them."""
    found: dict[str, Any] = {}
    for option in command.params:
        key = option.envvar.removeprefix("LEVERET_").lower() if isinstance(option.envvar, str) else ""
        if key in project:
            found[str(option.name)] = project[key]
    if isinstance(command, click.Group):
        found.update({name: _defaults(sub, project) for name, sub in command.commands.items()})
    return found


def _print_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from leveret import _core

        print(f"leveret {_core.version}")
        ctx.exit()


@click.group(
    cls=Commands,
    epilog="Example: leveret demo. Each command has its own --help with an example. "
    "LEVERET_URL names the broker where --url does not.",
    context_settings={"help_option_names": ["--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def root() -> None:
    """Leveret: distributed task execution. Python publishes jobs, C++17 workers execute them."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and any("://" in word and ("@" in word or "%40" in word) for word in words):
        from leveret.cli._arguments import hide_passwords

        hide_passwords()
    if "_LEVERET_COMPLETE" in os.environ:
        root.main(words, prog_name="leveret", complete_var="_LEVERET_COMPLETE")
    rest: list[str] = []
    if words[:1] == ["build"] and "--" in words:
        # What follows is the compiler's; click would take it for files.
        at = words.index("--")
        words, rest = words[:at], words[at + 1 :]
    sys.exit(_run(words, rest))


def _run(words: list[str], rest: list[str]) -> int:
    """Run a command and return its exit code; errors become one line."""
    name = " ".join(["leveret", *words[:1]]) if words and words[0] in COMMANDS else "leveret"
    try:
        code: Any = root.main(words, prog_name="leveret", standalone_mode=False, obj=rest)
    except BrokenPipeError:
        # Whoever read the output has enough; closing it again must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _complain(name, "interrupted", FAILED)
    except click.ClickException as error:
        return _complain(name, _usage_text(name, error), error.exit_code)
    except Exception as error:
        found = _exit_code(error)
        if found is None:
            raise  # a mistake of ours: its traceback is what we need to know
        return _complain(name, str(error), found)
    return code if isinstance(code, int) else 0


def _usage_text(name: str, error: click.ClickException) -> str:
    """Return the text of an error that click or a command raised; usage errors say where to look."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        context: Any = error.ctx
        words = context.command.list_commands(context)
        return f"which command? One of {', '.join(words)}; see {name} --help"
    if isinstance(error, click.UsageError):
        return f"{error.format_message()} See {name} --help"
    return error.format_message()


def _exit_code(error: Exception) -> int | None:
    """Return the exit code for an error of the package; None for one that nobody foresaw."""
    from leveret.errors import Error, NotFound, Unsupported

    if isinstance(error, (ValueError, Unsupported, NotFound)):
        return USAGE
    return FAILED if isinstance(error, (Error, OSError)) else None


def _complain(name: str, text: str, code: int) -> int:
    """Print one line on standard error and return the exit code."""
    line = " ".join(text.split())
    print(f"{name}: {line}", file=sys.stderr)
    return code
