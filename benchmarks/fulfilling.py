"""The real fulfilment worker on either database: what `resting_rate` and `scale` share."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import func, select

from models.bus.client import connect
from models.bus.quotes import QuoteWriter
from models.domain.identifiers import uuid7
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import Side, TimeInForce
from models.domain.quotes import BusItem, Mark, Quote
from models.domain.shards import shard_of
from models.store.database import Database, StoreUnavailableError
from models.store.orders import NewOrder
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from models.store.tables import shards
from models.store.venues import ensure_venues
from tests.services import ROOT, running_postgres

DATABASES = ("sqlite", "postgresql")
OWNER = "local"
VENUE = "binance"
LIMIT_S = 120.0
CHECKPOINT_S = 5.0
MARK_S = 0.4


@dataclass(frozen=True)
class Store:
    """A fresh database, and the process of its server where it has one."""

    url: str
    database: Database
    server: psutil.Process | None


@contextmanager
def store(kind: str, count: int) -> Iterator[Store]:
    """Make a database with so many shards and one owner; it writes through to the disk, and is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="crossfill-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if kind == "sqlite":
            url, server = f"sqlite:///{folder / 'crossfill.db'}", None
        else:
            url = stack.enter_context(running_postgres(folder, durable=True))
            server = next(each for each in psutil.Process().children() if each.name().startswith("postgres"))
        migrate(url)
        database = Database.open(url)
        stack.callback(database.close)
        fix_shards(database, count)
        ensure_venues(database, [VENUE])
        ensure_owner(database, OWNER, "admin", "benchmark")
        ended = threading.Event()
        keeping = threading.Thread(target=_keep_house, args=(database, ended))
        keeping.start()
        try:
            yield Store(url, database, server)
        finally:
            ended.set()
            keeping.join()


def _keep_house(database: Database, ended: threading.Event) -> None:
    """Keep SQLite's log short, as the fulfilment workers do, which do not run in every benchmark."""
    while not ended.wait(CHECKPOINT_S):
        with suppress(StoreUnavailableError):
            database.checkpoint()


@contextmanager
def workers(made: Store, redis_url: str, count: int) -> Iterator[list[psutil.Process]]:
    """Run fulfilment workers until they share all shards evenly; they log to nowhere."""
    environment = {**os.environ, "CROSSFILL_DATABASE_URL": made.url, "CROSSFILL_BROKER_URL": redis_url}
    command = [sys.executable, "-m", "workers", "fulfilment"]
    quiet = subprocess.DEVNULL
    running = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet) for _ in range(count)]
    try:
        _until(lambda: _even(made.database, count), "the workers do not share the shards")
        yield [psutil.Process(process.pid) for process in running]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)


def _even(database: Database, count: int) -> bool:
    with database.read() as connection:
        held = connection.execute(
            select(func.count()).where(shards.c.owner.is_not(None)).group_by(shards.c.owner)
        ).scalars()
        parts = list(held)
        every = connection.execute(select(func.count()).select_from(shards)).scalar_one()
    return sum(parts) == every and len(parts) == min(count, every) and max(parts) - min(parts) <= 1


def _until(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(problem)
        time.sleep(0.05)


def new_orders(count: int, symbols: Sequence[str], shards_count: int) -> list[NewOrder]:
    """Return orders of the symbols in turn, each to sell the finest step at a price that any bid reaches."""
    now_us = time.time_ns() // 1000
    return [
        NewOrder(
            id=uuid7(now_us),
            job_id=uuid7(now_us),
            owner_id=OWNER,
            shard=shard_of(symbol, shards_count),
            symbol=symbol,
            side=Side.SELL,
            price=INSTRUMENTS[symbol].tick,
            size=INSTRUMENTS[symbol].lot,
            time_in_force=TimeInForce.GTC,
            venues=None,
            client_order_id=None,
            market="simulated",
            created_us=now_us,
            deadline_us=None,
            idempotency_key=None,
            fingerprint="",
        )
        for symbol in (symbols[number % len(symbols)] for number in range(count))
    ]


def committed(database: Database) -> int:
    """Return how many outcomes were committed: the audit log of each shard counts them."""
    with database.read() as connection:
        return int(connection.execute(select(func.coalesce(func.sum(shards.c.audit_number), 0))).scalar_one())


def until_committed(database: Database, count: int) -> float:
    """Wait until so many outcomes are committed, and return the time of `time.perf_counter`."""
    deadline = time.monotonic() + LIMIT_S
    while (found := committed(database)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{found:,} of {count:,} outcomes were committed within {LIMIT_S:.0f} s")
        time.sleep(0.02)
    return time.perf_counter()


@contextmanager
def feeding(redis_url: str, symbols: Sequence[str], shards_count: int) -> Iterator[None]:
    """Be the collector of a venue that bids for more of each symbol than anybody sells, and marks that it lives."""
    client, ended = connect(redis_url), threading.Event()
    writer = QuoteWriter(client)
    quotes: dict[int, list[BusItem]] = {}
    for number, symbol in enumerate(symbols, 1):
        quotes.setdefault(shard_of(symbol, shards_count), []).append(_quote(symbol, number))

    def feed() -> None:
        items: Mapping[int, Sequence[BusItem]] = {
            shard: [Mark(VENUE, 1, _now_us()), *each] for shard, each in quotes.items()
        }
        while not ended.is_set():
            writer.write(items, {})
            items = {shard: [Mark(VENUE, 1, _now_us())] for shard in quotes}
            ended.wait(MARK_S)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        client.close()


def _quote(symbol: str, number: int) -> Quote:
    instrument = INSTRUMENTS[symbol]
    product = next(each for each in instrument.books if each.venue == VENUE)
    bid, size = 100 * product.tick, 10_000_000 * product.lot
    sides = (bid, size, bid + product.tick, size)
    now = _now_us()
    return Quote(VENUE, product.id, 1, number, *sides, live=True, exchange_time_us=None, received_time_us=now)


def _now_us() -> int:
    return time.time_ns() // 1000


def listed() -> list[str]:
    """Return the symbols that the venue lists."""
    return [instrument.symbol for instrument in INSTRUMENTS if VENUE in {each.venue for each in instrument.books}]
