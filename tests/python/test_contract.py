from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from leveret.contract import MAX_LINE_BYTES, Refused, decode_line, signature, split_lines
from leveret.once import Once
from support.schema import Schema

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"


def vectors(name: str) -> list[Any]:
    text = (CONTRACTS / "vectors" / name).read_text(encoding="utf-8")
    return [pytest.param(vector, id=vector["name"]) for vector in map(json.loads, text.splitlines())]


def schema(name: str) -> Schema:
    return Schema(json.loads((CONTRACTS / name).read_text(encoding="utf-8")))


def bytes_of(vector: dict[str, Any], name: str) -> bytes:
    """Return the bytes that a vector gives as `name`, `name_base64` or `name_parts`."""
    if f"{name}_base64" in vector:
        return base64.b64decode(vector[f"{name}_base64"], validate=True)
    if f"{name}_parts" not in vector:
        return vector.get(name, "").encode()
    whole = b""
    for part in vector[f"{name}_parts"]:
        if isinstance(part, str):
            whole += part.encode()
        else:
            once = part["repeat"].encode() if "repeat" in part else base64.b64decode(part["repeat_base64"])
            whole += once * part["times"]
    return whole


def verdict(line: bytes) -> str:
    try:
        decode_line(line)
    except Refused as refused:
        return refused.reason
    return "accepted"


def exactly(value: Any) -> str:
    """Return a text that differs where values differ in type: 1, 1.0 and True are equal in Python, 0.0 and -0.0 too."""
    return json.dumps(value)


@pytest.mark.parametrize("vector", vectors("lines.jsonl"))
def test_line_is_accepted_or_refused_as_its_vector_says(vector: dict[str, Any]) -> None:
    assert verdict(bytes_of(vector, "line")) == vector.get("refused", "accepted")


def test_json_texts_are_many() -> None:
    assert len(vectors("json.jsonl")) >= 600


@pytest.mark.parametrize("vector", vectors("json.jsonl"))
def test_json_text_is_accepted_or_refused_as_its_vector_says(vector: dict[str, Any]) -> None:
    found = verdict(bytes_of(vector, "text"))
    # JSON's own faults are told before this one.
    assert ("accepted" if found == "not_object" else found) == vector.get("refused", "accepted")


@pytest.mark.parametrize(
    "vector",
    [v for v in vectors("json.jsonl") if "accepted" in v.values[0] and "128" not in v.values[0]["name"]],
)
def test_accepted_json_text_is_an_argument_of_the_same_value(vector: dict[str, Any]) -> None:
    text = bytes_of(vector, "text")
    if len(text) <= MAX_LINE_BYTES // 2:
        line = decode_line(b'{"task":"t","retry_count":0,"args":[%s]}' % text)
        assert exactly(line.args) == exactly([json.loads(text)])


@pytest.mark.parametrize("vector", [v for v in vectors("lines.jsonl") if "accepted" in v.values[0]])
def test_accepted_line_is_decoded_as_its_vector_says(vector: dict[str, Any]) -> None:
    line = bytes_of(vector, "line")
    decoded = decode_line(line)
    expected = vector["accepted"]
    assert decoded.foreign == expected.get("foreign", False)
    assert decoded.task.encode() == bytes_of(expected, "task")
    assert decoded.id.encode() == bytes_of(expected, "id")
    assert exactly(decoded.retry_count) == exactly(expected["retry_count"])
    assert exactly(decoded.max_retries) == exactly(expected.get("max_retries"))
    assert exactly(decoded.deadline_ms) == exactly(expected.get("deadline_ms"))
    assert exactly(decoded.expires_at) == exactly(expected.get("expires_at"))
    assert exactly(decoded.args) == exactly(expected.get("args", []))
    assert exactly(decoded.kwargs) == exactly(expected.get("kwargs", {}))
    assert exactly(decoded.whole) == exactly(json.loads(line))


@pytest.mark.parametrize("vector", vectors("bodies.jsonl"))
def test_body_is_split_and_a_bad_line_is_bad_alone(vector: dict[str, Any]) -> None:
    assert [verdict(line) for line in split_lines(bytes_of(vector, "body"))] == vector["lines"]


@pytest.mark.parametrize("vector", vectors("lines.jsonl"))
def test_job_schema_agrees_where_a_schema_can_tell(vector: dict[str, Any]) -> None:
    faults_of_fields = ("bad_field", "unsupported_field")
    if "accepted" not in vector and vector["refused"] not in faults_of_fields:
        return  # not a matter of fields
    job = json.loads(bytes_of(vector, "line"))
    if "task" not in job:
        return  # foreign
    agrees = schema("job.schema.json").accepts(job) == ("accepted" in vector)
    assert agrees == ("schema" not in vector)


@pytest.mark.parametrize("vector", vectors("records.jsonl"))
def test_what_leveret_writes_fits_its_schema(vector: dict[str, Any]) -> None:
    names = {
        "job": "job.schema.json",
        "rewrite": "job.schema.json",
        "result": "result.schema.json",
        "results": "result.schema.json",
        "dead_result": "result.schema.json",
        "expired_result": "result.schema.json",
        "cancelled_result": "result.schema.json",
        "dead_record": "dead.schema.json",
    }
    written = vector["text"]
    value = json.loads(written)
    if vector["writes"] in ("job", "rewrite"):
        decoded = decode_line(written.removesuffix("\n").encode())
        if decoded.foreign:
            return
    assert schema(names[vector["writes"]]).accepts(value)


@pytest.mark.parametrize("vector", vectors("signatures.jsonl"))
def test_message_is_signed_as_its_vector_says(vector: dict[str, Any]) -> None:
    told = {name: vector[name] for name in ("id", "queue", "reply", "headers")}
    assert signature(vector["key"], vector["secret"], body=vector["body"].encode(), **told) == vector["signature"]


@pytest.mark.parametrize("vector", vectors("claims.jsonl"))
def test_a_job_claims_what_its_vector_says(vector: dict[str, Any]) -> None:
    line = vector["line"].encode()
    once = Once(until="end").changed(vector["idempotency_key"], None, None)
    assert once.claim_of_line(json.loads(line)["task"], line)[0] == vector["claim"]


def test_schemas_refuse_what_is_not_theirs() -> None:
    assert not schema("result.schema.json").accepts({"line": 0, "result": 1})
    assert not schema("result.schema.json").accepts({"line": 1, "result": 1, "state": "dead"})
    assert not schema("result.schema.json").accepts({"line": 1, "results": [1]})
    assert not schema("result.schema.json").accepts({"line": 1, "results": [1, [2]]})
    assert not schema("dead.schema.json").accepts({"id": "", "task": "", "queue": "", "reason": "exception"})


def test_refusal_names_reason_and_place() -> None:
    with pytest.raises(
        Refused, match=r'^bad_field: the field "retry_count" must be an integer from 0 to 1000000$'
    ) as told:
        decode_line(b'{"task":"t","retry_count":-1}')
    assert told.value.reason == "bad_field"


def test_hostile_text_costs_linear_time() -> None:
    # Each of these made a careless pattern or a recursive parser take minutes, or end the process.
    for hostile in (
        b'\\"' * 500_000,
        b'"' + b"\\" * 1_000_000,
        b"[" * 1_000_000,
        b'"' * 1_000_000,
        b"{[" + b'"\\' * 500_000,
    ):
        assert len(hostile) <= MAX_LINE_BYTES
        assert verdict(hostile) in {"too_deep", "not_json"}
    brackets = b'"' + b'\\"[' * 300_000
    assert verdict(brackets) == "not_json"
