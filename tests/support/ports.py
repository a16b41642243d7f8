"""Free TCP ports for the servers of tests, which run in several processes at once."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

_PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to clients, so that no connection takes one before its server listens."""


def free_port() -> int:
    """Gives a TCP port of 127.0.0.1 that nobody listens on. It is given to no other process while this one lives."""
    chance = random.SystemRandom()
    while True:
        port = chance.choice(_PORTS)
        # A name that no file has: it is this process's until it ends, however it does.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0leveret-tests-port-{port}")
        except OSError:
            claim.close()
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                claim.close()
                continue
        claim.detach()  # stays open
        return port
