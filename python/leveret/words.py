"""Types in words: an annotation as C++ workers write their types, in `--describe` and in messages."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections import abc
from typing import Any

__all__ = ["type_words"]

_PLAIN: dict[object, str] = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    None: "null",
    type(None): "null",
    Any: "anything",
    object: "anything",
    list: "array of anything",
    tuple: "array of anything",
    set: "array of anything",
    frozenset: "array of anything",
    dict: "object of anything",
}
_TEXTS = {
    "datetime.datetime": "string",
    "datetime.date": "string",
    "datetime.time": "string",
    "datetime.timedelta": "string",
    "uuid.UUID": "string",
    "decimal.Decimal": "string",
    "builtins.bytes": "string",
    "builtins.bytearray": "string",
    "builtins.memoryview": "string",
}
_LISTS = (list, set, frozenset, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Set, abc.MutableSet)
_MAPS = (dict, abc.Mapping, abc.MutableMapping)
_DEEPEST = 2
"""Structures are written out two levels deep, as in C++: they may contain themselves."""


def type_words(annotation: Any, depth: int = 0) -> str:
    """Return what JSON an annotation means, in the words of C++ workers: "integer", "array of string or null"."""
    try:
        plain = _PLAIN.get(annotation)
    except TypeError:  # not hashable
        plain = None
    if plain is not None:
        return plain
    origin = typing.get_origin(annotation)
    if origin is None:
        return _class_words(annotation, depth)
    arguments = typing.get_args(annotation)
    if origin in {typing.Annotated, typing.Required, typing.NotRequired}:
        return type_words(arguments[0], depth)
    if origin in {typing.Union, types.UnionType}:
        return _joined([type_words(each, depth) for each in arguments])
    if origin is typing.Literal:
        return _joined([json.dumps(each, ensure_ascii=False) for each in arguments])
    return _container_words(origin, arguments, depth)


def _container_words(origin: Any, arguments: tuple[Any, ...], depth: int) -> str:
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:  # noqa: PLR2004 - tuple[int, ...]
            return f"array of {type_words(arguments[0], depth)}"
        return f"array [{', '.join(type_words(each, depth) for each in arguments)}]"
    if origin in _LISTS:
        return f"array of {type_words(arguments[0], depth)}"
    if origin in _MAPS:
        return f"object of {type_words(arguments[1], depth)}"
    return _class_words(origin, depth)


def _joined(words: list[str]) -> str:
    """Return alternatives as C++ joins them; null stands last."""
    unique = sorted(dict.fromkeys(words), key=lambda word: word == "null")
    return ", ".join(unique[:-1]) + (" or " if len(unique) > 1 else "") + unique[-1]


def _class_words(kind: Any, depth: int) -> str:
    if not hasattr(kind, "__mro__"):  # no class
        supertype = getattr(kind, "__supertype__", None) or getattr(kind, "__value__", None)  # NewType, `type X = …`
        return "anything" if supertype is None else type_words(supertype, depth)
    text = _TEXTS.get(f"{kind.__module__}.{kind.__qualname__}")
    if text is None and issubclass(kind, enum.Enum):
        text = _joined([json.dumps(member.value, default=str, ensure_ascii=False) for member in kind])
    if text is None:
        text = next((_PLAIN[plain] for plain in (bool, int, float, str) if issubclass(kind, plain)), None)
    return _structure_words(kind, depth) if text is None else text


def _structure_words(kind: Any, depth: int) -> str:
    fields = _fields(kind)
    if fields is None:
        return "anything"
    if issubclass(kind, tuple):
        return f"array [{', '.join(type_words(each, depth) for _, each, _ in fields)}]"
    if depth >= _DEEPEST:
        return "object"
    members = (f"{name}{'' if required else '?'}: {type_words(each, depth + 1)}" for name, each, required in fields)
    return f"object {{{', '.join(members)}}}"


def _fields(kind: Any) -> list[tuple[str, Any, bool]] | None:
    """Return (name, type, whether it must be given) of a structure's members; None if it is no structure."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations that can't be read
        return None
    given: dict[str, bool] | None = None
    names = {name: name for name in hints}
    if dataclasses.is_dataclass(kind):
        given = {
            each.name: each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
            for each in dataclasses.fields(kind)
        }
    elif typing.is_typeddict(kind):
        given = {name: _is_required(kind, name, hint) for name, hint in hints.items()}
    elif hasattr(kind, "_field_defaults"):  # a named tuple
        given = dict.fromkeys(kind._fields, True)
    elif hasattr(kind, "__struct_fields__"):  # msgspec's structure
        fields: tuple[str, ...] = kind.__struct_fields__
        required = len(fields) - len(kind.__struct_defaults__)
        given = {name: i < required for i, name in enumerate(fields)}
        names = dict(zip(fields, kind.__struct_encode_fields__, strict=True))
    elif hasattr(kind, "__attrs_attrs__"):
        given = {each.name: repr(each.default) == "NOTHING" for each in kind.__attrs_attrs__}
    elif hasattr(kind, "model_fields"):  # pydantic's model
        given = {name: info.is_required() for name, info in kind.model_fields.items()}
    if given is None:
        return None
    return [(names.get(name, name), hints.get(name, Any), required) for name, required in given.items()]


def _is_required(kind: Any, name: str, hint: Any) -> bool:
    """Tell whether a TypedDict's key must be there; the class itself can't where its annotations are texts."""
    origin = typing.get_origin(hint)
    if origin in {typing.Required, typing.NotRequired}:
        return origin is typing.Required
    return name in kind.__required_keys__
