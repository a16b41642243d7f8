"""leveret.testing, as users' tests use it: in this process, and by pytest on a small app."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from leveret.testing import Engine, SentJob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def shop(tmp_path: Path) -> leveret.App:
    """An app whose own broker is a file that tests must never touch."""
    app = leveret.App(f"sqlite:///{tmp_path}/production.db")

    @app.task
    def order(item: str, count: int = 1) -> int:
        mail.send(f"{count} {item}")
        app.tasks["report"].options(delay=timedelta(hours=1)).send(item=item)
        return count

    @app.task(queue="mail", max_retries=3, backoff=10)
    def mail(text: str) -> None:
        if leveret.current_job().retry_count < 2:
            raise ConnectionError(text)

    @app.task
    async def report(item: str) -> str:
        return item.upper()

    return app


def test_jobs_run_when_told_and_what_they_send_is_seen(
    shop: leveret.App, leveret_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    engine = leveret_engine(shop)
    job = shop.send_task("order", ["bread"], {"count": 2})
    assert engine.sent() == [SentJob(job.id, "order", ("bread",), {"count": 2}, "default", timedelta(0))]
    counts = engine.run_until_idle()
    assert (counts.succeeded, counts.retried) == (1, 1)
    assert job.result(0) == 2
    assert [(sent.task, sent.args, sent.queue) for sent in engine.sent()[1:]] == [
        ("mail", ("2 bread",), "mail"),
        ("report", (), "default"),
    ]
    assert engine.sent("report")[0].delay == timedelta(hours=1)
    assert engine.sent(shop.tasks["order"])[0].kwargs == {"count": 2}
    assert not (tmp_path / "production.db").exists()


def test_time_passes_when_told(shop: leveret.App, leveret_engine: Callable[..., Engine]) -> None:
    engine = leveret_engine(shop)
    began = engine.now
    assert abs(began - datetime.now(UTC)) < timedelta(minutes=1)
    job = shop.send_task("order", ["bread"])
    assert engine.run_until_idle().retried == 1
    assert engine.run_until_idle() == (0, 0, 0, 0, 0, 0), "no time has passed"
    # The retries are due within 10 and 20 seconds of the failures before them, by the engine's own seed.
    counts = engine.advance(40)
    assert (counts.succeeded, counts.retried, counts.dead) == (1, 1, 0)
    assert engine.advance(timedelta(minutes=59)).succeeded == 0
    assert engine.advance(timedelta(minutes=1)).succeeded == 1
    assert engine.now - began == timedelta(hours=1, seconds=40)
    assert job.result(0) == 1


def test_the_same_seed_leads_to_the_same_times(shop: leveret.App) -> None:
    @shop.task(max_retries=20)
    def flaky() -> None:
        times[-1].append(engine.now)
        raise OSError

    times: list[list[datetime]] = []
    for seed in (7, 7, 8):
        times.append([])
        with Engine(shop, seed=seed) as engine:
            flaky.send()
            began = engine.now
            assert engine.advance(timedelta(days=1)).dead == 1
            times[-1] = [moment - began for moment in times[-1]]  # type: ignore[misc]
    assert len(times[0]) == 21
    assert times[0] == times[1] != times[2]


def test_expiry_and_deadline_go_by_the_engines_clock(shop: leveret.App, leveret_engine: Callable[..., Engine]) -> None:
    @shop.task(deadline=5)
    def when() -> datetime | None:
        return leveret.current_job().deadline

    engine = leveret_engine(shop)
    engine.advance(3600)
    late, soon = when.options(expires=30, delay=60).send(), when.options(expires=90, delay=60).send()
    assert engine.advance(59) == (0, 0, 0, 0, 0, 0)
    assert engine.advance(1) == (1, 0, 0, 1, 0, 0)
    assert late.state() == "expired"
    assert soon.result(0) == engine.now + timedelta(seconds=5)


def test_dead_jobs_and_bad_arguments_end_as_in_production(
    shop: leveret.App, leveret_engine: Callable[..., Engine]
) -> None:
    engine = leveret_engine(shop)
    job = shop.tasks["mail"].options(max_retries=0).send("x")
    with pytest.raises(TypeError, match=r"args\[0\]: expected str, got int"):
        shop.send_task("order", [5])
    assert engine.run_until_idle().dead == 1
    with pytest.raises(leveret.JobDead) as caught:
        job.result(0)
    assert (caught.value.type, caught.value.message) == ("ConnectionError", "x")


def test_native_tasks_run_too(leveret_engine: Callable[..., Engine], demo_plugin: str) -> None:
    app = leveret.App()

    @app.native
    def work(id: int, value: int = 3) -> int:  # noqa: A002 - the demo's own names
        raise NotImplementedError

    @app.task
    def python() -> None: ...

    engine = leveret_engine(app, plugins=[demo_plugin])
    jobs = work.send_many((i, 3) for i in range(1000))
    assert engine.run_until_idle().succeeded == 1000
    assert len(set(jobs.results(0))) == 1


def test_the_app_is_as_it_was_afterwards(shop: leveret.App, tmp_path: Path) -> None:
    lives: list[str] = []

    @contextmanager
    def lifespan(_app: leveret.App) -> Iterator[None]:
        lives.append("up")
        yield
        lives.append("down")

    shop.lifespan = lifespan
    with Engine(shop) as engine:
        assert shop.url.startswith("memory://")
        job = shop.send_task("order", ["bread"])
    assert lives == ["up", "down"]
    with pytest.raises(RuntimeError, match="it does not run"):
        engine.run_until_idle()
    assert shop.url == f"sqlite:///{tmp_path}/production.db"
    with pytest.raises(leveret.Error):
        job.result(0)
    shop.send_task("order", ["bread"])
    assert (tmp_path / "production.db").exists()
    shop.close()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, pytest.fail.Exception])
def test_what_is_meant_for_the_test_reaches_it(
    shop: leveret.App, leveret_engine: Callable[..., Engine], kind: type[BaseException]
) -> None:
    @shop.task(max_retries=0)
    def interrupted() -> None:
        raise kind("enough")

    engine = leveret_engine(shop)
    job = interrupted.send()
    with pytest.raises(kind, match="enough"):
        engine.run_until_idle()
    assert job.state() == "dead"
    assert engine.run_until_idle().succeeded == 0, "once"


def test_misuse_is_refused(shop: leveret.App, leveret_engine: Callable[..., Engine]) -> None:
    engine = leveret_engine(shop)
    with pytest.raises(ValueError, match="another one of this process has stopped the clock"):
        leveret_engine(shop)
    found: list[Any] = []

    def elsewhere() -> None:
        try:
            engine.run_until_idle()
        except RuntimeError as error:
            found.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == ["cannot use this engine in this thread: it belongs to the one that started it"]
    with pytest.raises(ValueError, match="time must be at least 0"):
        engine.advance(-1)


APP = """
import leveret
app = leveret.App()

@app.task
def welcome(name: str) -> str:
    return f"Hello {name}"

def sign_up(name: str) -> None:
    welcome.options(delay=60).send(name)
"""
TESTS = """
from shop import app, sign_up, welcome

def test_sign_up_sends_a_welcome(leveret_engine):
    engine = leveret_engine(app)
    sign_up("Ann")
    assert [job.args for job in engine.sent(welcome)] == [("Ann",)]
    assert engine.run_until_idle().succeeded == 0
    assert engine.advance(60).succeeded == 1

def test_each_test_has_a_broker_of_its_own(leveret_engine):
    assert leveret_engine(app).sent() == []

def test_that_fails(leveret_engine):
    engine = leveret_engine(app)
    sign_up("Ann")
    assert engine.advance(59).succeeded == 1
"""


def test_pytest_has_the_fixture(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "test_shop.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(words, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED test_shop.py::test_that_fails" in done.stdout
