"""Three private RabbitMQ nodes as one cluster on this machine.

Each node is a `RabbitNode`; they share a cookie and an epmd. About 30 s to start on two cores.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

from .rabbitmq_node import RabbitNode

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["RabbitCluster"]

_CONFIG = """cluster_partition_handling = pause_minority
net_ticktime = 5
"""


class RabbitCluster:
    """A cluster of three."""

    def __init__(self) -> None:
        """Make it; `start` starts it."""
        first = RabbitNode(_CONFIG)
        self.nodes = [first, RabbitNode(_CONFIG, joins=first), RabbitNode(_CONFIG, joins=first)]

    @property
    def url(self) -> str:
        """The url of all three."""
        return f"amqp://guest:guest@{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}/?heartbeat=2"

    def start(self) -> None:
        """Start the nodes, one after the other, and have the defaults spread queues."""
        for node in self.nodes:
            node.start()

    def stop(self) -> None:
        """End all; the first last, whose epmd serves all."""
        for node in reversed(self.nodes):
            node.stop()

    def others(self, node: RabbitNode) -> list[RabbitNode]:
        """Return the two other nodes."""
        return [other for other in self.nodes if other is not node]

    def leader_of(self, queue: str, asked: RabbitNode | None = None) -> RabbitNode:
        """Return the node that leads a quorum queue of vhost /, as a node sees it (the first, unless said)."""
        lookup = f'{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)), '
        said = (asked or self.nodes[0]).ctl("eval", lookup + "{_, Node} = amqqueue:get_pid(Q), Node.")
        name = re.sub(r"[\s']", "", said)
        return next(node for node in self.nodes if node.name == name)

    def cut_off(self, node: RabbitNode) -> None:
        """Part a node from the two others as a broken network would; its clients still reach it."""
        others = [other.name for other in self.others(node)]
        node.ctl("eval", "".join(f"erlang:set_cookie('{name}', cut_off), " for name in others) + "ok.")
        node.ctl("eval", "".join(f"erlang:disconnect_node('{name}'), " for name in others) + "ok.")

    def join_again(self, node: RabbitNode) -> None:
        """Mend what `cut_off` broke."""
        others = [other.name for other in self.others(node)]
        node.ctl("eval", "".join(f"erlang:set_cookie('{name}', erlang:get_cookie()), " for name in others) + "ok.")

    def __enter__(self) -> Self:
        """Start."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()
