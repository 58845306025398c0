"""Run the programs of one machine: start them in order, restart what dies, end them in order.

docs/adr/0007-own-supervisor.md says why this is not honcho, supervisor or circus.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.console import Console
from cli.leftovers import Lifeline

ROOT = Path(__file__).parent.parent
DEATHS_MAX = 5  # so many within DEATHS_WINDOW_S, and the whole is stopped
DEATHS_WINDOW_S = 60.0
RESTART_AFTER_S = 0.2  # doubled with each death within the window
END_LIMIT_S = 7.5  # every process promises to end within 8 s of a SIGTERM; the whole ends within 10 s
END_LAST_LIMIT_S = 1.5
TAIL_LINES = 20
LINE_BYTES_MAX = 16_384


@dataclass(frozen=True, kw_only=True)
class Program:
    """A command to keep running; its secrets are in `environment`, never in `command`."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[], bool] | None = None  # the next program starts once it says yes
    ends_last: bool = False  # others need it to end well


@dataclass
class _Child:
    program: Program
    number: int
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0
    deaths: deque[float] = field(default_factory=deque)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    partial: bytes = b""


class Supervisor:
    """Keeps programs running until a signal comes, one keeps dying, or `wanted` (asked each second) says no."""

    def __init__(
        self, programs: Sequence[Program], pids: Path, console: Console, wanted: Callable[[], bool] = lambda: True
    ) -> None:
        self._waiting = deque(_Child(program, number) for number, program in enumerate(programs))
        self._begun: list[_Child] = []
        self._console, self._wanted = console, wanted
        self._ending: str | None = None
        self._status = 0
        self._held = True  # the logs, until the screen is shown
        self._selector = selectors.DefaultSelector()
        self._lifeline = Lifeline(pids)

    def run(self, announce: Callable[[], str | None]) -> int:
        """Run until the end and return the exit status: 0 when asked to end, 1 when a program keeps dying.

        `announce` is asked for the screen once all have begun, until it gives one; the logs follow it.
        """
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._selector.register(wake, selectors.EVENT_READ)
        hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # nohup
        for number in (signal.SIGINT, signal.SIGTERM, *hangup):
            signal.signal(number, lambda got, _frame: self._end(f"{signal.Signals(got).name} came", 0))
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # it wakes the selector
        try:
            while self._ending is None:
                self._step(announce)
        finally:
            self._end_all()
        return self._status

    def _end(self, why: str, status: int) -> None:
        if self._ending is None:
            self._ending, self._status = why, status

    def _step(self, announce: Callable[[], str | None]) -> None:
        if not self._wanted():
            self._end("who started it is gone", 0)
        for child in self._begun:
            self._watch(child, time.monotonic())
        last = self._begun[-1].program.ready if self._begun else None
        if self._waiting and (last is None or last()):
            self._begun.append(self._waiting.popleft())
            self._start(self._begun[-1])
            return
        if self._held and not self._waiting and (screen := announce()) is not None:
            self._console.write(screen)
            self._held = False
        busy = self._held or not all(child.process for child in self._begun)
        self._read(0.05 if busy else 1.0)

    def _start(self, child: _Child) -> None:
        program = child.program
        try:
            child.process = process = subprocess.Popen(  # noqa: S603 -- the commands are ours
                program.command,
                env=program.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is ours to hand on, in order
            )
        except OSError as error:
            self._end(f"{program.name} does not start: {error}", 1)
            return
        self._lifeline.add(process.pid)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, child)

    def _watch(self, child: _Child, now: float) -> None:
        if child.process is None and now >= child.start_at:
            self._start(child)
        if child.process is None or child.process.poll() is None:
            return
        status = child.process.returncode
        self._forget(child)
        child.deaths.append(now)
        while child.deaths[0] < now - DEATHS_WINDOW_S:
            child.deaths.popleft()
        name, count = child.program.name, len(child.deaths)
        if count >= DEATHS_MAX:
            said = "\n".join(f"  {line}" for line in child.tail)
            self._end(f"{name} died {count} times within {DEATHS_WINDOW_S:.0f} s; its last lines:\n{said}", 1)
            return
        child.start_at = now + RESTART_AFTER_S * 2 ** (count - 1)
        self._line(child, f"ended with status {status}; it is started again")

    def _forget(self, child: _Child) -> None:
        """Clear what a process leaves: the rest of its group, its last words."""
        process, child.process = child.process, None
        assert process is not None
        assert process.stdout is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: the second for a group of zombies
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._lifeline.remove(process.pid)
        with contextlib.suppress(KeyError):  # it closed its output before it ended
            self._selector.unregister(process.stdout)
        while self._take(process.stdout.fileno(), child):
            pass
        process.stdout.close()

    def _read(self, timeout_s: float) -> None:
        for key, _events in self._selector.select(timeout_s):
            if key.data is None:
                os.read(key.fd, 4096)
            elif self._take(key.fd, key.data) == 0:
                self._selector.unregister(key.fileobj)

    def _take(self, descriptor: int, child: _Child) -> int | None:
        """Pass on what a program said and return its length: 0 at the end, None when there is nothing yet."""
        try:
            data = os.read(descriptor, 65_536)
        except BlockingIOError:
            return None
        *lines, child.partial = (child.partial + data).split(b"\n")
        if not data or len(child.partial) > LINE_BYTES_MAX:
            lines, child.partial = [*lines, child.partial], b""
        for line in filter(None, lines):
            child.tail.append(line.decode(errors="replace").rstrip())
            self._line(child, child.tail[-1])
        return len(data)

    def _line(self, child: _Child, text: str) -> None:
        if not self._held:
            self._console.line(child.program.name, child.number, text)

    def _end_all(self) -> None:
        for last, limit_s in ((False, END_LIMIT_S), (True, END_LAST_LIMIT_S)):
            running = [child for child in reversed(self._begun) if child.process and child.program.ends_last is last]
            for child in running:
                assert child.process is not None
                child.process.terminate()
            deadline = time.monotonic() + limit_s
            while time.monotonic() < deadline and any(one.process and one.process.poll() is None for one in running):
                self._read(0.05)
            for child in running:
                self._forget(child)
        self._lifeline.close()
        self._console.write(f"Crossfill ended: {self._ending}\n")
        self._console.flush()
