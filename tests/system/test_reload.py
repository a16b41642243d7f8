"""`leveret worker --reload`: real files change, and the worker is another one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leveret as package
import pytest
from support.processes import PATIENCE, Worker, leveret, until

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = """import os
import time
import leveret

app = leveret.App()


@app.task
def answer() -> int:
    return 0 + 1


@app.task
def wait(path: str) -> int:
    with open(path + ".runs", "a") as runs:
        runs.write("begin\\n")
    with open(path) as held:
        held.read()  # until somebody has written into it
    while not leveret.current_job().stopping:
        time.sleep(0.002)
    return 1


@app.task
def pid() -> int:
    return os.getppid()
"""
SECOND = 1_700_000_000
"""When all edits were made: what Python compiled counts for a file of the same size and second."""
READY = "  stop "
"""The last line of a worker's banner."""


@pytest.fixture(autouse=True)
def _no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "NOTIFY_SOCKET", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with tasks.py, whose default broker is a file in it."""
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "pyproject.toml").write_text("[tool.leveret]\n")
    return tmp_path


@pytest.fixture
def app(project: Path) -> Iterator[package.App]:
    with package.App(f"sqlite:///{project}/leveret.db") as made:
        yield made


def start(project: Path, *words: str, target: str = "tasks:app", **more: Any) -> Worker:
    return Worker(target, "--reload", "--threads", "1", *words, cwd=project, **more)


def edit(project: Path, old: str, new: str) -> None:
    file = project / "tasks.py"
    text = file.read_text()
    assert old in text
    new_file = project / ".tasks.py.new"
    new_file.write_text(text.replace(old, new))
    os.utime(new_file, (SECOND, SECOND))
    new_file.replace(file)  # at once: a worker that starts meanwhile must not find half of it


def send(app: package.App, task: str, *args: str) -> package.Job[Any]:
    return app.send_task(task, args, queue="default")


def answer(app: package.App) -> object:
    return send(app, "answer").result(timeout=PATIENCE)


def below(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *_ = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parents.setdefault(int(parent), []).append(int(stat.parent.name))
    found = list(parents.get(pid, []))
    for each in found:
        found += parents.get(each, [])
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_change_is_in_the_next_result(project: Path, app: package.App) -> None:
    with start(project) as worker:
        assert answer(app) == 1
        for number in range(2, 6):
            before = len(worker.log)
            edit(project, f"0 + {number - 1}", f"0 + {number}")
            worker.wait_log("info reload tasks.py changed: the worker stops, and starts again", before)
            worker.wait_log(READY, before)
            assert answer(app) == number
        worker.signal(signal.SIGTERM)
        counts = [json.loads(line) for line in worker.wait().splitlines()]
    assert [each["succeeded"] for each in counts] == [1] * 5
    assert not below(worker.pid)


def test_a_syntax_error_is_shown_and_the_worker_runs_once_it_is_mended(project: Path, app: package.App) -> None:
    with start(project) as worker:
        before = len(worker.log)
        edit(project, "def answer()", "def answer(")
        worker.wait_log("error reload_waiting the worker ended with exit code 2", before)
        said = "\n".join(worker.log[before:])
        assert f'File "{project}/tasks.py", line 9' in said
        assert "SyntaxError" in said
        assert not below(worker.pid), "no worker runs"
        job = send(app, "answer")
        before = len(worker.log)
        edit(project, "def answer(", "def answer()")
        worker.wait_log(READY, before)
        assert job.result(timeout=PATIENCE) == 1
        before = len(worker.log)
        edit(project, "import os", "import os\nfrom nowhere import nothing")
        worker.wait_log("reload_waiting", before)
        assert "ModuleNotFoundError: No module named 'nowhere'" in "\n".join(worker.log[before:])
        worker.signal(signal.SIGINT)
        worker.wait(expect=2)


def test_an_error_at_the_first_start_is_waited_for_as_well(project: Path, app: package.App) -> None:
    edit(project, "0 + 1", "0 + + )")
    with start(project, banner=False) as worker:
        worker.wait_log("reload_waiting")
        edit(project, "0 + + )", "0 + 1")
        worker.wait_log(READY)
        assert answer(app) == 1
        worker.stop()


def test_a_job_that_runs_at_a_change_ends_and_is_not_run_twice(project: Path, app: package.App) -> None:
    held = project / "held"
    os.mkfifo(held)
    runs = project / "held.runs"
    with start(project, "--log-level", "debug", "--grace", "600") as worker:
        running = send(app, "wait", str(held))
        until(runs.exists, "it runs")
        waiting = [send(app, "answer") for _ in range(20)]
        before = len(worker.log)
        edit(project, "0 + 1", "0 + 2")
        worker.wait_log("stopping receiving ends", before)
        again = len(worker.log)
        edit(project, "0 + 2", "0 + 3")
        worker.wait_log("reload_seen tasks.py", again)
        assert not any(READY in line for line in worker.log[before:]), "it starts when the old one has ended"
        held.write_text("go on")
        assert running.result(timeout=PATIENCE) == 1
        assert [job.result(timeout=PATIENCE) for job in waiting] == [3] * 20
        worker.signal(signal.SIGTERM)
        counts = [json.loads(line) for line in worker.wait().splitlines()]
    assert runs.read_text() == "begin\n"
    assert [each["succeeded"] for each in counts] == [1, 20], "the second change came along with the first"
    assert all(each["retried"] == each["dead"] == 0 for each in counts)


def test_a_killed_supervisor_leaves_no_process(project: Path, app: package.App) -> None:
    with start(project, "--processes", "2") as worker:
        assert answer(app) == 1
        found = below(worker.pid)
        assert len(found) >= 3, "a worker, and its processes"
        worker.kill()
        until(lambda: not any(map(lives, found)), "they are gone")


def test_ctrl_c_reaches_a_background_job_and_lets_running_jobs_end(project: Path, app: package.App) -> None:
    held = project / "held"
    os.mkfifo(held)
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as shells start background jobs
    try:
        worker = start(project, "--grace", "600")
    finally:
        signal.signal(signal.SIGINT, ignored)
    with worker:
        job = send(app, "wait", str(held))
        until((project / "held.runs").exists, "it runs")
        worker.signal(signal.SIGINT)
        worker.wait_log("stopping receiving ends")
        held.write_text("go on")
        assert worker.summary()["succeeded"] == 1
    assert job.result(timeout=PATIENCE) == 1


def test_past_the_grace_and_at_a_second_signal_the_exit_code_is_the_workers(project: Path, app: package.App) -> None:
    os.mkfifo(project / "held")
    for words, signals in ((["--grace", "0.2"], 1), (["--grace", "3600"], 2)):
        (project / "held.runs").unlink(missing_ok=True)
        with start(project, *words) as worker:
            job = send(app, "wait", str(project / "held"))
            until((project / "held.runs").exists, "it runs")
            for number in range(signals):
                worker.signal(signal.SIGTERM)
                worker.wait_log("stopping receiving ends")
                assert number < 2
            assert worker.summary(expect=1)["grace_exceeded"] is True
            until(lambda: not below(worker.pid), "its processes are gone")
        job.cancel()


def test_a_worker_that_crashes_is_started_again_at_the_next_change(project: Path, app: package.App) -> None:
    with start(project) as worker:
        victim = send(app, "pid").result(timeout=PATIENCE)
        assert isinstance(victim, int)
        before = len(worker.log)
        os.kill(victim, signal.SIGKILL)
        worker.wait_log("error reload_waiting the worker ended by SIGKILL", before)
        (project / "new.py").write_text("")
        worker.wait_log("reload new.py changed: the worker starts again", before)
        worker.wait_log(READY, before)
        assert answer(app) == 1
        worker.stop()


def test_a_plugin_that_was_compiled_anew_is_loaded(project: Path, effects: Path) -> None:
    demo = Path(package.__file__).parent / "plugins/demo.so"
    plugin = project / "plugins/work.so"
    plugin.parent.mkdir()
    shutil.copy(demo, plugin)
    with start(project, target=str(plugin)) as worker:
        assert any("noop" in line for line in worker.log)
        before = len(worker.log)
        shutil.copy(effects, plugin.with_name("other.so"))
        plugin.with_name("other.so").rename(plugin)
        worker.wait_log("work.so changed", before)
        worker.wait_log(READY, before)
        assert any("tasks" in line and "effect" in line for line in worker.log[before:])
        worker.signal(signal.SIGTERM)
        worker.wait()


def test_what_is_no_source_is_ignored(project: Path) -> None:
    for folder in (".venv/lib", "__pycache__", ".git", "shop"):
        (project / folder).mkdir(parents=True, exist_ok=True)
    with start(project) as worker:
        for name in (".venv/lib/x.py", ".git/x.py", "__pycache__/x.py", "leveret.db-other", "notes.txt"):
            (project / name).write_text("")
        (project / "shop/views.py").write_text("")
        worker.wait_log(" changed: ")
        assert [line.split(" reload ")[1] for line in worker.log if " changed: " in line] == [
            "shop/views.py changed: the worker stops, and starts again"
        ]


def test_folders_to_watch_can_be_named(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("library")
    with start(project, "--reload-dir", str(other)) as worker:
        assert f"reload_watching watching {other}" in worker.log[0]
        edit(project, "0 + 1", "0 + 2")
        (other / "shared.py").write_text("")
        worker.wait_log(" changed: ")
        assert [line.split(" reload ")[1] for line in worker.log if " changed: " in line] == [
            "shared.py changed: the worker stops, and starts again"
        ]


def test_it_logs_json_where_that_was_asked_for(project: Path) -> None:
    with start(project, "--log-format", "json", "--quiet", banner=False) as worker:
        worker.wait_log("reload_watching")
        edit(project, "def answer()", "def answer(")
        # The worker may have ended before the change was noticed.
        worker.wait_log('"event": "reload"')
        worker.wait_log('"event": "reload_waiting"')
        records = [json.loads(line) for line in worker.log if line.startswith("{")]
        told = {record["event"]: record for record in records}
        assert told["reload"]["level"] == "info"
        assert told["reload"]["text"].startswith("tasks.py changed: ")
        assert told["reload_waiting"]["level"] == "error"
        assert set(told["reload_waiting"]) == {"ts", "level", "event", "text"}


def test_systemd_hears_of_it_as_of_one_service(project: Path) -> None:
    path = project / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        systemd.settimeout(PATIENCE)
        heard: list[bytes] = []

        def hear(wanted: bytes) -> None:
            heard.append(systemd.recv(100))
            while heard[-1] != wanted:
                heard.append(systemd.recv(100))

        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}
        # Ten messages find room, and what finds none in time is not said.
        with start(project, environment=environment) as worker:
            hear(b"READY=1")
            edit(project, "def answer()", "def answer(")
            worker.wait_log("reload_waiting")
            for _ in range(2):
                hear(b"WATCHDOG=1")
            edit(project, "def answer(", "def answer()")
            hear(b"READY=1")
            assert b"STOPPING=1" not in heard
            worker.signal(signal.SIGTERM)
            hear(b"STOPPING=1")
            worker.wait()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tasks:app", "--reload", "--burst"], "leave out --reload or --burst"),
        (["tasks:app", "--reload", "--describe"], "leave out --reload or --describe"),
        (["tasks:app", "--reload-dir", "."], "--reload-dir without --reload"),
        (["tasks:app", "--reload", "--reload-dir", "missing"], "there is no such folder"),
        (["nowhere:app", "--reload"], 'there is no module "nowhere"'),
        (["shop.nowhere:app", "--reload"], 'there is no module "shop"'),
        (["missing.so", "--reload"], "there is no such file"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(project: Path, words: list[str], said: str) -> None:
    done = leveret("worker", *words, expect=2, cwd=project)
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_arguments_that_the_worker_refuses_end_the_supervisor_too(project: Path) -> None:
    for words in (["--queue", "no spaces"], ["--health", "nowhere"], ["--url", "memory://"]):
        done = leveret("worker", "tasks:app", "--reload", *words, expect=2, cwd=project)
        assert "reload_waiting" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("leveret worker: ")


def test_without_watchfiles_it_says_what_to_install(project: Path) -> None:
    script = "import sys; sys.modules['watchfiles'] = None; from leveret.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, "worker", "tasks:app", "--reload"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "leveret worker: cannot reload without the package watchfiles: pip install 'leveret[reload]'\n"
    )


def test_a_password_is_in_no_argument(project: Path) -> None:
    with start(project, "--url", "amqp://user:geheim@localhost:1/", banner=False) as worker:
        worker.wait_log("localhost")
        for pid in [worker.pid, *below(worker.pid)]:
            with suppress(FileNotFoundError, ProcessLookupError):  # it may end, for nobody listens
                assert b"geheim" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "geheim" not in "\n".join(worker.log)
