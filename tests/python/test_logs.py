"""Logs: the job in each record, two formats, and no password in anything that is printed."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from leveret.logs import JobFilter, configure

if TYPE_CHECKING:
    from collections.abc import Iterator

PLUGIN = str(Path(leveret.__file__).parent / "plugins/demo.so")
PASSWORD = "geheim-7391"  # noqa: S105 - planted, to be looked for
URL = f"amqp://user:{PASSWORD}@localhost:1/"
STORE = f"redis://user:{PASSWORD}@localhost:2"
STARS = "*" * len(PASSWORD)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, as it was afterwards."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_records_of_handlers_and_of_the_core_have_their_job(app: leveret.App, root: logging.Logger) -> None:
    told = io.StringIO()
    configure("info", "json", told)
    assert root.level == logging.INFO

    @app.task(max_retries=0)
    def speak(x: int) -> float:
        logging.getLogger("shop").info("dividing by %d", x)
        return 1 / x

    good, bad = speak.send(2), speak.send(0)
    app.worker(log_level="info").run_until_idle(60)
    logging.getLogger("shop").warning("outside")
    records: list[dict[str, Any]] = [json.loads(line) for line in told.getvalue().splitlines()]
    shop = [r for r in records if r["event"] == "shop"]
    assert [(r.get("job"), r["text"]) for r in shop] == [
        (good.id, "dividing by 2"),
        (bad.id, "dividing by 0"),
        (None, "outside"),
    ]
    (dead,) = [r for r in records if r["event"] == "job_dead"]
    assert (dead["job"], dead["level"]) == (bad.id, "warning")
    assert "ZeroDivisionError" in dead["text"]
    assert set(dead) == {"ts", "level", "event", "job", "text"}
    assert dead["ts"].endswith("Z")


def test_lines_for_people_stay_one_line_and_end_with_the_traceback(root: logging.Logger) -> None:
    told = io.StringIO()
    handler = configure("debug", "text", told)
    assert any(isinstance(each, JobFilter) for each in handler.filters)
    logging.getLogger("shop").debug("one\ntwo")
    try:
        {}["lost"]
    except KeyError:
        logging.getLogger("shop").exception("failed")
    lines = told.getvalue().splitlines()
    assert lines[0].split(" ", 1)[1] == "debug shop one two"
    assert lines[1].split(" ", 1)[1] == "error shop failed"
    assert lines[-1] == "KeyError: 'lost'"
    assert root.handlers[-1] is handler


@pytest.mark.parametrize("words", [("loud", "text"), ("info", "xml")])
def test_senseless_words_are_refused(words: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="one of"):
        configure(*words)


def test_a_worker_logs_json_lines_when_asked(url: str) -> None:
    with leveret.App(url) as app:
        job = app.send_task("noop", ["too", "many"])
    words = [sys.executable, "-m", "leveret", "worker", PLUGIN, "--url", url, "--burst", "--quiet"]
    for chosen in (["--log-format", "json"], []):
        done = subprocess.run([*words, *chosen], check=True, capture_output=True, text=True, timeout=240)
        if chosen:
            records = [json.loads(line) for line in done.stderr.splitlines()]
            assert [r["job"] for r in records if r["event"] == "job_dead"] == [job.id]
    refused = subprocess.run([*words, "--log-format", "xml"], check=False, capture_output=True, text=True, timeout=240)
    assert refused.returncode == 2


def test_no_password_is_in_logs_errors_tracebacks_or_the_list_of_processes(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import logging, leveret\n"
        "from leveret.logs import configure\n"
        "configure('debug', 'json')\n"
        f"app = leveret.App({URL!r}, publish_deadline=1)\n"
        "print(app, app.url, repr(app.worker))\n"
        "try:\n"
        "    app.send_task('f')\n"
        "except leveret.Error:\n"
        "    logging.getLogger('shop').exception('failed')\n"
        "app.send_task('f')\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    said = ""
    for command, environment in (
        ([sys.executable, str(script)], {}),
        ([sys.executable, "-m", "leveret", "queues"], {"LEVERET_URL": URL}),
        ([sys.executable, "-m", "leveret", "config", "show"], {"LEVERET_URL": URL}),
        ([sys.executable, "-m", "leveret", "top", "--once"], {"LEVERET_URL": URL}),
        ([sys.executable, "-m", "leveret", "worker", PLUGIN, "--url", URL, "--log-level", "debug"], {}),
        ([sys.executable, "-m", "leveret", "queues", "--url", URL.replace("amqp", "nonsense")], {}),
        *(
            ([sys.executable, "-m", "leveret", *words], {"LEVERET_URL": f"amqp://localhost:1/?results={store}"})
            for store in (STORE, f"{STORE}none", STORE.replace("user:", ""), STORE.replace("redis", "nonsense"))
            for words in (["config", "show"], ["queues"], ["doctor"], ["worker", PLUGIN])
        ),
        ([sys.executable, "-m", "leveret", "queues", "--url", STORE], {}),
        ([sys.executable, "-m", "leveret", "queues", "--url", f"sqlite:///queue.db?results={STORE}"], {}),
    ):
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=240, cwd=tmp_path, env={**kept, **environment}
        )
        said += done.stdout + done.stderr
    assert "localhost" in said
    assert "Traceback" in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        (URL, f"amqp://user:{STARS}@localhost:1/"),
        (f"{URL}?results={STORE}", f"amqp://user:{STARS}@localhost:1/?results=redis://user:{STARS}@localhost:2"),
        # As the app writes it, and with everything encoded.
        (f"amqp://h?results=redis://:{PASSWORD}%40r", f"amqp://h?results=redis://:{STARS}%40r"),
        (f"amqp://h?results=redis%3A%2F%2F%3A{PASSWORD}%40r", f"amqp://h?results=redis%3A%2F%2F%3A{STARS}%40r"),
    ],
)
def test_a_password_among_the_arguments_is_hidden_from_ps(url: str, hidden: str, tmp_path: Path) -> None:
    # A pipe that nobody writes to holds the program up.
    words = [sys.executable, "-m", "leveret", "send", "--from", "-", "--url", url]
    program = subprocess.Popen(words, stdin=subprocess.PIPE, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        shown = ""
        while "***" not in shown:
            assert time.monotonic() < deadline, shown
            shown = subprocess.run(
                ["ps", "-o", "args=", "-ww", "-p", str(program.pid)], check=True, capture_output=True, text=True
            ).stdout
        assert PASSWORD not in shown
        assert hidden in shown
    finally:
        program.send_signal(signal.SIGKILL)
        program.communicate()
