"""Backups of SQLite files, and what is saved of damaged ones: `leveret backup`, `recover`, `doctor`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import leveret
import pytest

if TYPE_CHECKING:
    from pathlib import Path

JOBS = 10_000
PAGE = 16384


def run(*words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `leveret WORDS`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEVERET_")}
    command = [sys.executable, "-m", "leveret", *words]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=240, env=kept)
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def answer(*words: str, expect: int = 0) -> dict[str, Any]:
    """Run with --json and return the one object that is printed."""
    found: dict[str, Any] = json.loads(run(*words, "--json", expect=expect).stdout)
    return found


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with JOBS jobs, in messages of ten or so, all in the file itself."""
    file = tmp_path_factory.mktemp("full") / "jobs.db"
    app = leveret.App(f"sqlite:///{file}", batch_bytes=600)

    def note(number: int) -> None:
        raise NotImplementedError

    app.task(name="note")(note).send_many((number,) for number in range(JOBS))
    app.close()
    # A backup is one file without a log.
    copy = file.with_name("full.db")
    run("backup", str(file), str(copy))
    return copy


def damaged(full: Path, file: Path, pages: int) -> None:
    """Copy the file and fill some of its pages, here and there, with rubbish."""
    content = bytearray(full.read_bytes())
    step = len(content) // PAGE // (pages + 1)
    for page in range(step, step * (pages + 1), step):
        content[page * PAGE : (page + 1) * PAGE] = b"\x5a" * PAGE
    file.write_bytes(bytes(content))


def drained(file: Path) -> list[int]:
    """Run a worker until nothing waits, and return the numbers that its jobs were called with."""
    app = leveret.App(f"sqlite:///{file}")
    ran: list[int] = []

    @app.task(name="note")
    def note(number: int) -> None:
        ran.append(number)

    del note
    app.worker().run_until_idle()
    app.close()
    return ran


def test_what_is_saved_of_a_damaged_file_of_ten_thousand_jobs_runs_and_the_rest_is_counted(
    full: Path, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.db"
    damaged(full, file, pages=4)
    before = file.read_bytes()
    doctor = answer("doctor", "--url", f"sqlite:///{file}", expect=1)
    [content] = [check for check in doctor["checks"] if check["check"] in {"content", "broker"}][:1]
    assert content["status"] == "failed"
    assert f"leveret recover {file}" in content["detail"]
    for suffix in ("-wal", "-shm", "-bell"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.write_bytes(before)

    saved = answer("recover", str(file), expect=1)
    new = tmp_path / "jobs-recovered.db"
    assert saved["to"] == str(new)
    assert file.read_bytes() == before
    assert saved["unreadable_pages"] > 0
    assert 0.9 * JOBS < saved["jobs"] < JOBS
    assert all(sorted(lost) == ["id", "queue"] for lost in saved["lost"])

    ran = drained(new)
    assert len(ran) == len(set(ran)) == saved["jobs"]
    assert set(ran) < set(range(JOBS))
    shown = run("recover", str(file), "--to", str(tmp_path / "again.db"), expect=1).stdout
    assert "pages could not be read" in shown


def test_a_backup_is_whole_and_runs(full: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    made = answer("backup", str(full), str(copy))
    assert made == {"file": str(full), "to": str(copy), "bytes": copy.stat().st_size}
    assert oct(copy.stat().st_mode & 0o777) == "0o600"
    assert run("backup", str(full), str(copy), expect=1).stderr.count("\n") == 1
    doctor = answer("doctor", "--url", f"sqlite:///{copy}")
    [content] = [check for check in doctor["checks"] if check["check"] == "content"]
    assert content["status"] == "ok", content
    assert sorted(drained(copy)) == list(range(JOBS))


def test_a_sound_file_is_recovered_with_nothing_missing(full: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.db"
    saved = answer("recover", str(full), "--to", str(new))
    assert (saved["jobs"], saved["lost"], saved["damage"]) == (JOBS, [], [])
    assert "there is a file of that name" in run("recover", str(full), "--to", str(new), expect=1).stderr
