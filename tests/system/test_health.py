"""What a worker tells those who watch it: HTTP probes, and systemd."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from support.processes import PATIENCE, Broker, Worker, until
from support.rabbitmq_node import RabbitNode, free_port

if TYPE_CHECKING:
    from pathlib import Path


def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_probes_tell_live_from_ready(tmp_path: Path, effects: Path) -> None:
    port = free_port()
    with RabbitNode() as node:
        broker = Broker(node.url, "probes", tmp_path)
        with broker.worker(effects, "--health", f"127.0.0.1:{port}", pool="processes") as worker:
            # A loop that is stalled for a second says so: of each, one answer has to be good.
            until(lambda: get(port, "/livez") == (200, {"ok": True, "detail": ""}), "it lives")
            until(lambda: get(port, "/readyz") == (200, {"ok": True, "detail": ""}), "it consumes")
            assert get(port, "/other")[0] == 404
            node.stop_node()
            until(lambda: get(port, "/readyz")[0] == 503, "it says that it is not connected")
            assert get(port, "/readyz")[1]["detail"]
            until(lambda: get(port, "/livez")[0] == 200, "it lives all the same")
            node.start()
            until(lambda: get(port, "/readyz")[0] == 200, "it consumes again")
            worker.stop()


def test_systemd_hears_of_a_start_of_the_loop_and_of_a_stop(tmp_path: Path, effects: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(PATIENCE)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}
        words = ["--url", f"sqlite:///{tmp_path}/q.db", "--threads", "1"]
        with Worker(effects, *words, environment=environment) as worker:
            assert systemd.recv(100) == b"READY=1"
            assert [systemd.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            worker.stop()
            heard = b"WATCHDOG=1"
            while heard == b"WATCHDOG=1":
                heard = systemd.recv(100)
            assert heard == b"STOPPING=1"
