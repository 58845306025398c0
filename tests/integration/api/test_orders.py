"""The API over HTTP, with a real database and Redis: what is accepted, and what is refused and leaves nothing."""

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bus.names import orders_queue
from models.domain.orders import OrderState, Reason, Side
from models.domain.outcomes import Outcome, Split
from models.domain.quotes import Market
from models.settings import Settings
from models.store import book as stored
from models.store.database import Database
from models.store.outcomes import commit_outcomes
from models.store.shards import claim
from tests.integration.api.serving import serving

ORDER = {"symbol": "LTCBTC", "order_size": 1000, "price": 0.0001}


def _count(database: Database, table: str) -> int:
    with database.read() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def _end(database: Database, *, filled: bool) -> None:
    """Do what a fulfilment worker does: end every queued order."""
    [lease] = claim(database, "test", 1, 60_000_000)
    with database.read() as connection:
        orders = stored.queued(connection, 0, 100)
    now_us = time.time_ns() // 1000
    outcomes = []
    for order in orders:
        quote = (
            "binance",
            "LTCBTC",
            Side.SELL,
            Decimal("0.0009"),
            order.size,
            1,
            1,
            order.size,
            Decimal(0),
            None,
            now_us,
        )
        if filled:
            outcomes.append(Outcome(order, OrderState.FILLED, None, (Split(*quote),), now_us))
        else:
            outcomes.append(Outcome(order, OrderState.EXPIRED, Reason.DEADLINE, (), now_us))
    commit_outcomes(database, lease, 0, outcomes, [], market=Market.SIMULATED)


def test_an_order_is_accepted_durably(client: httpx.Client, database: Database, redis_url: str) -> None:
    """202 with Location and the order; job, order and event are stored; a wake-up is in the shard's queue."""
    answer = client.post("/order/limit", json=ORDER)
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == body["status_url"] == f"/jobs/{body['job_id']}"
    order = body["order"]
    expected = {"side": "sell", "symbol": "LTC-BTC", "size": "1000", "price": "0.0001", "state": "queued"}
    assert expected.items() <= order.items()
    assert {
        "filled_size": "0",
        "remaining_size": "1000",
        "avg_price": None,
        "market": "simulated",
    }.items() <= order.items()
    assert [_count(database, table) for table in ("jobs", "orders", "events")] == [1, 1, 1]
    job = client.get(body["status_url"]).json()
    assert job["state"] == "queued"
    assert job["order"]["id"] == order["id"]
    import redis  # noqa: PLC0415 -- this test alone looks into the queue

    with redis.Redis.from_url(redis_url) as queue:
        deadline = time.monotonic() + 30
        while not queue.llen(orders_queue(0)) and time.monotonic() < deadline:
            time.sleep(0.01)
        raw: Any = queue.lindex(orders_queue(0), 0)
        message = json.loads(raw)
    assert message["headers"]["id"] == job["task_id"]
    assert job["task_url"] == f"http://127.0.0.1:5555/task/{job['task_id']}"


BAD: list[tuple[str, str, str]] = [
    ("symbol", '{"symbol": "FOOBAR", "order_size": 1, "price": 1}', "unknown symbol"),
    ("symbol", '{"order_size": 1, "price": 1}', "missing"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": 0, "price": 1}', "not positive"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": -1, "price": 1}', "not positive"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": "NaN", "price": 1}', "not a number"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": 1e400, "price": 1}', "out of range"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": "1_000", "price": 1}', "not a number"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": true, "price": 1}', "not a number"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": null, "price": 1}', "not a number"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": 1, "order_size": 2, "price": 1}', "twice"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": 1e30, "price": 1}', "too large"),
    ("order_size", '{"symbol": "LTCBTC", "order_size": "\u0661", "price": 1}', "not a number"),
    ("price", '{"symbol": "LTCBTC", "order_size": 1, "price": "abc"}', "not a number"),
    ("price", '{"symbol": "LTCBTC", "order_size": 1, "price": 0.0000001}', "more precise"),
    ("price", '{"symbol": "LTCBTC", "order_size": 1, "price": 0.1000000000000000000000001}', "more precise"),
    ("price", '{"symbol": "LTCBTC", "order_size": 1, "price": [1]}', "not a number"),
    ("side", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "side": "short"}', "buy, sell"),
    ("venues", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "venues": ["okx"]}', "binance, coinbase"),
    ("venues", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "venues": []}', "list of venues"),
    ("venues", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "venues": [["binance"]]}', "does not list"),
    ("time_in_force", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "time_in_force": "DAY"}', "GTD, GTC"),
    ("timeout_s", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "timeout_s": 0}', "out of range"),
    ("timeout_s", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "timeout_s": 86401}', "out of range"),
    (
        "timeout_s",
        '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "timeout_s": 9, "time_in_force": "GTC"}',
        "GTD only",
    ),
    ("client_order_id", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "client_order_id": ""}', "1 to 64"),
    ("client_order_id", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "client_order_id": 5}', "not a text"),
    ("colour", '{"symbol": "LTCBTC", "order_size": 1, "price": 1, "colour": "red"}', "unknown"),
]


@pytest.mark.parametrize(
    ("field", "body", "words"), BAD, ids=[f"{each[0]}-{number}" for number, each in enumerate(BAD)]
)
def test_bad_input_names_its_field_and_stores_nothing(
    client: httpx.Client,
    database: Database,
    field: str,
    body: str,
    words: str,
) -> None:
    """Each is a 422 problem+json with the field and what would be right, and leaves no row."""
    answer = client.post("/order/limit", content=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert [each["field"] for each in problem["errors"]] == [field]
    assert words in problem["detail"]
    assert [_count(database, table) for table in ("jobs", "orders", "events")] == [0, 0, 0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 400),
        ("", 400),
        ('{"price": NaN}', 400),
        ("\udcff", 400),
        ("[" * 5_000, 400),
        ("x" * 20_000, 413),
    ],
)
def test_a_body_that_is_no_object_is_refused(client: httpx.Client, body: str, status: int) -> None:
    """What is not JSON, or too large, is refused with a sentence."""
    answer = client.post("/order/limit", content=body.encode(errors="surrogateescape"))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_unknown_symbol_is_answered_with_near_ones(client: httpx.Client) -> None:
    """A slip of the keyboard finds its way."""
    answer = client.post("/order/limit", json={**ORDER, "symbol": "LTCBTX"})
    assert "LTC-BTC" in answer.json()["errors"][0]["near"]


def test_25_digits_arrive_as_they_are(client: httpx.Client) -> None:
    """A JSON number is taken by its text, and never through a float."""
    body = '{"symbol": "BTC-USD", "order_size": 1, "price": 1000000000000000.01}'
    assert client.post("/order/limit", content=body).json()["order"]["price"] == "1000000000000000.01"


def test_a_stranger_is_refused(client: httpx.Client) -> None:
    """Without a token, or with nobody's, 401; prices and health are open."""
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
        answer = client.post("/order/limit", json=ORDER, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/health/live", headers={"Authorization": ""}).status_code == 200


def test_what_is_somebody_elses_is_not_there(client: httpx.Client) -> None:
    """An id that is not there, and one of another owner, get the same 404."""
    mine = client.post("/order/limit", json=ORDER).json()
    other = {"Authorization": "Bearer another"}
    for path in (f"/orders/{mine['order']['id']}", f"/jobs/{mine['job_id']}"):
        assert client.get(path).status_code == 200
        assert client.get(path, headers=other).status_code == 404
    assert client.delete(f"/orders/{mine['order']['id']}", headers=other).status_code == 404
    assert client.get("/orders/nothing").status_code == 404


def test_the_same_key_gives_the_same_job(client: httpx.Client, database: Database) -> None:
    """Bodies that mean the same are the same; another body under the key is a 422."""
    bodies = [
        {"symbol": "LTCBTC", "order_size": 1000, "price": 0.0001},
        {"symbol": "ltc-btc", "order_size": "1e3", "price": "1e-4", "side": "sell", "time_in_force": "GTD"},
    ]
    answers = [
        client.post("/order/limit", json=body, headers={"Idempotency-Key": key})
        for body, key in zip(bodies, ("a", '"a"'), strict=True)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["job_id"] == answers[1].json()["job_id"]
    assert _count(database, "orders") == 1
    other = client.post("/order/limit", json={**ORDER, "price": 0.0002}, headers={"Idempotency-Key": "a"})
    assert other.status_code == 422
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_client_order_id_is_used_once(client: httpx.Client) -> None:
    """The second order under it is refused and told of the first."""
    body = {**ORDER, "client_order_id": "mine"}
    first = client.post("/order/limit", json=body).json()["order"]["id"]
    second = client.post("/order/limit", json=body)
    assert second.status_code == 422
    assert second.json()["errors"][0]["order_id"] == first
    assert [each["id"] for each in client.get("/orders?client_order_id=mine").json()["orders"]] == [first]


def test_orders_are_listed_in_pages(client: httpx.Client) -> None:
    """The Link header leads through all of them, newest first, without doubles."""
    ids = [client.post("/order/limit", json=ORDER).json()["order"]["id"] for _ in range(5)]
    seen: list[str] = []
    url: str | None = "/orders?limit=2"
    while url:
        answer = client.get(url)
        seen += [order["id"] for order in answer.json()["orders"]]
        url = answer.links.get("next", {}).get("url")
    assert seen == ids[::-1]
    assert client.get("/orders?state=filled").json()["orders"] == []
    assert client.get("/orders?cursor=!!").status_code == 422
    assert client.get("/orders?limit=0").status_code == 422


def test_a_cancel_is_asked_for_and_repeatable(client: httpx.Client, database: Database) -> None:
    """202 as often as it is asked; 409 with the end once the order has ended."""
    order_id = client.post("/order/limit", json=ORDER).json()["order"]["id"]
    assert [client.delete(f"/orders/{order_id}").status_code for _ in range(2)] == [202, 202]
    with database.read() as connection:
        assert len(stored.cancels(connection, 0)) == 1
    _end(database, filled=True)
    answer = client.delete(f"/orders/{order_id}")
    assert answer.status_code == 409
    assert answer.json()["order"]["state"] == "filled"


@pytest.mark.parametrize(
    ("filled", "status", "message"), [(True, 200, "Order successfully fulfilled"), (False, 400, "Order not fulfilled")]
)
def test_waiting_answers_with_the_end(
    client: httpx.Client, database: Database, filled: bool, status: int, message: str
) -> None:
    """`Prefer: wait` holds the answer until the order has ended, and gives the historical message with the order."""
    import threading  # noqa: PLC0415 -- this test alone ends an order meanwhile

    def end() -> None:
        deadline = time.monotonic() + 30
        while not _count(database, "orders") and time.monotonic() < deadline:
            time.sleep(0.02)
        _end(database, filled=filled)

    thread = threading.Thread(target=end)
    thread.start()
    answer = client.post("/order/limit", json=ORDER, headers={"Prefer": "wait=30"})
    thread.join()
    assert answer.status_code == status
    assert answer.json()["message"] == message
    assert answer.json()["order"]["state"] == ("filled" if filled else "expired")


def test_an_order_with_a_timeout_of_its_own_may_still_be_open(client: httpx.Client) -> None:
    """Waiting for less than its timeout answers 202 with Preference-Applied; the order goes on."""
    answer = client.post("/order/limit", json={**ORDER, "timeout_s": 60}, headers={"Prefer": "wait=1"})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"
    assert answer.json()["order"]["state"] == "queued"


def test_events_are_read_in_order(client: httpx.Client, database: Database) -> None:
    """GET /events has every event above a number once."""
    client.post("/order/limit", json=ORDER)
    _end(database, filled=True)
    events = client.get("/events").json()["events"]
    assert [event["type"] for event in events] == ["order.accepted", "order.split", "order.filled", "job.done"]
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    assert client.get("/events?after=3").json()["events"] == events[3:]


def test_paths_and_methods_that_are_not_there(client: httpx.Client) -> None:
    """The framework's own refusals are problem+json too."""
    for answer in (client.get("/nothing"), client.put("/orders")):
        assert answer.status_code in (404, 405)
        assert answer.headers["content-type"] == "application/problem+json"


def test_without_redis_orders_are_accepted(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows say what is due; prices answer with an error and health says what is missing."""
    monkeypatch.setenv("CROSSFILL_BROKER_URL", "redis://127.0.0.1:1/0")
    with serving(Settings()) as client:
        assert client.post("/order/limit", json=ORDER).status_code == 202
        price = client.get("/getAveragePairPrice/LTCBTC")
        assert price.status_code == 503
        assert price.json()["status"] == "error"
        ready = client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["parts"]["redis"]["status"] == "down"


def test_without_a_database_orders_are_refused(settings: Settings, database: Database, tmp_path: Path) -> None:
    """While nothing can be committed: 503 with Retry-After, and nothing stored; health says down."""
    with serving(settings) as client:
        assert client.get("/orders").status_code == 200
        import sqlite3  # noqa: PLC0415 -- this test alone holds the database

        holder = sqlite3.connect(tmp_path / "crossfill.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        try:
            answer = client.post("/order/limit", json=ORDER)
            assert answer.status_code == 503
            assert "retry-after" in answer.headers
            assert client.get("/health/ready").status_code == 503
        finally:
            holder.execute("ROLLBACK")
            holder.close()
        assert client.post("/order/limit", json=ORDER).status_code == 202
    assert _count(database, "orders") == 1


def test_prices_say_what_they_are_made_of(client: httpx.Client, redis_url: str) -> None:
    """The mean of fresh last prices with every digit; an unknown pair and missing sources are errors that say so."""
    from models.bus.client import connect  # noqa: PLC0415 -- this test alone writes prices
    from models.bus.latest import CollectorState, LatestPrice  # noqa: PLC0415 -- likewise
    from models.bus.quotes import QuoteWriter  # noqa: PLC0415 -- likewise

    missing = client.get("/getAveragePairPrice/LTCBTC")
    assert missing.status_code == 503
    assert "binance (not_connected)" in missing.json()["error"]["message"]
    bus = connect(redis_url)
    now_us = time.time_ns() // 1000
    for venue, product, last in (
        ("binance", "LTCBTC", "0.001"),
        ("coinbase", "LTC-BTC", "0.00100000000000000000000001"),
        ("kraken", "LTC/BTC", "0.001000000000000000000000005"),
    ):
        price = LatestPrice(venue, product, Decimal(last), now_us, None, None, None, None, False, None, "simulated")
        state = CollectorState(venue, 1, now_us, now_us, "simulated")
        QuoteWriter(bus).write({}, {"LTC-BTC": price}, state)
    bus.close()
    time.sleep(0.06)  # what was read before may be kept for so long
    answer: httpx.Response = client.get("/getAveragePairPrice/LTCBTC")
    assert answer.status_code == 200
    assert json.loads(answer.text, parse_float=Decimal)["data"]["price"] == Decimal("0.001000000000000000000000005")
    assert answer.json()["data"]["market"] == "simulated"
    unknown = client.get("/getAveragePairPrice/FOOBAR")
    assert unknown.json()["error"]["message"] == "Invalid pair FOOBAR"
