"""The producer of every peer: `drive.py MODULE one|many JOBS`.

The module has `send(number)`, perhaps `send_many(numbers)`, `open()` and `close()`, and `results(sent, seconds)`, which
waits for the results of what the sends gave. Warm-up jobs have the number 0; then it says "ready", waits for a line,
sends, with BENCH_RESULTS reads every result, and says how long that took and what the results sum up to.
"""

import importlib
import json
import sys
import time

from effects import RESULTS

WARM_UP = 20
PATIENCE = 120.0
"""Seconds that results are waited for."""


def main() -> None:
    """Send, and read."""
    peer, how, jobs = importlib.import_module(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    getattr(peer, "open", lambda: None)()
    sent = [peer.send(0) for _ in range(WARM_UP)]
    if RESULTS:
        sum(peer.results(sent, PATIENCE))
    print("ready", flush=True)
    sys.stdin.readline()
    answer: dict[str, float] = {}
    began = time.perf_counter()
    if how == "many":
        sent = peer.send_many(range(1, jobs + 1))
    elif RESULTS:
        sent = [peer.send(number) for number in range(1, jobs + 1)]
    else:
        for number in range(1, jobs + 1):
            peer.send(number)
    if RESULTS:
        answer["sum"] = sum(peer.results(sent, PATIENCE))
    answer["seconds"] = time.perf_counter() - began
    print(json.dumps(answer), flush=True)
    getattr(peer, "close", lambda: None)()


if __name__ == "__main__":
    main()
