"""Faults on demand: what a venue and the network between may do, one object a venue."""

import asyncio
import math
import socket
import struct
import time
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection

# SO_LINGER with a time of zero: closing sends a reset and throws away what was not sent.
RESET = struct.pack("ii", 1, 0)


class Faults:
    """What goes wrong now. Each fault befalls every connection of the venue.

    drop: connections are closed without a word; reset: likewise, with a TCP reset.
    stall: for `seconds` nothing is sent, not even a pong, and nothing is read (half-open).
    slow: for `seconds` each frame comes `delay_s` later. refuse: for `seconds` new connections get a 503.
    garbage: the next `count` frames are cut in half. gap: the next `count` trades are not sent.
    clear: whatever lasts is over.
    """

    def __init__(self, is_trade: Callable[[str], bool]) -> None:
        self.connections: set[ServerConnection] = set()
        self._is_trade = is_trade
        self._until: dict[str, float] = {}
        self._left: dict[str, int] = {}
        self._delay_s = 0.0

    def inject(self, fault: str, *, seconds: float = 5, delay_s: float = 0.5, count: int = 1) -> None:
        """Let a fault begin. Raises ValueError for one that there is not, or for times out of range."""
        if not (0 < seconds <= 3_600 and 0 < delay_s <= 60 and 0 < count <= 10_000 and math.isfinite(seconds)):  # noqa: PLR2004 -- limits, said below
            raise ValueError("seconds: up to 3600; delay_s: up to 60; count: up to 10000")
        match fault:
            case "drop" | "reset":
                self._cut(reset=fault == "reset")
            case "stall" | "slow" | "refuse":
                self._until[fault] = time.monotonic() + seconds
                self._delay_s = delay_s if fault == "slow" else self._delay_s
                if fault == "stall":
                    self._stall(seconds)
            case "garbage" | "gap":
                self._left[fault] = self._left.get(fault, 0) + count
            case "clear":
                self._until.clear()
                self._left.clear()
                self._read_again()
            case _:
                raise ValueError(f"unknown fault {fault!r}; one of {', '.join(FAULTS)}")

    def lasts_s(self, fault: str) -> float:
        """Return for how many more seconds a fault lasts; 0 where it does not."""
        return max(0.0, self._until.get(fault, 0.0) - time.monotonic())

    async def flow(self) -> None:
        """Wait until the venue is not stalled."""
        while left_s := self.lasts_s("stall"):  # noqa: ASYNC110 -- a time, which may be moved
            await asyncio.sleep(left_s)

    @property
    def delay_s(self) -> float:
        """How much later a frame comes that is sent now."""
        return self._delay_s if self.lasts_s("slow") else 0.0

    def spoil(self, frame: str) -> str | None:
        """Return what becomes of a frame: itself, half of it, or None where it is not sent."""
        if self._left.get("gap") and self._is_trade(frame):
            self._left["gap"] -= 1
            return None
        if self._left.get("garbage"):
            self._left["garbage"] -= 1
            return frame[: len(frame) // 2]
        return frame

    def _cut(self, *, reset: bool) -> None:
        for connection in list(self.connections):
            if reset:
                held: socket.socket = connection.transport.get_extra_info("socket")
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.transport.abort()

    def _stall(self, seconds: float) -> None:
        # The library answers pings by itself: who reads nothing answers nothing.
        for connection in self.connections:
            connection.transport.pause_reading()
        asyncio.get_running_loop().call_later(seconds, self._read_again)

    def _read_again(self) -> None:
        if not self.lasts_s("stall"):
            for connection in self.connections:
                connection.transport.resume_reading()


FAULTS = ("drop", "reset", "stall", "slow", "refuse", "garbage", "gap", "clear")
