"""`leveret setup`: queues and policies on real nodes, with the management plugin and without."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from support.processes import leveret
from support.rabbitmq_node import RabbitNode, free_port

if TYPE_CHECKING:
    from pathlib import Path


def policies_of(node: RabbitNode) -> dict[str, Any]:
    """Return the policies of the vhost / by name: pattern and definition."""
    found = json.loads(node.ctl("list_policies", "--formatter", "json"))
    return {policy["name"]: (policy["pattern"], json.loads(policy["definition"])) for policy in found}


def wanted(node: RabbitNode) -> dict[str, Any]:
    """Return what `leveret setup --queue shop.mail` should make there."""
    version = tuple(map(int, node.ctl("version").split(".")[:2]))
    held = {"consumer-timeout": 86_400_000} if version >= (3, 12) else {}
    return {
        "leveret": (r"^leveret\.", {"queue-leader-locator": "balanced"}),
        "leveret.shop.mail": (
            r"^shop\.mail(\.(shard|ordered)\.[0-9]+)?(\.dead|\.suspects)?$",
            {"queue-leader-locator": "balanced", **held},
        ),
    }


def doctor(url: str, *words: str) -> tuple[str, str]:
    """Return what `leveret doctor` says of the policies: status and text."""
    answer = json.loads(leveret("doctor", "--url", url, "--queue", "shop.mail", "--json", *words).stdout)
    return next((check["status"], check["detail"]) for check in answer["checks"] if check["check"] == "policies")


def test_without_the_plugin_it_makes_the_queues_and_prints_what_makes_the_policies(node: RabbitNode) -> None:
    words = ["setup", node.url, "--queue", "shop.mail", "--management", f"http://127.0.0.1:{free_port()}"]
    assert "nobody can be asked" in leveret(*words, expect=2).stderr
    said = leveret(*words, "--yes").stdout
    assert "there is no management plugin" in said.lower()
    queues = set(node.ctl("list_queues", "-s", "name").split())
    assert {"shop.mail", "shop.mail.dead", "shop.mail.suspects"} <= queues
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  rabbitmqctl ")]
    assert commands == [shlex.split(line) for line in json.loads(leveret(*words, "--yes", "--json").stdout)["commands"]]
    status, text = doctor(node.url, *words[-2:])
    assert status == "ok"
    assert "not looked at: there is no management plugin" in text
    for program, *rest in commands:
        assert program == "rabbitmqctl"
        node.ctl(*rest)
    assert policies_of(node) == wanted(node)
    for name in wanted(node):
        node.ctl("clear_policy", name)


def test_with_the_plugin_it_makes_the_policies_and_the_doctor_compares() -> None:
    port = free_port()
    config = f"management.tcp.port = {port}\nmanagement.tcp.ip = 127.0.0.1"
    with RabbitNode(config, ("rabbitmq_management",)) as node:
        words = ["setup", "--url", node.url, "--queue", "shop.mail", "--management", f"http://127.0.0.1:{port}"]
        management = words[-2:]
        words += ["--yes", "--json"]
        status, text = doctor(node.url, *management)
        assert status == "warning"
        assert text.startswith("leveret: missing, leveret.shop.mail: missing; leveret setup makes them")
        assert set(json.loads(leveret(*words).stdout)["policies"].values()) == {"missing"}
        assert policies_of(node) == wanted(node)
        assert set(json.loads(leveret(*words).stdout)["policies"].values()) == {"as it should be"}
        assert doctor(node.url, *management)[0] == "ok"
        node.ctl("set_policy", "leveret.shop.mail", "^shop", '{"queue-leader-locator": "client-local"}')
        state = json.loads(leveret(*words).stdout)["policies"]["leveret.shop.mail"]
        assert "queue-leader-locator is client-local, not balanced" in state
        assert "its pattern is ^shop" in state
        assert policies_of(node) == wanted(node)


def test_another_broker_has_nothing_to_set_up(tmp_path: Path) -> None:
    said = leveret("setup", f"sqlite:///{tmp_path}/q.db", "--yes", expect=2).stderr
    assert "only RabbitMQ has something to set up" in said
