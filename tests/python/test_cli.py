"""The command line as users meet it: processes of its own, on SQLite files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import leveret
import pytest
from leveret.cli import COMMANDS

PLUGIN = str(Path(leveret.__file__).parent / "plugins/demo.so")


def run(*words: str, expect: int = 0, stdin: str | bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `leveret WORDS`; an error is exactly one line on standard error."""
    raw = stdin.encode() if isinstance(stdin, str) else stdin
    # The compiler is what a user has: the tests' own build may have named one.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_") and name != "CXX"}
    done = subprocess.run(
        [sys.executable, "-m", "leveret", *words],
        input=raw,
        capture_output=True,
        check=False,
        timeout=240,
        env={**kept, **environment},
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == expect, f"{words}: {done.returncode}\n{out}\n{err}"
    if expect == 2:
        assert err.count("\n") == 1, err
        assert err.startswith("leveret")
        assert out == ""
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def answer(*words: str, **more: Any) -> dict[str, Any]:
    """Run with --json and return the one object that is printed."""
    lines = run(*words, "--json", **more).stdout.splitlines()
    assert len(lines) == 1
    found: dict[str, Any] = json.loads(lines[0])
    return found


def test_help_lists_every_command_and_needs_no_rich() -> None:
    script = (
        "import sys; from leveret.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert {"rich", "rich_click", "msgspec", "leveret._core"}.isdisjoint(done.stderr.split())


def sub_commands() -> list[list[str]]:
    """Return the commands of the groups."""
    groups = {name: import_module(f"leveret.cli.{name}").command for name in COMMANDS}
    return [[name, sub] for name, group in groups.items() for sub in getattr(group, "commands", ())]


@pytest.mark.parametrize("words", [*([name] for name in COMMANDS), *sub_commands()], ids=" ".join)
def test_every_command_has_a_help_page_with_an_example_and_json(words: list[str]) -> None:
    page = run(*words, "--help").stdout
    assert f"Example: leveret {words[0]}" in page or words == ["config"]
    assert "--json" in page


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["dead"],
        ["demo", "--jobs", "0"],
        ["demo", "--jobs", "ten"],
        ["demo", "--threads", "-1"],
        ["demo", "--url", "nonsense"],
        ["bench", "--results", "maybe"],
        ["bench", "--rounds", "3"],
        ["bench", "--python", "--rounds", "0"],
        ["bench", "--python", "--results", "on"],
        ["bench", "--python", "--url", "memory://"],
        ["worker"],
        ["worker", "/nowhere/work.so"],
        ["worker", "tasks:app"],
        ["worker", PLUGIN, "--url", "memory://"],
        ["worker", PLUGIN, "--url", "ftp://host"],
        ["worker", PLUGIN, "--grace", "-1"],
        ["worker", PLUGIN, "--processes", "200", "--threads", "200"],
        ["worker", "tasks:app", "--pool", "threads"],
        ["worker", PLUGIN, "--health", "nowhere"],
        ["worker", PLUGIN, "--health", "192.0.2.1:80"],
        ["worker", PLUGIN, "--queue", "no spaces", "--url", "sqlite:////tmp/never.db"],
        ["build"],
        ["build", "/nowhere/work.cpp"],
        ["config"],
        ["send"],
        ["send", "work", "[1"],
        ["send", "work", "7"],
        ["send", "work", "[NaN]"],
        ["send", "work", "[99999999999999999999]"],
        ["send", "work", '{"a":1,"a":2}'],
        ["send", "work", "--from", "x"],
        ["send", "--from", "/nowhere"],
        ["send", "work", "--queue", "a b"],
        ["send", "work", "--delay", "-1"],
        ["send", "work", "--url", "memory://"],
        ["queues", "--url", "sqlite:////nowhere/jobs.db"],
        ["purge"],
        ["doctor", "--nonsense"],
        ["jobs"],
        ["jobs", "list", "--state", "odd"],
        ["jobs", "list", "--limit", "0"],
        ["jobs", "list", "--url", "ftp://host"],
        ["jobs", "list", "--url", "sqlite:////nowhere/jobs.db"],
        ["jobs", "show"],
        ["jobs", "show", "x", "--url", "memory://"],
        ["jobs", "cancel"],
        ["jobs", "retry", "x/1"],
        ["jobs", "retry", "--queue", "q"],
        ["jobs", "retry", "x/1", "--all", "--queue", "q"],
        ["jobs", "retry", "x/1", "--queue", "no spaces"],
        ["inspect"],
        ["inspect", "workers", "--url", "nonsense"],
        ["top", "--interval", "0", "--once"],
        ["top", "--interval", "soon", "--once"],
        ["config", "show", "extra"],
        ["config", "--json", "show"],
        ["completion"],
        ["completion", "fish-tank"],
        ["init", "a", "extra"],
        ["backup", "/nowhere/jobs.db", "/nowhere/copy.db"],
        ["backup"],
        ["recover", "/nowhere/jobs.db"],
    ],
    ids=" ".join,
)
def test_nonsense_is_one_line_and_exit_code_2(words: list[str]) -> None:
    run(*words, expect=2)


def test_no_password_is_ever_printed() -> None:
    url = "amqp://user:geheim@localhost:1/"
    for words, code in ((["queues"], 1), (["doctor"], 1), (["send", "work"], 1), (["worker", PLUGIN], 1)):
        done = run(*words, "--url", url, expect=code)
        assert "geheim" not in done.stdout + done.stderr
        assert "localhost" in done.stdout + done.stderr


def test_demo_checks_every_result() -> None:
    for url in ([], ["--url", "memory://"]):
        report = answer("demo", "--jobs", "2000", "--threads", "2", *url)
        assert list(report) == [
            "url", "jobs", "threads", "published", "executed", "succeeded", "retried", "dead", "results_checked",
        ]  # fmt: skip
        assert (report["jobs"], report["threads"], report["results_checked"]) == (2000, 2, 2000)
        assert (report["succeeded"], report["retried"], report["dead"]) == (2000, 0, 0)
        for stage in ("published", "executed"):
            assert list(report[stage]) == ["jobs", "seconds", "jobs_per_s"]
            assert report[stage]["jobs"] == 2000
            assert report[stage]["jobs_per_s"] == pytest.approx(2000 / report[stage]["seconds"], rel=0.01)
    assert "2,000 of 2,000 results are right" in run("demo", "--jobs", "2000").stdout


def test_bench_counts_what_it_measures(url: str) -> None:
    for results in ("on", "off"):
        report = answer("bench", "--url", url, "--jobs", "5000", "--threads", "2", "--results", results)
        assert (report["jobs"], report["threads"], report["results"]) == (5000, 2, results == "on")
        assert report["publish"]["jobs"] == report["drain"]["jobs"] == 5000
    assert answer("queues", "--url", url)["queues"][0]["ready"] == 0


def test_a_job_is_sent_run_and_its_result_printed(url: str, work: Any) -> None:
    work()
    assert run("send", "work", "[7, 3]", "--wait", "60", LEVERET_URL=url).stdout == "2672552427\n"
    assert answer("send", "noop", "--wait", "60", "--url", url)["result"] is None
    done = run("send", "work", "[1, 2, 3, 4]", "--wait", "60", "--url", url, expect=1)
    assert "bad_arguments" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_of_jobs_is_sent_whole(url: str, tmp_path: Path) -> None:
    lines = [f'{{"task":"work","args":[{i}],"retry_count":0}}' for i in range(30_000)]
    file = tmp_path / "jobs.ndjson"
    file.write_text("\r\n".join(lines))
    assert answer("send", "--from", str(file), "--url", url)["jobs"] == 30_000
    assert answer("send", "--from", "-", "--url", url, stdin="\n".join(lines) + "\n")["jobs"] == 30_000
    assert answer("send", "--from", "-", "--url", url)["jobs"] == 0
    assert answer("queues", "native", "--url", url)["queues"][0]["ready_jobs"] == 60_000
    counts = answer("worker", PLUGIN, "--url", url, "--burst", "--threads", "2")
    assert (counts["succeeded"], counts["dead"]) == (60_000, 0)


@pytest.mark.parametrize(
    ("bad", "number", "code"),
    [
        (b'{"task":"x","retry_count":-1}', 20_001, "bad_field"),
        (b"", 20_001, "empty_line"),
        (b"\xff", 20_001, "not_utf8"),
        (b"[" * 200, 20_001, "too_deep"),
        (b'{"task":"x","retry_count":0,"args":["' + b"a" * (1 << 20) + b'"]}', 20_001, "too_long"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_sent(url: str, bad: bytes, number: int, code: str) -> None:
    good = b'{"task":"work","args":[1],"retry_count":0}\n' * 20_000
    done = run("send", "--from", "-", "--url", url, stdin=good + bad + b"\n" + good, expect=2)
    assert f"line {number}: {code}: " in done.stderr
    assert "nothing was sent" in done.stderr
    assert not Path(url.removeprefix("sqlite:///")).exists()


def test_dead_jobs_are_listed_and_purged(url: str) -> None:
    run("send", "noop", '["too", "many"]', "--url", url)
    run("worker", PLUGIN, "--url", url, "--burst", "--quiet")
    listed = answer("dead", "list", "--url", url)["jobs"]
    assert len(listed) == 1
    assert set(listed[0]) == {"id", "task", "queue", "reason", "error", "attempts", "body"}
    assert (listed[0]["task"], listed[0]["queue"], listed[0]["reason"]) == ("noop", "native", "bad_arguments")
    assert json.loads(listed[0]["body"])["args"] == ["too", "many"]
    assert "bad_arguments" in run("dead", "list", "native", "--url", url).stdout
    run("purge", "native", "--dead", "--url", url, expect=2)
    assert answer("purge", "native", "--dead", "--yes", "--url", url)["removed"] == {"native": 1}
    assert answer("dead", "list", "--url", url)["jobs"] == []
    run("dead", "list", "no-such-queue", "--url", url, expect=2)


def test_a_worker_stops_at_sigterm_with_a_summary(url: str) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "leveret", "worker", PLUGIN, "--url", url, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert worker.stderr is not None
    banner = ""
    while "  stop " not in banner:
        banner += worker.stderr.readline()
    assert url.removeprefix("sqlite:///") in banner
    worker.send_signal(signal.SIGTERM)
    out, _ = worker.communicate(timeout=240)
    assert worker.returncode == 0
    assert json.loads(out)["succeeded"] == 0


def test_doctor_finds_what_is_wrong(url: str, tmp_path: Path) -> None:
    good = answer("doctor", "--url", url)
    assert good["ok"]
    assert {"leveret", "libraries", "plugin", "compiler", "url", "file system", "broker"} <= {
        check["check"] for check in good["checks"]
    }
    bad = answer("doctor", "--url", f"sqlite:///{tmp_path}/no/folder/jobs.db", expect=1)
    assert [check["check"] for check in bad["checks"] if check["status"] == "failed"] == ["file system"]
    file = tmp_path / "other.db"
    file.write_text("this is not a database" * 100)
    assert not answer("doctor", "--url", f"sqlite:///{file}", expect=1)["ok"]
    lost = answer("doctor", "--url", url, PATH="/nowhere")
    assert [check["status"] for check in lost["checks"] if check["check"] == "compiler"] == ["warning"]


def test_build_makes_a_plugin_and_a_program(tmp_path: Path, url: str) -> None:
    source = tmp_path / "twice.cpp"
    source.write_text(
        "#include <leveret/worker.hpp>\n"
        'LEVERET_TASKS(tasks) { tasks.add("twice", [](int x) { return FACTOR * x; }, leveret::arg("x")); }\n'
        "int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }\n"
    )
    plugin = tmp_path / "twice.so"
    done = run("build", str(source), "-o", str(plugin), "--json", "--", "-DFACTOR=2")
    assert [task["task"] for task in json.loads(done.stdout)["tasks"]] == ["twice"]
    run("send", "twice", "[21]", "--url", url)
    assert answer("worker", str(plugin), "--url", url, "--burst")["succeeded"] == 1
    failed = run("build", str(source), "-o", str(plugin), expect=1)
    assert "the compiler refused" in failed.stderr.splitlines()[-1]
    no_compiler = run("build", str(source), expect=2, PATH="/nowhere")
    assert "apt-get install g++" in no_compiler.stderr
