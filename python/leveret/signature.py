"""A task's signature, read once at its first use and compiled for the extension module.

What is checked before anything is sent: arity, names, and types. A value whose exact type is the annotation's (int,
float, str, bool, None and unions of them) is let through in C++; any other is written as JSON and read back as the
annotation, by msgspec, which is what a worker will do.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from leveret import _core
from leveret.encoding import to_builtins

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "KINDS",
    "Compiled",
    "any_signature",
    "compile_signature",
    "decode_hook",
    "hints_of",
    "is_hashable",
    "mismatch",
]

_Check = typing.Callable[[bytes], "tuple[str, str] | None"]

# The exact types that need no further look, as bits that signature.hpp knows. An int is a float to every type checker.
_MASKS: dict[object, int] = {int: 1, float: 2 | 1, str: 4, bool: 8, None: 16, type(None): 16}
KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional_only",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.KEYWORD_ONLY: "keyword_only",
    inspect.Parameter.VAR_POSITIONAL: "var_positional",
    inspect.Parameter.VAR_KEYWORD: "var_keyword",
}
_MISMATCH = re.compile(r"^(?P<text>.*?)(?: - at `(?:key` in `)?\$(?P<path>.*)`)?$", re.DOTALL)


class Compiled(typing.NamedTuple):
    """What a task needs of its signature."""

    native: _core.Signature
    returns: Any
    """The type of the result; Any where the signature does not say."""


def compile_signature(function: Callable[..., Any], task: str, *, native: bool) -> Compiled:
    """Compile the signature of `function` for the task of this name.

    Args:
        function: The decorated function.
        task: The task's name.
        native: Run by a C++ handler: names and defaults are resolved here, to positions.

    Raises:
        ValueError: If a default of a native task can't be sent.
    """
    compiled = _core.Signature(task, native, to_builtins)
    hints = hints_of(function)
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        mask, check = _checks(hints.get(name, Any))
        try:
            compiled.add(KINDS[parameter.kind], name, mask, check, required, None if required else parameter.default)
        except ValueError as error:
            raise ValueError(f'cannot use "{task}" as a task: {error}') from None
    returns = hints.get("return", Any)
    return Compiled(compiled, Any if returns is None or returns is type(None) else returns)


def any_signature(task: str) -> Compiled:
    """Return the signature of a task that is known by its name alone: anything goes."""
    compiled = _core.Signature(task, False, to_builtins)  # noqa: FBT003 - positional in the extension module
    compiled.add("var_positional", "args", 0, None, False, None)  # noqa: FBT003
    compiled.add("var_keyword", "kwargs", 0, None, False, None)  # noqa: FBT003
    return Compiled(compiled, Any)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations, resolved where they can be; the others (imported for type checkers only) left out."""
    with suppress(Exception):  # evaluating annotations runs any code
        return typing.get_type_hints(function, include_extras=True)
    hints: dict[str, Any] = {}
    for name, annotation in inspect.get_annotations(function).items():
        with suppress(Exception):
            hints[name] = eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation  # noqa: S307 - the author's own
    return hints


def _checks(annotation: Any) -> tuple[int, _Check | None]:
    """Return the mask of exact types that fit `annotation`, and the check for all other values."""
    if annotation is Any or annotation is object or annotation is inspect.Parameter.empty:
        return 0, None
    mask = 0
    union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
    for member in typing.get_args(annotation) if union else (annotation,):
        # Other members are left to msgspec: they add no exact type, and take none away.
        mask |= _MASKS.get(member, 0) if is_hashable(member) else 0
    try:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(annotation, dec_hook=decode_hook)
    except Exception:  # noqa: BLE001 - an annotation that msgspec can't read checks nothing
        return 0, None

    def check(data: bytes) -> tuple[str, str] | None:
        try:
            decoder.decode(data)
        except msgspec.ValidationError as error:
            return mismatch(error)
        return None

    return mask, check


def is_hashable(value: object) -> bool:
    """Tell whether a dict can be asked for it; Annotated with lists in it can't."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def decode_hook(kind: type[Any], value: Any) -> Any:
    """Decode into a type that msgspec does not know: subclasses of plain types, numpy's scalars, pydantic's models."""
    if issubclass(kind, (str, int, float)) or kind.__module__ == "numpy":
        return kind(value)
    validate = getattr(kind, "model_validate_json", None)
    if validate is not None:
        # As pydantic itself reads JSON; its ValidationError is a ValueError, which msgspec gives a path.
        return validate(msgspec.json.encode(value))
    return value


def mismatch(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return msgspec's complaint as (path behind the value, text): ("[1].x", "expected int, got str")."""
    match = _MISMATCH.match(str(error))
    if match is None:
        return "", str(error)
    text = " ".join(match["text"].replace("`", "").replace("...", "").split())
    return match["path"] or "", text[:1].lower() + text[1:]
