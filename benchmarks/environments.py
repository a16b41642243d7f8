"""Environments of their own for peers, under build/bench: what one needs never meets what another does."""

from __future__ import annotations

import subprocess
import sys

from measure import ROOT, NotMeasuredError

FOLDER = ROOT / "build/bench"


def environment(name: str, packages: list[str]) -> str:
    """Make an environment with the current versions of some packages, once; return its Python.

    Raises:
        NotMeasuredError: they can't be installed.
    """
    folder = FOLDER / name
    python = folder / "bin/python"
    done = folder / "installed"
    if done.exists() and done.read_text() == " ".join(packages):
        return str(python)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages],
    ):
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            why = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise NotMeasuredError(f"cannot install {' '.join(packages)}: {why}")
    done.write_text(" ".join(packages))
    return str(python)


def version_in(python: str, package: str) -> str:
    """Return the version of a package that is installed in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
