"""What of RabbitMQ's queues is policy: which, for which version, and the two ways to see and make it."""

from __future__ import annotations

import base64
import json
import re
import shlex
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Management", "Policy", "compare", "policies", "set_command", "vhost_of"]

_TIMEOUT = 10.0
_WITH_CONSUMER_TIMEOUT = (3, 12)
"""The first version whose policies take it."""
_NOT_FOUND = 404


@dataclass(frozen=True)
class Policy:
    """A policy of a vhost, as it should be."""

    name: str
    pattern: str
    definition: dict[str, Any]


def version_of(text: str) -> tuple[int, int]:
    """Return major and minor version of "RabbitMQ 3.10.8"; (0, 0) if it has none."""
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def policies(queues: Sequence[str], version: tuple[int, int], longest_job: float | None) -> list[Policy]:
    """Return what a broker of that version should have.

    Args:
        queues: The work queues.
        version: Major and minor.
        longest_job: Seconds after which a message is taken back from a worker that has not ended its jobs. None: any.
    """
    spread: dict[str, Any] = {"queue-leader-locator": "balanced"}
    held: dict[str, Any] = {}
    if longest_job is not None and version >= _WITH_CONSUMER_TIMEOUT:
        held["consumer-timeout"] = int(longest_job * 1000)
    wanted = [Policy("leveret", r"^leveret\.", spread)]
    for queue in queues:
        pattern = rf"^{re.escape(queue)}(\.(shard|ordered)\.[0-9]+)?(\.dead|\.suspects)?$".replace(r"\-", "-")
        wanted.append(Policy(f"leveret.{queue}", pattern, {**spread, **held}))
    return wanted


def vhost_of(url: str) -> str:
    """Return the vhost of a RabbitMQ url."""
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"


def set_command(policy: Policy, vhost: str) -> str:
    """Return the command that makes a policy, for a shell on one of the broker's machines."""
    words = ["rabbitmqctl", "set_policy", "-p", vhost, "--apply-to", "queues", policy.name, policy.pattern]
    return shlex.join([*words, json.dumps(policy.definition)])


class Management:
    """The broker's management plugin, which shows and makes policies over HTTP."""

    def __init__(self, url: str, address: str | None) -> None:
        """Use the url's user.

        Args:
            url: The broker's.
            address: http://HOST:PORT. None: the url's first host, port 15672, or 15671 for amqps.
        """
        parts = urlsplit(url)
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        if not login:
            user, password = "guest", "guest"
        secure = parts.scheme == "amqps"
        host = urlsplit("//" + hosts.split(",")[0]).hostname or "localhost"
        host = f"[{host}]" if ":" in host else host
        default = f"https://{host}:15671" if secure else f"http://{host}:15672"
        self.address = (address or default).rstrip("/")
        if urlsplit(self.address).scheme not in {"http", "https"}:
            raise ValueError(f"cannot use the management address {self.address!r}: it begins with http:// or https://")
        pair = f"{unquote(user)}:{unquote(password)}".encode()
        self._authorization = "Basic " + base64.b64encode(pair).decode()
        self._vhost = quote(vhost_of(url), safe="")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - http or https, as checked
            f"{self.address}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": self._authorization, "Content-Type": "application/json"},
        )
        context = ssl.create_default_context() if self.address.startswith("https:") else None
        with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as answer:  # noqa: S310 - as above
            text = answer.read()
        return json.loads(text) if text else None

    def here(self) -> str:
        """Return why it can't be used; empty: it can."""
        try:
            self._ask("GET", f"policies/{self._vhost}")
        except urllib.error.HTTPError as error:
            error.close()
            return f"{self.address} answers {error.code} {error.reason}: its user needs the tag policymaker"
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            return f"there is no management plugin at {self.address} ({reason})"
        return ""

    def found(self, policy: Policy) -> dict[str, Any] | None:
        """Return a policy as it is; None: there is none."""
        try:
            answer: dict[str, Any] = self._ask("GET", f"policies/{self._vhost}/{quote(policy.name, safe='')}")
        except urllib.error.HTTPError as error:
            with error:
                if error.code == _NOT_FOUND:
                    return None
                raise
        return answer

    def make(self, policy: Policy) -> None:
        """Make a policy, or change it. Raises OSError if the broker refuses."""
        body = {"pattern": policy.pattern, "definition": policy.definition, "apply-to": "queues"}
        try:
            self._ask("PUT", f"policies/{self._vhost}/{quote(policy.name, safe='')}", body)
        except urllib.error.HTTPError as error:
            with error:
                why = error.read().decode("utf-8", "replace").strip()
            raise OSError(f"cannot make the policy {policy.name} at {self.address}: {error.code} {why}") from None


def compare(policy: Policy, found: dict[str, Any] | None) -> str:
    """Return "missing", "as it should be", or how it differs."""
    if found is None:
        return "missing"
    differences = [
        f"{name} is {found['definition'].get(name)}, not {value}"
        for name, value in policy.definition.items()
        if found["definition"].get(name) != value
    ]
    if found["pattern"] != policy.pattern:
        differences.append(f"its pattern is {found['pattern']}, not {policy.pattern}")
    return "; ".join(differences) or "as it should be"
