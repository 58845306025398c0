"""Each row of the table "What survives what" in DESIGN.md, with the kill exactly there."""

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import event, func, select, update
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from cli.valkey import free_port
from models.bus.client import connect
from models.bus.latest import read_collectors
from models.bus.names import orders_queue, quotes_stream
from models.bus.quotes import QuoteWriter, decode
from models.bus.wakeups import Wakeups, new_task_id
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import OrderState
from models.domain.quotes import Mark, Market, Quote
from models.store.database import CommitUnknownError, Database
from models.store.events import events_after
from models.store.orders import Accepted, NewOrder, accept, request_cancel
from models.store.owners import ensure_owner
from models.store.rows import OrderRow
from models.store.schema import fix_shards
from models.store.shards import Lease, claim
from models.store.tables import levels, orders, shards, splits
from models.store.venues import ensure_venues
from tests.chaos.faults import child_of
from tests.chaos.flight import unread
from tests.chaos.load import Listener, Told
from tests.chaos.processes import Process
from tests.chaos.proxy import Proxy
from tests.integration.killpoints.entry import API_POINTS, LOOP_POINTS, STOP
from tests.integration.models.store.samples import new_order
from tests.integration.notifier.test_server import happen
from tests.integration.scraping import key as key_of
from tests.integration.scraping import scrape
from tests.integration.workers import test_fulfilment
from tests.integration.workers.test_fulfilment import clock_us, feeding, filled, place, read
from tests.services import ROOT, running_valkey
from workers.connection import STILL_S_MAX
from workers.fulfilment import FulfilmentLoop, LoopSettings

ENDS = ["order.accepted", "order.split", "order.filled", "job.done"]
LIMIT_S = 60.0  # on a machine that has other things to do
SETTINGS = LoopSettings(Market.SIMULATED, Decimal(0), 3_000_000, None)


def until(condition: Callable[[], bool]) -> None:
    test_fulfilment.until(condition, LIMIT_S)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with one shard and an owner."""
    yield from _prepared(database_url)


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Database]:
    """The same on PostgreSQL."""
    yield from _prepared(postgres_url)


def _prepared(url: str) -> Iterator[Database]:
    opened = Database.open(url)
    fix_shards(opened, 1)
    ensure_venues(opened, ["binance"])
    ensure_owner(opened, "local", "admin", "secret")
    yield opened
    opened.close()


def environment(url: str, redis_url: str, home: Path, **more: str) -> dict[str, str]:
    """Return what a process is told; among it what might set off a failpoint, if there were one."""
    named = {"CROSSFILL_DATABASE_URL": url, "CROSSFILL_BROKER_URL": redis_url, "CROSSFILL_HOME": str(home)}
    tempting = dict.fromkeys(("POINT", "FAILPOINT", "CROSSFILL_FAILPOINT", "CROSSFILL_POINT", "CROSSFILL_KILL"), STOP)
    return {**os.environ, **named, **tempting, "CROSSFILL_LEASE_S": "1", **more}


@contextmanager
def running(command: list[str], variables: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program; end it afterwards, whatever became of it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=variables, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def told(database: Database) -> list[str]:
    with database.read() as connection:
        return [each.type.value for each in events_after(connection, "local", 0, 10_000)]


def sold(database: Database) -> int:
    """Return what the splits come to, which is what the levels remember."""
    with database.read() as connection:
        sizes = connection.execute(select(splits.c.size)).scalars().all()
        taken = connection.execute(select(levels.c.taken)).scalars().all()
    assert sum(sizes) == sum(taken)
    return int(sum(sizes))


def assert_filled_once(database: Database, size: int = 1) -> None:
    assert sold(database) == size
    assert [kind for kind in told(database) if kind != "order.working"] == ENDS


def rows(database: Database) -> int:
    with database.read() as connection:
        return connection.execute(select(func.count()).select_from(orders)).scalar_one()


def epoch(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(select(shards.c.epoch)).scalar_one())


BODY = {"symbol": "LTC-BTC", "order_size": "1", "price": "0.0001", "time_in_force": "GTC"}


def post(port: int, key: str = "k", limit_s: float = LIMIT_S) -> httpx.Response:
    """Place an order under a key, once the API listens."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return httpx.post(
                f"http://127.0.0.1:{port}/order/limit",
                json=BODY,
                headers={"Authorization": "Bearer secret", "Idempotency-Key": key},
                timeout=30,
                trust_env=False,
            )
        except httpx.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def waiting(port: int) -> float:
    """Return how many orders wait in the API to be stored."""
    return scrape(f"http://127.0.0.1:{port}")[key_of("crossfill_accept_queue_size")]


@pytest.mark.parametrize("point", API_POINTS)
def test_api_killed(point: str, database: Database, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Before the commit there is no row; after it the same key gives the same job, once, 202 or not, woken or not."""
    port = free_port()
    variables = environment(database_url, redis_url, tmp_path, CROSSFILL_API_PORT=str(port))
    before: httpx.Response | None = None
    entry = ["tests.integration.killpoints", "api", point]
    with running(entry, variables, tmp_path / "log") as process:
        if point == "before_wake_up":
            before = post(port)
            assert before.status_code == httpx.codes.ACCEPTED
            process.kill()
        else:
            with pytest.raises(httpx.TransportError):
                post(port)
        assert process.wait(10) == -signal.SIGKILL
    assert rows(database) == (0 if point == "before_commit" else 1)
    client = connect(redis_url)
    assert not client.llen(orders_queue(0))
    client.close()
    with running(["api"], variables, tmp_path / "log"):
        after = post(port)
        assert after.status_code == httpx.codes.ACCEPTED
        assert post(port).json()["job_id"] == after.json()["job_id"]
    assert before is None or before.json()["job_id"] == after.json()["job_id"]
    assert rows(database) == 1
    assert told(database) == ["order.accepted"]


def test_writer_killed(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """Whoever waits is told 503; the API starts another at once, and the same key gives one job."""
    port = free_port()
    variables = environment(database_url, redis_url, tmp_path, CROSSFILL_API_PORT=str(port))
    with running(["api"], variables, tmp_path / "log") as process:
        assert post(port, "first").status_code == httpx.codes.ACCEPTED
        for key in ("second", "third"):
            [writer] = psutil.Process(process.pid).children()
            with database.write(), ThreadPoolExecutor() as pool:
                cut_off = pool.submit(post, port, key)
                until(lambda: waiting(port) == 1)
                writer.kill()
                answer = cut_off.result()
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
            assert int(answer.headers["Retry-After"]) > 0
            after = post(port, key)
            assert after.status_code == httpx.codes.ACCEPTED
            assert post(port, key).json()["job_id"] == after.json()["job_id"]
    assert not writer.is_running()
    assert rows(database) == 3
    assert told(database) == ["order.accepted"] * 3


def test_writer_outlives_a_killed_api_by_its_work_alone(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Nothing is left behind when the API is killed."""
    port = free_port()
    variables = environment(database_url, redis_url, tmp_path, CROSSFILL_API_PORT=str(port))
    with running(["api"], variables, tmp_path / "log") as process:
        assert post(port).status_code == httpx.codes.ACCEPTED
        [writer] = psutil.Process(process.pid).children()
        process.kill()
        writer.wait(LIMIT_S)
    assert rows(database) == 1


def test_api_ended_while_the_database_is_away(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Requests that its end cuts off are answered 503 with Retry-After; the same key finds out what became of them."""
    port = free_port()
    variables = environment(database_url, redis_url, tmp_path, CROSSFILL_API_PORT=str(port))
    with running(["api"], variables, tmp_path / "log") as process:
        assert post(port, "first").status_code == httpx.codes.ACCEPTED
        with database.write(), ThreadPoolExecutor() as pool:
            cut_off = pool.submit(post, port)
            until(lambda: waiting(port) == 1)
            process.terminate()
            answer = cut_off.result()
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert int(answer.headers["Retry-After"]) > 0
    with running(["api"], variables, tmp_path / "log"):
        assert post(port).status_code == httpx.codes.ACCEPTED
    assert rows(database) == 2


@pytest.mark.parametrize("point", LOOP_POINTS)
def test_fulfilment_worker_killed(
    point: str, database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """What was not committed never was, what was is not done again; the next owner fills the order once."""
    variables = environment(database_url, redis_url, tmp_path)
    entry = ["tests.integration.killpoints", "fulfilment", point]
    with feeding(redis_url, size="10"):
        with running(entry, variables, tmp_path / "log") as process:
            if point == "after_brpop":
                until(lambda: epoch(database) == 1)
                wakeups = Wakeups(redis_url)
                wakeups.publish({0: new_task_id()})
                wakeups.close()
            else:
                [order_id] = place(database)
            until(lambda: process.poll() is not None)
            assert process.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
        if point == "after_brpop":
            client = connect(redis_url)
            assert (client.llen(orders_queue(0)), client.hlen("unacked")) == (0, 0)  # the wake-up is gone
            client.close()
            [order_id] = place(database)
        committed = point in ("after_commit", "before_hint")
        assert bool(sold(database)) is (committed and filled(database, order_id))
        with running(["workers", "fulfilment"], variables, tmp_path / "log"):
            until(lambda: filled(database, order_id))
            assert epoch(database) > 1
    assert_filled_once(database)


def test_an_owner_stopped_before_its_commit_is_overtaken_and_commits_nothing(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Woken, it is refused under its old epoch, says so, and starts over; the order was filled by the next owner."""
    variables = environment(database_url, redis_url, tmp_path)
    entry = ["tests.integration.killpoints", "fulfilment", STOP]
    with feeding(redis_url, size="10"), running(entry, variables, tmp_path / "first") as first:
        [order_id] = place(database)
        until(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED)
        assert not filled(database, order_id)
        with running(["workers", "fulfilment"], variables, tmp_path / "second"):
            until(lambda: filled(database, order_id))
            first.send_signal(signal.SIGCONT)
            until(lambda: "is no longer held under epoch 1" in (tmp_path / "first").read_text())
            time.sleep(1.5)  # it looks once a second, and must not do it again
            assert first.poll() is None
    assert_filled_once(database)


def _loop(database: Database, lease: Lease, redis_url: str) -> FulfilmentLoop:
    made = FulfilmentLoop(lease, INSTRUMENTS, database, connect(redis_url), connect(redis_url), SETTINGS)
    made.start()
    return made


def _overtake(database: Database, owner: str) -> Lease:
    """Let a lease run out, and claim its shard."""
    with database.write() as connection:
        connection.execute(update(shards).values(lease_until_us=0))
    [lease] = claim(database, owner, 1, 60_000_000)
    return lease


def test_of_two_owners_that_both_believe_one_commits(database: Database, redis_url: str) -> None:
    """Both read the same quotes and the same order; the older one is refused, and ends."""
    with feeding(redis_url, size="10"):
        older = _loop(database, _overtake(database, "first"), redis_url)
        newer = _loop(database, _overtake(database, "second"), redis_url)
        assert older.alive
        [order_id] = place(database, "3")
        until(lambda: filled(database, order_id))
        [second] = place(database, "3")
        until(lambda: filled(database, second) and not older.alive)
        assert newer.alive
        newer.stop()
        older.stop()
    assert sold(database) == 6
    with database.read() as connection:
        assert {name.split("-")[1] for name in connection.execute(select(splits.c.id)).scalars()} == {"2"}


class _Failing(sqlite3.Connection):
    """A driver that reports an I/O error from COMMIT, before (`committed` False) or after it took effect."""

    due = committed = False

    def cursor(self, *_: Any) -> Any:
        return super().cursor(_FailingCursor)


class _FailingCursor(sqlite3.Cursor):
    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql == "COMMIT" and _Failing.due:
            _Failing.due = False
            if _Failing.committed:
                super().execute(sql)
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *arguments)


def _unknown_commit(doubtful: Database, database: Database, redis_url: str, cut: Any) -> None:
    """Cut a fill's COMMIT; the owner drops its book, and the next one finds the truth."""
    lease = _overtake(database, "first")
    doubted = _loop(doubtful, lease, redis_url)
    with feeding(redis_url, size="10"):
        cut()
        [order_id] = place(database)
        until(lambda: not doubted.alive)
        loop = _loop(database, _overtake(database, "second"), redis_url)
        until(lambda: filled(database, order_id))
        loop.stop()
        doubted.stop()
    assert sold(database) == 1
    assert Counter(told(database))["order.filled"] == 1


@pytest.mark.parametrize("committed", [False, True])
def test_an_unknown_outcome_of_commit_on_sqlite(
    committed: bool, database: Database, database_url: str, redis_url: str
) -> None:
    """An I/O error from COMMIT drops the book; whether it was written or not, the order is filled once."""
    doubtful = Database.open(database_url)
    event.listen(doubtful.engine, "do_connect", lambda _d, _r, _a, named: named.update(factory=_Failing))

    def cut() -> None:
        _Failing.due, _Failing.committed = True, committed

    _unknown_commit(doubtful, database, redis_url, cut)
    assert not _Failing.due
    doubtful.close()


def test_an_unknown_outcome_of_commit_on_postgresql(postgres: Database, redis_url: str) -> None:
    """The connection is cut after COMMIT was sent and before its answer; the order is filled once."""
    url = postgres.engine.url
    assert url.port is not None
    proxy = Proxy(url.port)
    doubtful = Database.open(url.set(port=proxy.port).render_as_string(hide_password=False))

    def cut() -> None:
        proxy.cut_at = b"COMMIT"

    _unknown_commit(doubtful, postgres, redis_url, cut)
    assert proxy.cut_at is None
    cut()
    new = _new_order()
    with pytest.raises(CommitUnknownError):
        accept(doubtful, [new])
    [again] = accept(doubtful, [new])  # the same key finds the truth
    assert again == Accepted(new.job_id, new.id, existing=True)
    doubtful.close()
    proxy.close()


def _new_order() -> NewOrder:
    return new_order(owner_id="local", idempotency_key="a-key")


def test_redis_killed_and_empty(database: Database, database_url: str, tmp_path: Path) -> None:
    """The row is found by looking, the quotes come again, and the queues of the new Redis are worked."""
    port = free_port()
    url = f"redis://:pw@127.0.0.1:{port}/0"
    variables = environment(database_url, url, tmp_path)
    with running(["workers", "fulfilment"], variables, tmp_path / "log"):
        with running_valkey(tmp_path / "one", port, "pw"):
            [order_id] = place(database)
            until(lambda: read(database, order_id).state is OrderState.WORKING)
        with running_valkey(tmp_path / "two", port, "pw"), feeding(url):
            until(lambda: filled(database, order_id))
    assert_filled_once(database)


def test_the_database_killed_under_the_system(postgres: Database, redis_url: str, tmp_path: Path) -> None:
    """The API says 503 and when to come again, prices go on; after it the owner reloads under a new epoch."""
    url = postgres.engine.url
    assert url.port is not None
    proxy, port = Proxy(url.port), free_port()
    cut_url = url.set(port=proxy.port).render_as_string(hide_password=False)
    variables = environment(cut_url, redis_url, tmp_path, CROSSFILL_API_PORT=str(port))
    bus = connect(redis_url)
    with (
        running(["workers", "fulfilment"], variables, tmp_path / "worker"),
        running(["api"], variables, tmp_path / "api"),
    ):
        accepted = post(port)
        assert accepted.status_code == httpx.codes.ACCEPTED
        order_id = accepted.json()["order"]["id"]
        until(lambda: read(postgres, order_id).state is OrderState.WORKING)
        before = epoch(postgres)
        proxy.drop()
        refused = post(port, "another")
        assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert int(refused.headers["Retry-After"]) > 0
        until(lambda: "the book is dropped" in (tmp_path / "worker").read_text())
        with feeding(redis_url, size="10"):
            until(lambda: bus.xlen(quotes_stream(0)) > 2)  # prices go on
            assert read(postgres, order_id).state is OrderState.WORKING  # the book waits
            proxy.heal()
            until(lambda: filled(postgres, order_id))
        assert epoch(postgres) > before
    bus.close()
    proxy.close()
    assert_filled_once(postgres)


def _tickers(connection: ServerConnection) -> None:
    """Be a venue that says more than anybody reads: each quote comes with much beside it."""
    beside = "x" * 20_000
    with suppress(ConnectionClosed):
        for number in itertools.count(1):
            data = f'"u":{number},"s":"LTCBTC","b":"0.0009","B":"{number}","a":"0.001","A":"1","x":"{beside}"'
            connection.send(f'{{"stream":"ltcbtc@bookTicker","data":{{{data}}}}}')
            time.sleep(0.004)


def _full(pid: int) -> bool:
    """Return whether a process's sockets hold much, and no more comes although it is sent."""
    before = unread(pid)
    time.sleep(0.5)
    return before > 50_000 and unread(pid) == before


def test_a_collector_stopped_with_a_full_buffer_and_one_that_stands_by(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The stand-by takes over with a higher token; of what the stopped one had in its buffers nothing is told."""
    server = serve(_tickers, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    venue = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    variables = environment(database_url, redis_url, tmp_path, CROSSFILL_VENUE_URLS=f'{{"binance": "{venue}"}}')
    bus = connect(redis_url)

    def token() -> int:
        state = read_collectors(bus).get("binance")
        return state.token if state is not None and state.connected_since_us is not None else 0

    command = ["workers.collector", "binance"]
    with running(command, variables, tmp_path / "first") as first:
        until(lambda: token() == 1)
        with running(command, variables, tmp_path / "second"):
            until(lambda: "standing by" in (tmp_path / "second").read_text())
            first.send_signal(signal.SIGSTOP)
            stopped_us, stopped_at = clock_us(), time.monotonic()
            until(lambda: token() == 2)
            # It must have stood still for longer than it may (3 s), and the venue can send it no more.
            until(lambda: time.monotonic() > stopped_at + STILL_S_MAX + 1 and _full(first.pid))
            first.send_signal(signal.SIGCONT)
            until(lambda: "stood still" in (tmp_path / "first").read_text())
            until(lambda: (tmp_path / "first").read_text().count("standing by") == 1)
            until(lambda: token() == 2)  # the first one's last word overwrites the state until the next mark
            entries: Any = bus.xrange(quotes_stream(0))
            found = [item for _, fields in entries for item in decode(fields[b"b"])]
    quotes = [item for item in found if isinstance(item, Quote)]
    assert {quote.token for quote in quotes} == {1, 2}
    assert max(quote.received_time_us for quote in quotes if quote.token == 1) <= stopped_us + 100_000
    server.shutdown()
    bus.close()


def test_an_older_token_counts_for_nothing(database: Database, redis_url: str) -> None:
    """Of two collectors that both write, the book hears the one with the higher token, quotes and marks alike."""
    bus = connect(redis_url)
    writer = QuoteWriter(bus)
    with feeding(redis_url, size="10"):  # token 1
        sides = (Decimal("0.0008"), Decimal(5), Decimal("0.001"), Decimal(1))
        newer = Quote("binance", "LTCBTC", 2, 1, *sides, live=True, exchange_time_us=None, received_time_us=clock_us())
        loop = _loop(database, _overtake(database, "first"), redis_url)
        writer.write({0: [newer]}, {})
        [order_id] = place(database, "9")

        def filled_from_the_newer() -> bool:
            writer.write({0: [Mark("binance", 2, clock_us())]}, {})
            return read(database, order_id).filled_size == 5

        until(filled_from_the_newer)
        loop.stop()
    bus.close()
    with database.read() as connection:
        assert set(connection.execute(select(splits.c.token)).scalars()) == {2}


def _works(pid: int) -> bool:
    return pid > 0 and any("crossfill.db" in file.path for file in psutil.Process(pid).open_files())


@pytest.mark.parametrize("kind", ["child", "beat"])
def test_a_child_of_the_jobs_worker_killed(
    kind: str, database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The one that works is replaced; without beat the worker ends, so that both are started again."""
    variables = environment(database_url, redis_url, tmp_path)
    command = ["workers", "jobs"]
    jobs = Process("jobs", "jobs", (sys.executable, "-m", *command), variables, tmp_path / "log")
    jobs.start()
    try:
        # Until it has worked something, the worker is still starting, and would end with its child.
        wakeups = Wakeups(redis_url)
        assert wakeups.publish({}, new_task_id())
        wakeups.close()
        until(lambda: bool(child_of(jobs.pid, "beat")) and _works(child_of(jobs.pid, "child")))
        before = child_of(jobs.pid, kind)
        assert before  # 0 would be this test's own process group
        os.kill(before, signal.SIGKILL)
        if kind == "beat":
            until(lambda: not jobs.pid)
            assert "beat has died" in (tmp_path / "log").read_text()
        else:
            until(lambda: child_of(jobs.pid, kind) not in (0, before))
            assert jobs.pid
    finally:
        jobs.terminate()
        jobs.end()


def test_notifier_killed_mid_push(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> None:
    """The client comes back with its cursor and has every event once, in order."""
    port = free_port()
    variables = environment(database_url, redis_url, tmp_path, CROSSFILL_NOTIFIER_PORT=str(port))
    record = Told()
    listener = Listener(f"http://127.0.0.1:{port}", "local", "secret", record)
    with running(["notifier"], variables, tmp_path / "log") as process:
        listener.start()
        count = 0

        def pushed() -> bool:
            nonlocal count
            happen(database, 500)
            count += 500
            return listener.cursor > 100

        until(pushed)  # it comes to no end
        process.kill()
        process.wait(5)
        happen(database, 500)
        count += 500
    with running(["notifier"], variables, tmp_path / "log"):
        until(lambda: listener.cursor >= count)
        listener.close()
    assert (record.problems, listener.cursor, listener.connections) == ([], count, 2)


def test_a_cancel_a_fill_and_a_deadline_in_one_step(database: Database, redis_url: str) -> None:
    """The deadline comes first; with time left, the cancel comes before the fill. Each order ends once."""
    now_us = clock_us()
    new = [replace(_new_order(), idempotency_key=None, client_order_id=None) for _ in range(3)]
    ids = [f"{number:036}" for number in range(3)]
    new = [replace(each, id=id_, job_id=f"j{id_[1:]}") for each, id_ in zip(new, ids, strict=True)]
    deadlines = (now_us - 1, now_us + 60_000_000, now_us + 60_000_000)
    accept(database, [replace(each, deadline_us=at) for each, at in zip(new, deadlines, strict=True)])
    for order_id in ids[:2]:
        request_cancel(database, "local", order_id, now_us)
    with feeding(redis_url, size="10"):
        loop = _loop(database, _overtake(database, "first"), redis_url)
        until(lambda: filled(database, ids[2]))
        loop.stop()
    found: list[OrderRow] = [read(database, order_id) for order_id in ids]
    assert [row.state for row in found] == [OrderState.EXPIRED, OrderState.CANCELLED, OrderState.FILLED]
    assert [row.filled_size for row in found[:2]] == [0, 0]
    assert Counter(told(database))["job.done"] == 3


@pytest.mark.parametrize("program", ["api", "fulfilment"])
def test_no_environment_variable_sets_one_off(
    program: str, database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The real programs, told the names of all failpoints in every way, accept and fill."""
    port = free_port()
    variables = environment(database_url, redis_url, tmp_path, CROSSFILL_API_PORT=str(port))
    for name in (*API_POINTS, *LOOP_POINTS, STOP):
        variables |= {name: "1", name.upper(): "1", f"CROSSFILL_{name.upper()}": "1"}
    command = ["api"] if program == "api" else ["workers", "fulfilment"]
    with feeding(redis_url), running(command, variables, tmp_path / "log") as process:
        if program == "api":
            assert post(port).status_code == httpx.codes.ACCEPTED
        else:
            [order_id] = place(database)
            until(lambda: filled(database, order_id))
        assert process.poll() is None


def test_no_program_knows_a_failpoint() -> None:
    """What kills is imported by tests only."""
    rooms = ("api", "cli", "exchanges", "models", "notifier", "simulator", "workers")
    sources = [path.read_text() for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 100
    assert not [text for text in sources if "SIGSTOP" in text or "killpoints" in text or "failpoint" in text.lower()]
