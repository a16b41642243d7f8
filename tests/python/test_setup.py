"""The set-up script, on machines that are made up: a PATH of the test's own, an apt-get that only takes notes."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = os.environ["PATH"]


@pytest.fixture
def setup() -> ModuleType:
    loader = SourceFileLoader("leveret_setup", str(ROOT / "scripts/setup"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setup: ModuleType) -> Path:
    """Give the folder that is all of PATH, on a machine with neither programs nor a policy for services."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(setup, "POLICY", tmp_path / "policy-rc.d")
    return programs


def add_program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nPATH={SYSTEM_PATH}\n{script}\n")
    path.chmod(0o755)


def add_apt(folder: Path, policy: Path, exit_code: int = 0) -> None:
    """Add an apt-get that notes its arguments and the policy it ran under, and brings a program named `thing`."""
    notes = folder.parent / "notes"
    add_program(
        folder,
        "apt-get",
        f'echo "$@" >>{notes}; sh {policy}; echo "policy $?" >>{notes}\n'
        f"case $* in *thing*) cp $0 {folder}/thing;; esac; exit {exit_code}",
    )
    add_program(folder, "env", 'exec env PATH="$0" "$@"'.replace('"$0"', str(folder) + ":" + SYSTEM_PATH))


def test_without_apt_it_lists_every_package_and_exits_with_2(
    machine: Path, setup: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(machine.iterdir()) == []
    with pytest.raises(SystemExit) as stopped:
        setup.install_packages(setup.TO_USE)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "no apt-get" in said
    for package in (
        "g++",
        "cmake",
        "ninja-build",
        "pkg-config",
        "libhiredis-dev",
        "librabbitmq-dev",
        "libsimdjson-dev",
        "libsqlite3-dev",
    ):
        assert f" {package}" in said


def test_neither_root_nor_sudo_lists_the_packages_and_exits_with_2(
    machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_apt(machine, setup.POLICY)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as stopped:
        setup.install_packages(setup.TO_USE)
    assert stopped.value.code == 2
    assert "not root" in capsys.readouterr().err
    assert not (machine.parent / "notes").exists()


def test_a_sudo_that_wants_a_password_nobody_can_type_exits_with_2(
    machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_apt(machine, setup.POLICY)
    add_program(machine, "sudo", '[ "$1" = -n ] && exit 1; echo "asked" >&2; exit 1')
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit) as stopped:
        setup.install_packages(setup.TO_USE)
    assert stopped.value.code == 2


def test_nothing_missing_touches_no_apt(machine: Path, setup: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    add_apt(machine, setup.POLICY)
    setup.install_packages((setup.Need("thing", lambda: True),))
    assert not (machine.parent / "notes").exists()
    assert capsys.readouterr().err == ""


def install_thing(machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install the one missing thing as root, beside one that is here; return apt-get's notes."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    add_apt(machine, setup.POLICY)
    needs = (setup.Need("here", lambda: True), setup.Need("thing", setup.program("thing")))
    setup.install_packages(needs)
    return (machine.parent / "notes").read_text().splitlines()


def test_only_what_is_missing_is_installed_and_no_service_starts(
    machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = install_thing(machine, setup, monkeypatch)
    assert notes == [
        "-qq update",
        "policy 101",
        "-qq install -y --no-install-recommends thing",
        "policy 101",
    ]
    assert "missing Debian packages: thing\n" in capsys.readouterr().err
    assert not setup.POLICY.exists()


def test_a_policy_for_services_is_put_back(machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.POLICY.write_text("exit 7\n")
    setup.POLICY.chmod(0o750)
    assert "policy 101" in install_thing(machine, setup, monkeypatch)
    assert setup.POLICY.read_text() == "exit 7\n"
    assert stat.S_IMODE(setup.POLICY.stat().st_mode) == 0o750


def test_a_policy_left_aside_by_a_killed_setup_is_put_back(
    machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.POLICY.write_text("exit 101\n")
    setup.POLICY.with_name("policy-rc.d.before-leveret").write_text("exit 7\n")
    install_thing(machine, setup, monkeypatch)
    assert setup.POLICY.read_text() == "exit 7\n"


def test_apt_that_fails_exits_with_2_and_puts_the_policy_back(
    machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    setup.POLICY.write_text("exit 7\n")
    add_apt(machine, setup.POLICY, exit_code=100)
    with pytest.raises(SystemExit) as stopped:
        setup.install_packages((setup.Need("thing", lambda: False),))
    assert stopped.value.code == 2
    assert "could not install thing" in capsys.readouterr().err
    assert setup.POLICY.read_text() == "exit 7\n"


def test_a_package_that_does_not_bring_what_is_missing_exits_with_2(
    machine: Path, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    add_apt(machine, setup.POLICY)
    with pytest.raises(SystemExit) as stopped:
        setup.install_packages((setup.Need("thing", lambda: False),))
    assert stopped.value.code == 2
    assert "thing" in capsys.readouterr().err


def test_an_old_python_is_named_and_exits_with_2(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["setup"])
    monkeypatch.setattr(sys, "version_info", (3, 10, 12, "final", 0))
    with pytest.raises(SystemExit) as stopped:
        setup.main()
    assert stopped.value.code == 2
    assert "3.11 or newer" in capsys.readouterr().err


def test_an_old_cmake_counts_as_missing(machine: Path, setup: ModuleType) -> None:
    assert not setup.recent_cmake()
    add_program(machine, "cmake", "echo cmake version 3.22.1")
    assert not setup.recent_cmake()
    add_program(machine, "cmake", "echo cmake version 3.25.1")
    assert setup.recent_cmake()
    add_program(machine, "cmake", "echo cmake version 4.0.0-rc1")
    assert setup.recent_cmake()


def test_a_changed_source_changes_the_fingerprint_and_a_touched_one_does_not(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.setattr(setup, "__file__", str(tmp_path / "setup"))
    (tmp_path / "setup").write_text("")
    source = tmp_path / "src/transports/a.cpp"
    source.parent.mkdir(parents=True)
    source.write_text("int a;")
    before = setup.fingerprint(test=False)
    os.utime(source, (1, 1))
    (tmp_path / "README.md").write_text("A document.")
    assert setup.fingerprint(test=False) == before
    source.write_text("int b;")
    changed = setup.fingerprint(test=False)
    assert changed != before
    source.rename(source.with_name("b.cpp"))
    assert setup.fingerprint(test=False) not in {before, changed}
    assert setup.fingerprint(test=True) != setup.fingerprint(test=False)
