"""Leveret behind Django's own task framework: `django.tasks` of Django 6, or its backport `django-tasks` on 5.2.

    TASKS = {
        "default": {
            "BACKEND": "leveret_backend.LeveretBackend",
            "QUEUES": ["default", "mail"],
            "OPTIONS": {"url": "sqlite:////srv/shop/jobs.db", "max_retries": 3},
        }
    }

`@task` and `.enqueue()` stay as Django documents them. `manage.py leveret_worker` runs the tasks on threads, `leveret
worker worker:app` in processes of their own, which a crash or a leak does not outlive. A worker runs those
that it finds in the `tasks` modules of the installed apps, by name: what a message names is never imported.

Options: `url`, as in `leveret.App`; `max_retries`, 0 by default, since Django's tasks fail at their first exception.
Results can be read by every process on SQLite; on RabbitMQ only `enqueue` and the worker work.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import leveret
from django.apps import apps
from django.db import close_old_connections
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.module_loading import autodiscover_modules

try:
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import TaskResultDoesNotExist
    from django.tasks.signals import task_enqueued, task_finished, task_started
except ImportError:
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import Task, TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import TaskResultDoesNotExist
    from django_tasks.signals import task_enqueued, task_finished, task_started

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

__all__ = ["LeveretBackend"]

_ENDED = {"succeeded", "dead", "expired", "cancelled"}
_WORKER = f"{socket.gethostname()}:{os.getpid()}"


@contextmanager
def _fresh_connections(_job: leveret.CurrentJob) -> Generator[None]:
    """Let a job have no database connection that the server closed meanwhile, as Django does around requests."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


class LeveretBackend(BaseTaskBackend):
    """Enqueues Django's tasks as jobs of Leveret, and reads what came of them."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        """Take `url` and `max_retries` of OPTIONS."""
        super().__init__(alias, params)
        self.app = leveret.App(self.options.get("url"), middleware=[_fresh_connections])
        self.max_retries: int = self.options.get("max_retries", 0)
        self.supports_get_result = self.app.url.startswith(("sqlite:", "memory:"))

    def enqueue(self, task: Task, args: Sequence[Any], kwargs: Mapping[str, Any]) -> TaskResult:
        """Send a job; it is durable when this returns."""
        self.validate_task(task)
        now = timezone.now()
        job = self.app.send_task(
            task.module_path,
            args,
            kwargs,
            queue=task.queue_name,
            max_retries=self.max_retries,
            delay=None if task.run_after is None else max(0.0, (task.run_after - now).total_seconds()),
        )
        # The task's name is in the id: Django asks for results by the id alone.
        result = self._result(task, f"{task.module_path}:{job.id}", args=args, kwargs=kwargs, enqueued_at=now)
        task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> TaskResult:
        """Return what is known of a job: arguments, times and worker once it has succeeded, its error once it failed.

        An id that is nobody's is READY for ever: Leveret can't tell it from a job that is between two attempts.
        """
        name, _, job_id = result_id.partition(":")
        task = self.tasks().get(name)
        try:
            job = self.app.job(job_id)
        except ValueError as error:
            raise TaskResultDoesNotExist(result_id) from error
        if task is None:
            raise TaskResultDoesNotExist(result_id)
        state = job.state()
        if state not in _ENDED:
            waits = state != "running"
            return self._result(task, result_id, status=TaskResultStatus.READY if waits else TaskResultStatus.RUNNING)
        try:
            done = job.result(timeout=10)
        except leveret.JobDead as error:
            kind = error.type or "leveret.JobDead"
            path = kind if "." in kind else f"builtins.{kind}"
            trace = f"{error.traceback}\n{kind}: {error.message}" if error.traceback else error.error
            return self._result(
                task,
                result_id,
                status=TaskResultStatus.FAILED,
                errors=[TaskError(exception_class_path=path, traceback=trace)],
                worker_ids=[""] * error.attempts,
            )
        except leveret.JobFailed as error:
            kind = f"{type(error).__module__}.{type(error).__qualname__}"
            failure = TaskError(exception_class_path=kind, traceback=str(error))
            return self._result(task, result_id, status=TaskResultStatus.FAILED, errors=[failure])
        started = parse_datetime(done["started_at"])
        result = self._result(
            task,
            result_id,
            status=TaskResultStatus.SUCCESSFUL,
            args=done["args"],
            kwargs=done["kwargs"],
            started_at=started,
            last_attempted_at=started,
            finished_at=parse_datetime(done["finished_at"]),
            worker_ids=done["workers"],
        )
        object.__setattr__(result, "_return_value", done["value"])
        return result

    def tasks(self) -> dict[str, Task]:
        """Return this backend's tasks in the `tasks` modules of the installed apps, by name."""
        autodiscover_modules("tasks")
        found: dict[str, Task] = {}
        for config in apps.get_app_configs():
            module = sys.modules.get(f"{config.name}.tasks")
            for value in vars(module).values() if module is not None else ():
                if isinstance(value, Task) and value.backend == self.alias:
                    found[value.module_path] = value
        return found

    def worker_app(self) -> leveret.App:
        """Return the app with a task for each of Django's, for a worker."""
        for name, task in self.tasks().items():
            if name not in self.app.tasks:
                self.app.task(self._handler(task), name=name, queue=task.queue_name)
        return self.app

    def _handler(self, task: Task) -> Callable[..., Any]:
        """Return what a worker runs for a task: its function, and what Django wants to know about the run."""

        def begin(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[TaskResult, Sequence[Any]]:
            job = leveret.current_job()
            now = timezone.now()
            result = self._result(
                task,
                f"{task.module_path}:{job.id}",
                status=TaskResultStatus.RUNNING,
                args=args,
                kwargs=kwargs,
                started_at=now,
                last_attempted_at=now,
                worker_ids=[_WORKER] * (job.retry_count + 1),
            )
            task_started.send(type(self), task_result=result)
            return result, [TaskContext(task_result=result), *args] if task.takes_context else args

        @contextmanager
        def failing(result: TaskResult) -> Generator[None]:
            try:
                yield
            except BaseException:
                object.__setattr__(result, "status", TaskResultStatus.FAILED)
                object.__setattr__(result, "finished_at", timezone.now())
                task_finished.send(type(self), task_result=result)
                raise

        def end(result: TaskResult, value: Any) -> dict[str, Any]:
            object.__setattr__(result, "status", TaskResultStatus.SUCCESSFUL)
            object.__setattr__(result, "finished_at", timezone.now())
            object.__setattr__(result, "_return_value", value)
            task_finished.send(type(self), task_result=result)
            return {
                "value": value,
                "args": result.args,
                "kwargs": result.kwargs,
                "started_at": result.started_at.isoformat(),
                "finished_at": result.finished_at.isoformat(),
                "workers": result.worker_ids,
            }

        def run(*args: Any, **kwargs: Any) -> dict[str, Any]:
            result, given = begin(args, kwargs)
            with failing(result):
                value = task.func(*given, **kwargs)
            return end(result, value)

        async def run_async(*args: Any, **kwargs: Any) -> dict[str, Any]:
            result, given = begin(args, kwargs)
            with failing(result):
                value = await task.func(*given, **kwargs)
            return end(result, value)

        return run_async if iscoroutinefunction(task.func) else run

    def _result(self, task: Task, result_id: str, **known: Any) -> TaskResult:
        """Return a result with what is known of it."""
        unknown: dict[str, Any] = {
            "status": TaskResultStatus.READY,
            "enqueued_at": None,
            "started_at": None,
            "finished_at": None,
            "last_attempted_at": None,
            "args": [],
            "kwargs": {},
            "errors": [],
            "worker_ids": [],
        }
        return TaskResult(task=task, id=result_id, backend=self.alias, **{**unknown, **known})
