"""The wire contract in Python: a strict decoder of job lines, independent of the C++ one.

Both decide alike on every input; the golden vectors in `contracts/` and a differential fuzz test hold them to it. The
rules, and the order in which the faults of one line are reported, are described in `contracts/README.md`.

Standard library only. Pure functions: nothing blocks, and any thread may call them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LINE_BYTES: Final = 1 << 20
MAX_NAME_BYTES: Final = 255
MAX_DEPTH: Final = 128
MAX_RETRY_COUNT: Final = 1_000_000
MAX_RETRIES: Final = (1 << 31) - 1
MAX_DEADLINE_MS: Final = (1 << 53) - 1

RESERVED: Final = ("key", "then", "headers")
OPTIONAL: Final = ("id", "args", "kwargs", "max_retries", "deadline_ms", "expires_at", "errors", *RESERVED)

SIGNED_HEADERS: Final = ("x-leveret-suspect", "x-leveret-crashes", "x-leveret-unknown-since")
CLAIM_HEADER: Final = "x-leveret-once"
SHARDS_HEADER: Final = "x-leveret-shards"

_LOWEST: Final = -(1 << 63)
_HIGHEST: Final = (1 << 64) - 1
_INTEGER_DIGITS: Final = 20
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# A string, ended or not, or a bracket outside strings. Possessive, so that no text makes it backtrack.
_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+\\?+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|.)", re.DOTALL)


class Refused(ValueError):  # noqa: N818 - a verdict on a line, told by its reason; no failure of the program
    """A line that the contract refuses.

    Attributes:
        reason: The contract's name of the fault, such as `duplicate_key`.
        text: What and where, for people.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Line:
    """A decoded line.

    Attributes:
        foreign: True for an object without `task`: `whole` is what a default task gets.
        whole: The whole object.
        task: The task's name; empty for a foreign object.
        id: The explicit id, or a foreign object's label; empty when there is none.
        retry_count: How many attempts failed before this one.
        max_retries: The job's own limit, if it has one.
        deadline_ms: Milliseconds within which an attempt should end, if the job says so.
        expires_at: Milliseconds since 1970 from which the job is not to be started any more, if it says so.
        args: Positional arguments.
        kwargs: Named arguments.
        errors: Earlier failed attempts, oldest first, as they stand.
    """

    foreign: bool
    whole: dict[str, Any]
    task: str = ""
    id: str = ""
    retry_count: int = 0
    max_retries: int | None = None
    deadline_ms: int | None = None
    expires_at: int | None = None
    args: list[Any] = field(default_factory=list[Any])
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    errors: list[Any] = field(default_factory=list[Any])


def split_lines(body: bytes) -> list[bytes]:
    r"""Split a message's body into its lines, without their `\n`. The final newline is optional."""
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def decode_line(line: bytes) -> Line:
    r"""Decode one line, given without its `\n`; one trailing CR belongs to the line's end.

    Raises:
        Refused: The line breaks the contract. Of several faults the first in the contract's order is told.
    """
    line = line.removesuffix(b"\r")
    if not line:
        raise Refused("empty_line", "the line is empty; a line is one JSON object")
    if line.startswith(_BYTE_ORDER_MARK):
        raise Refused("byte_order_mark", "the line begins with a byte order mark; write UTF-8 without one")
    if len(line) > MAX_LINE_BYTES:
        raise Refused(
            "too_long", f"the line is longer than {MAX_LINE_BYTES} bytes; send a reference to the data instead"
        )
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("not_utf8", f"the line is not valid UTF-8 ({error}); encode it as UTF-8") from error
    if _nesting(line) > MAX_DEPTH:
        raise Refused("too_deep", f"nested deeper than {MAX_DEPTH} levels; flatten the arguments")
    if b"\n" in line:
        raise Refused("not_json", "a line feed within the line; write a job without line breaks")
    whole = _Profile().parse(text)
    if not _is_object(whole):
        raise Refused("not_object", "the line is JSON, but not an object; a job is one JSON object")
    return _job(whole) if "task" in whole else _foreign(whole)


def signature(  # noqa: PLR0913 - what is signed
    key: str,
    secret: str,
    *,
    id: str,  # noqa: A002 - the word for it everywhere else
    queue: str,
    reply: str = "",
    body: bytes,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Return the header `x-leveret-signature` of a message.

    Args:
        key: The key's id.
        secret: Its secret.
        id: The message's id.
        queue: The queue that it is published to.
        reply: Where its results go; empty without.
        body: Its lines.
        headers: Its other headers.
    """
    said = headers or {}
    fields = (
        b"leveret-message-1",
        id.encode(),
        queue.removesuffix(".suspects").encode(),
        reply.encode(),
        *(said.get(name, "").encode() for name in SIGNED_HEADERS),
        *([said[CLAIM_HEADER].encode()] if CLAIM_HEADER in said else []),
        *([SHARDS_HEADER.encode(), said[SHARDS_HEADER].encode()] if SHARDS_HEADER in said else []),
        body,
    )
    signed = b"".join(len(each).to_bytes(8, "big") + each for each in fields)
    return f"{key}:{hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _nesting(line: bytes) -> int:
    """Deepest nesting of brackets, those in strings not counted: a count of characters, defined for any text."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return 0  # not deep enough to matter
    depth = deepest = 0
    for match in _STRING_OR_BRACKET.finditer(line):
        first = line[match.start()]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


class _Profile:
    """One parse by the standard library's parser, whose leniencies the hooks take back.

    Syntax comes before range, range before duplicates: so the hooks only note what they find.
    """

    def __init__(self) -> None:
        self.out_of_range = ""
        self.duplicate: str | None = None

    def parse(self, text: str) -> Any:
        self._refuse_lone_surrogates(text)
        try:
            value = json.loads(
                text,
                parse_int=self._integer,
                parse_float=self._real,
                parse_constant=self._constant,
                object_pairs_hook=self._object,
            )
        except json.JSONDecodeError as error:
            raise Refused("not_json", f"not valid JSON: {error}") from error
        if self.out_of_range:
            raise Refused("number_range", f"{self.out_of_range}; send it as a string")
        if self.duplicate is not None:
            raise Refused(
                "duplicate_key", f"the key {self.duplicate[:64]!r} stands twice in one object; keep one of them"
            )
        return value

    @staticmethod
    def _refuse_lone_surrogates(text: str) -> None:
        r"""Refuse `\ud800` without its other half: the parser would make a string of it that no UTF-8 can hold.

        Escapes are read one after the other, as in a string: outside strings a backslash is a fault anyway.
        """
        if "\\ud" not in text and "\\uD" not in text:
            return
        awaited = -1  # where the second half must begin
        for match in _ESCAPE.finditer(text):
            unit = int(match[1], 16) if match[1] else 0
            low = 0xDC00 <= unit <= 0xDFFF  # noqa: PLR2004 - the range of second halves
            if low != (match.start() == awaited) or (awaited >= 0 and not low):
                break
            awaited = match.end() if 0xD800 <= unit <= 0xDBFF else -1  # noqa: PLR2004 - the range of first halves
        else:
            if awaited < 0:
                return
        raise Refused("not_json", "a surrogate without its other half")

    def _integer(self, digits: str) -> int:
        # Length first: Python refuses to convert more than some thousand digits.
        value = int(digits) if len(digits) <= _INTEGER_DIGITS else _HIGHEST + 1
        if not _LOWEST <= value <= _HIGHEST:
            self.out_of_range = "an integer outside -2^63 to 2^64-1"
        return value

    def _real(self, digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            self.out_of_range = "a number too large for a double"
        return value

    @staticmethod
    def _constant(name: str) -> Any:
        raise Refused("not_json", f"{name} is not JSON; use null or a string")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs) and self.duplicate is None:
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    self.duplicate = key
                    break
                seen.add(key)
        return members


def _job(whole: dict[str, Any]) -> Line:
    # Null says the same as leaving an optional field out: many languages' encoders write absent values so.
    given = {name: whole[name] for name in OPTIONAL if whole.get(name) is not None}
    for name in RESERVED:
        if name in given:
            raise Refused(
                "unsupported_field",
                f'the field "{name}" is reserved and not implemented; leave it out or use a newer worker',
            )
    return Line(
        foreign=False,
        whole=whole,
        task=_name(whole, "task"),
        id=_name(given, "id") if "id" in given else "",
        retry_count=_integer(whole, "retry_count", 0, MAX_RETRY_COUNT),
        max_retries=_integer(given, "max_retries", 0, MAX_RETRIES) if "max_retries" in given else None,
        deadline_ms=_integer(given, "deadline_ms", 1, MAX_DEADLINE_MS) if "deadline_ms" in given else None,
        expires_at=_integer(given, "expires_at", 0, MAX_DEADLINE_MS) if "expires_at" in given else None,
        args=_array(given, "args"),
        kwargs=_object(given, "kwargs"),
        errors=_array(given, "errors"),
    )


def _foreign(whole: dict[str, Any]) -> Line:
    label = whole.get("id")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str) or len(label.encode()) > MAX_NAME_BYTES:
        label = ""
    retry_count = 0
    if whole.get("retry_count") is not None:
        retry_count = _integer(whole, "retry_count", 0, MAX_RETRY_COUNT)
    return Line(foreign=True, whole=whole, id=label, retry_count=retry_count)


def _bad(name: str, expected: str) -> Refused:
    return Refused("bad_field", f'the field "{name}" must be {expected}')


def _integer(fields: dict[str, Any], name: str, low: int, high: int) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _bad(name, f"an integer from {low} to {high}")
    return value


def _name(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= MAX_NAME_BYTES:
        raise _bad(name, f"a string of 1 to {MAX_NAME_BYTES} bytes")
    return value


def _array(fields: dict[str, Any], name: str) -> list[Any]:
    value: list[Any] = fields.get(name, [])
    if type(value) is not list:
        raise _bad(name, "an array")
    return value


def _object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value: dict[str, Any] = fields.get(name, {})
    if type(value) is not dict:
        raise _bad(name, "an object")
    return value
