"""`manage.py leveret_worker`: runs the tasks of a Leveret backend until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand

try:
    from django.tasks import task_backends
except ImportError:
    from django_tasks import task_backends

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):
    """The command."""

    help = "Run the tasks of a Leveret backend until SIGTERM or Ctrl-C; running ones are let end."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--backend", default="default", help="its name in TASKS")
        parser.add_argument("--threads", type=int, default=2, help="threads that run tasks")

    def handle(self, *_words: Any, **options: Any) -> None:
        """Run the worker."""
        backend = task_backends[options["backend"]]
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        worker = backend.worker_app().worker(threads=options["threads"], queues=sorted(backend.queues))
        with worker:
            self.stdout.write(f"running {', '.join(sorted(backend.app.tasks))} of {backend.app.url}")
            self.stdout.flush()
            stop.wait()
            counts = worker.stop()
        self.stdout.write(f"{counts.succeeded} succeeded, {counts.retried} retried, {counts.dead} failed")
