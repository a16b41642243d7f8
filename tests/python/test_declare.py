"""Tasks with settings, and tasks without an app."""

from __future__ import annotations

import importlib
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import leveret
import pytest
from leveret.tasks import NO_POLICY, Policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def app() -> leveret.App:
    """An app that connects to nothing."""
    return leveret.App("memory://")


def plain() -> None: ...


def test_settings_become_a_policy_for_workers_and_a_way_of_sending(app: leveret.App) -> None:
    task = app.task(
        backoff=(timedelta(seconds=2), 60),
        retry_on=OSError,
        reject_on=(ValueError, KeyError),
        soft_limit=1.5,
        hard_limit=timedelta(seconds=3),
        expires=timedelta(minutes=1),
        max_retries=4,
    )(plain)
    assert task.policy == Policy((2.0, 60.0), (OSError,), (ValueError, KeyError), 1500, 3000)
    assert (task.settings.expires_ms, task.settings.max_retries) == (60_000, 4)
    assert task.options(expires=1).settings.expires_ms == 1000
    assert app.native(name="native")(plain).policy == NO_POLICY


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"backoff": 0}, "backoff must be more than 0 seconds"),
        ({"backoff": -1}, "backoff must be at least 0 seconds"),
        ({"backoff": (1, 2, 3)}, "backoff must be a duration or a pair"),
        ({"backoff": "soon"}, "backoff must be a number of seconds or a timedelta, not str"),
        ({"retry_on": "OSError"}, "retry_on must be a class of exceptions"),
        ({"reject_on": (ValueError, 3)}, "reject_on must be a class of exceptions"),
        ({"soft_limit": 0}, "soft_limit must be more than 0 seconds"),
        ({"soft_limit": 3, "hard_limit": 3}, "soft_limit must be shorter than hard_limit"),
        ({"expires": 0}, "expires must be more than 0 seconds"),
        ({"max_retries": -1}, "max_retries must be from 0"),
        ({"shards": 0}, 'a queue has 1 to 256 shards, "default" can\'t have 0'),
        ({"shards": 257}, 'a queue has 1 to 256 shards, "default" can\'t have 257'),
        ({"shards": -(10**30)}, "a queue has 1 to 256 shards"),
        ({"shards": 10**30}, "a queue has 1 to 256 shards"),
        ({"shards": True}, "shards must be an int, not bool"),
        ({"shards": "4"}, "shards must be an int, not str"),
        ({"queue": "q" * 121, "shards": 11}, "queue name"),
        ({"queue": "no such/name"}, "queue"),
        ({"retries": 3}, "there is no setting retries"),
        ({"key": "a"}, "key= has jobs of one key run in the order sent: add ordered=True"),
        ({"ordered": True, "key": "b"}, "key='b' is no parameter: they are"),
        ({"ordered": True, "key": 3}, "key must be the name of a parameter or a function"),
        ({"ordered": 1}, "ordered must be True or False"),
        ({"ordered": True, "queue": "q" * 118}, "is no queue name: it has 129 bytes"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_the_decorator(
    app: leveret.App, settings: dict[str, Any], text: str
) -> None:
    with pytest.raises((ValueError, TypeError, leveret.Unsupported), match=text) as caught:
        app.task(**settings)(plain)
    assert '"plain"' in str(caught.value)
    assert app.tasks == {}


def test_how_python_runs_a_task_is_no_setting_of_a_native_one(app: leveret.App) -> None:
    wrong: dict[str, Any] = {"backoff": 1}
    with pytest.raises(TypeError, match="there is no setting backoff"):
        app.native(**wrong)(plain)


SHARED = """
import leveret

@leveret.task(queue="reports")
def report(month: str) -> str:
    return f"report of {month}"

@leveret.native
def work(id: int) -> int: ...
"""
CYCLE = """
import leveret
import cycle_tasks
app = leveret.App("memory://cycle", include=["cycle_tasks"])
"""
CYCLE_TASKS = """
import leveret
import cycle_app

@leveret.task
def ping() -> str:
    return cycle_app.app.url
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shared_tasks.py").write_text(SHARED)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("modules")
def test_an_app_includes_modules_by_name_or_object() -> None:
    by_name = leveret.App("memory://include", include=["shared_tasks"])
    assert by_name.tasks == {}, "not imported before it is needed"
    assert "shared_tasks" not in sys.modules
    assert sorted(by_name.load()) == ["report", "work"]
    module: Any = importlib.import_module("shared_tasks")
    assert module.report.app is by_name
    assert module.report("May") == "report of May"
    with by_name, by_name.worker():
        assert module.report.send("May").result(30) == "report of May"
    with pytest.raises(ValueError, match=r'cannot include "report" \(.*shared_tasks.py:\d+\) in .*includes it already'):
        leveret.App("memory://other", include=[module])
    assert sorted(by_name.load()) == ["report", "work"], "once is enough"


def test_a_task_without_an_app_says_what_to_do(modules: Path) -> None:
    (modules / "lonely_tasks.py").write_text(SHARED)
    module: Any = importlib.import_module("lonely_tasks")
    assert module.report.app is None
    with pytest.raises(leveret.Unsupported, match=r'no app includes it; write App\(include=\["lonely_tasks"\]\)'):
        module.report.send("May")
    with leveret.App("memory://include", include=["lonely_tasks"]) as app:
        # Found at the first send, though the app was made later and has not loaded it.
        assert module.report.options(delay=60).send("May").queue == "reports"
        assert app.client().stats("reports")[0]["delayed"] == 1


def test_modules_may_import_each_other(modules: Path) -> None:
    (modules / "cycle_app.py").write_text(CYCLE)
    (modules / "cycle_tasks.py").write_text(CYCLE_TASKS)
    app: leveret.App = importlib.import_module("cycle_app").app
    with app:
        job = importlib.import_module("cycle_tasks").ping.send()
        assert app.worker().run_until_idle(30).succeeded == 1
        assert job.result(0) == "memory://cycle"


@pytest.mark.usefixtures("modules")
def test_two_tasks_of_one_name_are_refused_with_both_places() -> None:
    app = leveret.App("memory://include", include=["shared_tasks"])

    @app.task
    def report() -> None: ...

    with pytest.raises(ValueError, match=r"test_declare\.py:\d+, the other at .*shared_tasks\.py:\d+"):
        app.load()


def test_a_module_that_is_imported_again_has_its_new_tasks(modules: Path) -> None:
    app = leveret.App("memory://include", include=["shared_tasks"])
    before = app.load()["report"]
    (modules / "shared_tasks.py").write_text(f"# a line more\n{SHARED}")
    del sys.modules["shared_tasks"]
    importlib.invalidate_caches()
    after = app.load()["report"]
    assert after is not before
    assert after.app is app


def test_what_can_not_be_imported_is_said_when_it_is_needed(modules: Path) -> None:
    (modules / "broken_tasks.py").write_text("1 / 0")
    app = leveret.App("memory://include", include=["broken_tasks"])
    with pytest.raises(ZeroDivisionError):
        app.worker().start()
    wrong: Any = "shared_tasks"
    with pytest.raises(TypeError, match="include must be a list of modules"):
        leveret.App(include=wrong)
