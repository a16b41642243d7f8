"""Part `page`: a worker with JSON, dispatch and acknowledgement beside the page's simulated one, which has none.

Two comparisons on memory:// and four threads: jobs that do nothing beside the simulated worker at -O2, and as the page
builds it; and jobs that compute 1,000 steps beside the bare loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import leveret
from leveret.cli.demo import demo_plugin
from measure import LEVERET, PYTHON, Contender, Row, answer_of, compare, compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.rabbitmq_node import RabbitNode

SOURCES = Path(__file__).resolve().parent / "page"
THREADS = "4"
FEW = 10_000
"""As the page has them."""
MANY = 10_000_000
SIMULATED = "the page's worker, -O2"
BETWEEN = 200, 400, 800
"""Instructions between two jobs of the bare loop."""


def timed(jobs: int, *command: str) -> tuple[float, None]:
    """Run a program that says how many seconds its jobs took; return the rate."""
    return jobs / float(str(answer_of(list(command))["seconds"])), None


def drained(jobs: int) -> tuple[float, None]:
    """Run `leveret bench` on memory://; return the rate of draining."""
    answer = answer_of([LEVERET, "bench", "--url", "memory://", "--jobs", str(jobs), "--threads", THREADS, "--json"])
    drain = answer["drain"]
    assert isinstance(drain, dict)  # noqa: S101 - for the type checker
    return jobs / float(drain["seconds"]), None


def page_worker(level: str, *arguments: str) -> list[str]:
    """Return the command of the page's worker, built at a level of optimization."""
    return [compiled(SOURCES / "worker_sim.cpp", level, "-pthread"), *arguments]


def noop_contenders(jobs: int) -> list[Contender]:
    """Return who takes part with jobs that do nothing; the page's worker as it builds it only with few: it is slow."""
    named = f"{jobs:,} jobs that do nothing, 4 threads, memory"
    ours = Row(
        "page",
        named,
        "leveret",
        leveret.__version__,
        f"leveret bench --url memory:// --jobs {jobs} --threads {THREADS}",
        jobs,
        note="JSON validated, dispatched by name, settled, counted",
        reference=SIMULATED,
    )
    arguments = ("simulated", THREADS, str(jobs))
    simulated = Row("page", named, SIMULATED, "", f"g++ -O2; worker_sim simulated {THREADS} {jobs}", jobs)
    simulated.note = "no JSON, no acknowledgement, and its work is dropped by the compiler"
    built = Row("page", named, "the page's worker, as built", "", f"g++; worker_sim simulated {THREADS} {jobs}", jobs)
    contenders = [
        Contender(ours, lambda: drained(jobs)),
        Contender(simulated, lambda: timed(jobs, *page_worker("-O2", *arguments))),
        Contender(built, lambda: timed(jobs, *page_worker("-O0", *arguments))),
    ]
    return contenders if jobs == FEW else contenders[:2]


def slowed_loop(named: str, jobs: int, between: int, reference: str) -> Contender:
    """Return the bare loop with instructions between two jobs: what is to be had with as many for each job."""
    arguments = (THREADS, str(jobs), str(between))
    row = Row(
        "page", named, f"the loop, {between} instructions a job", "", f"g++ -O2; between {' '.join(arguments)}", jobs
    )
    row.reference = reference
    row.note = "additions that wait for nothing, between a job's steps and the next one's"
    return Contender(row, lambda: timed(jobs, compiled(SOURCES / "between.cpp", "-O2", "-pthread"), *arguments))


def measure(node: RabbitNode, rounds: int, say: Callable[[str], None]) -> list[Row]:  # noqa: ARG001 - as every part
    """Run the part."""
    plugin = str(demo_plugin())
    rows: list[Row] = []
    for jobs in FEW, MANY:
        rows += compare(noop_contenders(jobs), rounds, say)
    jobs = 2_000_000
    named = f"{jobs:,} jobs of 1,000 steps, computed, 4 threads, memory"
    loop = "the bare loop, -O2"
    ours = Row("page", named, "leveret", leveret.__version__, "benchmarks/page/computed.py", jobs, reference=loop)
    bare = Row("page", named, loop, "", f"g++ -O2; worker_sim computed {THREADS} {jobs}", jobs)
    computed = (PYTHON, str(SOURCES / "computed.py"), plugin, THREADS, str(jobs))
    contenders = [
        Contender(ours, lambda: timed(jobs, *computed)),
        Contender(bare, lambda: timed(jobs, *page_worker("-O2", "computed", THREADS, str(jobs)))),
    ]
    contenders += [slowed_loop(named, jobs, between, loop) for between in BETWEEN]
    return rows + compare(contenders, rounds, say)
