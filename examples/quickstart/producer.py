"""The quickstart's producer: 10,000 jobs for the C++ worker beside this file, and what came of them.

    leveret build examples/quickstart/worker_sim.cpp
    leveret worker worker_sim.so --threads 4
    python examples/quickstart/producer.py [JOBS]

The broker is LEVERET_URL, or a SQLite file: leveret.db beside the nearest pyproject.toml, else in the working folder.
"""

from __future__ import annotations

import sys
import time

import leveret

app = leveret.App()


@app.native  # run by a C++ worker; the signature is the contract
def work(id: int, value: int = 3) -> int:  # noqa: A002 - the C++ side calls it so
    """Take a thousand steps of a linear congruential generator from `value`."""
    raise NotImplementedError


def main() -> None:
    """Publish, wait, sum up."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    start = time.perf_counter()
    sent = work.send_many((number, number % 25) for number in range(jobs))
    print(f"published {len(sent):,} jobs in {time.perf_counter() - start:.4f} s: they are on disk now")
    total = sum(sent.results(timeout=600))
    print(f"all results are here after {time.perf_counter() - start:.4f} s; their sum is {total}")


if __name__ == "__main__":
    with app:
        main()
