"""Configuration: which source wins, and what senseless ones get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click
import leveret
import pytest
from leveret import config
from leveret.cli import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without configuration, to work in."""
    for name in os.environ:
        if name.startswith("LEVERET_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "pyproject.toml"


def cli(*words: str, expect: int = 0, cwd: Path | None = None, **environment: str) -> tuple[str, str]:
    """Run `leveret WORDS` here and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "leveret", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=240,
    )
    assert done.returncode == expect, done
    return done.stdout, done.stderr


def options_of(command: click.Command) -> Iterator[click.Option]:
    yield from (option for option in command.params if isinstance(option, click.Option))
    if isinstance(command, click.Group):
        for sub in command.commands.values():
            yield from options_of(sub)


def test_flags_win_over_variables_over_the_project_over_defaults(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.lookup("grace") == ("grace", 25.0, "default")
    project.write_text('[tool.leveret]\ngrace = 7\nmax_retries = 9\nurl = "sqlite:///from-project.db"\n')
    assert config.lookup("grace") == ("grace", 7, str(project))
    monkeypatch.setenv("LEVERET_GRACE", "1.5")
    assert config.lookup("grace") == ("grace", 1.5, "LEVERET_GRACE")
    where = cli("queues", expect=2)[1]
    assert f"{project.parent}/from-project.db" in where
    assert "from-variable.db" in cli("queues", expect=2, LEVERET_URL="sqlite:///from-variable.db")[1]
    assert "from-flag.db" in cli("queues", "--url", "sqlite:///from-flag.db", expect=2, LEVERET_URL="sqlite:///v.db")[1]


def test_the_nearest_project_counts_and_its_paths_from_its_folder(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_text('[tool.leveret]\nurl = "sqlite:///data/jobs.db"\n')
    odd = project.parent / "100% odd #?"
    (odd / "data").mkdir(parents=True)
    (odd / "pyproject.toml").write_text(project.read_text())
    monkeypatch.chdir(odd)
    with leveret.App() as app:
        app.send_task("f")
    assert (odd / "data/jobs.db").is_file()
    inner = project.parent / "a/b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert leveret.App().url == f"sqlite:///{project.parent}/data/jobs.db"
    (inner / "pyproject.toml").write_text("[project]\nname = 'another'\n")
    assert leveret.App().url == f"sqlite:///{inner}/leveret.db"


def test_an_app_uses_what_is_configured(project: Path) -> None:
    project.write_text('[tool.leveret]\nurl = "memory://configured"\nbatch_bytes = 100\n')
    with leveret.App() as app:
        job = app.native(lambda x: x, name="f")
        assert app.url == "memory://configured"
        assert len(job.send_many([(i,) for i in range(50)]).messages) > 5  # type: ignore[misc]
    with leveret.App(batch_bytes=1 << 16) as app:
        assert len(app.native(lambda x: x, name="f").send_many([(i,) for i in range(50)]).messages) == 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("thread = 3", 'there is no key "thread"; did you mean "threads"?'),
        ("nonsense = 3", 'there is no key "nonsense"; there are batch_bytes, '),
        ("threads = 0", "threads must be a whole number from 1 to 4,096, not 0"),
        ("threads = true", "threads must be a whole number from 1 to 4,096, not True"),
        ('threads = "4"', "threads must be a whole number from 1 to 4,096, not '4'"),
        ("grace = nan", "grace must be a number of seconds"),
        ("queue = []", "queue must be a name or an array of names"),
        ('log_level = "loud"', "log_level must be one of debug, info, warning, error, not 'loud'"),
        ("url = 3", "url must be a text"),
        ("threads = ", "cannot read "),
    ],
)
def test_a_senseless_project_is_one_line_and_exit_code_2(project: Path, text: str, said: str) -> None:
    project.write_text(f"[tool.leveret]\n{text}\n")
    with pytest.raises(ValueError, match=r"pyproject\.toml") as caught:
        leveret.App().send_task("f")
    assert said in str(caught.value)
    for words in (["queues"], ["worker", "x.so"], ["config", "show"]):
        out, err = cli(*words, expect=2)
        assert out == ""
        assert said in err
        assert err.count("\n") == 1


def test_a_senseless_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "LEVERET_THREADS" in cli("worker", "x.so", expect=2, LEVERET_THREADS="many")[1]
    assert "LEVERET_THREADS: threads must be" in cli("config", "show", expect=2, LEVERET_THREADS="many")[1]
    monkeypatch.setenv("LEVERET_BATCH_BYTES", "0")
    with pytest.raises(ValueError, match="LEVERET_BATCH_BYTES: batch_bytes must be a whole number"):
        leveret.App("memory://").send_task("f")


def test_show_says_where_each_value_came_from(project: Path) -> None:
    project.write_text('[tool.leveret]\nthreads = 3\nqueue = ["a", "b"]\nurl = "amqp://user:geheim@host"\n')
    out, err = cli("config", "show", "--json", LEVERET_LOG_LEVEL="debug", LEVERET_THREDS="7")
    found: dict[str, Any] = json.loads(out)
    assert found["file"] == str(project)
    assert set(found["settings"]) == set(config.KEYS)
    assert found["settings"]["threads"] == {"value": 3, "source": str(project)}
    assert found["settings"]["queue"] == {"value": ["a", "b"], "source": str(project)}
    assert found["settings"]["log_level"] == {"value": "debug", "source": "LEVERET_LOG_LEVEL"}
    assert found["settings"]["grace"] == {"value": 25.0, "source": "default"}
    assert (
        err == 'leveret config: there is no setting of the variable LEVERET_THREDS; did you mean "LEVERET_THREADS"?\n'
    )
    table = cli("config", "show")[0]
    assert "geheim" not in out + table
    assert "a, b" in table


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256MB", 256_000_000),
        ("256MiB", 256 << 20),
        ("1 GiB", 1 << 30),
        ("64000kb", 64_000_000),
        ("256", None),
        ("MB", None),
        ("1.5GB", None),
        ("-1GB", None),
        ("256XB", None),
        ("", None),
    ],
)
def test_a_size_is_a_whole_number_with_its_unit(text: str, size: int | None) -> None:
    assert config.bytes_of(text) == size


def test_a_size_out_of_range_or_without_a_unit_is_refused_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_text('[tool.leveret]\nmax_memory = "256"\n')
    with pytest.raises(ValueError, match="max_memory must be a size with its unit, like 256MB or 1GiB, from 16 MiB"):
        config.from_project()
    project.write_text('[tool.leveret]\nmax_memory = "512MiB"\n')
    assert config.lookup("max_memory").value == 512 << 20
    monkeypatch.setenv("LEVERET_MAX_MEMORY", "1MB")
    with pytest.raises(ValueError, match="LEVERET_MAX_MEMORY: max_memory must be"):
        config.lookup("max_memory")


def test_every_option_with_a_variable_is_a_setting_with_the_same_default() -> None:
    seen = set()
    for name in COMMANDS:
        for option in options_of(import_module(f"leveret.cli.{name}").command):
            if not option.envvar:
                continue
            assert isinstance(option.envvar, str)
            key = config.KEYS[option.envvar.removeprefix("LEVERET_").lower()]
            assert option.envvar == key.variable
            assert f"--{key.name.replace('_', '-')}" in option.opts
            assert (option.default or None) == key.default or key.default is None, option.name
            seen.add(key.name)
    assert seen >= {"url", "threads", "grace", "log_level"}
