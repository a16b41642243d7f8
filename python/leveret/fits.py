"""Whether what one language sends is what the other takes: types compared in the words that both describe them by.

The words are those of `type_name` in leveret/kinds.hpp and of `leveret.words`: "integer 0 to 255", "array of string",
"object {x: integer, label?: string} or null".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["fits", "misfits"]


class _Type(NamedTuple):
    """A parsed type."""

    kind: str
    """integer, number, boolean, string, null, anything, literal, array, tuple, object, structure or union."""
    text: str
    parts: tuple[_Type, ...] = ()
    members: tuple[tuple[str, bool, _Type], ...] = ()
    """(name, whether it may be left out, type) of a structure."""


_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|[A-Za-z_]\w*|[\[\]{}:,?])')
_PLAIN = {"integer", "number", "boolean", "string", "null", "anything"}
_ARRAYS = {"array", "tuple"}
_OBJECTS = {"object", "structure"}


class _Parser:
    """Reads one type; a mistake reads as "anything", so that words of newer plugins are no mismatch."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = _TOKEN.findall(text)
        self.at = 0

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def union(self, *, commas: bool) -> _Type:
        """Read alternatives: "A, B or C". In lists and structures commas part entries, not alternatives."""
        start = self.at
        found = [self.one()]
        while True:
            if self.peek() == "or" or (commas and self.peek() == "," and self.peek(1) not in {"", "]", "}"}):
                self.next()
                found.append(self.one())
            else:
                break
        text = " ".join(self.tokens[start : self.at])
        return found[0] if len(found) == 1 else _Type("union", text, tuple(found))

    def one(self) -> _Type:
        word = self.next()
        if word == "integer" and self.peek(1) == "to":
            self.at += 3
        if word in _PLAIN:
            return _Type(word, word)
        if word[:1] in {'"', "-"} or word[:1].isdigit() or word in {"true", "false"}:
            return _Type("literal", word)
        return self.container(word)

    def container(self, word: str) -> _Type:
        following = self.peek()
        if word in {"array", "object"} and following == "of":
            self.next()
            return _Type(word, "", (self.one(),))
        if (word, following) == ("array", "["):
            return _Type("tuple", "", tuple(self.entries("]")))
        if (word, following) == ("object", "{"):
            return self.structure()
        return _Type("object" if word == "object" else "anything", word, (_Type("anything", "anything"),))

    def entries(self, end: str) -> list[_Type]:
        self.next()
        found: list[_Type] = []
        while self.peek() not in {end, ""}:
            found.append(self.union(commas=False))
            if self.peek() == ",":
                self.next()
        self.next()
        return found

    def structure(self) -> _Type:
        self.next()
        members: list[tuple[str, bool, _Type]] = []
        while self.peek() not in {"}", ""}:
            name = self.next()
            optional = self.peek() == "?"
            if optional:
                self.next()
            if self.peek() == ":":
                self.next()
            members.append((name, optional, self.union(commas=False)))
            if self.peek() == ",":
                self.next()
        self.next()
        return _Type("structure", "", (), tuple(members))


def fits(sent: str, taken: str) -> bool:
    """Tell whether `taken` accepts every value that `sent` describes. Ranges of integers are not compared."""
    return misfits(sent, taken) == ""


def misfits(sent: str, taken: str) -> str:
    """Return where a value of type `sent` may not be accepted as `taken`, as a path behind the value and a text."""
    if sent == taken:
        return ""
    return _misfit(_Parser(sent).union(commas=True), _Parser(taken).union(commas=True), "", _Question(sent, taken))


class _Question(NamedTuple):
    """Both types as people read them, for the answer."""

    sent: str
    taken: str

    def no(self, path: str) -> str:
        return f"{path}{': ' if path else ''}{self.sent} is sent, {self.taken} is taken"


def _misfit(sent: _Type, taken: _Type, path: str, asked: _Question) -> str:
    if "anything" in {sent.kind, taken.kind}:
        return ""
    if sent.kind == "union":
        return _first(_misfit(part, taken, path, asked) for part in sent.parts)
    if taken.kind == "union":
        fitting = any(not _misfit(sent, part, path, asked) for part in taken.parts)
    elif sent.kind == "literal":
        fitting = _literal_fits(sent.text, taken)
    elif sent.kind in _ARRAYS and taken.kind in _ARRAYS:
        return _misfit_of_arrays(sent, taken, path, asked)
    elif sent.kind in _OBJECTS and taken.kind in _OBJECTS:
        return _misfit_of_objects(sent, taken, path, asked)
    else:
        fitting = sent.kind == taken.kind or (sent.kind, taken.kind) == ("integer", "number")
    return "" if fitting else asked.no(path)


def _first(found: Iterable[str]) -> str:
    """Return the first text that is not empty."""
    return next(filter(None, found), "")


def _literal_fits(literal: str, taken: _Type) -> bool:
    if taken.kind == "literal":
        return taken.text == literal
    if literal[:1] == '"':
        return taken.kind == "string"
    if literal in {"true", "false"}:
        return taken.kind == "boolean"
    return taken.kind == "number" or (taken.kind == "integer" and "." not in literal)


def _misfit_of_arrays(sent: _Type, taken: _Type, path: str, asked: _Question) -> str:
    if taken.kind == "tuple" and (sent.kind == "array" or len(sent.parts) != len(taken.parts)):
        return asked.no(path)
    return _first(
        _misfit(
            part,
            taken.parts[i if taken.kind == "tuple" else 0],
            f"{path}[{i if sent.kind == 'tuple' else ''}]",
            asked,
        )
        for i, part in enumerate(sent.parts)
    )


def _misfit_of_objects(sent: _Type, taken: _Type, path: str, asked: _Question) -> str:
    if taken.kind == "object":
        parts = sent.parts if sent.kind == "object" else tuple(member for _, _, member in sent.members)
        return _first(_misfit(part, taken.parts[0], f"{path}.*", asked) for part in parts)
    if sent.kind == "object":
        wanted = sent.parts[0].kind != "anything" and any(not optional for _, optional, _ in taken.members)
        return asked.no(path) if wanted else ""
    known = {name: (optional, member) for name, optional, member in sent.members}
    for name, optional, member in taken.members:
        missing, sent_member = known.get(name, (True, None))
        if missing and not optional:
            return f"{path}.{name}: it is required, but may be missing in what is sent"
        if sent_member is not None and (found := _misfit(sent_member, member, f"{path}.{name}", asked)):
            return found
    return ""
