"""`leveret send`."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from leveret.cli import _common
from leveret.once import Once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from leveret.once import Claim
    from leveret.tasks import Settings

__all__ = ["command"]

_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 20
_DEFAULT_QUEUE = "native"
_FOR_EVER = 86_400.0 * 36_500


@click.command("send", epilog="Example: leveret send work '[7, 3]' --queue native --wait 10")
@click.argument("task", required=False)
@click.argument("arguments", required=False, metavar="[ARGS_JSON]")
@click.option(
    "--from", "source", metavar="FILE", help="Send the jobs of an NDJSON file, one a line; - is standard input."
)
@_common.url_option
@click.option("--queue", default=_DEFAULT_QUEUE, show_default=True, help="The queue to send to.")
@click.option(
    "--shards",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Over how many of the broker's queues QUEUE is spread.",
)
@click.option(
    "--delay", type=click.FloatRange(0, 86_400 * 36_500), default=0.0, metavar="SECONDS", help="Not before then."
)
@click.option("--max-retries", type=click.IntRange(0, 1_000_000), help="Retries of the job; the worker's default is 3.")
@click.option("--no-results", is_flag=True, help="Have no results stored.")
@click.option("--kwargs", metavar="JSON", help="Named arguments beside ARGS_JSON: an object.")
@click.option(
    "--wait",
    type=click.FloatRange(0, _FOR_EVER),
    is_flag=False,
    flag_value=_FOR_EVER,
    metavar="[SECONDS]",
    help="Wait for the job's result, for ever or for SECONDS, and print it.",
)
@click.option(
    "--idempotency-key", metavar="KEY", help="If a job of TASK was sent with this key before, print that one's id."
)
@click.option(
    "--idempotency-window",
    type=click.FloatRange(0, 86_400 * 36_500, min_open=True),
    metavar="SECONDS",
    help="How long a key holds; a day by default.",
)
@click.option(
    "--unique-until",
    type=click.Choice(["start", "end"]),
    help="A key holds until the job starts or ends; without a key, that of the same arguments.",
)
@_common.as_json
def command(
    task: str | None,
    arguments: str | None,
    source: str | None,
    url: str | None,
    queue: str,
    shards: int,
    delay: float,
    max_retries: int | None,
    no_results: bool,
    kwargs: str | None,
    wait: float | None,
    idempotency_key: str | None,
    idempotency_window: float | None,
    unique_until: str | None,
    as_json: bool,
) -> int:
    """Send a job of TASK, or a file of jobs: durable when it returns.

    ARGS_JSON is an array of arguments, or an object of named ones. A file is checked whole before anything is sent: a
    bad line is named, and then nothing is.
    """
    from leveret import _core
    from leveret.tasks import Settings

    _core.check_queue_name(queue)
    _core.check_shards(queue, shards)
    if (task is None) == (source is None):
        raise click.UsageError("Give either a TASK or --from FILE.")
    settings = Settings(queue, delay_ms=round(delay * 1000), want_results=not no_results, shards=shards)
    if source is not None:
        of_a_job = (wait, max_retries, arguments, kwargs, idempotency_key, idempotency_window, unique_until)
        if any(given is not None for given in of_a_job):
            raise click.UsageError(
                "--wait, --max-retries, --kwargs, --idempotency-key, --idempotency-window, --unique-until and "
                "ARGS_JSON belong to a job, not to a file."
            )
        return _send_file(source, url, settings, as_json=as_json)
    if wait is not None and no_results:
        raise click.UsageError("--wait needs a result: leave out --no-results.")
    assert task is not None  # noqa: S101 - one of the two was given
    once = Once().changed(idempotency_key, idempotency_window, unique_until)
    if idempotency_window is not None and not once.claims:
        raise click.UsageError("--idempotency-window is how long a key holds: add --idempotency-key or --unique-until.")
    line = job_line(task, arguments, max_retries, kwargs)
    claim = once.claim_of_line(task, line) if once.claims else None
    return _send_one(line, task, url, settings, wait, claim, as_json=as_json)


def job_line(task: str, arguments: str | None, max_retries: int | None, kwargs: str | None = None) -> bytes:
    """Return the line of a job, checked as a worker will. The arguments' texts go through as they are."""
    import msgspec

    from leveret import _core

    fields = [b'"task":' + msgspec.json.encode(task)]
    if arguments is not None:
        compact = _compact(arguments, "ARGS_JSON", "'[7, 3]'")
        if compact[:1] not in {b"[", b"{"}:
            raise ValueError("ARGS_JSON must be an array of arguments or an object of named ones: '[7, 3]'")
        if compact[:1] == b"{" and kwargs is not None:
            raise ValueError("named arguments stand in ARGS_JSON or in --kwargs, not in both")
        if compact not in {b"[]", b"{}"}:
            fields.append((b'"args":' if compact[:1] == b"[" else b'"kwargs":') + compact)
    if kwargs is not None:
        compact = _compact(kwargs, "--kwargs", "'{\"width\": 80}'")
        if compact[:1] != b"{":
            raise ValueError("--kwargs must be an object of named arguments: '{\"width\": 80}'")
        if compact != b"{}":
            fields.append(b'"kwargs":' + compact)
    fields.append(b'"retry_count":0')
    if max_retries is not None:
        fields.append(b'"max_retries":%d' % max_retries)
    line = b"{" + b",".join(fields) + b"}"
    refused = _core.check_line(line)
    if refused is not None:
        raise ValueError(f"the job is refused: {refused[0]}: {refused[1]}")
    return line


def _compact(text: str, what: str, example: str) -> bytes:
    """Return a JSON text without white space between its tokens."""
    import msgspec

    try:
        return msgspec.json.format(text.encode("utf-8", "surrogateescape"), indent=-1)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f"{what} is not JSON: {error}; quote it for the shell: {example}") from None


def _send_one(
    line: bytes,
    task: str,
    url: str | None,
    settings: Settings,
    wait: float | None,
    claim: Claim | None,
    *,
    as_json: bool,
) -> int:
    from leveret.app import App

    with App(_common.shared_url(url)) as app:
        client = app.client()
        sent = client.send_line(
            line + b"\n", settings.queue, settings.delay_ms, settings.want_results, claim, settings.shards
        )
        job = app.sends.job(app, client, task, settings, Any, *sent)
        said: dict[str, Any] = {"url": app.url, "queue": settings.queue, "jobs": sent[2], "id": job.id}
        if wait is not None:
            said["result"] = job.result(None if wait == _FOR_EVER else wait)
        if as_json:
            _common.emit(said)
        elif wait is None:
            print(job.id)
        else:
            import json

            print(json.dumps(said["result"], ensure_ascii=False))
    return 0


def _send_file(source: str, url: str | None, settings: Settings, *, as_json: bool) -> int:
    from leveret import _core

    url = _common.shared_url(url)
    with _opened(source) as file:
        jobs = sum(number for _, number in blocks(file, source))
        end = file.tell()
        client = _core.Client(url, _common.PUBLISH_DEADLINE, _common.BATCH_BYTES)
        file.seek(0)
        messages, failed = client.send_blocks(
            blocks(file, source, end), settings.queue, settings.delay_ms, settings.want_results, settings.shards
        )
        sent = sum(number for _, number in messages)
        where = client.where()
        client.close(_common.PUBLISH_DEADLINE)
    if failed is not None:
        raise click.ClickException(f"{failed}; the first {sent} of {jobs} jobs are sent, from line {sent + 1} on none")
    if as_json:
        _common.emit({"url": _common.shown_url(url), "queue": settings.queue, "jobs": sent, "messages": len(messages)})
    else:
        print(f"sent {sent:,} job{'s' * (sent != 1)} to {settings.queue} at {where}")
    return 0


def _opened(source: str) -> IO[bytes]:
    """Open what is read twice: a file as it is; standard input and pipes by way of a temporary file."""
    if source == "-":
        if sys.stdin.isatty():
            print("leveret send: reading jobs from the terminal; end with Ctrl-D", file=sys.stderr)
        stream: IO[bytes] = sys.stdin.buffer
    else:
        path = Path(source)
        try:
            stream = path.open("rb")
        except OSError as error:
            raise ValueError(f"cannot read {source}: {error.strerror}") from None
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - the same
    shutil.copyfileobj(stream, spool, _BLOCK)
    spool.seek(0)
    return spool


def blocks(file: IO[bytes], source: str, end: int | None = None) -> Iterator[tuple[bytes, int]]:
    """Give the file's lines in blocks, with their number, checked.

    Args:
        file: Where it stands.
        source: Its name, for messages.
        end: Stop there: what was appended since the first reading was not checked.

    Raises:
        ValueError: At the first line that a worker would refuse; the text says which and why.
    """
    from leveret import _core

    before = 0
    while True:
        room = _BLOCK if end is None else min(_BLOCK, end - file.tell())
        block = file.read(room) if room > 0 else b""
        if not block:
            return
        if not block.endswith(b"\n"):
            block += file.readline(_LONGEST_LINE + 2)
            if not block.endswith(b"\n"):
                block += b"\n"
        good, refused = _core.check_lines(block)
        if refused is not None:
            raise ValueError(f"{source}: line {before + good + 1}: {refused[0]}: {refused[1]}; nothing was sent")
        before += good
        yield block, good
