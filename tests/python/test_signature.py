from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import pytest
from leveret import _core
from leveret.signature import compile_signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from elsewhere import Unknown


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def writer(function: Callable[..., Any], *, native: bool) -> _core.LineWriter:
    return _core.LineWriter(compile_signature(function, "f", native=native).native)


def line(function: Callable[..., Any], *args: Any, native: bool, **kwargs: Any) -> tuple[Any, Any]:
    """Return (args, kwargs) as they stand in the line."""
    job = json.loads(writer(function, native=native).line(args, kwargs))
    return job.get("args", []), job.get("kwargs", {})


def simple(a: int, b: int = 2, *, c: int = 3) -> int:
    raise NotImplementedError


def rest(a: int, /, *more: float, key: str = "k", **named: bool) -> None:
    raise NotImplementedError


def test_native_call_has_positions_and_defaults_only() -> None:
    assert line(simple, 1, native=True) == ([1, 2], {"c": 3})
    assert line(simple, b=5, a=4, native=True) == ([4, 5], {"c": 3})
    assert line(simple, 1, c=9, native=True) == ([1, 2], {"c": 9})
    assert line(rest, 1, 2, 3.5, z=True, native=True) == ([1, 2, 3.5], {"z": True, "key": "k"})


def test_python_call_stays_as_it_was_written() -> None:
    assert line(simple, 1, native=False) == ([1], {})
    assert line(simple, b=5, a=4, native=False) == ([], {"a": 4, "b": 5})
    assert line(rest, 1, 2, z=True, native=False) == ([1, 2], {"z": True})


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("function", "args", "kwargs", "text"),
    [
        (simple, (), {}, 'argument "a" is missing'),
        (simple, (), {"b": 1}, 'argument "a" is missing'),
        (simple, (1, 2, 3), {}, "it takes 2 positional arguments, but 3 were given"),
        (simple, (1,), {"a": 1}, 'argument "a" is given twice'),
        (simple, (1,), {"d": 1}, 'it has no argument "d"'),
        (rest, (), {"a": 1}, 'argument "a" is missing'),
        (simple, ("1",), {}, "args[0]: expected int, got str"),
        (simple, (True,), {}, "args[0]: expected int, got bool"),
        (simple, (1.0,), {}, "args[0]: expected int, got float"),
        (simple, (None,), {}, "args[0]: expected int, got null"),
        (simple, (1,), {"c": "x"}, "kwargs.c: expected int, got str"),
        (rest, (1, "x"), {}, "args[1]: expected float, got str"),
        (rest, (1,), {"z": 1}, "kwargs.z: expected bool, got int"),
    ],
)
def test_call_that_does_not_fit_is_refused(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], text: str, *, native: bool
) -> None:
    with pytest.raises(TypeError) as caught:
        writer(function, native=native).line(args, kwargs)
    assert str(caught.value).startswith(f'cannot send "f": {text}')


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "text"),
    [
        (int, 1, 1.5, "args[0]: expected int, got float"),
        (float, 1, "x", "args[0]: expected float, got str"),
        (str | None, None, 1, "args[0]: expected str | null, got int"),
        (bool, True, 0, "args[0]: expected bool, got int"),
        (list[int], [1, 2], [1, "x"], "args[0][1]: expected int, got str"),
        (dict[str, list[int]], {"a": [1]}, {"a": [None]}, "args[0][...][0]: expected int, got null"),
        (tuple[int, str], (1, "a"), (1, 2), "args[0][1]: expected str, got int"),
        (Literal["a", "b"], "a", "c", "args[0]: invalid enum value 'c'"),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 0, "args[0]: expected int >= 1"),
        (Point, Point(1), {"y": 1}, "args[0]: object missing required field x"),
        (Point, {"x": 1}, Point("a"), "args[0].x: expected int, got str"),
        (int | list[int], [1], "x", "args[0]: expected int | array, got str"),
        (bytes, b"abc", 5, "args[0]: expected bytes, got int"),
    ],
)
def test_value_is_compared_with_its_annotation(annotation: Any, good: Any, bad: Any, text: str) -> None:
    def f(x: Any) -> None:
        raise NotImplementedError

    f.__annotations__["x"] = annotation
    one = writer(f, native=True)
    one.line((good,), {})
    with pytest.raises(TypeError) as caught:
        one.line((bad,), {})
    assert text in str(caught.value)


@pytest.mark.parametrize("annotation", [Any, object, "Unknown", "no such name", 5])
def test_what_cannot_be_checked_is_let_through(annotation: Any) -> None:
    def f(x: Any, y: int) -> None:
        raise NotImplementedError

    f.__annotations__["x"] = annotation
    assert line(f, "anything", 1, native=True) == (["anything", 1], {})
    with pytest.raises(TypeError, match=r"args\[1\]: expected int"):
        line(f, 1, "x", native=True)


def test_annotation_of_a_type_checkers_import_alone_does_no_harm() -> None:
    def f(x: Unknown, y: int) -> None:
        raise NotImplementedError

    assert line(f, 1, 2, native=True) == ([1, 2], {})


@pytest.mark.parametrize(
    ("default", "text"),
    [(float("nan"), 'the default of "x": NaN'), ({"a": object()}, 'the default of "x".a: a value of type object')],
)
def test_default_of_a_native_task_must_be_sendable(default: Any, text: str) -> None:
    def f(x: Any = default) -> None:
        raise NotImplementedError

    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        compile_signature(f, "f", native=True)
    assert text in str(caught.value)
    compile_signature(f, "f", native=False)


def test_subclasses_of_plain_types_fit() -> None:
    class Name(str):
        __slots__ = ()

    def f(x: str, y: Name) -> None:
        raise NotImplementedError

    f.__annotations__["y"] = Name
    assert line(f, Name("a"), Name("b"), native=True) == (["a", "b"], {})
