from __future__ import annotations

import dataclasses
import enum
from datetime import datetime  # noqa: TC003 - annotations are evaluated
from typing import Any, Literal, NamedTuple, NotRequired, Optional, TypedDict

import msgspec
import pytest
from leveret.fits import fits, misfits
from leveret.words import type_words


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    label: str = ""
    inner: Optional[Point] = None  # noqa: UP045 - a name that is evaluated late


class Renamed(msgspec.Struct, rename="camel"):
    first_name: str
    at: datetime | None = None


class Typed(TypedDict):
    x: int
    y: NotRequired[float]


INNER = "object {x: integer, label?: string, inner?: object or null}"


class Pair(NamedTuple):
    a: int
    b: str


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "integer"),
        (float, "number"),
        (bool, "boolean"),
        (None, "null"),
        (Any, "anything"),
        (list[str], "array of string"),
        (tuple[int, ...], "array of integer"),
        (tuple[int, str], "array [integer, string]"),
        (set[bytes], "array of string"),
        (dict[str, float], "object of number"),
        (Optional[int], "integer or null"),  # noqa: UP045 - both spellings are in use
        (None | int | str, "integer, string or null"),
        (Literal["a", 3], '"a" or 3'),
        (Color, '"red" or "blue"'),
        (Pair, "array [integer, string]"),
        (Typed, "object {x: integer, y?: number}"),
        (Renamed, "object {firstName: string, at?: string or null}"),
        (
            Point,
            f"object {{x: integer, label?: string, inner?: {INNER} or null}}",
        ),
        (type("Odd", (), {}), "anything"),
    ],
)
def test_annotations_are_written_as_cpp_writes_its_types(annotation: Any, words: str) -> None:
    assert type_words(annotation) == words
    assert fits(words, words)


@pytest.mark.parametrize(
    ("sent", "taken"),
    [
        ("integer", "integer 0 to 255"),
        ("integer", "number"),
        ("integer", "integer or string"),
        ('"red"', 'string or "blue"'),
        ('"red" or "blue"', '"blue", "red" or "green"'),
        ("3", "number"),
        ("anything", "array of integer"),
        ("array [integer, integer]", "array of number"),
        ("object {x: integer, y: string}", "object {x: number}"),
        ("object {x: integer}", "object {x: number, y?: string}"),
        ("object {x: integer, y: integer}", "object of number"),
        ("object of anything", "object {x: integer}"),
        ("words of a newer plugin", "integer"),
    ],
)
def test_what_is_taken_fits(sent: str, taken: str) -> None:
    assert misfits(sent, taken) == ""


@pytest.mark.parametrize(
    ("sent", "taken", "text"),
    [
        ("number", "integer", "number is sent, integer is taken"),
        ("integer or null", "integer", "integer or null is sent, integer is taken"),
        ("string", '"red" or "blue"', 'string is sent, "red" or "blue" is taken'),
        ('"green"', '"red" or "blue"', '"green" is sent, "red" or "blue" is taken'),
        ("2.5", "integer", "2.5 is sent, integer is taken"),
        ("boolean", "integer", "boolean is sent, integer is taken"),
        ("array of number", "array of integer", "[]: array of number is sent"),
        ("array of integer", "array [integer, integer]", "array of integer is sent"),
        ("array [integer]", "array [integer, integer]", "array [integer] is sent"),
        ("array [integer, null]", "array [integer, string]", "[1]: "),
        ("object {x?: integer}", "object {x: integer}", ".x: it is required, but may be missing"),
        ("object {a: object {b: string}}", "object {a: object {b: integer}}", ".a.b: "),
        ("object of string", "object of integer", ".*: "),
        ("object of integer", "object {x: integer}", "object of integer is sent"),
    ],
)
def test_what_may_not_be_taken_is_said_with_its_path(sent: str, taken: str, text: str) -> None:
    assert misfits(sent, taken).startswith(text)
