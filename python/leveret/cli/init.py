"""`leveret init`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from leveret.cli import _common

__all__ = ["command"]

_PYPROJECT = """[project]
name = "NAME"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["leveret"]

[project.optional-dependencies]
test = ["pytest"]

[tool.leveret]
url = "sqlite:///leveret.db"    # beside this file; another machine too: amqp://user:password@host
max_retries = 3
"""

_TASKS = '''"""The tasks of this project: one in Python, one in C++."""

import leveret

app = leveret.App()


@app.task(max_retries=5)
def greet(name: str) -> str:
    """Run by a Python worker."""
    return f"Hello {name}"


@app.native
def checksum(text: str, seed: int = 0) -> int:
    """Run by a C++ worker, see work.cpp: this function is its signature."""
    raise NotImplementedError
'''

_WORK = """// The native tasks: compile them with `leveret build work.cpp`.
#include <cstdint>
#include <leveret/worker.hpp>
#include <string>

using leveret::arg;

// FNV-1a, 32 bits.
std::int64_t checksum(const std::string& text, std::int64_t seed) {
  std::uint32_t hash = 2166136261u ^ static_cast<std::uint32_t>(seed);
  for (const unsigned char byte : text) hash = (hash ^ byte) * 16777619u;
  return hash;
}

LEVERET_TASKS(tasks) { tasks.add("checksum", checksum, arg("text"), arg("seed") = 0); }

int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
"""

_MAIN = '''"""Send a job of each task, and print the results."""

from pathlib import Path

from tasks import app, checksum, greet

plugins = [str(path) for path in Path(__file__).parent.glob("*.so")]  # by `leveret build work.cpp`

with app, app.worker(threads=2, plugins=plugins):  # a worker in this program; others may run elsewhere
    print(greet.send("Ann").result(timeout=60))
    if plugins:
        print(checksum.send("hare").result(timeout=60))
'''

_TEST = """from tasks import app, greet


def test_ann_is_greeted(leveret_engine):
    engine = leveret_engine(app)
    job = greet.send("Ann")
    assert engine.run_until_idle().succeeded == 1
    assert job.result(0) == "Hello Ann"
"""

_IGNORE = "leveret.db*\n*.so\n__pycache__/\n"

_FILES = {
    "pyproject.toml": _PYPROJECT,
    "tasks.py": _TASKS,
    "work.cpp": _WORK,
    "main.py": _MAIN,
    "test_tasks.py": _TEST,
    ".gitignore": _IGNORE,
}


@click.command("init", epilog="Example: leveret init shop && cd shop && leveret build work.cpp && python main.py")
@click.argument("folder", default=".", metavar="[FOLDER]")
@_common.as_json
def command(folder: str, as_json: bool) -> None:
    """Write a small project into FOLDER (made if it is not there): a task, a native task, a test, a pyproject.toml.

    It runs at once. Nothing that is there is overwritten: if one of the files exists, none is written.
    """
    path = Path(folder)
    taken = [name for name in _FILES if (path / name).exists()]
    if taken:
        raise ValueError(
            f"cannot write a project into {path.absolute()}: {', '.join(taken)} is there; name another folder"
        )
    name = re.sub(r"[^a-z0-9]+", "-", path.absolute().name.lower()).strip("-") or "project"
    try:
        path.mkdir(parents=True, exist_ok=True)
        for file, text in _FILES.items():
            (path / file).write_text(text.replace("NAME", name))
    except OSError as error:
        raise ValueError(f"cannot write into {path.absolute()}: {error.strerror}") from None
    if as_json:
        _common.emit({"folder": str(path.absolute()), "files": list(_FILES)})
        return
    print(f"wrote {', '.join(_FILES)} into {path.absolute()}")
    print(
        "next:"
        + (f" cd {shlex.quote(folder)};" if folder != "." else "")
        + " leveret build work.cpp; python main.py; python -m pytest"
    )
