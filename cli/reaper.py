"""End the programs of a supervisor that was killed.

It reads `+PID` and `-PID` lines from the supervisor's pipe. When the pipe ends, whoever is still
listed has lost its supervisor. Standard library only, run on its own: 9 MB.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

LIMIT_S = 8.0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def end_groups(pids: Iterable[int], limit_s: float) -> None:
    """Ask the leaders of these process groups to end, wait so long, and end what is left of the groups."""
    pids = list(pids)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and any(_alive(pid) for pid in pids):
        time.sleep(0.05)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def main() -> None:
    """Follow the list until its writer ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pids: set[int] = set()
    for line in sys.stdin:
        (pids.add if line[0] == "+" else pids.discard)(int(line[1:]))
    end_groups(pids, LIMIT_S)


if __name__ == "__main__":
    main()
