"""Apps by name, as the command line takes them: `module:name`."""

from __future__ import annotations

import importlib
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leveret.app import App

__all__ = ["is_app", "load_app", "source_folder"]

_LAST_LINES = 12
"""Of a traceback: where it was raised, and what was raised."""


def is_app(target: str) -> bool:
    """Tell whether an argument names an app, and not a plugin's file."""
    return ":" in target and "/" not in target and not target.endswith(".so")


def load_app(target: str) -> App:
    """Import an app.

    Args:
        target: `module:name`, found from the working folder, then where Python looks.

    Raises:
        ValueError: If it can't be imported, or is no app. The text has the end of the traceback and the path tried.
    """
    from leveret.app import App

    module, name = _parts(target)
    here = _look_here()
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(_failed(target, here, error)) from None  # a module that this one imports
        raise _missing(target, error.name, here) from None
    except BaseException as error:  # noqa: BLE001 - whatever the user's module raises, SystemExit too
        raise ValueError(_failed(target, here, error)) from None
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f'cannot load {target}: "{module}" has no "{name}"')
        found = getattr(found, part)
    if not isinstance(found, App):
        raise ValueError(f"cannot load {target}: it is {type(found).__name__}, not a leveret.App")  # noqa: TRY004 - what was named is wrong
    return found


def source_folder(target: str) -> Path:
    """Return the folder that an app's module is imported from: the project's. Nothing is imported.

    Of a package that is installed it is the package's own folder, since its neighbours are other projects.

    Args:
        target: As `load_app` takes it.

    Raises:
        ValueError: If there is no such module. Of a module in packages only the outermost is looked for.
    """
    module, _ = _parts(target)
    here = _look_here()
    top = module.partition(".")[0]
    found = find_spec(top)
    if found is None:
        raise _missing(target, top, here)
    packages = list(found.submodule_search_locations or ())
    if not packages:
        return Path(found.origin or here).absolute().parent
    folder = Path(packages[0]).absolute()
    return folder if folder.parent.name in {"site-packages", "dist-packages"} else folder.parent


def _parts(target: str) -> tuple[str, str]:
    module, _, name = target.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
        raise ValueError(f"cannot load {target}: an app is named module:name, like tasks:app")
    return module, name


def _look_here() -> str:
    """Have modules looked for in the working folder first, and return it."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return here


def _missing(target: str, module: str, here: str) -> ValueError:
    return ValueError(f'cannot import {target}: there is no module "{module}" in {here} or where Python looks')


def _failed(target: str, here: str, error: BaseException) -> str:
    """Return what to say of a module that raised: where it was looked for, and the end of its traceback."""
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if "importlib" not in frame.filename and frame.filename != __file__]
    )
    lines = "".join(shown.format()).rstrip().splitlines()[-_LAST_LINES:]
    text = "\n".join(f"  {line}" for line in lines)
    return f"cannot import {target} (looked in {here} first):\n{text}"
