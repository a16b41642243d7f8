#!/usr/bin/env python3
"""Differential fuzzing: the C++ codec and the Python one must decide alike on every input, and decode alike.

    fuzz/differential.py --program build/release/codec_verdicts [--seconds 5] [--seed N]

Inputs are the golden vectors, mutations of them, and JSON made up from awkward pieces. The seed is printed; a run with
the same seed and the same number of seconds or more meets the same inputs again. On a disagreement it prints the
smallest input found that shows it, and exits with 1.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import random
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BATCH = 1000
LARGE = 20_000
MADE_UP_DEPTH = 5

PUNCTUATION = '{ } [ ] , : " \\ "" {} [] null true false NaN Infinity -Infinity - + . e E 0 00'
NUMBERS = "-0 -0.0 1e400 -1e400 1e-400 1e2 5e-324 1.7976931348623157e308 0x1 1. .5 01"
BOUNDS = (-(2**63) - 1, -(2**63), 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**53, 1_000_000, 1_000_001)
ESCAPES = r"\u0000 \ud800 \udc00 \ud83d\udc07 \uD800\uD800 \" \\ \/ \x \u12 \u005f"
CONTRACT_FIELDS = (
    "task id args kwargs retry_count max_retries deadline_ms errors expires_at key then headers".split()  # noqa: SIM905
)
FIELDS = [*CONTRACT_FIELDS, "x", "", "a", "b", "\u00e9"]
TOKENS = [
    *f"{PUNCTUATION} {NUMBERS} {ESCAPES}".encode().split(b" "),
    *(str(bound).encode() for bound in BOUNDS),
    *(b'"%s":' % name.encode() for name in FIELDS),
    *(b" ", b"\t", b"\r", b"\n", b"\0", b"\x1f", b"\x7f", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"),
    *(character.encode() for character in "\ufeff\u00e9\u20ac\u00a0\u2028\U0010ffff"),
    *(b"[" * 127, b"]" * 127, b"[" * 128, b"]" * 128, b'{"a":' * 127, b"}" * 127),
    *(b'"task":"t",', b'"retry_count":0', b'"a":1,"a":2', b'"\\u0061":1'),
]


def contract() -> ModuleType:
    """Load the decoder by its path: it needs nothing else of the package, built or not."""
    spec = importlib.util.spec_from_file_location("leveret_contract", ROOT / "python/leveret/contract.py")
    if spec is None or spec.loader is None:
        raise ImportError("cannot load python/leveret/contract.py: no loader for it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CONTRACT = contract()


def seeds() -> list[bytes]:
    """Return the inputs of the golden vectors; JSON texts alone and as an argument of a job."""
    texts = inputs_of("json", "text")
    jobs = [b'{"task":"t","retry_count":0,"args":[%s]}' % text for text in texts]
    return [*inputs_of("lines", "line"), *inputs_of("bodies", "body"), *texts, *jobs]


def inputs_of(name: str, field: str) -> list[bytes]:
    """Return the inputs that one file of vectors has in a field."""
    found: list[bytes] = []
    for text in (ROOT / f"contracts/vectors/{name}.jsonl").read_text(encoding="utf-8").splitlines():
        vector = json.loads(text)
        if field in vector:
            found.append(vector[field].encode())
        elif f"{field}_base64" in vector:
            found.append(base64.b64decode(vector[f"{field}_base64"]))
        elif f"{field}_parts" in vector:
            found.append(b"".join(map(part_of, vector[f"{field}_parts"])))
    return found


def part_of(part: str | dict[str, Any]) -> bytes:
    """Return the bytes of one part of a vector's input."""
    if isinstance(part, str):
        return part.encode()
    once = part["repeat"].encode() if "repeat" in part else base64.b64decode(part["repeat_base64"])
    return bytes(once * part["times"])


class Inputs:
    """An endless source of inputs from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - a repeatable sequence is wanted
        self.seeds = seeds()
        self.small = [line for line in self.seeds if len(line) < LARGE]

    def chance(self, probability: float) -> bool:
        """Throw a coin."""
        return self.random.random() < probability

    def next(self) -> bytes:
        """Return the next input."""
        if self.chance(0.6):
            return self.mutated(self.random.choice(self.small))
        made = self.job() if self.chance(0.5) else self.value(0)
        return self.mutated(made) if self.chance(0.3) else made

    def mutated(self, line: bytes) -> bytes:
        """Change a line in one to four places."""
        text = bytearray(line)
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            at = self.random.randint(0, len(text))
            end = min(len(text), at + self.random.choice((0, 1, 1, 2, 5, 20)))
            match self.random.randrange(6):
                case 0:
                    text[at:at] = self.random.choice(TOKENS)
                case 1:
                    text[at:end] = self.random.choice(TOKENS)
                case 2:
                    del text[at:end]
                case 3:
                    text[at:at] = text[at:end] * self.random.choice((1, 1, 2, 150))
                case 4 if at < len(text):
                    text[at] = self.random.choice(
                        (text[at] ^ (1 << self.random.randrange(8)), self.random.randrange(256))
                    )
                case _:
                    other = self.random.choice(self.small)
                    cut = self.random.randint(0, len(other))
                    text[at:] = other[cut:]
        return bytes(text)

    def job(self) -> bytes:
        """Make up an object of the contract's fields, mostly right."""
        right = {
            "task": b'"t"',
            "retry_count": b"0",
            "args": b"[1]",
            "kwargs": b'{"a":1}',
            "id": b'"i"',
            "max_retries": b"3",
            "deadline_ms": b"1000",
            "expires_at": b"1767225600000",
            "errors": b"[]",
        }
        names = self.random.sample(FIELDS, self.random.randint(0, 6))
        if self.chance(0.9):
            names = ["task", "retry_count", *(n for n in names if n not in ("task", "retry_count"))]
        members = [
            self.string(n) + b":" + (right[n] if n in right and self.chance(0.7) else self.value(2)) for n in names
        ]
        self.random.shuffle(members)
        return b"{" + b",".join(members) + b"}"

    def value(self, depth: int) -> bytes:
        """Make up a JSON value."""
        kind = self.random.randrange(9 if depth < MADE_UP_DEPTH else 6)
        if kind == 0:
            return self.random.choice((b"null", b"true", b"false"))
        if kind in (1, 2):
            return self.number()
        if kind in (3, 4, 5):
            return self.string(self.random.choice(FIELDS))
        space = self.random.choice((b"", b"", b"", b" ", b"\t", b"\r"))
        comma = space + b"," + space
        if kind in (6, 7):
            return b"[" + space + comma.join(self.value(depth + 1) for _ in range(self.random.randint(0, 4))) + b"]"
        some = self.random.choice((2, 3, 16, 30)) if self.chance(0.2) else self.random.randint(0, 3)
        keys = [
            self.random.choice((self.random.choice(FIELDS), f"k{self.random.randrange(some * 20 + 1)}"))
            for _ in range(some)
        ]
        return b"{" + comma.join(self.string(key) + space + b":" + self.value(depth + 1) for key in keys) + b"}"

    def number(self) -> bytes:
        """Make up a number, often near a bound."""
        near = self.random.choice((0, 1, 9, 2**31, 2**53, 2**63, 2**64, 10**19, self.random.getrandbits(70)))
        whole = near + self.random.randint(-2, 2)
        text = str(whole if self.chance(0.5) else -whole)
        if self.chance(0.3):
            fraction = self.random.getrandbits(self.random.choice((1, 20, 60, 300)))
            text += "." + str(fraction).zfill(self.random.choice((1, 5, 40)))
        if self.chance(0.3):
            exponent = self.random.choice((0, 1, 5, 22, 290, 308, 309, 324, 400, 10**20))
            text += self.random.choice("eE") + self.random.choice(("", "+", "-")) + str(exponent)
        return text.encode()

    def string(self, text: str) -> bytes:
        """Write a string literal, perhaps with escapes."""
        if self.chance(0.85):
            return json.dumps(text, ensure_ascii=False).encode()
        escaped = "".join(rf"\u{ord(character):04x}" for character in text)
        extra = (r"\ud83d\udc07", r"\ud800", r"\udfff", r"\u0000", r"\n", r"\/", "\U0001f407", "\u00e9", "\x1f", "\\q")
        return b'"' + escaped.encode() + self.random.choice(extra).encode() + b'"'


def by_cpp(program: Path, inputs: list[bytes]) -> list[str]:
    """Ask the C++ codec."""
    records = b"".join(struct.pack("<I", len(line)) + line for line in inputs)
    answer = subprocess.run([program], input=records, capture_output=True, check=False)
    lines = answer.stdout.decode().split("\n")[:-1]
    if answer.returncode != 0 or len(lines) != len(inputs):
        sys.stderr.write(answer.stderr.decode(errors="replace"))
        lines += [f"no answer: the program ended with {answer.returncode}"] * (len(inputs) - len(lines))
    return lines


def by_python(line: bytes) -> tuple[str, str]:
    """Ask the Python codec: the verdict, and what was decoded."""
    try:
        job = CONTRACT.decode_line(line)
    except CONTRACT.Refused as refused:
        return refused.reason, ""
    kwargs, args = job.kwargs, job.args
    limits = [job.max_retries, job.deadline_ms, job.expires_at]
    fields = [job.foreign, job.task, job.id, job.retry_count, *limits, args, kwargs, job.whole if job.foreign else None]
    return "accepted", json.dumps(fields)


def disagreement(answer: str, line: bytes) -> str:
    """Say how the two disagree on a line, given C++'s answer; empty if they do not."""
    verdict, _, decoded = answer.partition(" ")
    expected, content = by_python(line)
    if verdict != expected:
        return f"C++: {answer[:200]}\nPython: {expected}"
    if decoded and json.dumps(json.loads(decoded)) != content:
        return f"decoded differently\nC++: {decoded[:500]}\nPython: {content[:500]}"
    return ""


def smallest(program: Path, line: bytes) -> bytes:
    """Cut pieces off a line as long as the two still disagree on it."""
    size = max(1, len(line) // 2)
    while size >= 1:
        shorter = [line[:at] + line[at + size :] for at in range(0, len(line), size)][:BATCH]
        found = (s for s, answer in zip(shorter, by_cpp(program, shorter), strict=True) if disagreement(answer, s))
        better = next(found, None)
        if better is None:
            size //= 2
        else:
            line = better
    return line


def main() -> int:
    """Fuzz for the time asked."""
    parser = argparse.ArgumentParser(description="Compare the verdicts of the C++ and the Python codec.")
    parser.add_argument("--program", type=Path, required=True, help="the program that fuzz/verdicts.cpp becomes")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long, at least (default: 5)")
    parser.add_argument("--seed", type=int, default=None, help="of the inputs (default: by chance; it is printed)")
    asked = parser.parse_args()
    seed: int = random.SystemRandom().randrange(1 << 32) if asked.seed is None else asked.seed
    print(f"seed {seed}", flush=True)

    source = Inputs(seed)
    batch = source.seeds
    end = time.monotonic() + asked.seconds
    count = accepted = 0
    while True:
        for line, answer in zip(batch, by_cpp(asked.program, batch), strict=True):
            if not (how := disagreement(answer, line)):
                count += 1
                accepted += answer.startswith("accepted")
                continue
            least = smallest(asked.program, line)
            print(f"disagreement at input {count}, seed {seed}\n{how}\n{least[:2000]!r}")
            print(f"base64 {base64.b64encode(least)[:4000].decode()}")
            return 1
        if time.monotonic() >= end:
            break
        batch = [source.next() for _ in range(BATCH)]
    print(f"{count} inputs, {accepted} of them accepted: no disagreement")
    return 0


if __name__ == "__main__":
    sys.exit(main())
