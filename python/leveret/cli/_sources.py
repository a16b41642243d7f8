"""What `leveret worker --reload` watches: the source files of apps, and plugins."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING

from leveret.loading import is_app, source_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

__all__ = ["Sources", "Watcher", "forget_compiled", "sources"]

_IGNORED = {"__pycache__", "node_modules", "site-packages", "venv"}
"""Folders that hold nobody's own sources; those whose name begins with a dot (.venv, .git) are ignored as well."""
_FIRST_LOOK_MS = 100

_log = logging.getLogger("leveret.reload")


class Sources:
    """Files that matter: *.py below some folders, and plugins by name."""

    def __init__(self, folders: Iterable[Path], plugins: Iterable[Path]) -> None:
        """Sort out folders that lie in others, and links."""
        resolved = sorted({folder.resolve() for folder in folders})
        self.folders = [
            folder
            for folder in resolved
            if not any(other in folder.parents and _seen(folder, other) for other in resolved)
        ]
        # Of a plugin its folder is watched: a compiler puts a new file in the old one's place.
        self.plugins = {plugin.parent.resolve() / plugin.name for plugin in plugins}
        self.plugin_folders = sorted({plugin.parent for plugin in self.plugins} - set(self.folders))

    def has(self, path: str) -> bool:
        """Tell whether a file is one of them."""
        file = Path(path)
        return file in self.plugins or (file.suffix == ".py" and any(_seen(file, folder) for folder in self.folders))

    def shown(self, path: str) -> str:
        """Return a file's path for people: from its folder on."""
        file = Path(path)
        for folder in self.folders:
            with suppress(ValueError):
                return str(file.relative_to(folder))
        return str(file)


def _seen(path: Path, folder: Path) -> bool:
    """Tell whether a path is below a folder, and in no folder there that is ignored."""
    if folder not in path.parents:
        return False
    return not any(part in _IGNORED or part.startswith(".") for part in path.relative_to(folder).parts)


def sources(targets: Sequence[str], folders: Sequence[str]) -> Sources:
    """Return what a worker's sources are.

    Args:
        targets: Apps (`module:name`) and plugins (files).
        folders: Folders to watch instead of those that the apps are imported from.

    Raises:
        ValueError: For an app, a plugin or a folder that is not there.
    """
    plugins = [Path(target) for target in targets if not is_app(target)]
    for plugin in plugins:
        if not plugin.is_file():
            raise ValueError(f"cannot load {plugin}: there is no such file; leveret build makes plugins")
    own = [source_folder(target) for target in targets if is_app(target)]
    for folder in folders:
        if not Path(folder).is_dir():
            raise ValueError(f"cannot watch {folder}: there is no such folder")
    return Sources([Path(folder) for folder in folders] or own, plugins)


def forget_compiled(paths: Iterable[str]) -> None:
    """Remove what Python compiled of source files.

    It takes a file for unchanged that has the size and the second of before: two quick edits may.
    """
    for path in paths:
        with suppress(OSError, NotImplementedError):
            os.unlink(cache_from_source(path))  # noqa: PTH108 - the name is a string anyway


class Watcher:
    """Collects changes of sources on threads of its own, from the beginning of a `with` block to its end."""

    def __init__(self, watched: Sources, wake: Callable[[], None]) -> None:
        """Prepare.

        Args:
            watched: What counts.
            wake: Called from another thread when there is something to `take`.

        Raises:
            ValueError: If the package that watches is not installed.
        """
        try:
            import watchfiles
        except ImportError:
            raise ValueError("cannot reload without the package watchfiles: pip install 'leveret[reload]'") from None
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes at info
        self._watch = watchfiles.watch
        self._sources = watched
        self._wake = wake
        self._lock = threading.Lock()
        self._changed: set[str] = set()
        self._failed: Exception | None = None
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def take(self) -> list[str]:
        """Return the files that have changed since the last call, sorted.

        Raises:
            ValueError: If they can't be watched.
        """
        with self._lock:
            failed, changed, self._changed = self._failed, self._changed, set()
        if failed is not None:
            raise ValueError(f"cannot watch for changes: {failed}; --reload-dir names a smaller folder") from failed
        return sorted(changed)

    @property
    def waiting(self) -> bool:
        """Whether there is something to `take`."""
        with self._lock:
            return bool(self._changed) or self._failed is not None

    def _run(self, folders: Sequence[Path], *, recursive: bool, begun: threading.Event) -> None:
        try:
            # It yields nothing at the first timeout; only then, or at a change, it is known to watch.
            for changes in self._watch(
                *folders,
                watch_filter=lambda _change, path: self._sources.has(path),
                stop_event=self._ended,
                rust_timeout=_FIRST_LOOK_MS,
                yield_on_timeout=True,
                raise_interrupt=False,
                recursive=recursive,
            ):
                begun.set()
                if changes:
                    with self._lock:
                        self._changed.update(path for _, path in changes)
                    for _, path in sorted(changes):
                        _log.debug("%s", self._sources.shown(path), extra={"event": "reload_seen"})
                    self._wake()
        except Exception as error:  # noqa: BLE001 - whoever takes is told
            with self._lock:
                self._failed = error
            self._wake()
        finally:
            begun.set()

    def __enter__(self) -> Self:
        """Begin; whatever changes from now on is seen."""
        for folders, recursive in ((self._sources.folders, True), (self._sources.plugin_folders, False)):
            if folders:
                begun = threading.Event()
                thread = threading.Thread(
                    target=self._run,
                    args=(folders,),
                    kwargs={"recursive": recursive, "begun": begun},
                    name="leveret-reload",
                    daemon=True,
                )
                thread.start()
                self._threads.append(thread)
                begun.wait()
        return self

    def __exit__(self, *_error: object) -> None:
        """End the threads."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
