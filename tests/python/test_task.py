from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

import leveret
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def app() -> leveret.App:
    """An app that connects to nothing."""
    return leveret.App("memory://")


def test_a_task_called_runs_here(app: leveret.App) -> None:
    @app.task
    def add(x: int, y: int = 1) -> int:
        """Add."""
        return x + y

    assert add(2) == 3
    assert add.__doc__ == "Add."
    assert add.__name__ == add.name == "add"
    assert add.queue == "default"
    assert app.tasks == {"add": add}


def test_a_native_task_is_not_called(app: leveret.App) -> None:
    @app.native
    def work(x: int) -> int:
        raise NotImplementedError

    assert work.queue == "native"
    with pytest.raises(TypeError, match=r'cannot call "work" here: its code is in C\+\+; send it: work.send'):
        work(1)


def test_settings_of_the_decorator(app: leveret.App) -> None:
    @app.task(name="mail.send", queue="mail", max_retries=7)
    def send_mail() -> None:
        raise NotImplementedError

    assert (send_mail.name, send_mail.queue) == ("mail.send", "mail")


class Service:
    def method(self) -> None:
        raise NotImplementedError

    @staticmethod
    def static() -> None:
        raise NotImplementedError

    @classmethod
    def of_class(cls) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "function",
    [Service.method, Service().method, Service.static, Service.of_class, Service.__dict__["static"], Service, len],
)
def test_only_plain_functions_are_tasks(app: leveret.App, function: Any) -> None:
    for decorator in (app.task, app.native):
        with pytest.raises(TypeError, match="cannot make a task of"):
            decorator(function)
    assert app.tasks == {}


def test_a_task_is_not_made_a_task_again(app: leveret.App) -> None:
    @app.task
    def add() -> None:
        raise NotImplementedError

    with pytest.raises(TypeError, match='cannot make a task of "add": it is one already'):
        app.native(add)


def test_two_tasks_of_one_name_are_refused_with_both_places(app: leveret.App) -> None:
    @app.task
    def add() -> None:
        raise NotImplementedError

    first = add.__wrapped__.__code__.co_firstlineno
    with pytest.raises(ValueError, match='second task "add"') as caught:

        @app.native(name="add")
        def other() -> None:
            raise NotImplementedError

    text = str(caught.value)
    assert f"{__file__}:{first}" in text
    assert text.count(__file__) == 2


@pytest.mark.parametrize("name", ["", "é" * 128])
def test_a_name_has_one_to_255_bytes(app: leveret.App, name: str) -> None:
    def f() -> None:
        raise NotImplementedError

    with pytest.raises(ValueError, match="a name has 1 to 255 bytes"):
        app.task(name=name)(f)
    with pytest.raises(ValueError, match="a name has 1 to 255 bytes"):
        app.send_task(name)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"queue": "no spaces"}, ValueError),
        ({"queue": "mail.dead"}, ValueError),
        ({"max_retries": -1}, ValueError),
        ({"max_retries": 1.5}, TypeError),
        ({"max_retries": True}, TypeError),
        ({"delay": -1}, ValueError),
        ({"delay": math.nan}, ValueError),
        ({"delay": math.inf}, ValueError),
        ({"delay": "5"}, TypeError),
        ({"delay": True}, TypeError),
        ({"delay": dt.timedelta(days=40_000)}, ValueError),
        ({"deadline": 0}, ValueError),
    ],
)
def test_options_without_sense_are_refused(app: leveret.App, options: dict[str, Any], error: type[Exception]) -> None:
    @app.task
    def f() -> None:
        raise NotImplementedError

    with pytest.raises(error) as caught:
        f.options(**options)
    assert next(iter(options)) in str(caught.value).replace("queue name", "queue")


def test_options_leave_the_task_as_it_is(app: leveret.App) -> None:
    @app.task
    def f() -> None:
        raise NotImplementedError

    changed = f.options(queue="other", delay=dt.timedelta(milliseconds=1), max_retries=0)
    assert (changed.queue, f.queue) == ("other", "default")
    assert changed.options(deadline=2).queue == "other"


def test_shards_belong_to_their_queue(app: leveret.App) -> None:
    @app.task(queue="work", shards=4)
    def f() -> None:
        raise NotImplementedError

    assert f.settings.shards == 4
    assert f.options(max_retries=0).settings.shards == 4
    assert f.options(queue="other").settings.shards == 1
    other = f.options(queue="other", shards=2).settings
    assert (other.queue, other.shards) == ("other", 2)


def test_an_unknown_setting_is_refused(app: leveret.App) -> None:
    with pytest.raises(TypeError, match="retries"):
        app.task(retries=3)(test_an_unknown_setting_is_refused)


def test_a_str_is_no_list_of_arguments(app: leveret.App) -> None:
    with pytest.raises(TypeError, match="args must be a list or tuple, not str"):
        app.send_task("f", "abc")


def test_nothing_is_sent_of_a_call_that_does_not_fit(tmp_path: Any) -> None:
    file = tmp_path / "jobs.db"
    other = leveret.App(f"sqlite:///{file}")

    @other.task
    def f(x: int) -> None:
        raise NotImplementedError

    calls: list[Callable[[], Any]] = [
        lambda: f.send("x"),
        lambda: f.send(2**64),
        f.send,
    ]
    with other:
        for call in calls:
            with pytest.raises((TypeError, ValueError)):
                call()
        with pytest.raises(leveret.NotFound):
            other.client().stats("default")
