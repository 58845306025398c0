"""One connection to a venue: its socket, and what is done with each frame.

One thread only reads: it stamps a frame with the time and hands it over, so that pings are answered
and times are right whatever a frame costs to decode. A second one decodes, into the outbox. A third
one ticks: a process that stood still must not take what was buffered meanwhile for news.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import structlog
import websocket

from exchanges.protocol import (
    Acknowledged,
    Closing,
    Event,
    Gap,
    Heartbeat,
    LastPrice,
    Reply,
    Unknown,
    VenueError,
    VenueProtocol,
)
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade
from workers.frames import MESSAGES, FrameSocket
from workers.outbox import Outbox

CONNECT_TIMEOUT_S = 5  # a clean stop waits for it
RECEIVE_TIMEOUT_S = 0.5
STILL_S_MAX = 3.0  # as long as the loops believe a venue without a mark
TICK_S = 0.25
FRAMES_MAX = 50_000  # read and not yet decoded
COMPLAINTS_MAX = 100
WARM_S = 2.0  # a quiet stream may not speak for long; a new connection does not wait longer for it

_NEWS = (Quote, Trade, LastPrice, VenueCandle)

log = structlog.get_logger()


def clock_us() -> int:
    """Return the time in microseconds since the epoch."""
    return time.time_ns() // 1000


def steady_s() -> float:
    """Return seconds that never go back, and that go on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Connection:
    """One socket and its protocol, from connecting to the end. Its threads end when `closing` is set.

    Raises OSError or WebSocketException where it cannot connect and subscribe.
    """

    def __init__(self, protocol: VenueProtocol, outbox: Outbox, log_: structlog.stdlib.BoundLogger) -> None:
        self.protocol = protocol
        self.messages = 0
        self.gaps = 0
        # Products of which something was missed, until the history takes them, and until a mark does.
        self.missed: set[str] = set()
        self.unmarked: set[str] = set()
        self.announced = False  # the venue has said that it will end
        self.answered = False  # it has said anything of what was asked for
        self.closing = threading.Event()
        self._outbox = outbox
        self._log = log_
        self._complained: set[str] = set()
        self._frames: SimpleQueue[tuple[list[bytes], int] | None] = SimpleQueue()
        self._frames_read = 0
        self._socket = FrameSocket(skip_utf8_validation=True, enable_multithread=True)
        self._socket.settimeout(CONNECT_TIMEOUT_S)
        self._socket.connect(protocol.url())  # type: ignore[no-untyped-call] # the library ships half its types
        self.connected_us = clock_us()
        self.connected_at = self.read_at = self._ticked_at = steady_s()
        try:
            for frame in protocol.subscribe_frames():
                self._socket.send(frame)
        except BaseException:
            self._socket.shutdown()  # type: ignore[no-untyped-call] # the library ships half its types
            raise
        self._socket.settimeout(RECEIVE_TIMEOUT_S)
        self._threads = [
            threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True)
            for work in (self._read, self._decode, self._tick)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Throw the socket away with all that is buffered in it; nothing comes into the outbox after it."""
        self.closing.set()
        with contextlib.suppress(websocket.WebSocketException, OSError):
            self._socket.send_close()
            if self._socket.sock is not None:
                self._socket.sock.shutdown(socket.SHUT_RDWR)  # wakes the reader
        for thread in self._threads:
            thread.join(CONNECT_TIMEOUT_S)
        self._socket.shutdown()  # type: ignore[no-untyped-call] # likewise

    @property
    def warm(self) -> bool:
        """Whether every stream has spoken, or has had the time to."""
        answered = self.messages > 0  # one that was never answered may be deaf
        return answered and (not self.protocol.silent() or steady_s() - self.connected_at > WARM_S)

    @property
    def unanswered(self) -> bool:
        """Whether what was asked for was not answered in time, so that a venue that lives will never say anything."""
        return not self.answered and steady_s() - self.connected_at > self.protocol.limits.first_message_s

    def read_us(self) -> int:
        """Return when something was last read, by the clock that stamps what is read."""
        return clock_us() - int((steady_s() - self.read_at) * 1e6)

    def ping(self) -> None:
        """Ask the venue for a sign of life."""
        frame = self.protocol.ping_frame(clock_us())
        self._say(self._socket.ping if frame is None else lambda: self._socket.send(frame))

    def _say(self, send: Callable[[], object]) -> None:
        try:
            send()
        except (websocket.WebSocketException, OSError) as error:
            self._end("the connection broke", error=str(error))

    def stood_still(self) -> bool:
        """Return whether this process has just not run for too long; the connection ends then."""
        still_s = steady_s() - self._ticked_at
        if still_s > STILL_S_MAX:
            self._end("stood still; what is buffered is old", seconds=round(still_s, 1))
        return still_s > STILL_S_MAX

    def _tick(self) -> None:
        while not self.closing.wait(TICK_S):
            now = steady_s()
            if self.stood_still():
                break
            self._ticked_at = now

    def _end(self, why: str, **details: object) -> None:
        """End at once; frames that wait are not decoded any more."""
        if not self.closing.is_set():
            self._log.warning(why, **details)
        self.closing.set()

    def _read(self) -> None:
        """Read until the end. Frames that came before a regular end are still decoded."""
        try:
            while not self.closing.is_set():
                try:
                    # Control frames are signs of life, too.
                    opcode, frames = self._socket.read()
                except websocket.WebSocketTimeoutException:
                    continue
                received_us = clock_us()
                if self.stood_still():
                    break
                self.read_at = steady_s()
                if opcode in MESSAGES:
                    self._frames.put((frames, received_us))
                    self._frames_read += len(frames)
                    if self._frames_read - self.messages > FRAMES_MAX:
                        self._end("frames come faster than they can be decoded")
                elif opcode == websocket.ABNF.OPCODE_CLOSE:
                    [reason] = frames
                    code = int.from_bytes(reason[:2]) if reason else None
                    text = reason[2:].decode(errors="replace")
                    self._log.info("the venue closed the connection", code=code, text=text)
                    break
        except (websocket.WebSocketException, OSError) as error:
            if not self.closing.is_set():
                self._log.warning("the connection broke", error=str(error) or repr(error))
        finally:
            self._frames.put(None)

    def _decode(self) -> None:
        try:
            while (read := self._frames.get()) is not None:
                frames, received_us = read
                for frame in frames:
                    if self.closing.is_set():
                        return
                    self.messages += 1
                    for event in self.protocol.decode(frame, received_us):
                        self._take(event)
        except Exception:  # noqa: BLE001 -- a fault of ours costs this connection, not the collector
            self._log.exception("a frame could not be taken")
        finally:
            self.closing.set()

    def _take(self, event: Event) -> None:
        self.answered = self.answered or not isinstance(event, Heartbeat | Reply | Closing | Unknown)
        if isinstance(event, _NEWS):
            self._outbox.put(event)
        elif isinstance(event, Reply):
            self._say(lambda: self._socket.send(event.frame))
        elif isinstance(event, Gap):
            self.gaps += 1
            self.missed.add(event.product_id)
            self.unmarked.add(event.product_id)
            self._log.warning("something was missed", product=event.product_id, trades=event.missed)
            if event.resync:
                self._end("the book may have missed something too: starting again from a snapshot")
        elif isinstance(event, Closing):
            self._log.info("the venue announces the end of the connection")
            self.announced = True
        elif isinstance(event, Acknowledged) and event.refused:
            self._complain("streams were refused", streams=", ".join(event.refused))
        elif isinstance(event, VenueError):
            self._complain("the venue complains", message=event.message)
        elif isinstance(event, Unknown):
            self._complain("a frame was not understood", problem=event.problem, frame=event.frame)
            if event.resync:
                self.gaps += 1
                self._end("it may have been a part of the book: starting again from a snapshot")

    def _complain(self, what: str, **details: str) -> None:
        """Log a complaint once a connection; it never stops the other streams."""
        key = f"{what} {details}"
        if key not in self._complained and len(self._complained) < COMPLAINTS_MAX:
            self._complained.add(key)
            self._log.warning(what, **details)
