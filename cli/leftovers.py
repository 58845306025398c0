"""No process outlives its supervisor: a reaper ends them when it is killed, the next one what is left even so."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from cli.reaper import end_groups

START_TIME_SLACK_S = 2.0  # a start time is computed from the time of boot, which moves when the clock is set
END_LIMIT_S = 8.0


class Lifeline:
    """Tells the reaper, and a file for the case that the reaper is killed too, who runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started: dict[int, float] = {}
        self._reaper = subprocess.Popen(  # noqa: S603 -- our own file
            [sys.executable, "-I", "-S", Path(__file__).with_name("reaper.py")],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def add(self, pid: int) -> None:
        """Note the leader of a process group."""
        self._tell(f"+{pid}")
        with contextlib.suppress(psutil.Error):
            self._started[pid] = psutil.Process(pid).create_time()
        new = self._path.with_suffix(".new")
        new.write_text(json.dumps(list(self._started.items())))
        new.replace(self._path)

    def remove(self, pid: int) -> None:
        """Note that it ended."""
        self._tell(f"-{pid}")
        self._started.pop(pid, None)

    def close(self) -> None:
        """End the reaper; nobody runs any more."""
        assert self._reaper.stdin is not None
        self._reaper.stdin.close()
        self._reaper.wait()
        self._path.unlink(missing_ok=True)

    def _tell(self, line: str) -> None:
        assert self._reaper.stdin is not None
        with contextlib.suppress(OSError):  # somebody killed it; the file is there still
            os.write(self._reaper.stdin.fileno(), f"{line}\n".encode())


def end_leftovers(path: Path) -> int:
    """End whom the file names and return how many; a pid that a stranger has by now is let be."""
    try:
        recorded: list[tuple[int, float]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return 0
    ours = []
    for pid, started in recorded:
        with contextlib.suppress(psutil.Error):
            if abs(psutil.Process(pid).create_time() - started) < START_TIME_SLACK_S:
                ours.append(pid)
    end_groups(ours, END_LIMIT_S)
    path.unlink(missing_ok=True)
    return len(ours)
