"""Standard output that never makes its writer wait: a stalled terminal loses lines, not the system."""

import contextlib
import os
import queue
import threading

LINES_MAX = 10_000
COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
PREFIX_WIDTH = 10


class Console:
    """Writes to a descriptor from a thread of its own; what does not fit in the queue is dropped."""

    def __init__(self, descriptor: int = 1, *, color: bool = False) -> None:
        self._descriptor, self._color = descriptor, color
        self._queue: queue.Queue[bytes | threading.Event] = queue.Queue(LINES_MAX)
        threading.Thread(target=self._pump, daemon=True).start()

    def write(self, text: str) -> None:
        """Queue a text."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(text.encode(errors="replace"))

    def line(self, name: str, number: int, text: str) -> None:
        """Queue one line of the program `name`, whose `number` picks the colour."""
        prefix = f"{name:<{PREFIX_WIDTH}} |"
        if self._color:
            prefix = f"\x1b[{COLORS[number % len(COLORS)]}m{prefix}\x1b[0m"
        self.write(f"{prefix} {text}\n")

    def flush(self, limit_s: float = 0.5) -> None:
        """Wait, at most so long, until what was queued is written."""
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(written)
            written.wait(limit_s)

    def _pump(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            with contextlib.suppress(OSError):  # the terminal is gone; the system ends in order without it
                while item:
                    item = item[os.write(self._descriptor, item) :]
