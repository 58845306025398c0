"""Why an order waits, by the API and by the book: each reason, with a real worker and what collectors write."""

import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from cli.valkey import free_port
from models.bus.client import connect
from models.bus.latest import CollectorState, LatestPrice
from models.bus.quotes import QuoteWriter
from models.domain.quotes import BusItem, Mark, Market, Quote
from models.settings import Settings
from models.store.database import Database
from tests.integration.api.serving import serving
from tests.integration.scraping import scrape
from tests.integration.workers.test_fulfilment import clock_us, running_worker

SELL = {"symbol": "LTCBTC", "order_size": 10, "time_in_force": "GTC", "venues": ["binance"]}


class Feed:
    """A collector of Binance's LTC-BTC: a quote where one is set, and marks while it lives."""

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)
        self._writer = QuoteWriter(self._client)
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def quote(self, bid: str, size: str, *, live: bool = True) -> None:
        self._number += 1
        sides = (Decimal(bid), Decimal(size), Decimal("0.002"), Decimal(1))
        now_us = clock_us()
        told = Quote(
            "binance", "LTCBTC", 1, self._number, *sides, live=live, exchange_time_us=None, received_time_us=now_us
        )
        latest = LatestPrice("binance", "LTCBTC", None, None, *sides, live, now_us, "simulated")
        self._write([told], {"LTC-BTC": latest})

    def stop(self) -> None:
        """Be dead: what was written stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def close(self) -> None:
        self.stop()
        self._client.close()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            self._write([], {})

    def _write(self, items: list[BusItem], latest: dict[str, LatestPrice]) -> None:
        now_us = clock_us()
        state = CollectorState("binance", 1, 1, now_us, "simulated")
        self._writer.write({0: [Mark("binance", 1, now_us), *items]}, latest, state)


@pytest.fixture
def feed(redis_url: str) -> Iterator[Feed]:
    made = Feed(redis_url)
    yield made
    made.close()


def until(condition: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_reason_is_told(
    client: httpx.Client,
    database: Database,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    feed: Feed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By GET of the order, in the list and in its job; and the book counts the same."""
    port = free_port()
    monkeypatch.setenv("CROSSFILL_METRICS_PORT", str(port))

    def place(price: str) -> dict[str, Any]:
        placed: dict[str, Any] = client.post("/order/limit", json={**SELL, "price": price}).json()
        return placed

    def says(placed: dict[str, Any], reason: str) -> bool:
        order_id, job_id = placed["order"]["id"], placed["job_id"]
        order = client.get(f"/orders/{order_id}").json()
        [listed] = [each for each in client.get("/orders").json()["orders"] if each["id"] == order_id]
        carried = client.get(f"/jobs/{job_id}").json()["order"]
        return [order["reason"], listed["reason"], carried["reason"]] == [reason] * 3

    def counted() -> dict[str, float]:
        try:
            told = scrape(f"http://127.0.0.1:{port}")
        except httpx.TransportError:
            return {}
        found = {
            dict(labels)["reason"]: value for (name, labels), value in told.items() if name == "crossfill_orders_open"
        }
        return {reason: value for reason, value in found.items() if value}

    order = place("0.001")
    assert says(order, "queued")
    with running_worker("fulfilment", database_url, redis_url, tmp_path):
        until(lambda: says(order, "no_quote_yet"))
        feed.start()
        feed.quote("0.0009", "4")
        until(lambda: says(order, "outside_limit"))
        near = place("0.0008")  # it takes the four that are shown, and waits for more
        until(lambda: says(near, "taken_by_others"))
        until(lambda: counted() == {"outside_limit": 1, "taken_by_others": 1})
        assert says(order, "outside_limit")
        assert client.get(f"/orders/{near['order']['id']}").json()["filled_size"] == "4"
        feed.quote("0.0009", "4", live=False)
        until(lambda: says(near, "not_live") and says(order, "not_live"))
        client.patch("/venues/binance", json={"enabled": False})
        assert says(near, "venue_disabled")
        until(lambda: counted() == {"venue_disabled": 2})
        client.patch("/venues/binance", json={"enabled": True})
        feed.stop()
        until(lambda: says(near, "venue_stale") and says(order, "venue_stale"))
        until(lambda: counted() == {"venue_stale": 2})
        client.delete(f"/orders/{near['order']['id']}")
        until(lambda: says(near, "cancelled"))


def test_an_order_of_another_market_waits_for_it(
    client: httpx.Client,
    settings: Settings,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    feed: Feed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is in no book of the market that runs, placed before or not, and says so; in its own it is filled."""
    other = settings.model_copy(update={"market": Market.REPLAY})

    def placed(through: httpx.Client, **more: Any) -> str:
        made: dict[str, Any] = through.post("/order/limit", json={**SELL, "price": "0.0008", **more}).json()
        return str(made["order"]["id"])

    def read(through: httpx.Client, order_id: str) -> tuple[str, str, str]:
        order = through.get(f"/orders/{order_id}").json()
        return order["state"], order["reason"], order["filled_size"]

    resting = placed(client)
    with running_worker("fulfilment", database_url, redis_url, tmp_path):
        until(lambda: read(client, resting)[0] == "working")
    queued, gone = placed(client), placed(client)
    client.delete(f"/orders/{gone}")
    feed.start()
    with serving(other) as elsewhere:
        with monkeypatch.context() as patch:
            patch.setenv("CROSSFILL_MARKET", "replay")
            with running_worker("fulfilment", database_url, redis_url, tmp_path):
                feed.quote("0.0009", "50")
                mine = placed(elsewhere)
                until(lambda: read(elsewhere, mine)[0] == "filled")
        assert read(elsewhere, resting) == ("working", "other_market", "0")
        assert read(elsewhere, queued) == ("queued", "other_market", "0")
        assert read(elsewhere, gone) == ("queued", "other_market", "0")
        assert {each["reason"] for each in elsewhere.get("/orders").json()["orders"]} == {None, "other_market"}
    with running_worker("fulfilment", database_url, redis_url, tmp_path):
        until(lambda: read(client, resting)[0] == read(client, queued)[0] == "filled")
        until(lambda: read(client, gone)[0] == "cancelled")
