"""`leveret check` and `leveret worker --describe` on an app and a compiled plugin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from support.processes import leveret

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = """
#include <leveret/worker.hpp>
#include <map>
using leveret::arg;
LEVERET_TASKS(tasks) {
  tasks.add("add", [](std::int64_t x, int y) { return x + y; }, arg("x"), arg("y") = 1).max_retries(7);
  tasks.add("mean", [](std::vector<double> v) { return v.empty() ? 0.0 : v[0]; }, arg("values"));
  tasks.add("rename", [](std::string a, std::string b) { return a + b; }, arg("old"), arg("fresh"));
  tasks.add("count", [](std::map<std::string, std::int64_t> m) { return m.size(); }, arg("m")).queue("counts");
  tasks.add("mine", [] {});
}
"""
GOOD = """
import leveret
app = leveret.App()
@app.native
def add(x: int, y: int = 3) -> int: ...
@app.native
def mean(values: list[int]) -> float: ...
@app.task(max_retries=2)
def python(text: str, *rest: int, flag: bool = False) -> dict[str, int] | None: ...
"""
BAD = """
import leveret
app = leveret.App()
@app.native
def add(x: int, y: int, z: int) -> str: ...
@app.native
def mean(values: list[str]) -> float: ...
@app.native
def rename(old: str, new: str) -> str: ...
@app.native
def count(m: dict[str, int], *, extra: int = 0) -> int: ...
@app.native
def gone() -> None: ...
@app.task
def mine() -> None: ...
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled plugin."""
    folder = tmp_path_factory.mktemp("describe")
    (folder / "work.cpp").write_text(PLUGIN)
    leveret("build", folder / "work.cpp", "-o", folder / "work.so")
    return folder / "work.so"


def test_what_agrees_passes(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    done = leveret("check", "good:app", plugin, cwd=tmp_path)
    assert done.stdout == "5 tasks in plugins, 3 in apps, 0 mismatches\n"


def test_every_mismatch_is_named(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    done = leveret("check", "bad:app", plugin, "--json", cwd=tmp_path, expect=1)
    answer = json.loads(done.stdout)
    assert answer["tasks"] == 6
    found = [f"{each['task']}: {each['what'].partition(' (')[0]}" for each in answer["mismatches"]]
    assert found == [
        "add: 3 arguments are sent, 2 are taken",
        "add: result: integer is sent, string is taken",
        'count: it is sent to queue "native", but its worker consumes "counts" unless told otherwise',
        'count: "extra" is sent by name, but not taken',
        "gone: no plugin has it",
        'mean: args[0] "values": []: array of string is sent, array of number is taken',
        "mine: it is a Python task",
        'rename: args[1] "fresh": it is called "new" in Python',
    ]
    assert f"{tmp_path}/bad.py:4" in answer["mismatches"][0]["what"]


def test_a_worker_describes_what_it_has(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    done = leveret("worker", plugin, "good:app", "--describe", "--json", cwd=tmp_path)
    described = {task["task"]: task for task in json.loads(done.stdout)}
    assert sorted(described) == ["add", "count", "mean", "mine", "python", "rename"]
    assert described["add"] == {
        "task": "add",
        "queue": "native",
        "max_retries": 7,
        "signature": {
            "args": [
                {"name": "x", "type": "integer", "required": True},
                {"name": "y", "type": "integer -2147483648 to 2147483647", "required": False},
            ],
            "returns": "integer",
        },
    }
    assert described["python"] == {
        "task": "python",
        "queue": "default",
        "max_retries": 2,
        "signature": {
            "args": [
                {"name": "text", "type": "string", "required": True},
                {"name": "rest", "type": "integer", "required": False},
                {"name": "flag", "type": "boolean", "required": False},
            ],
            "returns": "object of integer or null",
        },
    }
    table = leveret("worker", plugin, "good:app", "--describe", cwd=tmp_path).stdout
    assert "(x: integer, y: integer -2147483648 to 2147483647 = …) -> integer" in table


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["good:app"], "give at least one app"),
        (["nothere:app", "work.so"], 'no module "nothere"'),
        (["good:nothing", "work.so"], 'has no "nothing"'),
        (["good:leveret", "work.so"], "it is module, not a leveret.App"),
        (["good:", "work.so"], "an app is named module:name"),
        (["good:app", "nothere.so"], "cannot load plugin"),
    ],
)
def test_what_can_not_be_loaded_is_said(plugin: Path, tmp_path: Path, words: list[str], text: str) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    words = [str(plugin) if word == "work.so" else word for word in words]
    done = leveret("check", *words, cwd=tmp_path, expect=2)
    assert text in done.stderr
    assert done.stderr.count("\n") == 1
