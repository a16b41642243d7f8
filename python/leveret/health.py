"""A worker's health over HTTP, for probes: `leveret worker --health 127.0.0.1:8080`.

`/livez` answers 200 while the worker's loop turns, `/readyz` while it is connected and consumes from all of its queues,
503 otherwise. The body is `{"ok": …, "detail": …}`. The loop runs no handlers: a busy one is no reason to be dead.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["parse_address", "serve"]

_PATIENCE = 1.0
"""Seconds that the loop gets to turn."""
_MOST_PORT = 65_535


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`, `[HOST]:PORT` or `:PORT`, the last one on every address.

    Raises:
        ValueError: For what is none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > _MOST_PORT:
        raise ValueError(f"cannot serve health at {text!r}: an address is HOST:PORT, like 127.0.0.1:8080, or :PORT")
    return host.strip("[]"), int(port)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Answer a probe."""
        from leveret import _core

        if self.path not in {"/livez", "/readyz"}:
            self._answer(404, ok=False, detail="there are /livez and /readyz")
            return
        live, ready, detail = _core.running_worker(_PATIENCE) or (True, False, "the worker starts, or has ended")
        ok = live if self.path == "/livez" else ready
        self._answer(200 if ok else 503, ok=ok, detail="" if ok else detail)

    def _answer(self, code: int, *, ok: bool, detail: str) -> None:
        body = json.dumps({"ok": ok, "detail": detail}).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
        """Probes come every few seconds: they are no news."""
        del format, args


def serve(address: str) -> ThreadingHTTPServer:
    """Answer probes on threads of this process until it ends.

    Args:
        address: As `parse_address` takes it.

    Raises:
        ValueError: For what is no address, or one that can't be listened on.
    """
    host, port = parse_address(address)
    try:
        server = ThreadingHTTPServer((host, port), _Handler)
    except OSError as error:
        raise ValueError(f"cannot serve health at {address}: {error.strerror or error}") from None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="leveret-health", daemon=True).start()
    return server
