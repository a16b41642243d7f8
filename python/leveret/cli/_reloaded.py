"""The worker below `leveret worker --reload`: the same command, which stops when its supervisor has ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def main() -> NoReturn:
    """Run it. The arguments: the supervisor's process id, then those of `leveret worker`."""
    # SIGTERM, not SIGKILL: also then running jobs may end, and the others are given back.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(sys.argv[1]):
        sys.exit(0)  # it ended before it could have been noticed
    from leveret.cli import main as command_line

    command_line(["worker", *sys.argv[2:]])


if __name__ == "__main__":
    main()
