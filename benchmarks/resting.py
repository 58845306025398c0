"""A million resting orders: the rate of quotes, memory, a new owner after a kill, and the API beside them.

In books of their own, each in a process of its own: quotes a second that cross nothing, and what the process grew
by for each order. On a real SQLite database with real workers: how long after SIGKILL of the owner (its lease of 5 s
included), and after the lease is given back in order, an order rests that was placed meanwhile. On the same databases:
GET and DELETE of one order.

`python -m benchmarks.resting 100000` takes another number of orders.
"""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from decimal import Decimal
from http.client import HTTPConnection
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import psutil

from benchmarks.accept import serving
from benchmarks.book import T0, fed, instruments, quotes, rate
from benchmarks.fulfilling import OWNER, VENUE, new_orders
from cli.valkey import free_port
from models.domain.identifiers import uuid7
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import Order, Side, TimeInForce
from models.store.database import Database
from models.store.orders import accept, orders_by_ids
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from models.store.tables import shards
from models.store.venues import ensure_venues
from tests.services import ROOT, running_valkey

FEW, PAGE, SYMBOLS = 1_000, 5_000, 100
TOKEN = "benchmark"
LIMIT_S = 120.0


def _book(count: int) -> tuple[float, float]:
    """Return quotes a second, and bytes an order, with so many in a book. Runs in a process of its own."""
    # Prices and sizes repeat, as those that people write do, and are kept once, as the store does.
    numbers = {text: Decimal(text) for text in (f"{number / 100:.2f}" for number in range(100_000))}
    chance = random.Random(1)
    process = psutil.Process()

    def page(start: int) -> list[Order]:
        made = []
        for seq in range(start, min(count, start + PAGE)):
            side, base = (Side.SELL, 80_000_00) if seq % 2 else (Side.BUY, 100_00)
            price = numbers.setdefault(text := f"{(base + chance.randrange(1_000)) / 100:.2f}", Decimal(text))
            size = numbers[f"{chance.randrange(1, 10_000) / 100:.2f}"]
            ids = (uuid7(T0 + seq), uuid7(T0 + seq))
            ends = T0 + 10**12 + chance.randrange(10**12)
            symbol = SYMBOL_NAMES[seq % SYMBOLS]
            made.append(Order(seq, *ids, OWNER, symbol, side, price, size, TimeInForce.GTD, None, ends))
        return made

    given = quotes(100_000, SYMBOLS)
    book = fed(instruments(SYMBOLS), page(0)[:1])
    began = process.memory_info().rss
    for start in range(0, count, PAGE):
        result = book.step(T0, orders=page(start))
        while result.more:
            result = book.step(T0)
    grown = process.memory_info().rss - began
    assert len(book) == count
    half = len(given) // 2
    rates = [rate(book, some, 100)[0] for some in (given[:half], given[half:])]
    return max(rates), grown / count


SYMBOL_NAMES = [f"S{number}-USD" for number in range(SYMBOLS)]


def _books(count: int) -> None:
    found: dict[int, list[tuple[float, float]]] = {FEW: [], count: []}
    for _ in range(2):
        for size, each in found.items():
            with get_context("spawn").Pool(1) as pool:
                each.append(pool.apply(_book, (size,)))
    few, many = (max(speed for speed, _ in found[size]) for size in (FEW, count))
    grown = max(size for _, size in found[count])
    print("| resting orders | quotes/s | bytes an order |\n|---|--:|--:|")
    print(f"| {FEW:,} | {few:,.0f} | |\n| {count:,} | {many:,.0f} | {grown:,.0f} |")
    print(
        f"\n{many / few:.2f} x the rate: the aim of 0.8 is {'' if many >= 0.8 * few else '**not** '}reached; ", end=""
    )
    print(f"that of 800 bytes is {'' if grown <= 800 else '**not** '}reached.\n", flush=True)


def _fill(url: str, count: int) -> list[str]:
    """Make a database with so many working orders; return the ids of some."""
    migrate(url)
    with closing(Database.open(url)) as database:
        fix_shards(database, 1)
        ensure_venues(database, [VENUE])
        ensure_owner(database, OWNER, "admin", TOKEN)
        [made] = new_orders(1, ["LTC-BTC"], 1)
        accept(database, [made])
    chance, now_us, tick = random.Random(1), time.time_ns() // 1000, INSTRUMENTS["LTC-BTC"].tick
    ids = [(uuid7(now_us), uuid7(now_us)) for _ in range(count)]
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        for table in ("jobs", "orders"):
            cursor = connection.execute(f"SELECT * FROM {table} LIMIT 1")
            names, row = [column[0] for column in cursor.description], list(cursor.fetchone())
            # Copies of the one that was accepted, which work, each under its own ids.
            place = {name: number for number, name in enumerate(names)}
            row[place["state"]] = "running" if table == "jobs" else "working"
            marks = ", ".join("?" * len(names))

            def rows(
                table: str = table, row: list[object] = row, place: dict[str, int] = place
            ) -> Iterator[list[object]]:
                for number, (order_id, job_id) in enumerate(ids, 2):
                    if table == "jobs":
                        row[place["id"]] = job_id
                    else:
                        row[place["seq"]], row[place["id"]], row[place["job_id"]] = number, order_id, job_id
                        row[place["price"]] = f"{(50_000 + chance.randrange(10_000)) * tick:f}"
                        row[place["size"]] = str(chance.randrange(1, 1_000))
                    yield row

            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows())
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return [order_id for order_id, _ in chance.sample(ids, 400)]


@contextmanager
def _worker(url: str, broker: str) -> Iterator[psutil.Process]:
    environment = {**os.environ, "CROSSFILL_DATABASE_URL": url, "CROSSFILL_BROKER_URL": broker}
    command, quiet = [sys.executable, "-m", "workers", "fulfilment"], subprocess.DEVNULL
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet)
    try:
        yield psutil.Process(running.pid)
    finally:
        running.terminate()
        running.wait(20)


def _owner(database: Database) -> str | None:
    with database.read() as connection:
        return connection.execute(shards.select()).one().owner  # type: ignore[no-any-return] # a row's column


def _rests(database: Database) -> float:
    """Accept an order, wait until it rests, and return when that was."""
    [made] = new_orders(1, ["LTC-BTC"], 1)
    accept(database, [made])
    return _when(lambda: _state(database, made.id) == "working")


def _state(database: Database, order_id: str) -> str:
    with database.read() as connection:
        return orders_by_ids(connection, [order_id])[order_id].state.value


def _when(condition: Callable[[], bool]) -> float:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)
    return time.monotonic()


def _take_over(url: str, broker: str, *, kill: bool) -> tuple[float, float]:
    """Return how long after the kill, or after the lease was given back, the stand-by works; and its megabytes."""
    with closing(Database.open(url)) as database, ExitStack() as stack:
        first = stack.enter_context(_worker(url, broker))
        _rests(database)
        before = _owner(database)
        second = stack.enter_context(_worker(url, broker))
        time.sleep(4)
        first.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        began = time.monotonic() if kill else _when(lambda: _owner(database) != before)
        return _rests(database) - began, second.memory_info().rss / 1e6


def _latencies(url: str, broker: str, folder: Path, ids: list[str]) -> dict[str, float]:
    """Return the median milliseconds of GET and DELETE of one order."""
    port = free_port()
    environment = {
        "CROSSFILL_HOME": str(folder),
        "CROSSFILL_BROKER_URL": broker,
        "CROSSFILL_API_PORT": str(port),
        "CROSSFILL_DATABASE_URL": url,
    }
    found = {}
    with (
        serving([sys.executable, "-m", "api"], port, environment),
        closing(HTTPConnection("127.0.0.1", port)) as client,
    ):
        for method, some in (("GET", ids[:300]), ("DELETE", ids[300:])):
            took = []
            for order_id in some:
                began = time.perf_counter()
                client.request(method, f"/orders/{order_id}", headers={"Authorization": f"Bearer {TOKEN}"})
                response = client.getresponse()
                response.read()
                took.append(time.perf_counter() - began)
                assert response.status < 300, response.status
            found[method] = 1e3 * median(took)
    return found


def main(count: int = 1_000_000) -> None:
    """Print tables: books alone, then databases with few and many orders."""
    _books(count)
    print(
        "| open orders | works again after | s | aim | GET ms | DELETE ms | worker MB |\n|--:|---|--:|--:|--:|--:|--:|"
    )
    latencies: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, running_valkey(Path(name)) as broker:
        for size, way, aim in ((FEW, "SIGKILL", 45), (10_000, "a hand-over", 1), (count, "SIGKILL", 45)):
            folder = Path(name) / f"{size}-{way[-4:]}"
            folder.mkdir()
            url = f"sqlite:///{folder / 'crossfill.db'}"
            ids = _fill(url, size)
            took_s, megabytes = _take_over(url, broker, kill=way == "SIGKILL")
            latencies[size] = timed = _latencies(url, broker, folder, ids)
            told = f"{timed['GET']:.2f} | {timed['DELETE']:.2f} | {megabytes:,.0f}"
            print(f"| {size:,} | {way} | {took_s:.2f} | {aim} | {told} |", flush=True)
    ratios = {method: latencies[count][method] / latencies[FEW][method] for method in ("GET", "DELETE")}
    print(f"\nWith {count:,} orders: {ratios['GET']:.2f} x the time of a GET with {FEW:,}, ", end="")
    print(f"{ratios['DELETE']:.2f} x that of a DELETE.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
