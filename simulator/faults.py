"""Faults on demand: what a venue and the network between may do, one object a venue."""

import asyncio
import contextlib
import math
import socket
import struct
import time

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from simulator.wire import Wire

# SO_LINGER with a time of zero: closing sends a reset and throws away what was not sent.
RESET = struct.pack("ii", 1, 0)
HUGE_BYTES = 1_100_000
NOTICE_S = 1.0  # from the notice to the end


class Faults:
    """What goes wrong now. Each fault befalls every connection of the venue.

    drop: connections are closed without a word; reset: likewise, with a TCP reset.
    maintenance: connections are told that they will end, where the venue has a word for it, and are
    closed a second later.
    stall: for `seconds` nothing is sent, not even a pong, and nothing is read (half-open).
    mute: for `seconds` everything is read and nothing is answered or said, no pong either.
    slow: for `seconds` each frame comes `delay_s` later. refuse: for `seconds` new connections get a 503.
    skew: for `seconds` the venue's clock is `delay_s` ahead.
    throttle: for `seconds` requests over HTTP get a 429 that says when to come again. nonsense: for `seconds` answers
    over HTTP are cut in half.
    delist: for `seconds` new subscriptions of the product `symbol` are refused.
    garbage: the next `count` frames are cut in half, on the wire. gap: the next `count` trades are not sent.
    rename: in the next `count` frames a field has another name. novelty: `count` frames of a channel that
    nobody asked for. huge: the next `count` frames have 1.1 MB.
    clear: whatever lasts is over.
    """

    def __init__(self, wire: Wire) -> None:
        self.connections: set[ServerConnection] = set()
        self._wire = wire
        self._until: dict[str, float] = {}
        self._left: dict[str, int] = {}
        self._delay_s = 0.0
        self._ahead_us = 0
        self._delisted = ""
        self._ending: set[asyncio.Task[None]] = set()

    def inject(
        self,
        fault: str,
        *,
        seconds: float = 5,
        delay_s: float = 0.5,
        count: int = 1,
        symbol: str = "",
    ) -> None:
        """Let a fault begin. Raises ValueError for one that there is not, or for times out of range."""
        if not (0 < seconds <= 3_600 and 0 < delay_s <= 60 and 0 < count <= 10_000 and math.isfinite(seconds)):  # noqa: PLR2004 -- limits, said below
            raise ValueError("seconds: up to 3600; delay_s: up to 60; count: up to 10000")
        match fault:
            case "drop" | "reset":
                self._cut(reset=fault == "reset")
            case "maintenance":
                for connection in self.connections:
                    task = asyncio.create_task(self._end(connection))
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
            case "stall" | "slow" | "refuse" | "mute" | "skew" | "delist" | "throttle" | "nonsense":
                self._until[fault] = time.monotonic() + seconds
                self._delay_s = delay_s if fault == "slow" else self._delay_s
                self._ahead_us = int(delay_s * 1e6) if fault == "skew" else self._ahead_us
                self._delisted = symbol if fault == "delist" else self._delisted
                if fault == "stall":
                    self._stall(seconds)
            case "garbage" | "gap" | "rename" | "novelty" | "huge":
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

    @property
    def ahead_us(self) -> int:
        """How far the venue's clock is ahead now."""
        return self._ahead_us if self.lasts_s("skew") else 0

    @property
    def delisted(self) -> str | None:
        """The product whose subscription is refused now."""
        return self._delisted if self.lasts_s("delist") else None

    def spoil(self, frame: str) -> list[str | bytes]:
        """Return what goes over the wire for a frame: itself, what has become of it, or nothing."""
        if self.lasts_s("mute") or (self._wire.is_trade(frame) and self._next("gap")):
            return []
        if self._next("rename"):
            frame = frame.replace(*self._wire.rename)
        if self._next("huge"):
            frame = frame[:-1] + " " * HUGE_BYTES + frame[-1:]
        spoilt = self._wire.encode(frame)
        sent = [spoilt[: len(spoilt) // 2] if self._next("garbage") else spoilt]
        if self._next("novelty"):
            sent.append(self._wire.encode(self._wire.novelty))
        return sent

    def _next(self, fault: str) -> bool:
        """Take one of a fault's count; say whether there was one."""
        left = self._left.get(fault, 0)
        self._left[fault] = max(0, left - 1)
        return left > 0

    async def _end(self, connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            if self._wire.notice is not None:
                await connection.send(self._wire.encode(self._wire.notice))
            await asyncio.sleep(NOTICE_S)
            await connection.close(1012, "service restart")

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


FAULTS = (
    *("drop", "reset", "maintenance", "stall", "mute", "slow", "refuse", "skew", "delist", "throttle", "nonsense"),
    *("garbage", "gap", "rename", "novelty", "huge", "clear"),
)
