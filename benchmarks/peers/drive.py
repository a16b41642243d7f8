"""The producer of every peer: `drive.py MODULE one|many JOBS`.

The module has `send(number)`, perhaps `send_many(numbers)`, `open()` and `close()`. Warm-up jobs have the number 0;
then it says "ready", waits for a line, sends, and says how long that took.
"""

import importlib
import json
import sys
import time

WARM_UP = 20


def main() -> None:
    """Send."""
    peer, how, jobs = importlib.import_module(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    getattr(peer, "open", lambda: None)()
    for _ in range(WARM_UP):
        peer.send(0)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    if how == "many":
        peer.send_many(range(1, jobs + 1))
    else:
        for number in range(1, jobs + 1):
            peer.send(number)
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    getattr(peer, "close", lambda: None)()


if __name__ == "__main__":
    main()
