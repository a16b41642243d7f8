"""`leveret init` and completion, as a newcomer uses them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
KEPT = {name: value for name, value in os.environ.items() if not name.startswith(("LEVERET_", "PYTEST"))}


def run(*words: str | Path, cwd: Path, expect: int = 0) -> str:
    """Run a program of the environment and return what it printed."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, cwd=cwd, env={**KEPT, "PATH": path}, timeout=240
    )
    assert done.returncode == expect, done
    return done.stdout + (done.stderr if expect else "")


def test_a_new_project_runs_at_once(tmp_path: Path) -> None:
    said = run("leveret", "init", "My Shop", cwd=tmp_path)
    folder = tmp_path / "My Shop"
    assert "next: cd 'My Shop'; leveret build work.cpp; python main.py; python -m pytest" in said
    assert 'name = "my-shop"' in (folder / "pyproject.toml").read_text()
    assert run(sys.executable, "main.py", cwd=folder) == "Hello Ann\n"
    assert "checksum(text: string, seed: integer = ...)" in run("leveret", "build", "work.cpp", cwd=folder)
    assert run(sys.executable, "main.py", cwd=folder) == "Hello Ann\n3854785903\n"
    assert "1 passed" in run(sys.executable, "-m", "pytest", "-q", cwd=folder)
    settings = json.loads(run("leveret", "config", "show", "--json", cwd=folder))["settings"]
    assert settings["url"] == {"value": f"sqlite:///{folder}/leveret.db", "source": str(folder / "pyproject.toml")}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("mine")
    assert "tasks.py is there" in run("leveret", "init", cwd=tmp_path, expect=2)
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.py"]
    assert "tasks.py/x" in run("leveret", "init", "tasks.py/x", cwd=tmp_path, expect=2)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_asks_leveret(shell: str, tmp_path: Path) -> None:
    script = run("leveret", "completion", shell, cwd=tmp_path)
    assert "_LEVERET_COMPLETE" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        run(shell, "-n", "script", cwd=tmp_path)


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    asked = {**KEPT, "_LEVERET_COMPLETE": "bash_complete"}
    for words, at, wanted in (("leveret jo", "1", "plain,jobs"), ("leveret jobs list --st", "3", "plain,--state")):
        done = subprocess.run(
            [BIN / "leveret"],
            check=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**asked, "COMP_WORDS": words, "COMP_CWORD": at},
            timeout=240,
        )
        assert wanted in done.stdout.splitlines()
