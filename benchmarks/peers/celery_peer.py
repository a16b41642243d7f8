"""Celery: quorum queue, publisher confirms, acknowledgement after execution, its prefork pool."""

from celery import Celery
from celery.result import AsyncResult, ResultSet
from effects import QUEUE, RESULTS, SENDERS, URL, ran

app = Celery("bench", broker=URL, backend=RESULTS or None)
app.conf.update(
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=max(10, SENDERS),
    task_default_queue=QUEUE,
    task_default_queue_type="quorum",
    task_acks_late=True,
    task_ignore_result=not RESULTS,
    worker_prefetch_multiplier=64,
    worker_detect_quorum_queues=True,
)


@app.task
def work(number: int, value: int) -> int:  # noqa: ARG001 - the quickstart's signature
    """Count a job."""
    return ran(number)


def send(number: int) -> AsyncResult[int]:
    """Send a job."""
    return work.delay(number, number % 25)


def results(sent: list[AsyncResult[int]], seconds: float) -> list[int]:
    """Wait for the results, which Redis pushes."""
    return ResultSet(sent).get(timeout=seconds)
