from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import leveret
import pytest
from leveret import _core

HEAVY = ("asyncio", "inspect", "msgspec", "leveret._core", "leveret.cli", "click", "rich", "dataclasses", "pathlib")


def run(script: str, *words: str, cwd: Path | None = None, **environment: str) -> str:
    """Run a Python program; what it writes to standard error (nanobind's leak warnings too) is a failure."""
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", script, *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=240,
    )
    assert (answer.returncode, answer.stderr) == (0, ""), answer
    return answer.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = run("import sys, leveret; print(*sys.modules)").split()
    assert "leveret.tasks" in loaded
    assert set(HEAVY).isdisjoint(loaded)


def test_url_is_the_variable_or_beside_the_project_or_here(tmp_path: Path) -> None:
    script = "import leveret; print(leveret.App().url)"
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    assert run(script, cwd=inner, LEVERET_URL="").strip() == f"sqlite:///{inner}/leveret.db"
    (tmp_path / "pyproject.toml").touch()
    assert run(script, cwd=inner, LEVERET_URL="").strip() == f"sqlite:///{tmp_path}/leveret.db"
    assert run(script, cwd=inner, LEVERET_URL="memory://").strip() == "memory://"


def test_url_and_repr_have_no_password() -> None:
    app = leveret.App("amqp://user:geheim@host/vhost")
    assert "geheim" not in app.url
    assert "geheim" not in repr(app)
    assert "host" in app.url
    stored = leveret.App("amqp://host", results="redis://user:ge%40heim@store:6380/1")
    assert stored.url == "amqp://host, results in redis://store:6380/1"
    assert "heim" not in repr(stored)


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "http://host", "sqlite:///?x"])
def test_a_senseless_url_is_a_value_error(url: str) -> None:
    app = leveret.App(url or "x")
    with pytest.raises(ValueError, match="url"):
        app.send_task("f")


def test_a_broker_that_is_not_there_is_said_so() -> None:
    with pytest.raises(leveret.BrokerUnavailable, match=r"localhost|127\.0\.0\.1"):
        leveret.App("amqp://localhost:1").send_task("f")


@pytest.mark.parametrize("arguments", [{"publish_deadline": -1}, {"batch_bytes": 0}, {"batch_bytes": 2 << 20}])
def test_senseless_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        leveret.App("memory://", **arguments)


def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    with leveret.App(f"sqlite:///{file}") as app:
        app.task(lambda: None)
        assert not file.exists()
        app.send_task("f")
        assert file.exists()


def test_a_closed_app_opens_again_in_a_with_block(url: str) -> None:
    app = leveret.App(url)
    with app:
        app.send_task("f")
    app.close()
    with pytest.raises(leveret.Closed):
        app.send_task("f")
    with app:
        app.send_task("f")
        assert app.client().stats("native")[0]["ready_jobs"] == 2


def test_a_result_outlives_the_connection_on_sqlite(url: str, work: Any) -> None:
    with leveret.App(url) as app:
        job = app.send_task("work", [1, 3])
    with pytest.raises(leveret.Closed):
        job.result(1)
    work()
    with app:
        assert job.result(30) == app.send_task("work", [1, 3]).result(30)


FORK = """
import os, sys, leveret
from leveret import _core
app = leveret.App(sys.argv[1])

@app.native
def work(id: int, value: int = 3) -> int: ...

before = work.send(1)
many = work.send_many((i, 3) for i in range(1000))
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        try:
            ok = work.send(2).result(60) == before.result(60) and len(work.send_many([(1, 3)] * 5000)) == 5000
            ok = ok and set(many.results(60)) == {before.result(60)}
        finally:
            os._exit(0 if ok else 1)
    children.append(child)
worker = _core.Worker([sys.argv[2]], sys.argv[1], ["native"], 2, burst=False, log_level="error")
worker.start()
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert codes == [0, 0, 0], codes
assert work.send(3).result(60) == before.result(60), "the parent's connection is as it was"
worker.stop(10)
print("done")
"""


def test_children_of_fork_have_connections_of_their_own(url: str) -> None:
    plugin = Path(leveret.__file__).parent / "plugins/demo.so"
    assert run(FORK, url, str(plugin)) == "done\n"


FORK_AMID = """
import os, sys, threading, leveret
app = leveret.App(sys.argv[1])

@app.native
def work(id: int) -> int: ...

work.send(0)
stop = threading.Event()
def send():
    while not stop.is_set():
        work.send_many((i,) for i in range(1000))
senders = [threading.Thread(target=send) for _ in range(3)]
for sender in senders: sender.start()
codes = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        try:
            work.send(1)
            app.close()
            code = 0
        except BaseException:
            code = 1
        os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for sender in senders: sender.join()
assert codes == [0] * 20, codes
print("done")
"""


def test_fork_amid_sends_of_other_threads_does_no_harm(url: str) -> None:
    assert run(FORK_AMID, url) == "done\n"


def test_a_program_ends_with_open_apps_and_unread_results(url: str) -> None:
    script = """
import sys, leveret
app = leveret.App(sys.argv[1])
@app.native
def work(id: int) -> int: ...
job, jobs = work.send(1), work.send_many([(1,)] * 10)
def keeps(x=job): return jobs
print("done")
"""
    assert run(script, url) == "done\n"


def test_ctrl_c_ends_a_wait_for_a_result(url: str) -> None:
    script = """
import os, signal, sys, threading, leveret
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
job = leveret.App(sys.argv[1]).send_task("f")
try:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    job.result()
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(script, url) == "interrupted\n"


def test_memory_stays_bounded_whatever_is_sent(url: str) -> None:
    script = """
import resource, sys, leveret
app = leveret.App(sys.argv[1])
@app.native(ignore_result=True)
def work(id: int, text: str) -> int: ...
text = "x" * 100
work.send_many((i, text) for i in range(1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
work.send_many((i, text) for i in range(1_000_000))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    kilobytes = int(run(script, url))
    assert kilobytes < 64 * 1024, "150 MB were sent"


def test_version_is_that_of_the_headers() -> None:
    header = (Path(__file__).resolve().parents[2] / "include/leveret/version.hpp").read_text()
    assert f'#define LEVERET_VERSION "{leveret.__version__}"' in header
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        leveret.nonsense  # noqa: B018


def test_all_that_is_public_is_there() -> None:
    assert all(hasattr(leveret, name) for name in leveret.__all__)


def test_the_stub_is_what_the_module_has(tmp_path: Path) -> None:
    stub = Path(__file__).resolve().parents[2] / "python/leveret/_core.pyi"
    words = ["-m", "nanobind.stubgen", "-q", "-D", "-m", "leveret._core", "-O", str(tmp_path)]
    subprocess.run([sys.executable, *words], check=True)
    remedy = f"update it: python {' '.join(words[:-1])} python/leveret"
    assert (tmp_path / "_core.pyi").read_text() == stub.read_text(), remedy
    assert _core.__doc__
