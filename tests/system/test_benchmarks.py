import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from support.rabbitmq_node import RabbitNode
from support.redis_server import RedisServer

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "tests")]

import budget  # noqa: E402 - beside the suite
import latency_part  # noqa: E402 - the same
import limits_part  # noqa: E402 - the same
import measure  # noqa: E402 - the same
import memory_part  # noqa: E402 - the same
import peers_part  # noqa: E402 - the same
import scaling_part  # noqa: E402 - the same
import sends_part  # noqa: E402 - the same
import suite  # noqa: E402 - the same

JOBS = 10_000


def a_round(tmp_path: Path, patience: float = 60.0, *, results: bool = False) -> peers_part.Round:
    return peers_part.Round(peers_part.OURS, measure.PYTHON, peers_part.Servers(results=results), tmp_path, patience)


def test_a_round_counts_what_was_executed(tmp_path: Path) -> None:
    rate, _ = a_round(tmp_path).run("many", JOBS)  # too few jobs for a tick of the processor's clock
    assert rate > 0


@pytest.mark.parametrize("how", ["threads", "coroutines"])
def test_what_senders_at_once_send_is_counted(tmp_path: Path, how: str) -> None:
    several = peers_part.Round(peers_part.OURS, measure.PYTHON, peers_part.Servers(), tmp_path, senders=7)
    rate, _ = several.run(how, 1_000)  # no multiple of 7
    assert rate > 0


@pytest.mark.parametrize("how", ["threads", "coroutines"])
def test_a_sender_whose_job_never_came_to_the_broker_has_no_rate(
    tmp_path: Path, node: RabbitNode, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    assert sends_part.Sending(node.url, tmp_path).run(how, 7, 1_000)[0] > 0
    losing = sends_part.Sending(node.url, tmp_path)
    monkeypatch.setitem(losing.environ, "BENCH_UNSENT", "500")
    with pytest.raises(measure.NotMeasuredError, match="of 1,000 jobs 999 were in the queue, not all of them once"):
        losing.run(how, 7, 1_000)


def test_processor_time_of_a_process_and_its_children_is_counted() -> None:
    before = measure.processor_seconds([os.getpid()])
    while measure.processor_seconds([os.getpid()]) <= before:  # a tick is 10 ms
        pass
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            child = measure.processor_seconds([busy.pid])
            while measure.processor_seconds([busy.pid]) <= child:
                pass
            assert busy.pid in measure.tree(os.getpid())
        finally:
            busy.kill()


def test_a_worker_that_drops_one_job_in_ten_thousand_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The environment of a round leaves out what begins so.
    dropping = a_round(tmp_path, patience=5.0)
    monkeypatch.setitem(dropping.environ, "BENCH_LOST", str(JOBS // 2))
    with pytest.raises(measure.NotMeasuredError, match=r"10,019 of 10,020 jobs were executed"):
        dropping.run("many", JOBS)


@pytest.mark.parametrize("how", ["one", "many"])
def test_results_that_are_read_wrong_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    rate, _ = a_round(tmp_path, results=True).run(how, 100)
    assert rate > 0
    wrong = a_round(tmp_path, results=True)
    monkeypatch.setitem(wrong.environ, "BENCH_WRONG", "50")
    with pytest.raises(measure.NotMeasuredError, match="the results read sum up to 5051, not to 5050"):
        wrong.run(how, 100)


def test_results_that_a_redis_should_hold_and_does_not_are_refused(
    tmp_path: Path, node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer() as redis:
        servers = peers_part.Servers(node, redis, results=True)
        rate, _ = peers_part.Round(peers_part.OURS, measure.PYTHON, servers, tmp_path).run("many", 100)
        assert rate > 0
        elsewhere = peers_part.Round(peers_part.OURS, measure.PYTHON, servers, tmp_path)
        monkeypatch.setattr(elsewhere, "_url", node.url)
        monkeypatch.setitem(elsewhere.environ, "BENCH_URL", node.url)
        with pytest.raises(measure.NotMeasuredError, match="Redis holds no results"):
            elsewhere.run("many", 100)


def test_a_contender_that_fails_is_out_and_its_row_says_why() -> None:
    def fails() -> tuple[float, None]:
        raise ConnectionError("its server died")

    rows = measure.compare(
        [
            measure.Contender(measure.Row("p", "c", "good", "1", "x", 10, reference="bad"), lambda: (5.0, 1.0)),
            measure.Contender(measure.Row("p", "c", "bad", "1", "x", 10), fails),
        ],
        3,
        lambda _: None,
    )
    good, bad = (row.as_json() for row in rows)
    assert good["median"] == 5.0
    assert good["cpu_s_per_million"] == 100_000
    assert "ratio" not in good
    assert bad["not_measured"] == "not measured: its server died"
    assert json.dumps([good, bad])


def test_rows_of_one_name_in_several_comparisons_are_kept_apart() -> None:
    def contender(comparison: str, name: str, rate: float, cpu: float | None) -> measure.Contender:
        made = measure.Row("p", comparison, name, "1", "x", 1_000_000, reference="one")
        return measure.Contender(made, lambda: (rate, cpu))

    runs = measure.InAndOut(lambda: (30.0, 8.0))
    rows = measure.compare(
        [
            contender("in", "one", 10.0, 1.0),
            contender("out", "one", 2.0, 4.0),
            measure.Contender(measure.Row("p", "in", "two", "1", "x", 1_000_000, reference="one"), runs.publish),
            measure.Contender(measure.Row("p", "out", "two", "1", "x", 1_000_000, reference="one"), runs.drain),
        ],
        3,
        lambda _: None,
    )
    assert [row.ratio for row in rows] == [1.0, 1.0, 3.0, 4.0]
    assert [row.cpu_s_per_million for row in rows[:2]] == [1.0, 4.0]
    assert rows[3].cpu_s_per_million is None, "counted with the other stage"


def test_what_was_not_published_is_not_drained() -> None:
    def fails() -> tuple[float, float]:
        raise measure.NotMeasuredError("no broker")

    runs = measure.InAndOut(fails)
    published, drained = measure.compare(
        [
            measure.Contender(measure.Row("p", "in", "a", "1", "x", 1), runs.publish),
            measure.Contender(measure.Row("p", "out", "a", "1", "x", 1), runs.drain),
        ],
        1,
        lambda _: None,
    )
    assert (published.not_measured, drained.not_measured) == ("no broker", "its jobs were not published")


@pytest.mark.parametrize("job", limits_part.LINES)
def test_lines_are_read_by_both_programs_to_the_same_sum(tmp_path: Path, job: str) -> None:
    path = tmp_path / "lines"
    path.write_text("".join(map(limits_part.LINES[job], range(limits_part.LINES_READ))))
    total = sum(n + n % 25 for n in range(limits_part.LINES_READ)) if "work" in job else 0
    alone = measure.compiled(limits_part.PLAIN_SOURCES / "json_lines.cpp", "-O2", "-lsimdjson")
    for program in (limits_part.codec(), alone):
        assert limits_part.read(program, path, total)[0] > 0
        with pytest.raises(measure.NotMeasuredError, match="is not what"):
            limits_part.read(program, path, total + 1)


def test_the_budget_has_a_steps_time_and_its_bounds(tmp_path: Path) -> None:
    ours = measure.Row("limits", "lines of noop() read", "leveret", "1", "x", 1, rates=[40e6, 50e6, 60e6])
    bound = measure.Row("limits", "lines of noop() read", "simdjson", "", "x", 1, rates=[20e6, 25e6, 30e6])
    other = measure.Row("limits", "lines of work(id, value) read", "leveret", "1", "x", 1, not_measured="no compiler")
    page = tmp_path / "page.md"
    page.write_text(f"a\n{suite.MARK}{suite.MARK}\nb\n{budget.MARK}\nold\n{budget.MARK}\nc\n")
    where = {"processor": "p", "cores": 2, "system": "s", "python": "3"}
    suite.write_page(page, {"machine": where, "date": "d", "rounds": 3}, [ours, bound, other])
    rows = page.read_text().partition(budget.MARK)[2].partition(budget.MARK)[0].strip().splitlines()
    assert rows[2:] == [
        "| `noop()`: the line read and checked, one thread | 20 | simdjson, the same lines | 40 | 0.50 |"
    ]
    assert page.read_text().endswith("c\n")


def test_a_ratio_that_fell_is_named() -> None:
    row: dict[str, object] = {"part": "p", "comparison": "c", "name": "n", "reference": "r"}
    assert suite.fallen([{**row, "ratio": 8.1}], [{**row, "ratio": 10.0}]) == []
    assert suite.fallen([{**row, "ratio": 7.9}], [{**row, "ratio": 10.0}]) == ["p: c: n: 7.9 x r, was 10.0"]
    assert suite.fallen([row], [{**row, "ratio": 10.0}]) == []


def test_a_program_that_cannot_be_built_is_a_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main( {")
    with pytest.raises(measure.NotMeasuredError, match=r"cannot build broken\.cpp"):
        measure.compiled(broken)


def test_memory_is_read_after_each_portion_and_all_jobs_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = measure.compare(memory_part.contenders(JOBS, lambda _: None), 1, lambda _: None)
    assert [jobs for jobs, _ in last.points] == list(range(1_000, JOBS + 1, 1_000))
    assert (first.rates[0], last.rates[0]) == (last.points[0][1], last.points[-1][1])
    assert min(held for _, held in last.points) > 10  # a Python and its pool
    assert last.ratio is not None
    assert last.as_json()["less_is_better"]
    monkeypatch.setattr(memory_part, "PORTIONS", 7)  # some jobs are never published
    first, last = measure.compare(memory_part.contenders(JOBS, lambda _: None), 1, lambda _: None)
    assert first.not_measured == "of 10,000 jobs 9,996 succeeded"
    assert last.not_measured == "its beginning was not measured"


@pytest.fixture(scope="module")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plugin whose jobs compute."""
    return scaling_part.built_plugin(tmp_path_factory.mktemp("steps"))


def test_a_worker_that_runs_fewer_jobs_than_were_sent_has_no_rate(
    stepping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scaling_part.stepped(stepping, 2, 1_000, JOBS)[0] > 0
    monkeypatch.setattr(
        scaling_part, "answer_of", lambda _, **_more: {"succeeded": JOBS, "seconds": 1.0}
    )  # it never ran
    with pytest.raises(measure.NotMeasuredError, match=r"of 10,000 jobs 10,000 succeeded, [1-9]\d* messages were left"):
        scaling_part.stepped(stepping, 2, 1_000, JOBS)


@pytest.mark.parametrize("language", ["C++", "Python"])
def test_jobs_that_compute_something_else_have_no_rate(
    stepping: str, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    target = stepping if language == "C++" else scaling_part.PYTHON_TARGET
    assert scaling_part.stepped(target, 2, 777, 100)[0] > 0
    right = scaling_part.generated
    monkeypatch.setattr(scaling_part, "generated", lambda value, count: right(value, count) ^ (value == 24))
    with pytest.raises(measure.NotMeasuredError, match="of 100 jobs 96 succeeded, 0 messages were left"):
        scaling_part.stepped(target, 2, 777, 100)


def test_a_distribution_is_of_all_rounds() -> None:
    rounds = iter([[float(n) for n in range(500)], [float(n) for n in range(500, 1001)]])
    (median, slow, *_) = latency_part.contenders("b", lambda: next(rounds), "bound", list)
    measure.compare([median, slow], 2, lambda _: None)
    found = median.row.as_json()["percentiles"]
    assert isinstance(found, dict)
    assert (len(found), found["1"], found["50"], found["99.9"]) == (100, 10.0, 500.0, 999.0)
    assert "percentiles" not in slow.row.as_json()


def test_what_was_measured_is_drawn(tmp_path: Path) -> None:
    def row(part: str, comparison: str, name: str, rate: float, **more: object) -> dict[str, object]:
        made = measure.Row(part, comparison, name, "1", "x", 10, rates=[rate, 2 * rate])
        for key, value in more.items():
            setattr(made, key, value)
        return made.as_json()

    rows = [
        row("peers", "one by one", "leveret", 2_000),
        row("peers", "one by one", "celery", 1_000),
        row("peers", "one by one", "nobody", 1, not_measured="it failed"),
        row("scaling", "1 ms of Python", "1 process", 1_000),
        row("scaling", "jobs that compute, C++, SQLite", "bare loop, 2 processes", 9, ratio=1.9, reference="bare loop"),
        row("latency", "send to start, idle, SQLite", "leveret, p50", 900, percentiles={"1": 500.0, "99.9": 2000.0}),
        row("latency", "send to start, idle, SQLite", "leveret, p99", 1_900),
        row("memory", "resident memory", "leveret, after 10 jobs", 70, unit="MB"),
        row("memory", "resident memory", "leveret, after 90 jobs", 71, points=[(10, 70.0), (90, 71.0)], unit="MB"),
    ]
    for steps in 1_000, 10_000:
        one, two = f"{steps}, 1 process", f"{steps}, 2 processes"
        computed = "jobs that compute, C++, SQLite"
        rows += [row("scaling", computed, name, 9, x=steps, ratio=1.5, reference=one) for name in (one, two)]
    for broker in "SQLite", "RabbitMQ":
        at_once = f"durable sends at once, {broker}"
        rows += [row("sends", at_once, f"{senders} threads", 5_000, x=senders) for senders in (1, 64)]
        rows.append(row("scaling", f"drained, results, {broker}", "results on", 1_000_000))
        for jobs in 1, 100:
            rows.append(row("scaling", f"drained, jobs a message, {broker}", f"{jobs} jobs", 9_000 * jobs, x=jobs))
            rows.append(row("scaling", f"drained from a backlog, {broker}", f"{jobs} jobs", 9_000, x=1_000 * jobs))
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"rows": rows}))
    for folder in "first", "second":
        suite.draw(results, tmp_path / folder)
    shown = {
        "peers": ["one by one, jobs/s", "celery", "3,000"],
        "scaling": ["1 process", "drained, results, SQLite, jobs/s"],
        "scaling-processes": ["steps a job, some 0.9 ns each (logarithmic)", "1,000", "10,000", "leveret"],
        "sends": ["senders, of whom each waits for its send before its next (logarithmic)", "SQLite", "64"],
        "scaling-message": ["jobs a message (logarithmic)", "SQLite", "RabbitMQ", "100"],
        "scaling-backlog": ["jobs that wait when the worker starts (logarithmic)", "SQLite", "RabbitMQ", "100,000"],
        "latency": ["send to start, idle, SQLite", "leveret"],
        "memory": ["resident memory", "MB"],
    }
    assert sorted(path.stem for path in (tmp_path / "first").iterdir()) == sorted(shown)
    for name, words in shown.items():
        path = tmp_path / f"first/{name}.svg"
        texts = [element.text for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]  # noqa: S314 - ours
        assert set(words) <= set(texts), name
        assert "nobody" not in texts
        assert path.read_bytes() == (tmp_path / f"second/{name}.svg").read_bytes()
