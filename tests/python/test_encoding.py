from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leveret import _core
from leveret.signature import any_signature

WRITER = _core.LineWriter(any_signature("t").native)


def written(*args: Any, **kwargs: Any) -> str:
    """Return the line of a call without its newline; a worker would accept it."""
    line = WRITER.line(args, kwargs)
    assert line.endswith(b"\n")
    assert _core.check_line(line[:-1]) is None
    return line[:-1].decode()


def sent(value: Any) -> Any:
    """Return what a worker's JSON library reads."""
    return json.loads(written(value))["args"][0]


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Number(int):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: float


class Box(msgspec.Struct):
    corners: list[Point]


def test_a_job_without_arguments_has_none_in_its_line() -> None:
    assert written() == '{"task":"t","retry_count":0}'


def test_options_stand_in_the_line() -> None:
    writer = _core.LineWriter(any_signature('"quoted"').native, 5, 250)
    expected = b'{"task":"\\"quoted\\"","args":[1],"retry_count":0,"max_retries":5,"deadline_ms":250}\n'
    assert writer.line((1,), {}) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-(2**63), "-9223372036854775808"),
        (2**63, "9223372036854775808"),
        (2**64 - 1, "18446744073709551615"),
        (3.0, "3.0"),
        (-0.0, "-0.0"),
        (1e22, "1e+22"),
        (0.1, "0.1"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (True, "true"),
        (None, "null"),
        ("", '""'),
        ('a"\\\n\x00\x1f\x7f', '"a\\"\\\\\\n\\u0000\\u001f\x7f"'),
        ("\u2028é\U0001f407", '"\u2028é\U0001f407"'),
        ((1, [2, ()]), "[1,[2,[]]]"),
        ({"a": {}, "b c": [None]}, '{"a":{},"b c":[null]}'),
        ({1: "a", -2: "b"}, '{"1":"a","-2":"b"}'),
        ({Colour.RED: Colour.RED}, '{"red":"red"}'),
        (Level.HIGH, "3"),
        (Text("this"), '"this"'),
        ({Text("k"): Number(7)}, '{"k":7}'),
        (Point(1, 2.0), '{"x":1,"y":2.0}'),
        (Box([Point(1, 2.5)]), '{"corners":[{"x":1,"y":2.5}]}'),
        (b"ab", '"YWI="'),
        (decimal.Decimal("1.10"), '"1.10"'),
        (uuid.UUID(int=7), '"00000000-0000-0000-0000-000000000007"'),
        (dt.date(2026, 1, 2), '"2026-01-02"'),
        (frozenset({5}), "[5]"),
    ],
)
def test_value_is_written_exactly(value: Any, text: str) -> None:
    assert written(value) == f'{{"task":"t","args":[{text}],"retry_count":0}}'


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (math.nan, ValueError, "args[0]: NaN"),
        (-math.inf, ValueError, "args[0]: infinity"),
        (2**64, ValueError, "args[0]: an integer outside -2^63 to 2^64-1"),
        (-(2**63) - 1, ValueError, "args[0]: an integer outside"),
        (10**400, ValueError, "args[0]: an integer outside"),
        ("\ud800", ValueError, "args[0]: a str with a lone surrogate"),
        ({"\udfff": 1}, ValueError, "args[0]: a str with a lone surrogate"),
        ([0, {"x": [math.nan]}], ValueError, "args[0][1].x[0]: NaN"),
        ({"a b": {"c": 2**70}}, ValueError, "args[0]['a b'].c: an integer outside"),
        (Point(1, math.nan), ValueError, "args[0].y: NaN"),
        (Box([Point(1, math.inf)]), ValueError, "args[0].corners[0].y: infinity"),
        ({1: 0, "1": 0}, ValueError, "args[0]: the dict keys 1 and '1' are one name"),
        ([{"red": 0, Colour.RED: 1}], ValueError, "args[0][0]: the dict keys 'red' and"),
        ({None: 1}, TypeError, "args[0]: a dict key of type NoneType"),
        ({(1, 2): 1}, TypeError, "args[0]: a dict key of type tuple"),
        ({1.5: 1}, TypeError, "args[0]: a dict key of type float"),
        ({True: 1}, TypeError, "args[0]: a dict key of type bool"),
        (object(), TypeError, "args[0]: a value of type object"),
        ([1j], TypeError, "args[0][0]: a value of type complex"),
        (Box([lambda: 0]), TypeError, "args[0]: a value of type function"),
    ],
)
def test_what_has_no_exact_form_is_refused_with_its_path(value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        WRITER.line((value,), {})
    assert str(caught.value).startswith(f'cannot send "t": {text}')


def test_path_of_a_named_argument() -> None:
    with pytest.raises(ValueError, match=r"kwargs\.size\[1\]: NaN"):
        WRITER.line((), {"size": [1, math.nan]})


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_depth_is_counted_as_the_contract_does() -> None:
    # The job object and the list of arguments are two levels.
    written(nested(126))
    with pytest.raises(ValueError, match="nested deeper than 128 levels"):
        WRITER.line((nested(127),), {})


@pytest.mark.parametrize("kind", ["list", "dict", "dataclass"])
def test_what_contains_itself_is_refused(kind: str) -> None:
    value: Any
    if kind == "list":
        value = []
        value.append(value)
    elif kind == "dict":
        value = {}
        value["x"] = value
    else:
        value = Point(1, 2)
        value.x = value
    with pytest.raises(ValueError, match="contains itself"):
        WRITER.line((value,), {})


def test_line_may_have_a_mebibyte_and_no_byte_more() -> None:
    room = (1 << 20) - len(written(""))
    assert len(written("a" * room)) == 1 << 20
    with pytest.raises(ValueError, match=r"1048577 bytes of JSON, more than the 1048576"):
        WRITER.line(("a" * (room + 1),), {})


def test_error_of_a_users_own_code_comes_through() -> None:
    class Broken(dict[str, int]):
        def items(self) -> Any:
            raise KeyError("mine")

        def __iter__(self) -> Any:
            raise KeyError("mine")

    with pytest.raises((KeyError, TypeError)):
        WRITER.line(([Broken(a=1), object()],), {})


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_every_json_value_arrives_as_it_was(value: Any) -> None:
    assert json.dumps(sent(value)) == json.dumps(value)
