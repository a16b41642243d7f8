"""mypy and pyright on user-like code: what they must take, and what they must refuse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CALLS = ROOT / "tests/typing/calls.py"
IGNORE = re.compile(r"  # type: ignore\[[a-z-]+\]")
TOOLS = Path(sys.executable).parent


def run(*command: str | Path, cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True).stdout


def mypy(file: Path) -> set[int]:
    """Return the lines in which mypy finds an error."""
    said = run(TOOLS / "mypy", "--strict", "--no-incremental", "--config-file=", file.name, cwd=file.parent)
    assert "Found" in said or "Success" in said, said
    return {int(line) for line in re.findall(rf"^{file.name}:(\d+): error:", said, re.MULTILINE)}


def pyright(file: Path) -> set[int]:
    """Return the lines in which pyright finds an error, in its strict mode."""
    settings = {"typeCheckingMode": "strict", "include": [file.name], "enableTypeIgnoreComments": True}
    (file.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    said = run(TOOLS / "pyright", "--pythonpath", sys.executable, "--outputjson", "-p", file.parent, cwd=file.parent)
    report = json.loads(said)
    assert report["summary"]["filesAnalyzed"] == 1, said
    return {
        found["range"]["start"]["line"] + 1 for found in report["generalDiagnostics"] if found["severity"] == "error"
    }


CHECKERS = {"mypy": mypy, "pyright": pyright}


@pytest.mark.parametrize("checker", CHECKERS.values(), ids=CHECKERS.keys())
def test_right_calls_are_taken(checker: object, tmp_path: Path) -> None:
    file = tmp_path / "calls.py"
    file.write_text(CALLS.read_text())
    assert callable(checker)
    assert checker(file) == set()


@pytest.mark.parametrize("checker", CHECKERS.values(), ids=CHECKERS.keys())
def test_exactly_the_wrong_calls_are_refused(checker: object, tmp_path: Path) -> None:
    text = CALLS.read_text()
    wrong = {number for number, line in enumerate(text.splitlines(), 1) if IGNORE.search(line)}
    assert len(wrong) == 23
    file = tmp_path / "calls.py"
    file.write_text(IGNORE.sub("", text))
    assert callable(checker)
    assert checker(file) == wrong
