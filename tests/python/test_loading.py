"""Apps by name: where their sources are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from leveret.loading import source_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with modules that can't be imported; put on the path as it is for an app."""
    for name in ("plain_app.py", "inner_app/__init__.py", "inner_app/deep/tasks.py", "spread_app/tasks.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("raise AssertionError")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize(
    "target",
    ["plain_app:app", "inner_app:app", "inner_app.deep.tasks:app", "spread_app.tasks:app", "spread_app.tasks:a.b"],
)
def test_an_apps_folder_is_the_one_that_it_is_imported_from(folder: Path, target: str) -> None:
    assert source_folder(target) == folder
    assert not {"plain_app", "inner_app", "spread_app"} & set(sys.modules)


def test_of_an_installed_package_it_is_its_own(folder: Path) -> None:
    packages = folder / "lib/site-packages"
    (packages / "shop_app/inner").mkdir(parents=True)
    for name in ("shop_app/__init__.py", "shop_app/inner/tasks.py"):
        (packages / name).write_text("")
    sys.path.insert(0, str(packages))
    assert source_folder("shop_app.inner.tasks:app") == packages / "shop_app"


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("nowhere_app:app", "nowhere_app"),
        ("nowhere_app.deep:app", "nowhere_app"),
    ],
)
def test_a_module_that_is_not_there_is_named(target: str, missing: str) -> None:
    with pytest.raises(ValueError, match=f'there is no module "{missing}"'):
        source_folder(target)
