"""More POSTs than can be stored: what is answered, how late, what waits inside, and how it is afterwards.

The real API alone, on SQLite and on PostgreSQL, both writing through to the disk. First what it takes at 32
connections; then 2,000 that ask again at once, and an open loop at three times the rate; then 32 again.
Each order has its own client_order_id, so that what was accepted can be looked for in the database. Requests
share the machine with the server: at three times the rate this program itself needs most of a core.

`python -m benchmarks.overload 8` takes the seconds of each part.
"""

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import uvloop
from sqlalchemy import select

from benchmarks.accept import crossfill
from benchmarks.arrivals import LOST, Answer, arrive, quantile
from benchmarks.fulfilling import DATABASES, Store, store
from benchmarks.load import post
from models.store.tables import orders
from tests.services import running_valkey

FEW, MANY = 32, 2_000
TIMES = 3
TOKEN = "benchmark"
LOOK_S = 0.5
GAUGE = "crossfill_accept_queue_size "
GROWTH, AS_FAST = 1.5, 0.9  # the aims: the second half's p99 by the first's, the rate afterwards by the one before


def requests(kind: str) -> Iterator[bytes]:
    """Yield orders with names of their own."""
    for number in count():
        body = {"symbol": "LTCBTC", "order_size": 1, "price": 0.0001, "client_order_id": f"{kind}-{number}"}
        yield post("/order/limit", json.dumps(body).encode(), TOKEN)


class QueueWatch:
    """Looks how many orders wait in the API, and keeps the largest number."""

    def __init__(self, port: int) -> None:
        self.most = 0
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._ended.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            with suppress(URLError, TimeoutError), urlopen(self._url, timeout=10) as answer:
                lines = answer.read().decode().splitlines()
                self.most = max(self.most, *(int(float(line.split()[1])) for line in lines if line.startswith(GAUGE)))


class Part:
    """One part of a run: its answers, and the names of the orders that it sent."""

    def __init__(self, kind: str, port: int, connections: int, duration_s: float, rate: float | None = None) -> None:
        self.kind, self.connections = kind, connections
        watch = QueueWatch(port)
        began = time.perf_counter()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sending = arrive(port, requests(kind), connections=connections, duration_s=duration_s, rate=rate)
            self.answers = runner.run(sending)
        self.took_s = time.perf_counter() - began
        watch.close()
        self.queue_most = watch.most
        self.accepted = [answer for answer in self.answers if answer.status == 202]
        self.statuses = Counter(answer.status for answer in self.answers)

    @property
    def rate(self) -> float:
        """Orders accepted a second."""
        return len(self.accepted) / self.took_s

    def row(self) -> str:
        """Return the row of the table."""
        refused = [answer for answer in self.answers if answer.status == 503]
        retry = sum(answer.retry_after for answer in refused)
        halves = " | ".join(f"{_p99(half):,.0f}" for half in self.halves())
        other = {status: number for status, number in self.statuses.items() if status not in (202, 503)}
        return (
            f"{self.kind} | {self.connections:,} | {len(self.answers) / self.took_s:,.0f} | {self.rate:,.0f} | "
            f"{len(refused):,} ({retry:,}) | {_p99(refused):,.0f} | {halves} | {self.queue_most:,} | {other or ''}"
        )

    def halves(self) -> tuple[Sequence[Answer], Sequence[Answer]]:
        """Return what was accepted in either half of the time."""
        ordered = sorted(self.accepted, key=lambda answer: answer.due)
        return ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]


def _p99(answers: Sequence[Answer]) -> float:
    return quantile(sorted(answer.latency_ms for answer in answers), 0.99)


def overload(made: Store, folder: Path, broker: str, duration_s: float) -> list[Part]:
    """Run all parts against an API of its own."""
    with crossfill(made, folder, broker) as port:
        Part("warm", port, FEW, 1)
        before = Part("before", port, FEW, duration_s)
        crowd = Part("crowd", port, MANY, duration_s)
        flood = Part(f"{TIMES} x the rate", port, MANY, duration_s, TIMES * before.rate)
        time.sleep(1)
        return [before, crowd, flood, Part("after", port, FEW, duration_s)]


def lost(made: Store, parts: Sequence[Part]) -> int:
    """Return how many accepted orders are not in the database."""
    with made.database.read() as connection:
        stored = set(connection.execute(select(orders.c.client_order_id)).scalars())
    return sum(f"{part.kind}-{answer.place}" not in stored for part in parts for answer in part.accepted)


def main(duration_s: float = 10) -> None:
    """Print a table."""
    print("| database | part | connections | answers/s | 202/s | 503 (with Retry-After) | p99 ms of 503 | ", end="")
    print("of 202, first half | second | waiting at most | others |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, running_valkey(Path(name)) as broker:
        for kind in DATABASES:
            with store(kind, 1) as made:
                parts = overload(made, Path(name), broker, duration_s)
                verdicts.append(f"{kind}: {_verdict(parts)}; {lost(made, parts):,} accepted orders are lost")
            for part in parts:
                print(f"| {kind} | {part.row()} |", flush=True)
    print("\n" + "\n".join(verdicts))


def _verdict(parts: Sequence[Part]) -> str:
    before, *over, after = parts
    refused = all(part.statuses[503] for part in over) and not any(part.statuses[LOST] for part in over)
    growth = max(_p99(second) / _p99(first) for first, second in (part.halves() for part in over))
    faster = after.rate / before.rate
    return (
        f"refusals {_reached(refused)}; p99 of the second half {growth:.2f} x the first's "
        f"{_reached(growth <= GROWTH)}; afterwards {faster:.2f} x the rate of before {_reached(faster >= AS_FAST)}"
    )


def _reached(reached: bool) -> str:  # noqa: FBT001 -- what it says
    return "reached" if reached else "NOT REACHED"


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
