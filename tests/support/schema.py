"""A validator of just the JSON Schema keywords that `contracts/` uses; an unknown keyword is an error, not ignored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

ANNOTATIONS = frozenset({"$schema", "$defs", "title", "description"})


def is_of_type(value: Any, name: str) -> bool:
    """Say whether a value is of a JSON Schema type; 1.0 is an integer to it, and true is no number."""
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float):
        return name == "number" or (name == "integer" and value.is_integer())
    kinds: dict[str, type | tuple[type, ...]] = {
        "string": str,
        "integer": int,
        "number": int,
        "array": list,
        "object": dict,
        "null": type(None),
    }
    return isinstance(value, kinds.get(name, ()))


class Schema:
    """One schema document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def accepts(self, value: Any) -> bool:
        """Say whether the schema accepts a value."""
        return self._fits(self.document, value)

    def _fits(self, schema: dict[str, Any], value: Any) -> bool:
        checks = self._checks(schema, value)
        unknown = schema.keys() - checks.keys() - ANNOTATIONS
        if unknown:
            raise NotImplementedError(f"JSON Schema keywords that this validator does not know: {sorted(unknown)}")
        return all(checks[keyword](content) for keyword, content in schema.items() if keyword in checks)

    def _checks(self, schema: dict[str, Any], value: Any) -> dict[str, Callable[[Any], bool]]:
        is_object, is_array, is_text = isinstance(value, dict), isinstance(value, list), isinstance(value, str)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        known: dict[str, Any] = schema.get("properties", {})
        return {
            "$ref": lambda name: self._fits(self.document["$defs"][name.removeprefix("#/$defs/")], value),
            "type": lambda names: any(
                is_of_type(value, name) for name in ([names] if isinstance(names, str) else names)
            ),
            "const": lambda only: value == only,
            "enum": lambda some: value in some,
            "oneOf": lambda some: sum(self._fits(one, value) for one in some) == 1,
            "required": lambda names: not is_object or all(name in value for name in names),
            "properties": lambda some: not is_object or all(self._fits(some[k], value[k]) for k in some if k in value),
            "additionalProperties": lambda open_: not is_object or open_ or all(k in known for k in value),
            "minItems": lambda least: not is_array or len(value) >= least,
            "items": lambda each: not is_array or all(self._fits(each, item) for item in value),
            "minLength": lambda least: not is_text or len(value) >= least,
            "maxLength": lambda most: not is_text or len(value) <= most,
            "pattern": lambda pattern: not is_text or re.search(pattern, value) is not None,
            "minimum": lambda least: not is_number or value >= least,
            "maximum": lambda most: not is_number or value <= most,
        }
