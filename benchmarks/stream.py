"""The path of quotes: socket, collector, Redis stream, loop. What each stage costs, and each process of the whole.

Stages run in turn in one process, in batches of what comes within the collector's 4 ms at 60,000 quotes/s, by the
CPU time of their thread; Valkey's by its process. The whole is the real collector, a real Valkey and a reader in a
process of its own that does what a loop does, fed with frames as fast as they are taken.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import psutil
import websocket

from benchmarks.feed import Blast, framed, measure
from benchmarks.frames import as_bytes, frames_of, majors
from cli.valkey import free_port
from exchanges.registry import PROTOCOLS
from models.bus.client import connect
from models.bus.quotes import QuoteReader, QuoteWriter
from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import BusItem, Mark, Quote
from tests.services import ROOT, running_valkey
from workers.connection import clock_us
from workers.frames import FrameSocket
from workers.fulfilment import READ_BLOCK_MS, READ_PAUSE_S
from workers.history import History
from workers.inbox import Inbox
from workers.outbox import Outbox, Pace

VENUE = "binance"
FRAMES = 40_000
BATCH = 240
ROUNDS = 5
AIM = 60_000  # quotes a second of a core


class Stages:
    """One venue's frames and quotes, and what is done with them on their way; each returns how many it took."""

    def __init__(self, bus: Any) -> None:  # noqa: ANN401 -- a client of Redis
        self._first, self._rest = frames_of(VENUE, FRAMES, majors(VENUE))
        frames, protocol = [*self._first, *self._rest], self._protocol()
        events = [event for frame in frames for event in protocol.decode(frame, clock_us())]
        found = [event for event in events if isinstance(event, Quote)]
        quotes = [msgspec.structs.replace(quote, number=number) for number, quote in enumerate(found, 1)]
        self._batches = [quotes[start : start + BATCH] for start in range(0, len(quotes), BATCH)]
        self.count = len(quotes)
        self._bus, self._writer = bus, QuoteWriter(bus)
        self._read: list[list[BusItem]] = []

    @staticmethod
    def _protocol() -> "_Decoder":
        return _Decoder(VENUE)

    def _served(self, client: websocket.WebSocket) -> None:
        blast = Blast([*map(framed, self._first)], [*map(framed, self._rest)])
        blast.taken = len(self._rest)
        client.connect(f"ws://127.0.0.1:{blast.port}")  # type: ignore[no-untyped-call] # the library ships half its types
        blast.go.set()

    def library(self) -> Iterator[int]:
        """Read frames as the library does."""
        client = websocket.WebSocket(skip_utf8_validation=True)
        self._served(client)
        yield 0
        for _ in range(len(self._first) + len(self._rest)):
            client.recv_data(control_frame=True)
        yield len(self._first) + len(self._rest)
        client.shutdown()  # type: ignore[no-untyped-call] # likewise

    def socket(self) -> Iterator[int]:
        """Read frames as the collector does."""
        client, count = FrameSocket(skip_utf8_validation=True), 0
        self._served(client)
        yield 0
        while count < len(self._first) + len(self._rest):
            count += len(client.read()[1])
        yield count
        client.shutdown()  # type: ignore[no-untyped-call] # likewise

    def decode(self) -> Iterator[int]:
        """Make quotes and trades of frames."""
        protocol = self._protocol()
        yield 0
        for frame in self._first:
            protocol.decode(frame, 0)
        for frame in self._rest:
            protocol.decode(frame, 0)
        yield len(self._first) + len(self._rest)

    def outbox(self) -> Iterator[int]:
        """Put quotes into the outbox and take them out, remember and pace them."""
        outbox, history, pace = Outbox(VENUE, "simulated"), History(VENUE, 1, 0, "simulated"), Pace()
        yield 0
        for batch in self._batches:
            for quote in batch:
                outbox.put(quote)
            items, latest = outbox.take()
            history.take(items, latest, clock_us())
            pace.wrote(pace.batch(items, clock_us())[0], 0.001)
        yield self.count

    def write(self) -> Iterator[int]:
        """Encode and XADD."""
        yield 0
        for batch in self._batches:
            self._writer.write({0: batch}, {})
        yield self.count

    def read(self) -> Iterator[int]:
        """XREAD and decode, the stream having been written by nobody else since."""
        reader, count = QuoteReader(self._bus, 0), 0
        reader.read(1)
        for batch in self._batches:
            self._writer.write({0: batch}, {})
        self._read = []
        yield 0
        while count < self.count:
            self._read.append(reader.read(1))
            count += len(self._read[-1])
        yield count

    def inbox(self) -> Iterator[int]:
        """Hand the items from the reader's thread to the loop's."""
        inbox = Inbox(self.count)
        yield 0
        for items in self._read:
            inbox.put(items)
            inbox.wait(0)
        yield self.count

    def step(self) -> Iterator[int]:
        """Step a book without orders."""
        book = Book(INSTRUMENTS)
        token = self._batches[0][0].token
        book.step(1, items=[Mark(VENUE, token, 1)])
        yield 0
        for batch in self._batches:
            book.step(1, items=batch)
        yield self.count


class _Decoder:
    """The venue's protocol, given frames as they were made."""

    def __init__(self, venue: str) -> None:
        self._protocol = PROTOCOLS[venue](None, list(INSTRUMENTS.products_of(venue)), 1)

    def decode(self, frame: str | bytes, received_us: int) -> Any:  # noqa: ANN401 -- its events
        return self._protocol.decode(as_bytes(frame), received_us)


def _cpu_us(stage: Callable[[], Iterator[int]], server: psutil.Process) -> tuple[float, float]:
    """Return what one item costs this thread and the server."""
    work = stage()
    next(work)
    theirs, ours = sum(server.cpu_times()[:2]), time.thread_time_ns()
    count = next(work)
    ours = time.thread_time_ns() - ours
    theirs = sum(server.cpu_times()[:2]) - theirs
    next(work, None)
    return ours / count / 1e3, theirs / count * 1e6


def stages(redis_url: str) -> None:
    """Print what each stage costs, the least of some rounds; Valkey's share is the mean, by its clock of 10 ms."""
    bus = connect(redis_url)
    server = psutil.Process(bus.info("server")["process_id"])
    path = Stages(bus)
    collector = {"outbox: number, conflate, history": path.outbox, "encode, XADD": path.write}
    loop = {"XREAD, decode": path.read, "inbox": path.inbox, "Book.step, no orders": path.step}
    socket = {"websocket-client's own recv (limit)": path.library, "read the socket": path.socket}
    every = {**socket, "decode a frame": path.decode, **collector, **loop}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
    for _ in range(ROUNDS):
        for name, stage in every.items():
            spent[name].append(_cpu_us(stage, server))
    least = {name: min(ours for ours, _ in each) for name, each in spent.items()}
    theirs = sum(sum(their for _, their in spent[name]) / ROUNDS for name in ("encode, XADD", "XREAD, decode"))
    print(f"{BATCH} quotes a batch.\n\n| stage | us each | a second of a core |\n|---|--:|--:|")
    for name, us in least.items():
        print(f"| {name} | {us:.2f} | {1e6 / us:,.0f} |")
    print(
        "\n| process, quotes from `Outbox.put` to `Book.step` | us each | a second of a core | aim |\n|---|--:|--:|---|"
    )
    halves = {name: sum(least[stage] for stage in of) for name, of in (("collector", collector), ("loop", loop))}
    for name, us in (("collector", halves["collector"]), ("Valkey", theirs), ("loop", halves["loop"])):
        print(f"| {name} | {us:.2f} | {1e6 / us:,.0f} | {_word(1e6 / us)} |")
    bus.close()


def _word(rate: float) -> str:
    return f"{AIM:,} " + ("reached" if rate >= AIM else "NOT REACHED")


def loop(redis_url: str) -> None:
    """Do what a loop does with quotes until standard input ends; print how many came, and the CPU seconds."""
    inbox, book, ended = Inbox(), Book(INSTRUMENTS), Event()
    reader = QuoteReader(connect(redis_url), 0)

    def read() -> None:
        while not ended.wait(READ_PAUSE_S):
            inbox.put(reader.read(READ_BLOCK_MS))

    def end() -> None:
        sys.stdin.read()
        ended.set()
        inbox.wake()

    threads = [Thread(target=work) for work in (read, end)]
    before, count = time.process_time(), 0
    for thread in threads:
        thread.start()
    while not ended.is_set():
        items, _ = inbox.wait(time.monotonic() + 1)
        count += sum(isinstance(item, Quote) for item in items)
        book.step(clock_us(), items=items)
    print(count + inbox.conflated, time.process_time() - before)
    for thread in threads:
        thread.join()


@contextmanager
def _looping(redis_url: str, said: list[str]) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.stream", "loop", redis_url]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        said += process.communicate(timeout=30)[0].split()


def whole(venue: str, redis_url: str, folder: Path) -> None:
    """Print a row: what each process makes of a venue that sends as fast as the collector takes it."""
    bus, said = connect(redis_url), list[str]()
    server = psutil.Process(bus.info("server")["process_id"])
    bus.close()
    before = sum(server.cpu_times()[:2])
    with _looping(redis_url, said):
        rate, core, state = measure(venue, redis_url, folder)
        used_s = sum(server.cpu_times()[:2]) - before
    count, loop_s = int(said[0]), float(said[1])
    figures = f"{rate:,.0f} | {core:,.0f} | {count:,} | {state.conflated:,}"
    print(f"| {venue} | {figures} | {count / used_s:,.0f} | {count / loop_s:,.0f} |", flush=True)


def main() -> None:
    """Print tables."""
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name:
        with running_valkey(Path(name) / "stages", free_port()) as redis_url:
            stages(redis_url)
        print("\n| whole | messages/s | of the collector's core | quotes in the loop | conflated ", end="")
        print("| of Valkey's core | of the loop's core |\n|---|--:|--:|--:|--:|--:|--:|")
        for venue in PROTOCOLS:
            folder = Path(name) / venue
            folder.mkdir()
            with running_valkey(folder / "valkey", free_port()) as redis_url:
                whole(venue, redis_url, folder)


if __name__ == "__main__":
    assert sys.argv[1] == "loop"
    loop(sys.argv[2])
