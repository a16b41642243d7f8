"""`leveret setup`."""

from __future__ import annotations

import sys

import click

from leveret.cli import _common, _policies
from leveret.cli.doctor import rabbitmq_version

__all__ = ["command"]


@click.command("setup", epilog="Example: leveret setup amqp://admin:password@localhost --queue mail --yes")
@click.argument("address", required=False, metavar="[URL]")
@_common.url_option
@click.option("--queue", "queues", multiple=True, metavar="QUEUE", help="Queue to set up; repeatable.")
@click.option(
    "--longest-job",
    type=click.FloatRange(60, 2_000_000),
    default=86_400.0,
    show_default=True,
    metavar="SECONDS",
    help="What a message may take in a worker before RabbitMQ takes it back (from 3.12 on).",
)
@click.option("--management", metavar="URL", help="The management plugin. Default: port 15672 of the url's first host.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_common.as_json
def command(
    address: str | None,
    url: str | None,
    queues: tuple[str, ...],
    longest_job: float,
    management: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Make QUEUEs on RabbitMQ, and the policies that its version needs.

    It shows what it would make, and asks. Policies are made by the management plugin; where there is none it prints
    the rabbitmqctl commands that make them.
    """
    chosen = _common.shared_url(address or url)
    if not chosen.startswith(("amqp:", "amqps:")):
        raise ValueError(f"cannot set up {_common.shown_url(chosen)}: only RabbitMQ has something to set up")
    names = list(dict.fromkeys(queues or ("default", "native")))
    server = rabbitmq_version(chosen)
    version = _policies.version_of(server)
    wanted = _policies.policies(names, version, longest_job)
    plugin = _policies.Management(chosen, management)
    absent = plugin.here()
    states = {
        policy.name: "unknown" if absent else _policies.compare(policy, plugin.found(policy)) for policy in wanted
    }
    if not as_json:
        print(f"{server}, {_common.shown_url(chosen)}")
        print(f"queues: {', '.join(names)}, each with .dead and .suspects")
        rows = [[policy.name, policy.pattern, str(policy.definition), states[policy.name]] for policy in wanted]
        _common.print_table(["policy", "pattern", "definition", "found"], rows)
    _ask(yes=yes)
    _declare(chosen, names)
    commands = [_policies.set_command(policy, _policies.vhost_of(chosen)) for policy in wanted] if absent else []
    _make([] if absent else wanted, plugin)
    if as_json:
        _common.emit({"server": server, "queues": names, "policies": states, "commands": commands})
    else:
        _report(commands, absent, version)
    return 0


def _ask(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("It would make these and nobody can be asked: add --yes.")
    click.confirm("Make them?", abort=True, err=True)


def _declare(url: str, names: list[str]) -> None:
    broker = _common.client(url)
    try:
        for name in names:
            for queue in (name, f"{name}.suspects"):
                broker.declare(queue)
    finally:
        broker.close(1.0)


def _make(wanted: list[_policies.Policy], plugin: _policies.Management) -> None:
    for policy in wanted:
        plugin.make(policy)


def _report(commands: list[str], absent: str, version: tuple[int, int]) -> None:
    if commands:
        print(f"The queues are made. {absent[:1].upper()}{absent[1:]}: make the policies on one of its machines by")
        for line in commands:
            print(f"  {line}")
    else:
        print("The queues and policies are made.")
    if version < (3, 12):
        print(
            "Before RabbitMQ 3.12 no policy says how long a job may run: for jobs of more than 30 minutes put "
            "consumer_timeout = MILLISECONDS into rabbitmq.conf."
        )
