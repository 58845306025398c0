"""What the API answers while as many orders wait as may."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from prometheus_client import CollectorRegistry

from api.committing import Committer
from api.figures import Counters
from api.writer import Setup
from models.settings import Settings
from models.store.database import Database
from tests.integration.api.serving import serving
from tests.integration.scraping import key, parse

ORDER = {"symbol": "LTCBTC", "order_size": 1, "price": 0.0001}


def waiting(client: httpx.Client) -> int:
    return int(parse(client.get("/metrics"))[key("crossfill_accept_queue_size")])


def test_a_crowd_is_refused_before_it_is_looked_at(settings: Settings, database: Database) -> None:
    """While as many orders wait as may, the next is answered 503 unread; those that wait are stored.

    A connection that was refused is read again, and one that was to be closed is.
    """
    few = settings.model_copy(update={"accept_queue_max": 2})
    with serving(few) as client, ThreadPoolExecutor(2) as pool:
        with database.write():  # the writer waits
            asked = [pool.submit(client.post, "/order/limit", json=ORDER) for _ in range(2)]
            deadline = time.monotonic() + 60
            while waiting(client) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            for body in (b"no JSON", b"x" * 1_000_000, b""):
                refused = client.post("/order/limit", content=body)
                assert refused.status_code == 503
                assert refused.headers["retry-after"] == "1"
                assert refused.headers["content-type"] == "application/problem+json"
                assert "Idempotency-Key" in refused.json()["detail"]
            last = client.post("/order/limit", json=ORDER, headers={"Connection": "close"})
            assert (last.status_code, last.headers["connection"]) == (503, "close")
            assert client.get("/instruments").status_code == 200
            assert parse(client.get("/metrics"))[key("crossfill_orders_refused_total", reason="unavailable")] == 4
        assert [each.result().status_code for each in asked] == [202, 202]
        assert client.post("/order/limit", content=b"no JSON").status_code == 400
        assert client.post("/order/limit", json=ORDER).status_code == 202


def test_one_turn_of_the_event_loop_lets_in_no_more_than_fit(database: Database) -> None:
    """Those that were let in and are not worked yet count; what was let in and then failed does not stay counted."""

    async def run() -> list[bool]:
        counters = Counters(CollectorRegistry())
        committer = Committer(Setup(str(database.engine.url), "", ""), 2, counters)
        first = [committer.let_in() for _ in range(3)]
        await asyncio.sleep(0)
        return [*first, committer.let_in()]

    assert asyncio.run(run()) == [True, True, False, True]
