"""Values beyond JSON's own types as JSON's own: called by the extension module for what it does not write itself."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["to_builtins"]


def to_builtins(value: object) -> Any:
    """Return `value` as str, int, float, bool, None, list, tuple or dict, all the way down.

    Understands what msgspec does (dataclasses, attrs, msgspec structures, datetime, UUID, Decimal, Enum, bytes, sets),
    pydantic's models, subclasses of the plain types, and numpy's scalars and arrays.

    Raises:
        TypeError: If it has no such form; the text names the type.
    """
    return msgspec.to_builtins(value, enc_hook=_encode)


def _encode(value: object) -> Any:
    """Encode what msgspec does not know."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    kind = type(value)
    dump = getattr(kind, "model_dump", None)
    if dump is not None and hasattr(kind, "model_validate_json"):
        return dump(value, mode="json")  # pydantic's own form
    if kind.__module__ == "numpy":
        # Not imported here: a value of numpy's brings its own conversion.
        convert = getattr(value, "tolist", None)
        if convert is not None:
            return convert()
    name = (
        kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
    )
    raise TypeError(f"a value of type {name} has no form in JSON; send its data as dict, list, str or numbers")
