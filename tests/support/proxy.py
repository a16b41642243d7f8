"""A TCP proxy that breaks connections on command, for tests of lost, half-open and cut connections.

As a program it prints the port it listens on, then takes one command a line on standard input and answers ``ok``::

    python3 tests/support/proxy.py TARGET_PORT

``pass``            forward both ways (the state at the start); bytes held back by a black hole go on
``blackhole up``    what clients send is swallowed no more than read: nothing reaches the target, nobody is told
``blackhole down``  likewise for what the target sends
``blackhole both``  both: a half-open connection, as after a pulled cable
``reset``           end all connections with RST
``close``           end all connections with FIN
``cut N``           end each connection, with RST, after N more bytes from client to target
``cut-next K N``    end each of the next K new connections, with RST, after its first N bytes from client to target
``refuse``          accept no more: new connections are reset at once
``accept``          accept again
``count``           answers ``ok N``: how many connections are open
``cuts``            answers ``ok N``: how many connections were ended by ``cut`` or ``cut-next``
``quit``

It ends when its standard input closes. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

CHUNK = 65536


class Proxy:
    """Forwards connections of a port of its own to ``target_port`` of 127.0.0.1."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._links: set[_Link] = set()
        self._open = {"up": asyncio.Event(), "down": asyncio.Event()}
        for event in self._open.values():
            event.set()
        self._refusing = False
        self._next: list[int] = []
        self.cuts = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Starts to listen on a free port, ``self.port``."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends all connections and the listening."""
        if self._server is not None:
            self._server.close()
        self.end_all(reset=True)

    def pass_all(self) -> None:
        """Forwards both ways."""
        for event in self._open.values():
            event.set()

    def blackhole(self, way: str) -> None:
        """Forwards nothing ``up`` (client to target), ``down``, or ``both``, and tells nobody."""
        for name, event in self._open.items():
            if way in (name, "both"):
                event.clear()

    def end_all(self, *, reset: bool) -> None:
        """Ends all connections, with RST or FIN."""
        for link in list(self._links):
            link.end(reset=reset)

    def cut_after(self, size: int) -> None:
        """Ends each open connection, with RST, when it has sent ``size`` more bytes to the target."""
        for link in self._links:
            link.left = size

    def cut_next(self, count: int, size: int) -> None:
        """Ends each of the next ``count`` new connections, with RST, after its first ``size`` bytes to the target."""
        self._next = [size] * count

    def refuse(self, *, refusing: bool) -> None:
        """Resets new connections at once, or serves them again."""
        self._refusing = refusing

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            _end(writer, reset=True)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target_port, limit=CHUNK)
        except OSError:
            _end(writer, reset=True)
            return
        link = _Link(writer, up_writer)
        if self._next:
            link.left = self._next.pop()
        self._links.add(link)
        ways = [
            asyncio.create_task(self._forward(link, reader, up_writer, "up")),
            asyncio.create_task(self._forward(link, up_reader, writer, "down")),
        ]
        # Cancelled when the program ends: nobody is to be told.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*ways, return_exceptions=True)
        link.end(reset=False)
        self._links.discard(link)

    async def _forward(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        gate = self._open[way]
        while data := await reader.read(CHUNK):
            await gate.wait()
            if way == "up" and link.left is not None:
                if len(data) >= link.left:
                    writer.write(data[: link.left])
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    link.end(reset=True)
                    self.cuts += 1
                    return
                link.left -= len(data)
            writer.write(data)
            await writer.drain()
        # The end of a stream is news too: a black hole swallows it.
        await gate.wait()


class _Link:
    def __init__(self, client: asyncio.StreamWriter, target: asyncio.StreamWriter) -> None:
        self.left: int | None = None
        self._client = client
        self._target = target

    def end(self, *, reset: bool) -> None:
        _end(self._client, reset=reset)
        _end(self._target, reset=reset)


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        with contextlib.suppress(OSError, AttributeError):
            raw: socket.socket = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


def _obey(proxy: Proxy, words: list[str]) -> str:
    """Carry out one command and return its answer."""
    match words:
        case ["pass"]:
            proxy.pass_all()
        case ["blackhole", ("up" | "down" | "both") as way]:
            proxy.blackhole(way)
        case ["reset"]:
            proxy.end_all(reset=True)
        case ["close"]:
            proxy.end_all(reset=False)
        case ["cut", size]:
            proxy.cut_after(int(size))
        case ["cut-next", count, size]:
            proxy.cut_next(int(count), int(size))
        case ["refuse"]:
            proxy.refuse(refusing=True)
        case ["accept"]:
            proxy.refuse(refusing=False)
        case [("count" | "cuts") as what]:
            return f"ok {getattr(proxy, what)}"
        case _:
            return "failed: unknown command " + " ".join(words)
    return "ok"


async def _serve(target_port: int) -> None:
    proxy = Proxy(target_port)
    await proxy.start()
    print(proxy.port, flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while (words := (await lines.readline()).decode().split()) and words != ["quit"]:
        print(_obey(proxy, words), flush=True)
    await proxy.stop()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
