"""Each type of docs/types.md crosses between the languages, both ways, and comes back as what it was."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as clock_time
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict
from uuid import UUID

import leveret
import msgspec
import pydantic
import pytest
from support.processes import PATIENCE
from support.processes import leveret as command

PLUGINS = Path(__file__).resolve().parent / "plugins"
PAGE = Path(__file__).resolve().parents[2] / "docs/types.md"


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 5


@dataclasses.dataclass
class Data:
    x: int
    y: float = 0.0
    label: str | None = None


class Struct(msgspec.Struct):
    x: int
    y: float = 0.0
    label: str | None = None


class Typed(TypedDict):
    x: int
    y: float
    label: str | None


class Model(pydantic.BaseModel):
    x: int
    y: float = 0.0
    label: str | None = None


class Named(NamedTuple):
    number: int
    text: str


class Nested(msgspec.Struct):
    when: datetime
    colors: list[Color]
    by_name: dict[str, Data]


AWARE = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
CASES: list[tuple[str, Any, Any, str]] = [
    ("int", int, -(2**63), "integer"),
    ("int", int, 2**63 - 1, "integer"),
    ("int", int, 2**64 - 1, "unsigned"),
    ("float", float, 0.1, "number"),
    ("float", float, 3.0, "number"),
    ("bool", bool, True, "boolean"),
    ("str", str, 'h\u00e9 \U0001f407 " \\ \x00', "text"),
    ("None", None, None, "nothing"),
    ("Optional", Optional[int], None, "maybe"),  # noqa: UP045 - both spellings are in use
    ("Optional", int | None, 3, "maybe"),
    ("union", int | str, "x", "either"),
    ("union", int | str, 7, "either"),
    ("Literal", Literal["red", "green"], "green", "color"),
    ("Literal", Literal[1, 5], 5, "level"),
    ("Enum", Color, Color.RED, "color"),
    ("Enum", Level, Level.HIGH, "level"),
    ("list", list[int], [1, 2, 3], "integers"),
    ("list", Sequence[int], [1, 2], "integers"),
    ("tuple", tuple[int, ...], (1, 2), "integers"),
    ("tuple", tuple[int, str], (1, "a"), "pair"),
    ("NamedTuple", Named, Named(1, "a"), "pair"),
    ("set", set[int], {4}, "integers"),
    ("set", frozenset[int], frozenset({4}), "integers"),
    ("dict", dict[str, int], {"a": 1, "b": 2}, "counts"),
    ("dataclass", Data, Data(1, 2.5, "l"), "point"),
    ("Struct", Struct, Struct(1, 2.5), "point"),
    ("TypedDict", Typed, {"x": 1, "y": 2.5, "label": None}, "point"),
    ("pydantic", Model, Model(x=1, y=2.5, label="l"), "point"),
    ("dataclass", list[Data], [Data(1), Data(2, 0.5)], "points"),
    ("datetime", datetime, AWARE, "text"),
    ("datetime", datetime, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "text"),
    ("datetime", datetime, datetime(2026, 1, 2, 3, 4, 5), "text"),  # noqa: DTZ001 - naive stays naive
    ("date", date, date(2026, 1, 2), "text"),
    ("time", clock_time, clock_time(3, 4, 5), "text"),
    ("timedelta", timedelta, timedelta(days=1, microseconds=1), "text"),
    ("UUID", UUID, UUID("01936c7a-0000-7000-8000-000000000000"), "text"),
    ("Decimal", Decimal, Decimal("1.10"), "text"),
    ("bytes", bytes, b"\x00\xff", "text"),
    ("Annotated", Annotated[int, msgspec.Meta(ge=0)], 3, "integer"),
    ("Struct", Nested, Nested(AWARE, [Color.GREEN], {"a": Data(1)}), "anything"),
    ("Any", Any, {"a": [1, 2.5, None, "x"]}, "anything"),
]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin of plugins/types.cpp."""
    built = tmp_path_factory.mktemp("plugins") / "types.so"
    command("build", PLUGINS / "types.cpp", "-o", built)
    return built


def test_each_type_comes_back_from_cpp_as_it_was_sent(plugin: Path) -> None:
    jobs: list[Any] = []
    for _, annotation, value, native in CASES:

        def task(value: Any) -> Any:
            raise NotImplementedError

        task.__annotations__ = {"value": annotation, "return": annotation}
        # An app each: several annotations stand for one C++ task.
        jobs.append(leveret.App("memory://types").native(name=native)(task).send(value))
    leveret.App("memory://types").worker(plugins=[plugin]).run_until_idle(PATIENCE)
    found = [job.result(0) for job in jobs]
    wanted = [value for _, _, value, _ in CASES]
    assert found == wanted
    assert [type(each) for each in found] == [type(each) for each in wanted]


def test_each_type_arrives_from_cpp_in_a_python_handler_and_comes_back(plugin: Path) -> None:
    url = "memory://types-to-python"
    arrived: list[Any] = []
    with leveret.App(url) as app:
        jobs: list[Any] = []
        tasks: list[Any] = []
        for number, (_, annotation, _, _) in enumerate(CASES):

            def task(value: Any) -> Any:
                arrived.append(value)
                return value

            task.__annotations__ = {"value": annotation, "return": annotation}
            tasks.append(app.task(name=f"task{number}", max_retries=0)(task))
        plain = leveret.App(url)
        with app.worker(plugins=[plugin]), plain:
            for (_, _, value, _), task in zip(CASES, tasks, strict=True):
                body = msgspec.json.decode(msgspec.json.encode(value, enc_hook=lambda model: model.model_dump()))
                forwarded = plain.send_task("forward", [url, task.name, body], queue="native").result(PATIENCE)
                jobs.append(app.job(forwarded, task))
            results = [job.result(PATIENCE) for job in jobs]
    wanted = [value for _, _, value, _ in CASES]
    assert arrived == wanted
    assert [type(each) for each in arrived] == [type(each) for each in wanted]
    assert results == wanted


def test_the_page_names_each_type() -> None:
    page = PAGE.read_text()
    assert [name for name, _, _, _ in CASES if f"`{name}" not in page] == []


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (datetime, "yesterday", r"args\[0\]: invalid RFC3339"),
        (date, datetime(2026, 1, 2, tzinfo=UTC), r"args\[0\]: invalid RFC3339"),
        (Color, "blue", r"args\[0\]: invalid enum value 'blue'"),
        (Literal["red"], "blue", r"args\[0\]: invalid enum value 'blue'"),
        (UUID, "x", r"args\[0\]: invalid UUID"),
        (list[int], [1, "2"], r"args\[0\]\[1\]: expected int, got str"),
        (dict[str, Data], {"a": {"x": "1"}}, r"args\[0\]\[\.\.\.\]\.x: expected int, got str"),
        (Model, {"x": "one"}, r"args\[0\]: 1 validation error for Model"),
        (Annotated[int, msgspec.Meta(ge=0)], -1, r"args\[0\]: expected int >= 0"),
        (tuple[int, str], (1,), r"args\[0\]: expected array of length 2"),
        (Any, object(), r"args\[0\]: a value of type object has no form in JSON"),
        (Any, {"a": [complex(1, 2)]}, r"args\[0\].*: a value of type complex has no form in JSON"),
        (Any, 2**64, r"args\[0\]: an integer outside"),
    ],
)
def test_what_does_not_fit_is_refused_at_send_with_its_path(annotation: Any, value: Any, text: str) -> None:
    def task(value: Any) -> None:
        raise NotImplementedError

    task.__annotations__ = {"value": annotation}
    with leveret.App("memory://types-refused") as app, pytest.raises((TypeError, ValueError), match=text):
        app.task(task).send(value)
