"""A slow bus: how old the newest quote in a loop is when the collector's writes get a tenth of the bytes they want.

A proxy before a real Valkey first only counts what the collector writes for a steady feed of Binance's
frames, and then lets a tenth of that through. A reader reads the stream beside the proxy, as a loop does.
Each quote carries its number in its bid's size, so that it is known when the socket was given it.

`python -m benchmarks.slow_bus 30` takes the seconds of the slow part; `... proxy PORT` is the proxy.
"""

import asyncio
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any
from urllib.parse import urlsplit

import psutil
from websockets.http11 import Request
from websockets.server import ServerProtocol

from benchmarks.feed import collecting, framed
from benchmarks.frames import frames_of, majors
from cli.valkey import free_port
from models.bus.client import connect
from models.bus.latest import CollectorState, read_collectors
from models.bus.quotes import QuoteReader
from models.domain.quotes import Quote
from tests.services import ROOT, running_valkey
from workers.fulfilment import READ_BLOCK_MS, READ_PAUSE_S

VENUE = "binance"
RATE = 3_000  # messages a second that the venue sends
FRAMES = 20_000  # repeated for ever, under rising numbers
PART = 0.1  # of the bytes that the collector would write
WARM_S, FREE_S = 5.0, 10.0
SETTLE_S = 3.0  # after the bus has become slow; not measured
LOOK_S = 0.01
PACE_S = 0.002  # the venue sends what is due so often
SLICE_S = 0.01  # the proxy lets bytes through so often, and saves up no more than that
LAG_S = 1.0  # so late, the socket does not keep up
STEP, STEP_S = 1.2, 4.0
AGE_MS, GROWTH = 250, 1.05  # the aims

_QUOTE = re.compile(r'(.*"u":)\d+(,"s":"(\w+)".*"B":")[\d.]+(".*)')
_TRADE = re.compile(r'(.*"s":"(\w+)","t":)\d+(,"p":.*)')


class Steady:
    """A venue that sends one client frames at a rate that may be changed, and knows when each was due."""

    def __init__(self) -> None:
        first, rest = frames_of(VENUE, FRAMES, majors(VENUE))
        self.first = len(first)
        self.rate = 0.0
        self.count = self.first
        self.sent_at = array("d", [0.0])  # of each quote, by its number
        self.newest: dict[str, int] = {}  # by product: the number of the newest quote sent
        self._greeting = b"".join(map(framed, first))
        self._frames = cycle([self._parts(str(frame)) for frame in rest])
        self._trades: dict[str, int] = {}
        self._due_at, self._due = array("d"), array("d")
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _parts(frame: str) -> tuple[str, ...]:
        if quote := _QUOTE.fullmatch(frame):
            return quote[3], quote[1], quote[2], quote[4]
        if trade := _TRADE.fullmatch(frame):
            return trade[2], trade[1], trade[3]
        return (frame,)

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self._listener.close()
        self._thread.join(5)

    def due_at(self, count: float) -> float:
        """Return when so many frames were to be sent."""
        return self._due_at[min(bisect_left(self._due, count), len(self._due) - 1)]

    def _next(self, now: float) -> bytes:
        self.count += 1
        match next(self._frames):
            case product_id, head, middle, tail:
                number = self.newest[product_id] = len(self.sent_at)
                self.sent_at.append(now)
                return framed(f"{head}{number}{middle}{number}.00000000{tail}")
            case product_id, head, tail:
                self._trades[product_id] = number = self._trades.get(product_id, 0) + 1
                return framed(f"{head}{number}{tail}")
            case (frame,):
                return framed(frame)
            case other:
                raise AssertionError(other)

    def _run(self) -> None:
        with suppress(OSError):  # the collector ends first
            client, _ = self._listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server = ServerProtocol()
            while not (asked := server.events_received()):
                server.receive_data(client.recv(65_536))
            assert isinstance(asked[0], Request)
            server.send_response(server.accept(asked[0]))
            client.sendall(b"".join(server.data_to_send()) + self._greeting)
            threading.Thread(target=self._drain, args=(client,), daemon=True).start()
            due, then = float(self.count), time.monotonic()
            while not self._ended.wait(PACE_S):
                now = time.monotonic()
                due, then = due + self.rate * (now - then), now
                self._due.append(due)
                self._due_at.append(now)
                while self.count < due:
                    part = min(50, int(due - self.count) + 1)
                    client.sendall(b"".join([self._next(time.monotonic()) for _ in range(part)]))

    @staticmethod
    def _drain(client: socket.socket) -> None:
        with suppress(OSError):
            while client.recv(65_536):
                pass


class Proxy:
    """The proxy in a process of its own."""

    def __init__(self, target: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.slow_bus", "proxy", str(target)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._answer())

    def allow(self, rate: float) -> int:
        """Let so many bytes a second through to the server, 0 for all; return how many went through so far."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rate}\n")
        self._process.stdin.flush()
        self._rate = rate
        return int(self._answer())

    def passed(self) -> int:
        """Return how many bytes went through so far."""
        return self.allow(self._rate)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class _Throttle:
    """All connections' bytes on their way to the server, through one bucket of tokens."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.passed = 0
        self._tokens, self._at = 0.0, time.monotonic()

    async def _allowed(self) -> int:
        while self.rate:
            now = time.monotonic()
            self._tokens = min(self.rate * SLICE_S, self._tokens + self.rate * (now - self._at))
            self._at = now
            if self._tokens >= 1:
                return int(self._tokens)
            await asyncio.sleep(SLICE_S)
        return 65_536

    async def up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What is read while nothing is allowed waits here, as it would in a network.
        with suppress(OSError):
            while data := await reader.read(65_536):
                while data:
                    allowed = await self._allowed()
                    part, data = data[:allowed], data[allowed:]
                    if self.rate:
                        self._tokens -= len(part)
                    self.passed += len(part)
                    writer.write(part)
                    await writer.drain()
        writer.close()

    async def down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


async def _serve(target: int) -> None:
    throttle = _Throttle()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(throttle.up(reader, back), throttle.down(there, writer))

    def listen() -> None:
        for line in sys.stdin:
            throttle.rate = float(line)
            print(throttle.passed, flush=True)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    threading.Thread(target=listen, daemon=True).start()
    await server.serve_forever()


@dataclass
class Seen:
    """Ages of the newest quote of each product in the loop, in seconds, over some time."""

    at_batches: "array[float]" = field(default_factory=lambda: array("d"))
    always: "array[float]" = field(default_factory=lambda: array("d"))
    rss: list[int] = field(default_factory=list)

    def rows(self) -> Iterator[tuple[str, float, float, float, float]]:
        """Yield median, p99 and the largest age in milliseconds, and the percentage that misses the aim."""
        for name, ages in (("after each batch", self.at_batches), ("every 10 ms", self.always)):
            over = 100 * sum(age * 1e3 >= AGE_MS for age in ages) / len(ages)
            yield name, 1e3 * median(ages), 1e3 * quantiles(ages, n=100)[98], 1e3 * max(ages), over

    def thirds(self) -> list[float]:
        """Return the mean RSS of each third, in bytes."""
        third = len(self.rss) // 3
        return [mean(self.rss[start : start + third]) for start in (0, third, 2 * third)]


class Loop:
    """Reads the stream as a fulfilment loop does."""

    def __init__(self, redis_url: str, venue: Steady) -> None:
        self.seen = Seen()
        self._venue = venue
        self._newest: dict[str, int] = {}
        self._bus = connect(redis_url)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ages(self) -> Iterator[float]:
        """Yield how much older than the socket's newest quote the loop's newest quote is, for each product."""
        sent_at = self._venue.sent_at
        for product_id, number in list(self._newest.items()):
            yield sent_at[self._venue.newest[product_id]] - sent_at[number]

    def watch(self, process: psutil.Process, duration_s: float) -> Seen:
        """Measure for a time."""
        self.seen = Seen()
        end = time.monotonic() + duration_s
        rss_at = 0.0
        while (now := time.monotonic()) < end:
            self.seen.always.extend(self.ages())
            if now >= rss_at:
                rss_at = now + 0.5
                self.seen.rss.append(process.memory_info().rss)
            time.sleep(LOOK_S)
        seen, self.seen = self.seen, Seen()
        return seen

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self._thread.join(5)
        self._bus.close()

    def _run(self) -> None:
        reader = QuoteReader(self._bus, 0)
        while not self._ended.wait(READ_PAUSE_S):
            found = False
            for item in reader.read(READ_BLOCK_MS):
                if isinstance(item, Quote):
                    self._newest[item.product_id] = int(item.bid_size or 0)
                    found = True
            if found:
                self.seen.at_batches.extend(self.ages())


@contextmanager
def _collecting(folder: Path, redis_url: str, venue: Steady, bus: Any) -> Iterator[psutil.Process]:  # noqa: ANN401 -- a client of Redis
    """Run the real collector, from when it reads the venue."""
    folder.mkdir()
    with collecting(folder, redis_url, VENUE, venue.port) as process:
        deadline = time.monotonic() + 30
        while (state := read_collectors(bus).get(VENUE)) is None or state.messages < venue.first:
            assert time.monotonic() < deadline, "the collector does not read the venue"
            time.sleep(0.05)
        yield process


def _state(bus: Any) -> CollectorState:  # noqa: ANN401 -- likewise
    return read_collectors(bus)[VENUE]


def slow(folder: Path, redis_url: str, duration_s: float) -> None:
    """Print what a bus with a tenth of the bytes does."""
    target = urlsplit(redis_url).port or 0
    venue, proxy, bus = Steady(), Proxy(target), connect(redis_url)
    proxy.allow(0)
    slowed = redis_url.replace(f":{target}/", f":{proxy.port}/")
    loop = Loop(redis_url, venue)
    try:
        with _collecting(folder, slowed, venue, bus) as process:
            venue.rate = RATE
            time.sleep(WARM_S)
            before = proxy.passed()
            free = loop.watch(process, FREE_S)
            wanted = (proxy.passed() - before) / FREE_S
            proxy.allow(wanted * PART)
            time.sleep(SETTLE_S)
            start, before, sent = _state(bus), proxy.passed(), venue.count
            hindered = loop.watch(process, duration_s)
            got, sent = (proxy.passed() - before) / duration_s, venue.count - sent
            proxy.allow(0)
            time.sleep(2)  # the state of the end must come through
            end = _state(bus)
    finally:
        loop.close()
        proxy.close()
        venue.close()
        bus.close()
    print(f"{sent / duration_s:,.0f} messages/s for {duration_s:.0f} s; the collector would write {wanted:,.0f}")
    print(f"bytes/s and gets {got:,.0f}. Age of the loop's newest quote against the socket's, of each product:\n")
    print(f"| bus | looked at | median ms | p99 ms | max ms | % from {AGE_MS} ms |\n|---|---|--:|--:|--:|--:|")
    for name, seen in (("free", free), ("a tenth", hindered)):
        for at, middle, most, worst, over in seen.rows():
            print(f"| {name} | {at} | {middle:.0f} | {most:.0f} | {worst:.0f} | {over:.3f} |")
    begin, half, last = hindered.thirds()
    conflated, lost = end.conflated - start.conflated, end.trades_lost - start.trades_lost
    print(f"\nconflated {conflated:,}, trades lost {lost:,}, ", end="")
    print(f"connections {1 + end.reconnects}, gaps {end.gaps}; RSS of the thirds ", end="")
    print(f"{begin / 1e6:.1f}, {half / 1e6:.1f}, {last / 1e6:.1f} MB: last / middle {last / half:.3f}")
    oldest = 1e3 * max(hindered.always)
    print(f"aims: age < {AGE_MS} ms {_word(oldest < AGE_MS)}, memory {_word(last / half <= GROWTH)}")


def _word(reached: bool) -> str:  # noqa: FBT001 -- what it says
    return "reached" if reached else "NOT REACHED"


def limit(folder: Path, redis_url: str) -> None:
    """Print the rate at which the socket is read late, with a bus that is not slowed."""
    venue, bus = Steady(), connect(redis_url)
    kept, late_s = 0.0, 0.0
    clock = time.time() - time.monotonic()
    try:
        with _collecting(folder, redis_url, venue, bus):
            venue.rate = 2.0 * RATE
            time.sleep(WARM_S)
            while late_s <= LAG_S:
                end = time.monotonic() + STEP_S
                while time.monotonic() < end and late_s <= LAG_S:
                    time.sleep(0.25)
                    state = _state(bus)
                    late_s = state.marked_us / 1e6 - clock - venue.due_at(state.messages)
                    if state.reconnects:
                        late_s = float("inf")
                if late_s <= LAG_S:
                    kept = venue.rate
                    venue.rate *= STEP
    finally:
        venue.close()
        bus.close()
    late = f"{LAG_S:.0f} s late at {venue.rate:,.0f}"
    print(f"\nwith a free bus the socket keeps up at {kept:,.0f} messages/s, and is more than {late}")


def main(duration_s: float = 300) -> None:
    """Measure the slow bus, then the limit."""
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name:
        folder = Path(name)
        with running_valkey(folder / "valkey", free_port()) as redis_url:
            slow(folder / "slow", redis_url, duration_s)
        with running_valkey(folder / "valkey-free", free_port()) as redis_url:
            limit(folder / "free", redis_url)


if __name__ == "__main__":
    if sys.argv[1:2] == ["proxy"]:
        asyncio.run(_serve(int(sys.argv[2])))
    else:
        main(*map(float, sys.argv[1:2]))
