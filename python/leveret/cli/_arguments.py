"""What other users of the machine see of this program's arguments."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path

__all__ = ["hide_passwords"]

# Also in a url that is a parameter of another one, with its signs as they are or percent-encoded.
_PASSWORD = re.compile(
    rb"((?::|%3a)(?:/|%2f){2}(?:(?!%40|%2f)[^/@\0])*?(?::|%3a))(?!%2f)([^/@\0]+)(?=@|%40)", re.IGNORECASE
)


def hide_passwords() -> None:
    """Overwrite passwords of urls where `ps` reads them, in the memory that the kernel gave the arguments in.

    It says nothing where that can't be done; the moment before the program ran is not hidden.
    """
    with suppress(OSError, ValueError, IndexError):
        # The fields of /proc/PID/stat behind the name, which may hold anything; see proc(5): arg_start is the 48th.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        if not 0 < start < end:
            return
        shown = Path("/proc/self/cmdline").read_bytes()[: end - start]
        for found in _PASSWORD.finditer(shown):
            ctypes.memset(start + found.start(2), ord("*"), len(found[2]))
