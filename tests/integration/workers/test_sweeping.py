"""The sweeper leaves a backlog alone that is worked, wakes once for one that is forgotten; no row is worked twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import func, insert, select

from models.bus.client import connect
from models.bus.names import Queue, orders_queue
from models.bus.wakeups import Wakeups, new_task_id
from models.domain.identifiers import uuid7
from models.settings import Settings
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards
from models.store.tables import events, jobs, orders, shards
from tests.integration.workers.test_fulfilment import clock_us, place, running_worker, until
from tests.services import ROOT
from workers.housekeeping import sweep_due

ROWS = 60_000
SWEEPS = 5
PAST_US = 10_000_000


@pytest.fixture(params=["database_url", "postgres_url"])
def settings(request: pytest.FixtureRequest, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of the test's own servers."""
    monkeypatch.setenv("CROSSFILL_DATABASE_URL", request.getfixturevalue(request.param))
    monkeypatch.setenv("CROSSFILL_BROKER_URL", redis_url)
    return Settings()


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """A database with one shard and an owner."""
    opened = Database.open(settings.database)
    fix_shards(opened, 1)
    ensure_owner(opened, "local", "admin", "secret")
    yield opened
    opened.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url) as client:
        yield client


@contextmanager
def jobs_worker(settings: Settings, folder: Path) -> Iterator[None]:
    """Run a Celery worker that only works jobs: without beat, nobody sweeps but the test. It is killed at the end."""
    command = ["-m", "celery", "-A", "workers.celery", "worker", "--pool", "solo", "--prefetch-multiplier", "1"]
    command += ["--queues", Queue.JOBS.value, "--without-gossip", "--without-mingle"]
    environment = {
        **os.environ,
        "CROSSFILL_DATABASE_URL": settings.database,
        "CROSSFILL_BROKER_URL": settings.broker,
        "CROSSFILL_HOME": str(folder),
    }
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def wake(settings: Settings, *, shard: int | None = None, times: int = 1) -> None:
    wakeups = Wakeups(settings.broker)
    for _ in range(times):
        if shard is None:
            assert wakeups.publish({}, new_task_id())
        else:
            assert wakeups.publish({shard: new_task_id()})
    wakeups.close()


def add_jobs(database: Database, count: int) -> None:
    """Jobs that were due ten seconds ago and whose wake-up was sent: averages of a second of which nothing is known."""
    now_us = clock_us() - PAST_US
    window = {"start": "", "end": "", "start_us": now_us - 1_000_000, "end_us": now_us}
    payload = {"pairs": ["BTC-USD"], "method": "mean", "input": "mid", "venues": None, "min_sources": 1, **window}
    row = {"owner_id": "local", "kind": "average", "state": "queued", "task_id": "t", "attempts": 0, "payload": payload}
    rows = [{**row, "id": uuid7(now_us), "due_us": now_us, "created_us": now_us} for _ in range(count)]
    with database.write() as connection:
        connection.execute(insert(jobs), rows)


def age_orders(database: Database) -> None:
    with database.write() as connection:
        connection.execute(orders.update().values(created_us=orders.c.created_us - PAST_US))


def count(database: Database, table: Any, **values: str) -> int:
    query = select(func.count()).select_from(table).where(*(table.c[name] == value for name, value in values.items()))
    with database.read() as connection:
        return int(connection.execute(query).scalar_one())


def sweeps(
    database: Database,
    settings: Settings,
    waiting: Callable[[], int],
    queue: str,
    add: Callable[[int], None],
    pause_s: float = 0,
) -> set[int]:
    """Sweep beside a backlog that is worked, and is kept up however fast it is; return what the sweeps have sent.

    In the queue is only what a sweep has put there. A sweep after which nothing waits any more proves nothing.
    """
    published: list[int] = []
    before, beside, worked = waiting(), 0, False
    with connect(settings.broker) as client:
        while beside < SWEEPS or not worked:
            assert client.llen(queue) == sum(published)
            published.append(sweep_due(database, settings))
            left = waiting()
            time.sleep(pause_s)
            beside, worked = beside + (left > 0), worked or left < before
            if left < ROWS / 2:
                add(ROWS // 2)
                before = waiting()
    return set(published)


def test_a_backlog_of_jobs_that_is_worked_needs_no_wake_up(
    settings: Settings, database: Database, broker: redis.Redis, tmp_path: Path
) -> None:
    """Of 60,000 due jobs, nor after the broker was emptied; one wake-up once nobody works them, and no second."""
    add = partial(add_jobs, database)
    add(ROWS)

    def waiting() -> int:
        return count(database, jobs, state="queued")

    with jobs_worker(settings, tmp_path):
        wake(settings)
        until(lambda: waiting() < ROWS - 10)
        assert sweeps(database, settings, waiting, Queue.JOBS.value, add, 0.5) == {0}
        broker.flushall()
        assert sweeps(database, settings, waiting, Queue.JOBS.value, add, 0.5) == {0}
    add(1)
    broker.flushall()
    until(lambda: sweep_due(database, settings) == 1)
    assert sum(sweep_due(database, settings) for _ in range(8)) == 0
    assert broker.llen(Queue.JOBS.value) == 1


def test_a_backlog_of_orders_that_is_placed_needs_no_wake_up(
    settings: Settings, database: Database, broker: redis.Redis, tmp_path: Path
) -> None:
    """Of 60,000 queued orders, nor after the broker was emptied; one wake-up once the shard has no owner."""

    def add(count: int) -> None:
        for _ in range(0, count, 5_000):
            place(database, count=min(count, 5_000))
        age_orders(database)

    add(ROWS)

    def waiting() -> int:
        return count(database, orders, state="queued")

    queue = orders_queue(0)
    with running_worker("fulfilment", settings.database, settings.broker, tmp_path, lease_s=60) as worker:
        until(lambda: waiting() < ROWS)
        assert sweeps(database, settings, waiting, queue, add) == {0}
        broker.flushall()
        assert sweeps(database, settings, waiting, queue, add) == {0}
        os.killpg(worker.pid, signal.SIGKILL)
    add(1)
    broker.flushall()
    assert sweep_due(database, settings) == 0
    with database.write() as connection:
        connection.execute(shards.update().values(lease_until_us=0))  # it has run out
    assert sweep_due(database, settings) == 1
    assert sum(sweep_due(database, settings) for _ in range(8)) == 0
    assert broker.llen(queue) == 1


def test_no_job_is_worked_twice(settings: Settings, database: Database, broker: redis.Redis, tmp_path: Path) -> None:
    """By three workers that are woken again and again: each is claimed once and has one end."""
    add_jobs(database, 300)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(jobs_worker(settings, tmp_path))

        def ended() -> bool:
            wake(settings, times=5)
            return count(database, jobs, state="done") == 300

        until(ended, 60)
    with database.read() as connection:
        assert set(connection.execute(select(jobs.c.attempts)).scalars()) == {1}
        told = Counter(connection.execute(select(events.c.job_id)).scalars())
    assert (len(told), set(told.values())) == (300, {1})


def test_no_order_is_placed_twice(settings: Settings, database: Database, broker: redis.Redis, tmp_path: Path) -> None:
    """By an owner and a stand-by that are woken again and again: each order was told once that it rests."""
    place(database, count=1_500)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(running_worker("fulfilment", settings.database, settings.broker, tmp_path))

        def placed() -> bool:
            wake(settings, shard=0, times=5)
            return count(database, orders, state="working") == 1_500

        until(placed, 60)
    with database.read() as connection:
        query = select(events.c.order_id).where(events.c.type == "order.working")
        told = Counter(connection.execute(query).scalars())
    assert (len(told), set(told.values())) == (1_500, {1})
