"""GET /metrics of the API: what it counts, what it asks for, and what is left out of a part that is down."""

import asyncio
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import event, insert

from api.figures import Probe
from cli.valkey import free_port
from models.bus.client import connect, connect_async
from models.bus.names import Queue, quotes_stream
from models.domain.quotes import Market
from models.settings import Settings
from models.store.backlog import backlog
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards
from models.store.shards import claim
from models.store.tables import jobs, orders
from tests.integration.api.serving import serving
from tests.integration.scraping import OPENMETRICS, key, parse
from tests.services import running_valkey

ORDER = {"symbol": "LTCBTC", "order_size": 1000, "price": 0.0001}


def test_what_is_accepted_and_refused_is_counted(client: httpx.Client) -> None:
    """Orders by side, repetitions, refusals by field; whatever a client sends, labels are few."""
    for side in ("sell", "sell", "buy"):
        assert client.post("/order/limit", json={**ORDER, "side": side}).status_code == 202
    for _ in range(2):
        client.post("/order/limit", json=ORDER, headers={"Idempotency-Key": "k"})
    client.post("/order/limit", json={**ORDER, "price": 1}, headers={"Idempotency-Key": "k"})
    client.post("/order/limit", json={**ORDER, "symbol": "NOPE"})
    for field in ("one", "another"):
        client.post("/order/limit", json={**ORDER, field: 1})
    client.post("/order/limit", json=ORDER, headers={"Authorization": "Bearer nobody"})
    client.get("/orders/nothing")  # refused, but no order
    told = parse(client.get("/metrics"))
    assert told[key("crossfill_orders_accepted_total", side="sell")] == 3
    assert told[key("crossfill_orders_accepted_total", side="buy")] == 1
    assert told[key("crossfill_orders_repeated_total")] == 1
    refused = {labels: value for (name, labels), value in told.items() if name == "crossfill_orders_refused_total"}
    expected = {"symbol": 1, "idempotency_key": 1, "invalid": 2, "unauthorized": 1}
    assert refused == {frozenset({("reason", reason)}): count for reason, count in expected.items()}
    assert told[key("crossfill_accept_batch_size_sum")] == 5 + 1
    assert told[key("crossfill_accept_commit_seconds_count")] >= 1
    assert told[key("crossfill_process_info", kind="api", market="simulated")] == 1


def test_the_backlog_is_told(client: httpx.Client, database: Database, redis_url: str) -> None:
    """Queued orders and their age, open jobs, shards, queues, streams; in OpenMetrics too, where that is asked for."""
    for _ in range(3):
        client.post("/order/limit", json=ORDER)
    now_us = time.time_ns() // 1000
    job = {"owner_id": "local", "kind": "average", "attempts": 0, "payload": {}, "created_us": now_us}
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE orders SET created_us = created_us - 60000000 WHERE seq = 2")
        for name, due_us in (("a", now_us - 5_000_000), ("b", now_us + 60_000_000)):
            connection.execute(insert(jobs).values({**job, "id": name, "state": "queued", "due_us": due_us}))
        connection.execute(insert(jobs).values({**job, "id": "c", "state": "running", "due_us": 0}))
    with connect(redis_url) as bus:
        bus.rpush(Queue.JOBS.value, "1", "2")
        bus.xadd(quotes_stream(0), {"b": "1"})
    for accept in ("text/plain", OPENMETRICS):
        answer = client.get("/metrics", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(accept)
        told = parse(answer)
        assert told[key("crossfill_orders_open", state="queued", reason="queued")] == 3
        assert told[key("crossfill_jobs_open", kind="average", state="queued")] == 2
        assert told[key("crossfill_jobs_open", kind="average", state="running")] == 1
        assert told[key("crossfill_jobs_oldest_due_age_seconds")] >= 5
        assert told[key("crossfill_queue_messages", queue="jobs")] == 2
        assert told[key("crossfill_stream_entries", stream="quotes:0")] == 1
        assert told[key("crossfill_shards", state="free")] == 1
        assert told[key("crossfill_up", part="database")] == told[key("crossfill_up", part="redis")] == 1
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE orders SET created_us = created_us - 60000000 WHERE seq = 1")
    claim(database, "somebody", 1, 60_000_000)
    told = parse(client.get("/metrics"))
    assert told[key("crossfill_orders_oldest_unplaced_age_seconds")] >= 60
    assert told[key("crossfill_shards", state="owned")] == 1


@pytest.fixture(params=["database_url", "postgres_url"])
def either(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of either kind, with four shards, and 20,000 resting, 20,000 ended and three queued orders."""
    database = Database.open(request.getfixturevalue(request.param))
    fix_shards(database, 4)
    ensure_owner(database, "local", "admin", "secret")
    job = {"owner_id": "local", "kind": "order", "attempts": 0, "due_us": 0, "created_us": 0, "payload": {}}
    money = dict.fromkeys(("price", "size", "filled_size", "filled_value"), Decimal(1))
    words = {"owner_id": "local", "symbol": "LTC-BTC", "side": "sell", "time_in_force": "GTC", "market": "simulated"}
    for count, state, ended_us in ((20_000, "working", None), (20_000, "filled", 1), (3, "queued", None)):
        ids = [f"{state}-{number}" for number in range(count)]
        changing = {"state": state, "ended_us": ended_us, "created_us": 0}
        rows = [{**words, **money, **changing, "id": id_, "job_id": id_, "shard": len(id_) % 4} for id_ in ids]
        with database.write() as connection:
            connection.execute(insert(jobs), [{**job, "id": id_, "state": state, "ended_us": ended_us} for id_ in ids])
            connection.execute(insert(orders), rows)
            if not database.is_sqlite:
                connection.exec_driver_sql("ANALYZE")
    yield database
    database.close()


def test_counting_the_backlog_reads_no_table(either: Database) -> None:
    """The indexes find the three that wait beside all the others."""
    asked: list[tuple[str, Any]] = []
    with either.read() as connection:

        @event.listens_for(connection, "before_cursor_execute")
        def note(*arguments: Any) -> None:
            asked.append((arguments[2], arguments[3]))

        found = backlog(connection, Market.SIMULATED, 5_000)
        event.remove(connection, "before_cursor_execute", note)
        explain = "EXPLAIN QUERY PLAN " if either.is_sqlite else "EXPLAIN "
        plans = [
            "\n".join(map(str, connection.exec_driver_sql(explain + statement, given).all()))
            for statement, given in asked
            if "FROM orders" in statement or "FROM jobs" in statement
        ]
        assert backlog(connection, Market.LIVE, 5_000).queued == 0
    assert (found.queued, dict(found.jobs), found.shards) == (3, {}, 4)
    assert len(plans) > 4 + 2
    for plan in plans:
        assert "orders_open" in plan or "jobs_due" in plan, plan
        assert "Seq Scan" not in plan
        assert "SCAN orders" not in plan


def test_without_redis_its_figures_are_absent(settings: Settings, database: Database, tmp_path: Path) -> None:
    """The scrape answers in time with what the database says; when Redis is there again, so are its figures."""
    port = free_port()
    url = SecretStr(f"redis://:pw@127.0.0.1:{port}/0")
    with serving(settings.model_copy(update={"broker_url": url})) as client:
        told = parse(client.get("/metrics"))
        assert told[key("crossfill_up", part="redis")] == 0
        assert told[key("crossfill_up", part="database")] == 1
        assert not any(name in ("crossfill_queue_messages", "crossfill_stream_entries") for name, _ in told)
        assert told[key("crossfill_shards", state="free")] == 1
        with running_valkey(tmp_path / "valkey", port, "pw"):
            deadline = time.monotonic() + 60
            while (told := parse(client.get("/metrics")))[key("crossfill_up", part="redis")] == 0:
                assert time.monotonic() < deadline
            assert told[key("crossfill_queue_messages", queue="jobs")] == 0


class _Stopped:
    """A database that does not answer until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.free = threading.Event()

    def read(self) -> "_Stopped":
        self.asked += 1
        self.free.wait(30)
        raise OSError("gone")


def test_a_part_that_hangs_is_asked_once(redis_url: str) -> None:
    """However often it is scraped meanwhile, the event loop goes on and one thread waits."""
    stopped = _Stopped()

    async def run() -> tuple[list[bool], int]:
        bus = connect_async(redis_url)
        probe = Probe(stopped, connect_async(redis_url), bus, 1, Market.SIMULATED)  # type: ignore[arg-type] # a database that hangs
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        answers = await asyncio.gather(*(probe.look() for _ in range(10)))
        answers += await asyncio.gather(*(probe.look() for _ in range(10)))
        ticking.cancel()
        stopped.free.set()
        await probe.close()
        await bus.aclose()
        down = [
            {sample.labels["part"]: sample.value for sample in families[0].samples} == {"database": 0, "redis": 1}
            for families in answers
        ]
        return down, ticks

    down, ticks = asyncio.run(run())
    assert down == [True] * 20
    assert stopped.asked == 1
    assert ticks > 20


def test_without_the_database_its_figures_are_absent(postgres_url: str, settings: Settings, database: Database) -> None:
    """PostgreSQL does not answer any more: the API goes on, and says so."""
    store = Database.open(postgres_url)
    fix_shards(store, 1)
    ensure_owner(store, "local", "admin", "secret")
    with store.read() as connection:
        server = psutil.Process(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()).parent()
    store.close()
    assert server is not None
    with serving(settings.model_copy(update={"database_url": SecretStr(postgres_url)})) as client:
        assert parse(client.get("/metrics"))[key("crossfill_up", part="database")] == 1
        stopped = [server, *server.children(recursive=True)]
        for each in stopped:
            each.suspend()
        try:
            told = parse(client.get("/metrics"))
            assert told[key("crossfill_up", part="database")] == 0
            assert told[key("crossfill_up", part="redis")] == 1
            assert not any(name in ("crossfill_shards", "crossfill_orders_open") for name, _ in told)
            assert client.get("/health/live").status_code == 200
        finally:
            for each in stopped:
                each.resume()
        deadline = time.monotonic() + 60
        while parse(client.get("/metrics"))[key("crossfill_up", part="database")] == 0:
            assert time.monotonic() < deadline


def test_who_may_read(settings: Settings, database: Database) -> None:
    """With a token whoever has it; without, whoever reaches the loopback address, and beyond it nobody."""
    with serving(settings.model_copy(update={"metrics_token": SecretStr("sesame")})) as client:
        refused = client.get("/metrics")  # the client's own token is another one
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert client.get("/metrics", headers={"Authorization": "Bearer sesame"}).status_code == 200
    with serving(settings.model_copy(update={"host": "0.0.0.0", "metrics_token": SecretStr("")})) as client:
        refused = client.get("/metrics")
        assert refused.status_code == 403
        assert "set CROSSFILL_METRICS_TOKEN" in refused.json()["detail"]
