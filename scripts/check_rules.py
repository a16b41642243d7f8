#!/usr/bin/env python3
"""House rules that no linter knows: which file may include what, what the core never does, what no file may hold.

Prints one line for each breach, `file:line: rule: what is wrong and where it belongs`, and exits with 1
if there is one. A rule with a pattern for paths takes paths relative to the checkout.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
CPP = (".cpp", ".hpp", ".h")
TEXT_LIMIT = 1_000_000
LINES = 600
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')

# Each third-party library, and the one place that includes it: a source file, or one folder.
# Where no place is named it is any one source file.
SINGLE_INCLUDER = {
    "simdjson": (r"simdjson\.h", r"src/codec(\.cpp|/.*)"),
    "SQLite": (r"sqlite3(ext)?\.h", r"src/transports/sqlite(\.cpp|/.*)"),
    "rabbitmq-c": (r"amqp.*\.h|rabbitmq-c/.*", r"src/transports/rabbitmq(\.cpp|/.*)|benchmarks/plain/.*"),
    "hiredis": (r"hiredis/.*", r"src/stores/redis(\.cpp|/.*)"),
    "CLI11": (r"CLI/.*", None),
    "OpenSSL": (r"openssl/.*", r"src/net/.*"),
    "nanobind": (r"nanobind/.*", r"bindings/.*"),
}

# The headers of C++17's standard library, and the C ones that the C ABI needs.
STANDARD = frozenset(
    """
    algorithm any array atomic bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes climits
    clocale cmath codecvt complex condition_variable csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib
    cstring ctime cuchar cwchar cwctype deque exception execution filesystem forward_list fstream functional
    future initializer_list iomanip ios iosfwd iostream istream iterator limits list locale map memory
    memory_resource mutex new numeric optional ostream queue random ratio regex scoped_allocator set
    shared_mutex sstream stack stdexcept streambuf string string_view strstream system_error thread tuple
    type_traits typeindex typeinfo unordered_map unordered_set utility valarray variant vector stddef.h
    stdint.h
    """.split(),  # noqa: SIM905 - a list of a hundred literals would be a hundred lines
)

# What talks to people is not the core: the worker as a program, its processes, and what only tests' builds have.
PROGRAM = re.compile(
    r"src/worker_(command|main)(_\w+)?\.cpp|src/worker_command/.*|include/leveret/worker\.hpp|bindings/pool_child\.cpp"
    r"|src/faults\.hpp"
)
# Not a member of that name: neither its call, nor its definition, nor its declaration.
LOUD = re.compile(
    r"(?<![\w.>:])(?<!void )(?:std::|::)?(?:cout|cerr|clog|printf|puts|putchar|fprintf|fputs|perror"
    r"|exit|_exit|_Exit|quick_exit|abort|terminate)"
    r"(?=\s*(?:\(|<<))"
)

# Written in pieces, lest this file breach its own rules.
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:" + r"work|root|home/[\w-]+|farm/in)/|\." + r"library/")
SKIP = re.compile(r"pytest\.(?:mark\.)?" + r"(?:skip|xfail)|unittest\.skip|GTEST_" + r"SKIP|\bDISABLED_\w")


class Breach(NamedTuple):
    """One line of a file that breaks a rule."""

    file: str
    line: int
    rule: str
    text: str


def tree() -> list[str]:
    """Return the project's files: those that git tracks or would add."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted(name for name in answer.split("\0") if name and (ROOT / name).is_file())


def lines(name: str) -> list[str]:
    """Return a file's lines; none of what is no text."""
    data = (ROOT / name).read_bytes()[:TEXT_LIMIT]
    return [] if b"\0" in data else data.decode(errors="replace").splitlines()


def without_comment(line: str) -> str:
    """Return a line of C++ without its string literals and its comment, as far as one line tells."""
    return re.sub(r"//.*|^\s*\*.*|/\*.*?(\*/|$)", "", re.sub(r'"(?:[^"\\]|\\.)*"', '""', line))


def includes(name: str) -> Iterator[tuple[int, str]]:
    """Yield line number and header of each include."""
    for number, line in enumerate(lines(name), 1):
        found = INCLUDE.match(line)
        if found:
            yield number, found[1]


def third_parties(sources: list[str]) -> Iterator[Breach]:
    """Hold the rule that one file includes a third-party library."""
    anywhere: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name in sources:
        for number, header in includes(name):
            for library, (pattern, place) in SINGLE_INCLUDER.items():
                if not re.fullmatch(pattern, header):
                    continue
                if place is None:
                    anywhere[library].append((name, number))
                elif not re.fullmatch(place, name):
                    yield Breach(name, number, "single-includer", f"<{header}> of {library} belongs in {place} alone")
    for library, places in anywhere.items():
        first = places[0][0]
        for name, number in places:
            if name != first:
                yield Breach(name, number, "single-includer", f"{library} is included by {first} already")


def core_without_python(sources: list[str]) -> Iterator[Breach]:
    """Hold the rule that the core knows no Python."""
    for name in sources:
        if name.startswith(("include/", "src/")):
            for number, header in includes(name):
                if re.fullmatch(r"Python\.h|nanobind/.*|pybind11/.*", header):
                    yield Breach(name, number, "no-python-in-core", f"<{header}> belongs in bindings/")


def public_headers(sources: list[str]) -> Iterator[Breach]:
    """Hold the rule that public headers need nothing but the standard library."""
    for name in sources:
        if name.startswith("include/"):
            for number, header in includes(name):
                if header not in STANDARD and not header.startswith("leveret/"):
                    text = f"<{header}>: public headers include the standard library and leveret/ alone"
                    yield Breach(name, number, "public-headers", text)


def quiet_core(sources: list[str]) -> Iterator[Breach]:
    """Hold the rule that the core neither prints nor ends the process."""
    for name in sources:
        if name.startswith(("include/", "src/", "bindings/")) and not PROGRAM.fullmatch(name):
            for number, line in enumerate(lines(name), 1):
                found = LOUD.search(without_comment(line))
                if found:
                    text = f"{found[0]}: the core never prints, exits or aborts; throw, or return the text"
                    yield Breach(name, number, "quiet-core", text)


def short_files(sources: list[str]) -> Iterator[Breach]:
    """Hold the rule that a source file that grew is split by responsibility."""
    for name in sources:
        count = len(lines(name))
        if name.startswith(("src/", "bindings/")) and count > LINES:
            yield Breach(
                name, count, "file-length", f"{count} lines, {LINES} at most: make it a folder, by responsibility"
            )


def machine_paths(files: list[str]) -> Iterator[Breach]:
    """Hold the rule that no file knows the machine it was written on."""
    for name in files:
        for number, line in enumerate(lines(name), 1):
            found = MACHINE_PATH.search(line)
            if found:
                yield Breach(name, number, "machine-path", f"{found[0]} is a place on one machine")


def no_skips(files: list[str]) -> Iterator[Breach]:
    """Hold the rule that a test runs or fails."""
    for name in files:
        if name.startswith("tests/"):
            for number, line in enumerate(lines(name), 1):
                found = SKIP.search(line)
                if found:
                    yield Breach(name, number, "no-skip", f"{found[0]}: what a test needs and misses is a failure")


def main() -> int:
    """Print all breaches."""
    files = tree()
    sources = [name for name in files if name.endswith(CPP) and name.startswith(("include/", "src/", "bindings/"))]
    breaches: list[Breach] = []
    for of_sources in (third_parties, core_without_python, public_headers, quiet_core, short_files):
        breaches += of_sources(sources)
    for of_files in (machine_paths, no_skips):
        breaches += of_files(files)
    for breach in sorted(breaches):
        print(f"{breach.file}:{breach.line}: {breach.rule}: {breach.text}")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
