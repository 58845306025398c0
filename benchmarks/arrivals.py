"""An open loop: requests that arrive at a constant rate whatever the server does, over connections that stay open.

A latency is counted from when a request was due, so that one that had to wait for a connection, or for this
program, is not told of as fast (coordinated omission). Without a rate each connection sends the next
request as soon as it is answered; then a request is due when it is sent.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

LOST = 0  # the status of a request whose connection was closed before the answer
ANSWER_S = 60.0  # the longest that is waited for the last answers


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `place` is the request's, in their order; times are those of `time.perf_counter`."""

    place: int
    due: float
    answered: float
    status: int
    retry_after: bool
    body: bytes

    @property
    def latency_ms(self) -> float:
        """Milliseconds from when the request was due."""
        return (self.answered - self.due) * 1e3


def quantile(values: list[float], fraction: float) -> float:
    """Return the value below which this fraction of sorted values lies; not a number where there is none."""
    return values[min(len(values) - 1, int(len(values) * fraction))] if values else float("nan")


class _Connection(asyncio.Protocol):
    def __init__(self, arrivals: "_Arrivals") -> None:
        self._arrivals = arrivals
        self._buffer = b""
        self._at: tuple[int, float] | None = None  # the place of the request on its way, and when it was due

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def send(self, place: int, due: float, request: bytes) -> None:
        self._at = (place, due)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        fields = dict(line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:])
        if len(body) < int(fields[b"content-length"]):
            return
        self._buffer = b""
        assert self._at is not None
        answer = Answer(*self._at, time.perf_counter(), int(head[9:12]), b"retry-after" in fields, body)
        self._at = None
        self._arrivals.answered(self, answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        lost = self._at and Answer(*self._at, time.perf_counter(), LOST, retry_after=False, body=b"")
        self._arrivals.lost(self, lost)

    def close(self) -> None:
        self._transport.close()


class _Arrivals:
    def __init__(self, requests: Iterator[bytes], *, closed: bool) -> None:
        self.answers: list[Answer] = []
        self.sent = 0
        self._requests = requests
        self._closed = closed
        self._ended = False
        self._done = asyncio.Event()
        # The one that has been idle for the longest goes first: servers close those that are idle for seconds.
        self._idle: deque[_Connection] = deque()
        self._due: deque[float] = deque()

    async def open(self, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, made = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
            self._idle.append(made)

    def arrive(self, due: float) -> None:
        self._due.append(due)
        self._send()

    def _send(self) -> None:
        while self._due and self._idle:
            self._idle.popleft().send(self.sent, self._due.popleft(), next(self._requests))
            self.sent += 1

    def answered(self, connection: _Connection, answer: Answer) -> None:
        self.answers.append(answer)
        self._idle.append(connection)
        if self._closed and not self._ended:
            self._due.append(time.perf_counter())
        self._send()
        self._tell()

    def _tell(self) -> None:
        if self._ended and not self._due and len(self.answers) == self.sent:
            self._done.set()

    def lost(self, connection: _Connection, answer: Answer | None) -> None:
        if answer is not None:
            self.answers.append(answer)
            self._tell()
        else:
            self._idle.remove(connection)

    async def finish(self) -> None:
        self._ended = True
        self._tell()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._done.wait(), ANSWER_S)
        for connection in list(self._idle):
            connection.close()
        await asyncio.sleep(0)


async def arrive(
    port: int, requests: Iterator[bytes], *, connections: int, duration_s: float, rate: float | None = None
) -> list[Answer]:
    """Send requests to a server on loopback for some seconds, at a rate a second, and return the answers as they came.

    What is not answered a minute later is left out; the highest place tells that.
    """
    arrivals = _Arrivals(requests, closed=rate is None)
    await arrivals.open(port, connections)
    started = time.perf_counter()
    if rate is None:
        for _ in range(connections):
            arrivals.arrive(time.perf_counter())
        await asyncio.sleep(duration_s)
    else:
        for number in range(int(rate * duration_s)):
            due = started + number / rate
            if (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            arrivals.arrive(due)
            if not number % 64:
                await asyncio.sleep(0)  # where all are late, answers must be read all the same
    await arrivals.finish()
    return arrivals.answers
