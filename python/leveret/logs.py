"""Logs: the standard library's `logging`, with the job in every record that is written while one runs.

Loggers are below `leveret`: `leveret.worker` has what the core says about connections, retries, dead jobs. Programs
configure logging as they like; `configure` does what `leveret worker` does.

Example:
    >>> import logging
    >>> from leveret.logs import JobFilter
    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(JobFilter())
    >>> handler.setFormatter(logging.Formatter("%(levelname)s %(job)s %(message)s"))
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from leveret.current import current

if TYPE_CHECKING:
    from typing import TextIO

    from leveret import _core

__all__ = ["FORMATS", "LEVELS", "JobFilter", "JsonFormatter", "LineFormatter", "LogPump", "configure"]

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
"""Levels by the names that `--log-level` takes."""
FORMATS = ("text", "json")
_NUMBERS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
"""Levels by the core's numbers."""


class JobFilter(logging.Filter):
    """Lets every record pass, and gives it `job`: the id of the job that the logging code runs in, or nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add `job` to the record."""
        if not hasattr(record, "job"):
            record.job = _job()
        return True


def _job() -> str:
    job = current.get(None)
    if job is not None:
        return job.id
    core = sys.modules.get("leveret._core")
    facts = core.running_job() if core is not None else None
    return str(facts[0]) if facts is not None else ""


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _event(record: logging.LogRecord) -> str:
    """Return the core's word for what happened, or the logger's name."""
    return str(getattr(record, "event", record.name))


class LineFormatter(logging.Formatter):
    """One line a record for people, as the core writes them: time, level, event or logger, job, text."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        job = getattr(record, "job", "")
        line = f"{_stamp(record)} {record.levelname.lower()} {_event(record)}{' job=' + job if job else ''}"
        text = " ".join(record.getMessage().splitlines())
        line = f"{line} {text}".rstrip()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a record: ts, level, event, job, text, and traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object on one line."""
        import json

        told: dict[str, Any] = {"ts": _stamp(record), "level": record.levelname.lower(), "event": _event(record)}
        job = getattr(record, "job", "")
        if job:
            told["job"] = job
        told["text"] = record.getMessage()
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)


def configure(level: str = "info", format: str = "text", stream: TextIO | None = None) -> logging.Handler:  # noqa: A002 - the flag's word
    """Write the root logger's records as `leveret worker` writes the core's; returns the handler, which replaces none.

    Args:
        level: debug, info, warning or error.
        format: text or json.
        stream: Standard error by default.

    Raises:
        ValueError: For another word.
    """
    if level not in LEVELS or format not in FORMATS:
        raise ValueError(
            f"cannot log {level!r} as {format!r}: the level is one of {', '.join(LEVELS)}, the format one of "
            f"{', '.join(FORMATS)}"
        )
    handler = logging.StreamHandler(stream)
    handler.addFilter(JobFilter())
    handler.setFormatter(JsonFormatter() if format == "json" else LineFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(LEVELS[level])
    return handler


class LogPump:
    """Hands what the core of a worker in this process logs to `logging`. For this package's own use.

    The core's threads never wait for the interpreter's lock: they leave their records, and a thread of this fetches
    them.
    """

    _WAIT = 1.0

    def __init__(self, core: _core.Worker) -> None:
        """Start the thread."""
        self._core = core
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="leveret-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Hand over the rest, and end the thread."""
        self._ended = True
        self._core.wake_log()
        self._thread.join()
        self._emit(0)

    def _run(self) -> None:
        while not self._ended:
            self._emit(self._WAIT)

    def _emit(self, wait: float) -> None:
        logger = logging.getLogger("leveret.worker")
        for level, event, job, text in self._core.take_log(wait):
            logger.log(_NUMBERS[level], "%s", text or event, extra={"event": event, "job": job})
