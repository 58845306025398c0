"""Price jobs from the POST to the result, with a real database, Redis and the worker's own function."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import redis

from models.bus.client import connect
from models.bus.names import Queue
from models.settings import Settings
from models.store.database import Database
from models.store.jobs import claim_due
from models.store.tables import jobs
from models.store.venues import set_enabled
from tests.integration.api.market import SECOND_US, Bus, now_us
from workers.housekeeping import sweep_due
from workers.jobs import WORKS, run_due


@pytest.fixture
def bus(redis_url: str) -> Iterator[Bus]:
    made = Bus(redis_url)
    yield made
    made.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


def rfc3339(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat().replace("+00:00", "Z")


def post(client: httpx.Client, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/prices/average", json={"pair": "BTC-USD", "window_s": 10, **body}, headers=headers)


def seen(bus: Bus, start: int) -> None:
    """Ten seconds of three venues, the second of which was away for three of them, the third for one."""
    end = start + 10 * SECOND_US
    bus.remember(
        "BTC-USD", "coinbase", (start - SECOND_US, 100), (start + 5 * SECOND_US, 102), lived=(start - SECOND_US, end)
    )
    bus.remember("BTC-USD", "kraken", (start, 500), lived=(start, start + 7 * SECOND_US))
    prints = ((start + SECOND_US, 103, 2), (start - SECOND_US, 1, 50), (end, 1, 50))
    bus.remember("BTC-USD", "okx", (start, 103), prints=prints, lived=(start, end - SECOND_US), gaps=("BTC-USD",))


def worked(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings, job_id: str
) -> dict[str, Any]:
    run_due(database, broker, settings)
    job: dict[str, Any] = client.get(f"/jobs/{job_id}").json()
    return job


def test_a_past_window_is_computed_at_once(
    client: httpx.Client, bus: Bus, database: Database, broker: redis.Redis, settings: Settings
) -> None:
    """202 with the job, a wake-up on the queue; the result says of each venue what was seen of it."""
    start = now_us() - 13 * SECOND_US
    seen(bus, start)
    # What is kept begins with the first entry, which was written just now; as if that had been before.
    first = (start - 5 * SECOND_US) // 1000
    entries: Any = broker.xrange("history:BTC-USD")
    broker.delete("history:BTC-USD")
    for place, (_, fields) in enumerate(entries):
        broker.xadd("history:BTC-USD", fields, id=f"{first + place}-0")
    answer = post(client, start=rfc3339(start), min_sources=2, method="mean")
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    assert answer.headers["location"] == answer.json()["status_url"] == f"/jobs/{job_id}"
    assert answer.json()["job"]["state"] == "queued"
    assert client.get(f"/jobs/{job_id}/result").status_code == 409
    job = worked(client, database, broker, settings, job_id)
    assert job["state"] == "done"
    [part] = job["result"]["parts"]
    assert (part["pair"], part["value"], part["problem"]) == ("BTC-USD", "102", None)
    by_venue = {source["venue"]: source for source in part["sources"]}
    assert (by_venue["coinbase"]["raw_price"], by_venue["coinbase"]["coverage"]) == ("101", "1")
    assert (by_venue["kraken"]["coverage"], by_venue["kraken"]["reason"]) == ("0.7", "coverage")
    assert (by_venue["okx"]["coverage"], by_venue["okx"]["trades"], by_venue["okx"]["volume"]) == ("0.9", 1, "2")
    assert (by_venue["okx"]["incomplete"], by_venue["coinbase"]["incomplete"], part["incomplete"]) == (
        True,
        False,
        True,
    )
    assert by_venue["deribit"]["reason"] == "coverage"
    result = client.get(f"/jobs/{job_id}/result")
    assert result.json() == job["result"]
    lines = list(csv.DictReader(io.StringIO(client.get(f"/jobs/{job_id}/result?format=csv").text)))
    assert [(line["venue"], line["raw_price"], line["value"]) for line in lines if line["reason"] == ""] == [
        ("coinbase", "101", "102"),
        ("okx", "103", "102"),
    ]
    assert {line["incomplete"] for line in lines} <= {"true", "false", ""}
    assert client.get(f"/jobs/{job_id}/result", headers={"Accept": "text/csv"}).text.startswith("pair,start,end")
    told = client.get("/events").json()["events"][-1]
    assert (told["type"], told["kind"], told["result"]["values"]) == ("job.done", "average", {"BTC-USD": "102"})


def test_a_window_to_come_holds_no_worker(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings
) -> None:
    """It is a row with a due time: nothing is queued, nothing can be claimed, and the sweeper wakes somebody then."""
    job = post(client, window_s=60).json()["job"]
    assert datetime.fromisoformat(job["due"]) > datetime.fromisoformat(job["payload"]["end"])
    assert broker.llen(Queue.JOBS.value) == 0
    assert claim_due(database, tuple(WORKS), "w", SECOND_US) is None
    assert sweep_due(database, settings) == 0
    with database.write() as connection:
        connection.execute(jobs.update().values(due_us=now_us() - 1))
    assert [sweep_due(database, settings) for _ in range(2)] == [1, 0]
    assert broker.llen(Queue.JOBS.value) == 1


def test_many_pairs_are_one_job_with_parts(
    client: httpx.Client, bus: Bus, database: Database, broker: redis.Redis, settings: Settings
) -> None:
    """It says how far it is after each part but the last; a pair of which nothing was seen is withheld alone."""
    now = now_us()
    answer = client.post("/prices/average", json={"pairs": ["BTC-USD", "ETH-USD", "XBTUSD"], "window_s": 1})
    job_id = answer.json()["job_id"]
    assert answer.json()["job"]["payload"]["pairs"] == ["BTC-USD", "ETH-USD"]
    start = answer.json()["job"]["payload"]["start_us"]
    for venue in ("coinbase", "kraken", "okx"):
        bus.remember("BTC-USD", venue, (start, 100), lived=(start, start + 2 * SECOND_US))
    with database.write() as connection:
        connection.execute(jobs.update().values(due_us=now - 1))
    job = worked(client, database, broker, settings, job_id)
    assert [(part["pair"], part["value"]) for part in job["result"]["parts"]] == [("BTC-USD", "100"), ("ETH-USD", None)]
    assert "3 sources are needed, 0 can be used" in job["result"]["parts"][1]["problem"]
    assert job["progress"] == {"done": 1, "parts": 2}
    events = [(each["type"], each.get("progress")) for each in client.get("/events").json()["events"]]
    assert events == [("job.progress", {"done": 1, "parts": 2}), ("job.done", None)]


def test_a_venue_that_is_off_counts_for_nothing(
    client: httpx.Client, bus: Bus, database: Database, broker: redis.Redis, settings: Settings
) -> None:
    """Also of a window in which it was on."""
    job = post(client, window_s=1, min_sources=1).json()["job"]
    start = job["payload"]["start_us"]
    for venue, price in (("coinbase", 100), ("kraken", 101)):
        bus.remember("BTC-USD", venue, (start, price), lived=(start, start + 2 * SECOND_US))
    set_enabled(database, "coinbase", enabled=False)
    with database.write() as connection:
        connection.execute(jobs.update().values(due_us=0))
    [part] = worked(client, database, broker, settings, job["id"])["result"]["parts"]
    assert part["value"] == "101"


def test_the_same_key_is_the_same_job(client: httpx.Client, database: Database) -> None:
    """Bodies that mean the same are the same; another body under the key, or an order's key, is refused."""
    first = post(client, "k", window_s=60)
    again = post(client, "k", window_s="6e1", pair="btcusd")
    assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
    other = post(client, "k", window_s=61)
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    order = client.post(
        "/order/limit",
        json={"symbol": "LTCBTC", "order_size": 1, "price": 1},
        headers={"Idempotency-Key": "k"},
    )
    assert (order.status_code, order.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    with database.read() as connection:
        assert len(connection.execute(jobs.select()).all()) == 1


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"pair": "BTCUSB"}, "pair", "did you mean BTC-USD"),
        ({"pairs": ["BTC-USD"]}, "pair", "either"),
        ({"method": "mode"}, "method", "clamped_mean"),
        ({"input": "middle"}, "input", "last, mid, bid, ask"),
        ({"venues": ["binance"]}, "venues", "has no price of BTC-USD"),
        ({"venues": []}, "venues", "list of venues"),
        ({"window_s": 0}, "window_s", "1 to 7200"),
        ({"window_s": 7201}, "window_s", "1 to 7200"),
        ({"window_s": "long"}, "window_s", "not a number"),
        ({"window_s": True}, "window_s", "not a number"),
        ({"min_sources": 5}, "min_sources", "more than the 4"),
        ({"min_sources": 0.5}, "min_sources", "whole number"),
        ({"start": "yesterday"}, "start", "is no time"),
        ({"start": "2026-11-21T12:00:00"}, "start", "no time zone"),
        ({"start": "2999-01-01T00:00:00Z"}, "start", "ahead"),
        ({"colour": "red"}, "colour", "is unknown"),
    ],
)
def test_bad_input_names_its_field_and_stores_nothing(
    client: httpx.Client, database: Database, body: dict[str, Any], field: str, says: str
) -> None:
    """As problem+json, with what would be right."""
    answer = post(client, **body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["errors"][0]["field"] == field
    assert says in answer.json()["detail"]
    with database.read() as connection:
        assert connection.execute(jobs.select()).all() == []


def test_a_job_that_fails_is_tried_again_and_then_ends(
    client: httpx.Client, database: Database, broker: redis.Redis, settings: Settings
) -> None:
    """Its error is told; the jobs behind it do not wait for it."""
    broken, good = (post(client, window_s=1, min_sources=1).json()["job_id"] for _ in range(2))
    with database.write() as connection:
        connection.execute(jobs.update().values(due_us=0))
        connection.execute(jobs.update().where(jobs.c.id == broken).values(payload={"pairs": ["NO-PAIR"]}))
    for _ in range(5):
        run_due(database, broker, settings)
        with database.write() as connection:
            connection.execute(jobs.update().values(due_us=0))
    failed = client.get(f"/jobs/{broken}").json()
    assert (failed["state"], "could not be computed" in failed["error"]) == ("failed", True)
    assert client.get(f"/jobs/{good}").json()["state"] == "done"
    assert client.get(f"/jobs/{broken}/result").status_code == 409
