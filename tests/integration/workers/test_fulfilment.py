"""Fulfilment by real Celery worker processes: woken, not woken, without Redis, killed, and sharing shards."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from cli.playing import Rules, open_journals, play_journals
from cli.valkey import free_port
from models.bus.client import connect
from models.bus.names import Queue, orders_queue
from models.bus.quotes import QuoteWriter
from models.bus.wakeups import Wakeups, new_task_id
from models.domain.identifiers import uuid7
from models.domain.instruments import INSTRUMENTS
from models.domain.ledger import PRESENT
from models.domain.orders import Side, TimeInForce
from models.domain.outcomes import StepResult
from models.domain.quotes import BusItem, Mark, Market, Quote
from models.domain.shards import shard_of
from models.store.database import Database
from models.store.events import events_after
from models.store.orders import NewOrder, accept, orders_by_ids, splits_of
from models.store.owners import ensure_owner
from models.store.rows import OrderRow
from models.store.schema import fix_shards
from models.store.shards import claim
from models.store.tables import audit, shards
from models.store.venues import ensure_venues
from tests.chaos.faults import child_of
from tests.services import ROOT, running_valkey
from workers.fulfilment import FulfilmentLoop, LoopSettings

SYMBOL = "LTC-BTC"


def clock_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with one shard and an owner."""
    opened = Database.open(database_url)
    fix_shards(opened, 1)
    ensure_venues(opened, ["binance", "coinbase"])
    ensure_owner(opened, "local", "admin", "secret")
    yield opened
    opened.close()


@contextmanager
def running_worker(
    kind: str, database_url: str, redis_url: str, home: Path, *, lease_s: float = 2
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker process; end it afterwards, whatever became of it."""
    environment = {
        **os.environ,
        "CROSSFILL_DATABASE_URL": database_url,
        "CROSSFILL_BROKER_URL": redis_url,
        "CROSSFILL_HOME": str(home),
        "CROSSFILL_LEASE_S": str(lease_s),
    }
    log = (home / f"{kind}-{free_port()}.log").open("wb")
    command = [sys.executable, "-m", "workers", kind]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    log.close()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)


@contextmanager
def feeding(redis_url: str, shard: int = 0, size: str = "1000") -> Iterator[None]:
    """Be a collector: one quote of LTC-BTC at Binance, and marks that say the feed lives."""
    client = connect(redis_url)
    writer, stop = QuoteWriter(client), threading.Event()
    sides = (Decimal("0.0009"), Decimal(size), Decimal("0.001"), Decimal(1))
    quote = Quote("binance", "LTCBTC", 1, 1, *sides, live=True, exchange_time_us=None, received_time_us=clock_us())

    def feed() -> None:
        items: list[BusItem] = [Mark("binance", 1, clock_us()), quote]
        while not stop.is_set():
            writer.write({shard: items}, {})
            items = [Mark("binance", 1, clock_us())]
            stop.wait(0.3)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5)
        client.close()


def place(
    database: Database,
    size: str = "1",
    *,
    shard: int = 0,
    symbol: str = SYMBOL,
    count: int = 1,
    price: str = "0.0001",
) -> list[str]:
    """Accept orders as the API does, without waking anybody, and return their ids."""
    now_us = clock_us()
    new = [
        NewOrder(
            id=uuid7(now_us),
            job_id=uuid7(now_us),
            owner_id="local",
            shard=shard,
            symbol=symbol,
            side=Side.SELL,
            price=Decimal(price),
            size=Decimal(size),
            time_in_force=TimeInForce.GTC,
            venues=None,
            client_order_id=None,
            market="simulated",
            created_us=now_us,
            deadline_us=None,
            idempotency_key=None,
            fingerprint="",
        )
        for _ in range(count)
    ]
    accept(database, new)
    return [order.id for order in new]


def read(database: Database, order_id: str) -> OrderRow:
    with database.read() as connection:
        return orders_by_ids(connection, [order_id])[order_id]


def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def owners(database: Database) -> dict[int, str | None]:
    with database.read() as connection:
        return {row.shard: row.owner for row in connection.execute(select(shards.c.shard, shards.c.owner))}


def filled(database: Database, order_id: str) -> bool:
    return read(database, order_id).state.value == "filled"


def test_an_order_is_filled_with_and_without_a_wake_up(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """A wake-up makes it quick; without one the row is found all the same. Each ends once."""
    with running_worker("fulfilment", database_url, redis_url, tmp_path), feeding(redis_url):
        [first] = place(database)
        until(lambda: filled(database, first))
        [second] = place(database)
        wakeups = Wakeups(redis_url)
        assert wakeups.publish({0: new_task_id()})
        wakeups.close()
        until(lambda: filled(database, second))
        client = connect(redis_url)
        until(lambda: not client.llen(orders_queue(0)))
        client.close()
    with database.read() as connection:
        told = [event.type.value for event in events_after(connection, "local", 0, 100)]
    # Whether an order rested for a moment depends on when the first quote came.
    assert [kind for kind in told if kind != "order.working"] == [
        "order.accepted",
        "order.split",
        "order.filled",
        "job.done",
    ] * 2
    assert owners(database) == {0: None}  # a clean stop gives the lease back


def test_a_worker_starts_without_redis_and_works_when_it_comes(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    """The loop neither needs the broker to start nor ends with it."""
    port = free_port()
    url = f"redis://:pw@127.0.0.1:{port}/0"
    with running_worker("fulfilment", database_url, url, tmp_path) as process:
        [order_id] = place(database)
        until(lambda: read(database, order_id).state.value == "working")
        with running_valkey(tmp_path / "valkey", port, "pw"), feeding(url):
            until(lambda: filled(database, order_id))
        [late] = place(database)
        until(lambda: read(database, late).state.value != "queued")  # Redis is gone again
        assert process.poll() is None


def test_a_journal_gives_what_the_loops_gave(
    database: Database, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journals of an owner that was killed and of the one after it, played again: the same splits and ends."""
    monkeypatch.setenv("CROSSFILL_JOURNAL", str(tmp_path / "journal"))
    with running_worker("fulfilment", database_url, redis_url, tmp_path) as process, feeding(redis_url, size="5"):
        [first] = place(database, "3")
        until(lambda: filled(database, first))
        [second] = place(database, "4")
        until(lambda: read(database, second).filled_size == 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
    with feeding(redis_url, size="9"), running_worker("fulfilment", database_url, redis_url, tmp_path):
        until(lambda: filled(database, second))
        third, *_ = ids = place(database, "6", count=2)
        until(lambda: read(database, third).filled_size == 2)
        until(lambda: read(database, ids[1]).state.value == "working")
    journals = open_journals(tmp_path / "journal")
    [files] = journals.shards
    assert len(files) >= 2  # of one shard; where the machine is slow a lease may run out more often
    played = {each.order.id: each for each in play_journals(journals, Rules(PRESENT, journals.silence_us), 2).played}
    assert played.keys() == {first, second, *ids}
    with database.read() as connection:
        for order_id, each in played.items():
            row = orders_by_ids(connection, [order_id])[order_id]
            assert (each.state, each.filled_size, each.ended_us) == (row.state, row.filled_size, row.ended_us)
            assert [
                (split.price, split.size, split.token, split.quote_number, split.shown, split.taken_before, time_us)
                for time_us, split in each.splits
            ] == [
                (s.price, s.size, s.token, s.quote_number, s.shown, s.taken_before, s.created_us)
                for s in splits_of(connection, row.seq)
            ]


def test_what_comes_while_thousands_are_filled_is_served_in_between(
    database: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quote that comes with the first commit of a long backlog fills its order before the backlog's end."""
    many = place(database, count=1_500)
    [other] = place(database, symbol="ETH-BTC")
    [lease] = claim(database, "test", 1, 60_000_000)

    def quote(product: str, number: int) -> list[BusItem]:
        sides = (Decimal("0.0009"), Decimal(2_000), Decimal("0.9"), Decimal(1))
        made = Quote("binance", product, 1, number, *sides, live=True, exchange_time_us=None, received_time_us=0)
        return [Mark("binance", 1, clock_us()), made]

    class Loop(FulfilmentLoop):
        def _commit(self, result: StepResult) -> None:
            super()._commit(result)
            if any(outcome.splits for outcome in result.outcomes):
                self.inbox.put(quote("ETHBTC", 2))

    monkeypatch.setattr("workers.fulfilment.QuoteReader", _Nobody)
    settings = LoopSettings(Market.SIMULATED, Decimal(0), 60_000_000, None)  # the feed marks itself once
    loop = Loop(lease, INSTRUMENTS, database, connect(redis_url), connect(redis_url), settings)
    loop.start()
    until(lambda: read(database, many[-1]).state.value == "working")
    loop.inbox.put(quote("LTCBTC", 1))
    until(lambda: all(each.state.value == "filled" for each in map(partial(read, database), (other, many[-1]))))
    loop.stop()
    with database.read() as connection:
        ended = [seq for (seq,) in connection.execute(select(audit.c.order_seq).order_by(audit.c.number))][1_501:]
    first = read(database, many[0]).seq
    assert [seq for seq in ended if seq != read(database, other).seq] == list(range(first, first + 1_500))
    assert ended.index(read(database, other).seq) < len(ended) - 1


class _Nobody:
    """A reader whose venues say nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def read(self, block_ms: int) -> list[BusItem]:
        time.sleep(block_ms / 1000)
        return []


def test_a_killed_owner_is_replaced_and_sells_nothing_twice(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The stand-by takes the shard under a higher epoch when the lease has run out, and remembers what was taken."""
    with ExitStack() as stack:
        stack.enter_context(feeding(redis_url, size="10"))
        first = stack.enter_context(running_worker("fulfilment", database_url, redis_url, tmp_path))
        [sold] = place(database, "10")
        until(lambda: filled(database, sold))
        stack.enter_context(running_worker("fulfilment", database_url, redis_url, tmp_path))
        [waiting] = place(database, "5")
        until(lambda: read(database, waiting).state.value == "working")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait(5)
        dead = owners(database)[0]
        until(lambda: owners(database)[0] not in (dead, None))
        [new] = place(database, "1")
        until(lambda: read(database, new).state.value == "working")
        assert read(database, waiting).filled_size == 0
        assert read(database, new).filled_size == 0


def test_two_workers_share_the_shards(database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Each holds half; when one stops in order the other has all of them at once."""
    database = Database.open(database_url)
    fix_shards(database, 4)
    ensure_owner(database, "local", "admin", "secret")
    with running_worker("fulfilment", database_url, redis_url, tmp_path):
        until(lambda: None not in owners(database).values())
        with running_worker("fulfilment", database_url, redis_url, tmp_path):
            until(lambda: sorted(map(list(owners(database).values()).count, set(owners(database).values()))) == [2, 2])
        until(lambda: len(set(owners(database).values())) == 1 and None not in owners(database).values())
        shard = shard_of(SYMBOL, 4)
        with feeding(redis_url, shard):
            [order_id] = place(database, shard=shard)
            wakeups = Wakeups(redis_url)
            wakeups.publish({shard: new_task_id()})
            wakeups.close()
            until(lambda: filled(database, order_id))
        client = connect(redis_url)
        until(lambda: not client.llen(orders_queue(shard)))
        client.close()
    database.close()


def test_every_queue_has_a_consumer(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """What is put into any queue that we name is taken out by a worker."""
    client = connect(redis_url)
    names = [*Queue, orders_queue(0)]
    with (
        running_worker("fulfilment", database_url, redis_url, tmp_path),
        running_worker("jobs", database_url, redis_url, tmp_path),
    ):
        from celery import Celery  # noqa: PLC0415 -- only this test publishes what nobody knows

        app = Celery("test", broker=redis_url, set_as_current=False)
        for name in names:
            app.send_task("nobody.knows", queue=str(name), ignore_result=True)
        app.close()
        until(lambda: not any(client.llen(str(name)) for name in names))
    client.close()


def test_the_house_is_kept_beside_any_backlog_of_jobs(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Beat's checkpoints keep the write-ahead log from growing though the one that works jobs comes to nothing else."""
    log = Path(database_url.removeprefix("sqlite:///") + "-wal")
    with (
        running_worker("fulfilment", database_url, redis_url, tmp_path),
        running_worker("jobs", database_url, redis_url, tmp_path) as jobs,
    ):
        pid = 0

        def found() -> bool:
            nonlocal pid
            pid = child_of(jobs.pid, "child")
            return pid > 0

        until(found)
        busy = psutil.Process(pid)
        busy.suspend()
        try:
            for _ in range(2):
                place(database, count=500)
                until(lambda: log.stat().st_size == 0, 60)
        finally:
            busy.resume()
