"""A virtual environment for each example, and programs in it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "build/examples"
PATIENCE = 120.0


class Example:
    """One folder of examples/, and the environment that its requirements.txt and Leveret's wheel make."""

    def __init__(self, name: str, folder: Path) -> None:
        """Make the environment if it is not there, or of something else. `folder` is where its data goes."""
        self.source = ROOT / "examples" / name
        self.folder = folder
        self.bin = ENVIRONMENTS / name / "bin"
        (wheel,) = (ENVIRONMENTS / "wheel").glob("*.whl")
        requirements = self.source / "requirements.txt"
        mark = hashlib.sha256(f"{sys.version}".encode() + requirements.read_bytes() + wheel.read_bytes()).hexdigest()
        stamp = ENVIRONMENTS / name / "made-of"
        if not stamp.exists() or stamp.read_text() != mark:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.bin.parent)], check=True)
            pip = [str(self.bin / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
            subprocess.run([*pip, str(wheel), "-r", str(requirements)], check=True)
            stamp.write_text(mark)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")},
            "PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "LEVERET_URL": f"sqlite:///{folder}/jobs.db",
        }

    def run(self, *command: str | Path, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, in the example's folder, and check its exit code."""
        answer = subprocess.run(
            [self.bin / command[0], *command[1:]],
            check=False,
            cwd=self.source,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert answer.returncode == expect, f"{command}: {answer.returncode}\n{answer.stdout}{answer.stderr}"
        return answer

    @contextmanager
    def running(self, *command: str | Path, ready: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Run a program beside the test, from the line that says `ready`; SIGTERM at the end, and exit code 0."""
        process = subprocess.Popen(
            [self.bin / command[0], *command[1:]],
            cwd=self.source,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            seen = []
            for line in process.stdout:
                seen.append(line)
                if ready in line:
                    break
            else:
                raise AssertionError(f"{command} ended without {ready!r}: {''.join(seen)}")
            yield process
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM), "".join(seen) + rest
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()
