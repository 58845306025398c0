"""A small HTTP load generator: keep-alive connections that each send the next request after the answer."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import cast

import uvloop


@dataclass(frozen=True)
class Load:
    """What one load gave: seconds for each answer, in order of size, and answers by status."""

    latencies_s: list[float]
    statuses: dict[int, int]
    duration_s: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.duration_s

    def quantile_ms(self, fraction: float) -> float:
        """Milliseconds below which this fraction of the answers came."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(len(self.latencies_s) * fraction))] * 1000


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], until: float, load: tuple[list[float], dict[int, int]]) -> None:
        self.requests, self.until = requests, until
        self.latencies, self.statuses = load
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._send()

    def _send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        if len(body) < length:
            return
        status = int(head[9:12])
        self.statuses[status] = self.statuses.get(status, 0) + 1
        now = time.perf_counter()
        self.latencies.append(now - self.sent)
        self.buffer = b""
        if now < self.until:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        if not self.done.done():
            self.done.set_result(None)


async def _run(port: int, requests: Iterator[bytes], connections: int, duration_s: float) -> Load:
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(
            lambda: _Connection(requests, started + duration_s, (latencies, statuses)),
            "127.0.0.1",
            port,
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    return Load(sorted(latencies), statuses, time.perf_counter() - started)


def get(path: str) -> bytes:
    """Return the bytes of a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, body: bytes, token: str | None = None) -> bytes:
    """Return the bytes of a POST request with a JSON body."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def run(port: int, request: bytes, *, connections: int, duration_s: float) -> Load:
    """Load a server on loopback for some seconds over some connections and return what came back."""
    return run_many(port, [request], connections=connections, duration_s=duration_s)


def run_many(port: int, requests: Sequence[bytes], *, connections: int, duration_s: float) -> Load:
    """Do the same with several requests, one after the other."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(port, cycle(requests), connections, duration_s))
