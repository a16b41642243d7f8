"""What `make check` claims, proved: each rule is broken once in a copy of the tree, and the check must name it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    ".clang-format",
    ".clang-tidy",
    ".gitignore",
    "CMakeLists.txt",
    "CMakePresets.json",
    "cmake",
    "include/leveret/version.hpp",
    "pyproject.toml",
    "scripts",
)
CLEAN_HPP = """#pragma once

namespace leveret::core {

[[nodiscard]] int answer();

}  // namespace leveret::core
"""
CLEAN_CPP = """#include "clean.hpp"

namespace leveret::core {

int answer() { return 42; }

}  // namespace leveret::core
"""
CLEAN_PY = '"""A module with nothing wrong."""\n'


class Plant(NamedTuple):
    """A breach: where it is put, what it is, and the names by which the check must call it."""

    part: str
    file: str
    text: str
    names: tuple[str, ...]


TIDY_PLANT = """#include "planted.hpp"

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

namespace leveret::core {

double half(int x) { return x / 2; }
char* word(char* text) { return std::strtok(text, " "); }
int zero(int x) { return x == 0 ? 1 / x : 0; }
std::size_t total(const std::vector<std::string>& words) {
  std::size_t sum = 0;
  for (const auto word : words) sum += word.size();
  return sum;
}
int* none() { return 0; }
int BadName() { return 1; }

}  // namespace leveret::core
"""
# Found only if headers of ours are looked into.
TIDY_HEADER = """#pragma once

namespace leveret::core {

class planted_in_header {
 private:
  int no_underscore = 0;
};

}  // namespace leveret::core
"""

PLANTS = {
    "hiredis elsewhere": Plant(
        "rules", "src/planted.cpp", "#include <hiredis/hiredis.h>\n", ("single-includer", "hiredis")
    ),
    "simdjson elsewhere": Plant("rules", "src/planted.cpp", "#include <simdjson.h>\n", ("single-includer", "simdjson")),
    "sqlite elsewhere": Plant("rules", "src/planted.cpp", "#include <sqlite3.h>\n", ("single-includer", "SQLite")),
    "sqlite in another transport": Plant(
        "rules", "src/transports/rabbitmq.cpp", "#include <sqlite3.h>\n", ("single-includer", "SQLite")
    ),
    "amqp elsewhere": Plant("rules", "src/planted.cpp", "#include <amqp.h>\n", ("single-includer", "rabbitmq-c")),
    "new amqp elsewhere": Plant(
        "rules",
        "src/transports/sqlite/planted.cpp",
        "#include <rabbitmq-c/amqp.h>\n",
        ("single-includer", "rabbitmq-c"),
    ),
    "CLI11 twice": Plant("rules", "src/one.cpp|src/two.cpp", "#include <CLI/CLI.hpp>\n", ("single-includer", "CLI11")),
    "OpenSSL twice": Plant(
        "rules", "src/one.cpp|src/two.cpp", "#include <openssl/rand.h>\n", ("single-includer", "OpenSSL")
    ),
    "Python in the core": Plant("rules", "src/planted.cpp", "#include <Python.h>\n", ("no-python-in-core",)),
    "Python in a public header": Plant(
        "rules", "include/leveret/planted.hpp", "#include <Python.h>\n", ("no-python-in-core",)
    ),
    "nanobind in the core": Plant(
        "rules", "src/pools/planted.hpp", "#include <nanobind/nanobind.h>\n", ("no-python-in-core", "single-includer")
    ),
    "library in a public header": Plant(
        "rules", "include/leveret/planted.h", "#include <zlib.h>\n", ("public-headers",)
    ),
    "core header in a public one": Plant(
        "rules", "include/leveret/planted.hpp", '#include "clean.hpp"\n', ("public-headers",)
    ),
    "core prints": Plant("rules", "src/planted.cpp", 'void f() { std::cout << "x"; }\n', ("quiet-core", "cout")),
    "core prints as C": Plant(
        "rules", "src/planted.cpp", 'void f() { fprintf(stderr, "x"); }\n', ("quiet-core", "fprintf")
    ),
    "core exits": Plant("rules", "src/planted.cpp", "void f() { std::exit(1); }\n", ("quiet-core", "exit")),
    "core aborts": Plant("rules", "bindings/planted.cpp", "void f() { abort(); }\n", ("quiet-core", "abort")),
    "long file": Plant("rules", "src/planted.cpp", "\n" * 601, ("file-length", "601 lines")),
    "machine path": Plant("rules", "docs/planted.md", "see /wo" + "rk/main\n", ("machine-path",)),
    "a home": Plant("rules", "scripts/planted.sh", "cd /ho" + "me/me/src\n", ("machine-path",)),
    "skipped Python test": Plant("rules", "tests/python/test_x.py", "@pytest.mark.sk" + "ip\n", ("no-skip",)),
    "skipped C++ test": Plant("rules", "tests/cpp/x_test.cpp", "GTEST_SK" + "IP();\n", ("no-skip",)),
    "ruff": Plant("ruff", "python/leveret/planted.py", '"""Planted."""\n\nimport os\n', ("F401",)),
    "ruff on scripts": Plant("ruff", "scripts/planted.py", "def f(): eval('1')\n", ("S307", "D103")),
    "ruff format": Plant(
        "ruff-format", "python/leveret/planted.py", '"""Planted."""\n\nx = [ 1,2 ]\n', ("planted.py",)
    ),
    "mypy": Plant("mypy", "python/leveret/planted.py", "def f(x): return x\n", ("no-untyped-def", "planted.py")),
    "pyright": Plant("pyright", "python/leveret/planted.py", 'x: int = "one"\n', ("reportAssignmentType",)),
    "pyright, strictly": Plant(
        "pyright", "python/leveret/planted.py", "def f(x):\n    return x\n", ("reportMissingParameterType",)
    ),
    "clang-format": Plant(
        "clang-format", "src/planted.cpp", "int  x ;\n", ("planted.cpp:1", "clang-format-violations")
    ),
    "clang-format on tests": Plant(
        "clang-format", "tests/cpp/planted_test.cpp", "int  x ;\n", ("planted_test.cpp:1", "clang-format-violations")
    ),
    "clang-tidy": Plant(
        "clang-tidy",
        "src/planted.cpp",
        TIDY_PLANT,
        (
            "bugprone-integer-division",
            "clang-analyzer-core.DivideZero",
            "concurrency-mt-unsafe",
            "performance-for-range-copy",
            "modernize-use-nullptr",
            "readability-identifier-naming",
            "invalid case style for function 'BadName'",
            "invalid case style for private member 'no_underscore'",
        ),
    ),
    # Its source was found clean before, and did not change: a cache by the source alone would miss it.
    "clang-tidy on a header": Plant(
        "clang-tidy",
        "src/clean.hpp",
        CLEAN_HPP.replace("answer();", "answer();\nvoid BadName();"),
        ("invalid case style for function 'BadName'",),
    ),
}


def check(tree: Path, *parts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/check", *parts], cwd=tree, check=False, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a small tree with the project's own configuration, in which every part of the check passes."""
    tree = tmp_path_factory.mktemp("tree")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / name)
    (tree / ".venv").symlink_to(sys.prefix)
    for name, text in {
        "src/clean.cpp": CLEAN_CPP,
        "src/clean.hpp": CLEAN_HPP,
        "python/leveret/__init__.py": CLEAN_PY,
        "tests/typing/test_clean.py": CLEAN_PY,
    }.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    answer = check(tree)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return tree


@pytest.fixture
def planted(tree: Path, request: pytest.FixtureRequest) -> Iterator[Plant]:
    """Plant one breach, and take it out again."""
    plant: Plant = request.param
    changed = {tree / name: plant.text for name in plant.file.split("|")}
    if plant.text is TIDY_PLANT:
        changed[tree / "src/planted.hpp"] = TIDY_HEADER
    before = {path: path.read_text() if path.exists() else None for path in changed}
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    yield plant
    for path, text in before.items():
        path.unlink() if text is None else path.write_text(text)


@pytest.mark.parametrize("planted", PLANTS.values(), ids=PLANTS.keys(), indirect=True)
def test_check_names_the_planted_breach(tree: Path, planted: Plant) -> None:
    answer = check(tree, planted.part)
    assert answer.returncode == 1, answer.stdout
    assert f"check {planted.part}: FAILED" in answer.stdout
    found = answer.stdout + answer.stderr
    assert [name for name in planted.names if name not in found] == [], found


def test_every_part_of_the_check_has_a_planted_breach(tree: Path) -> None:
    parts = check(tree, "--list").stdout.split()
    assert set(parts) == {plant.part for plant in PLANTS.values()}


def test_a_part_that_does_not_exist_is_refused(tree: Path) -> None:
    answer = check(tree, "spelling")
    assert answer.returncode == 2
    assert "no part is called spelling" in answer.stderr
