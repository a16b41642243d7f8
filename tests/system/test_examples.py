"""The examples, run as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.processes import Broker, Worker, leveret

if TYPE_CHECKING:
    from support.rabbitmq_node import RabbitNode

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
ODD_NAMES = [
    b"plain",
    b"new\nline",
    b"back\\slash",
    b"carriage\rreturn",
    b"\xff\xfe",
    b"%41 space",
    "Hase \U0001f407".encode(),
]


def run(*command: str | bytes | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end."""
    return subprocess.run(command, capture_output=True, timeout=300, check=False, **more)


def checksum(*words: str | bytes | Path, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the checksum example."""
    return run(sys.executable, EXAMPLES / "checksum/checksum.py", *words, **more)


@pytest.fixture
def odd_folder(tmp_path: Path) -> Path:
    """A folder of files with odd names, some of them below another folder."""
    folder = tmp_path / "odd"
    (folder / "below").mkdir(parents=True)
    for number, name in enumerate(ODD_NAMES):
        for where in (folder, folder / "below"):
            Path(os.fsdecode(os.fsencode(where) + b"/" + name)).write_bytes(os.urandom(1000 * number))
    (folder / "link").symlink_to(folder / "plain")
    os.mkfifo(folder / "pipe")
    return folder


def test_the_quickstarts_python_worker_runs_beside_the_native_one(broker: Broker) -> None:
    built = broker.folder / "worker_sim.so"
    leveret("build", EXAMPLES / "quickstart/worker_sim.cpp", "-o", built)
    environment = {**os.environ, "LEVERET_URL": broker.url, "PYTHONPATH": str(EXAMPLES / "quickstart")}
    expected = sum(reference(number % 25) for number in range(2_000))

    def produce() -> None:
        done = run(sys.executable, EXAMPLES / "quickstart/producer.py", "2000", env=environment)
        assert done.returncode == 0, done.stderr.decode()
        assert str(expected) in done.stdout.decode()

    # Each alone for a while, so that both have some, and beside each other between.
    with Worker("worker:app", "--url", broker.url, "--queue", "native", environment=environment) as slow:
        produce()
        with Worker(built, "--threads", "1", "--url", broker.url) as quick:
            produce()
            counts = [slow.stop()["succeeded"]]
            produce()
            counts.append(quick.stop()["succeeded"])
    assert sum(counts) == 6_000
    assert all(counts), counts


def reference(value: int) -> int:
    """Do the quickstart's work."""
    for _ in range(1000):
        value = (value * 1664525 + 1013904223) % 2**32
    return value


def test_the_quickstart_runs_in_two_terminals(broker: Broker) -> None:
    built = broker.folder / "worker_sim.so"
    leveret("build", EXAMPLES / "quickstart/worker_sim.cpp", "-o", built)
    environment = {**os.environ, "LEVERET_URL": broker.url}
    with Worker(built, "--threads", "4", "--url", broker.url) as worker:
        done = run(sys.executable, EXAMPLES / "quickstart/producer.py", "3000", env=environment)
        assert done.returncode == 0, done.stderr.decode()
        assert worker.stop()["succeeded"] >= 3000

    def reference(value: int) -> int:
        for _ in range(1000):
            value = (value * 1664525 + 1013904223) % 2**32
        return value

    references = [reference(value) for value in range(25)]
    assert f"sum is {sum(references[n % 25] for n in range(3000))}" in done.stdout.decode()


def test_the_quickstart_worker_is_a_program_too(tmp_path: Path) -> None:
    program = tmp_path / "worker_sim"
    leveret("build", "--exe", EXAMPLES / "quickstart/worker_sim.cpp", "-o", program)
    url = f"sqlite:///{tmp_path}/queue.db"
    jobs = "".join(json.dumps({"task": "work", "args": [n, n], "retry_count": 0}) + "\n" for n in range(100))
    leveret("send", "--from", "-", "--url", url, "--queue", "native", stdin=jobs)
    done = run(program, "--url", url, "--burst", "--json", "--threads", "2")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["succeeded"] == 100
    described = {task["task"] for task in json.loads(run(program, "--describe").stdout)}
    assert described == {"work", "noop"}
    assert run(program, "--threads", "none").returncode == 2


def test_checksums_of_odd_names_are_those_of_sha256sum(odd_folder: Path) -> None:
    done = checksum(odd_folder)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(ODD_NAMES), "regular files only, each once"
    checked = run("sha256sum", "-c", "--quiet", input=done.stdout)
    assert checked.returncode == 0, checked.stderr
    found = run("find", odd_folder, "-type", "f", "-exec", "sha256sum", "{}", "+")
    assert sorted(lines) == sorted(found.stdout.splitlines())


def test_checksums_on_rabbitmq(node: RabbitNode, odd_folder: Path) -> None:
    done = checksum(odd_folder, "--url", node.url)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert run("sha256sum", "-c", "--quiet", input=done.stdout).returncode == 0


def test_files_that_cannot_be_read_are_reported_and_the_rest_is_hashed(odd_folder: Path) -> None:
    (odd_folder / "secret").write_bytes(b"x")
    (odd_folder / "secret").chmod(0)
    (odd_folder / "closed").mkdir()
    (odd_folder / "closed").chmod(0)
    # Root reads everything, unless it gives up the right to.
    powers = "-dac_override,-dac_read_search"
    plain = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] if os.geteuid() == 0 else []
    done = run(*plain, sys.executable, EXAMPLES / "checksum/checksum.py", odd_folder)
    assert done.returncode == 1, done.stderr.decode(errors="replace")
    errors = done.stderr.decode(errors="replace")
    assert "secret" in errors
    assert "closed" in errors
    assert errors.count("Permission denied") == 2
    assert len(done.stdout.splitlines()) == 2 * len(ODD_NAMES)


def test_a_file_that_vanishes_is_reported(tmp_path: Path) -> None:
    """The file is listed, its job sent, and gone when the worker opens it: the test removes it between."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "stays").write_bytes(b"1")
    (folder / "goes").write_bytes(b"2")
    hooked = tmp_path / "hooked.py"
    hooked.write_text(
        "import os, runpy, subprocess, sys\n"
        "real = subprocess.run\n"
        "def run(command, **more):\n"
        "    if 'worker' in map(str, command):\n"
        f"        os.unlink({str(folder / 'goes')!r})\n"
        "    return real(command, **more)\n"
        "subprocess.run = run\n"
        f"sys.argv = ['checksum.py', {str(folder)!r}]\n"
        f"runpy.run_path({str(EXAMPLES / 'checksum/checksum.py')!r}, run_name='__main__')\n"
    )
    done = run(sys.executable, hooked)
    assert done.returncode == 1
    assert b"goes" in done.stderr
    assert b"No such file" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_foreign_producer_is_served(node: RabbitNode, tmp_path: Path) -> None:
    done = run(sys.executable, EXAMPLES / "foreign/producer.py", node.url, "200")
    assert done.returncode == 0, done.stderr.decode()
    built = tmp_path / "worker.so"
    leveret("build", EXAMPLES / "foreign/worker.cpp", "-o", built)
    broker = Broker(node.url, "foreign", tmp_path)
    with broker.worker(built, "--burst", "--default-task", "step") as worker:
        summary = worker.summary()
    assert (summary["succeeded"], summary["dead"]) == (200, 0)
    assert any(line.endswith("number 200 gives 0") for line in worker.log)


def test_the_demo_prints_what_it_promises(tmp_path: Path, node: RabbitNode) -> None:
    for url in (f"sqlite:///{tmp_path}/demo.db", "memory://", node.url):
        answer = json.loads(leveret("demo", "--url", url, "--jobs", "2000", "--threads", "3", "--json").stdout)
        assert answer["jobs"] == answer["succeeded"] == answer["results_checked"] == 2000
        assert (answer["threads"], answer["retried"], answer["dead"]) == (3, 0, 0)
        assert answer["published"]["jobs_per_s"] > 0
        assert answer["executed"]["seconds"] > 0
