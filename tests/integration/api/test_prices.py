"""GET /prices over HTTP, with a real Redis: what a price is made of, and when it is withheld."""

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from models.domain.averages import Method
from tests.integration.api.market import SECOND_US, Bus, now_us

KEPT_S = 0.06  # what was read before may be kept for so long


@pytest.fixture
def bus(redis_url: str) -> Iterator[Bus]:
    made = Bus(redis_url)
    yield made
    made.close()


def ask(client: httpx.Client, pair: str, **query: Any) -> httpx.Response:
    time.sleep(KEPT_S)
    return client.get(f"/prices/{pair}", params=query)


def three(bus: Bus) -> None:
    """BTC-USD at three venues, one of them a little off."""
    bus.quote("BTC-USD", "coinbase", 99, 101, 98)
    bus.quote("BTC-USD", "kraken", 100, 102, 100)
    bus.quote("BTC-USD", "okx", 101.5, 102.5, 104)


def test_a_price_says_what_it_is_made_of(client: httpx.Client, bus: Bus) -> None:
    """Value and prices are texts; each source has its ages, its weight and the reason why it is left out."""
    three(bus)
    answer = ask(client, "XBT/USD").json()
    assert (answer["pair"], answer["method"], answer["input"]) == ("BTC-USD", "clamped_mean", "mid")
    assert (answer["market"], answer["min_sources"]) == ("simulated", 3)
    by_venue = {source["venue"]: source for source in answer["sources"]}
    assert [source["raw_price"] for source in answer["sources"]] == ["100", None, "101", "102"]
    # Clamped to half a per cent around 101.
    assert [by_venue[venue]["adjusted_price"] for venue in ("coinbase", "kraken", "okx")] == [
        "100.495",
        "101",
        "101.505",
    ]
    assert Decimal(answer["value"]) == 101
    assert by_venue["deribit"]["reason"] == "not_connected"
    assert by_venue["coinbase"]["reason"] is None
    assert 0 <= by_venue["coinbase"]["quote_age_ms"] < 10_000
    assert 60_000 <= by_venue["coinbase"]["connection_age_ms"] < 120_000
    assert by_venue["coinbase"]["weight"].startswith("0.3333")
    assert answer["time"].endswith("Z")


def test_the_inputs_and_the_choice_of_venues(client: httpx.Client, bus: Bus) -> None:
    """Bid, ask and last are averaged like the mid; named venues alone, and fewer sources, where that is asked for."""
    three(bus)
    values = {
        name: ask(client, "BTC-USD", input=name, method="mean").json()["value"]
        for name in ("bid", "ask", "last", "mid")
    }
    assert values == {
        "bid": str(Decimal("300.5") / 3),
        "ask": str(Decimal("305.5") / 3),
        "last": str(Decimal(302) / 3),
        "mid": "101",
    }
    two = ask(client, "BTC-USD", venues="kraken,okx", method="median").json()
    assert (two["value"], two["min_sources"], len(two["sources"])) == ("101.5", 2, 2)
    assert ask(client, "BTC-USD", venues="kraken,okx", min_sources=1).json()["min_sources"] == 1


def test_below_the_least_number_of_sources_it_is_withheld_with_them(client: httpx.Client, bus: Bus) -> None:
    """503 as a problem, with Retry-After and the same sources; an old price is told as one."""
    bus.quote("BTC-USD", "coinbase", 99, 101)
    bus.quote("BTC-USD", "kraken", 99, 101, age_s=20)
    answer = ask(client, "BTC-USD")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.headers["retry-after"] == "1"
    problem = answer.json()
    assert problem["value"] is None
    assert {source["venue"]: source["reason"] for source in problem["sources"]} == {
        "coinbase": None,
        "deribit": "not_connected",
        "kraken": "too_old",
        "okx": "not_connected",
    }
    assert "3 sources are needed, 1 can be used" in problem["detail"]
    assert ask(client, "BTC-USD", min_sources=2, max_age_s=30).status_code == 200


def test_a_switched_off_venue_is_gone_at_once(client: httpx.Client, bus: Bus) -> None:
    """Its price leaves the average in the very next answer, and comes back likewise."""
    three(bus)
    assert ask(client, "BTC-USD", method="median", min_sources=1).json()["value"] == "101"
    assert client.patch("/venues/kraken", json={"enabled": False}).json()["enabled"] is False
    answer = client.get("/prices/BTC-USD", params={"method": "median", "min_sources": 1}).json()
    assert {source["venue"]: source["reason"] for source in answer["sources"]}["kraken"] == "venue_disabled"
    assert client.get("/getAveragePairPrice/BTCUSD").json()["status"] == "error"
    client.patch("/venues/kraken", json={"enabled": True})
    assert client.get("/prices/BTC-USD", params={"method": "median"}).json()["value"] == "101"


def test_a_source_that_deviated_comes_back_below_half_of_the_limit(client: httpx.Client, bus: Bus) -> None:
    """From one answer to the next the server remembers who was out."""
    told = []
    for price in (104, 107, 104, 101):
        three(bus)
        bus.quote("BTC-USD", "okx", price, price)
        [okx] = [each for each in ask(client, "BTC-USD", min_sources=2).json()["sources"] if each["venue"] == "okx"]
        told.append(okx["reason"])
    assert told == [None, "deviates", "deviates", None]


def test_methods_of_volume_use_the_trades_on_the_bus(client: httpx.Client, bus: Bus) -> None:
    """Weights are shares of what was traded; a trade that comes later is counted the next time."""
    three(bus)
    at = now_us()
    for venue, size in (("coinbase", 1), ("kraken", 3)):
        bus.remember("BTC-USD", venue, prints=((at - SECOND_US, 100, size),), lived=(at - SECOND_US, at))
    answer = ask(client, "BTC-USD", method="volume_weighted").json()
    assert {each["venue"]: each["weight"] for each in answer["sources"]} == {
        "coinbase": "0.25",
        "deribit": "0",
        "kraken": "0.75",
        "okx": "0",
    }
    assert answer["value"] == "100.75"
    bus.remember("BTC-USD", "okx", prints=((at - SECOND_US, 200, 4),), lived=(at - SECOND_US, at))
    time.sleep(0.6)
    assert ask(client, "BTC-USD", method="volume_weighted").json()["value"] == "101.375"
    # All of these trades lie in one bin: half of its volume is reached at 100 exactly.
    assert ask(client, "BTC-USD", method="time_decay").json()["value"] == "150"


def test_all_methods_at_once(client: httpx.Client, bus: Bus) -> None:
    """Each with its value and sources, or why it has none."""
    three(bus)
    methods = ask(client, "BTC-USD", method="all").json()["methods"]
    assert set(methods) == set(Method)
    assert methods["median"]["value"] == "101"
    assert "nothing has a weight" in methods["volume_weighted"]["problem"]
    # Votes 99 100 100 101 101 101.5 102 102 102.5: quartiles 100 and 102.
    assert (methods["votes"]["value"], methods["votes"]["confidence"]) == ("101", "1")


def test_prices_in_another_currency_are_converted_by_their_index(client: httpx.Client, bus: Bus) -> None:
    """Named in the answer; without the index they are no source. USDT is not USD by itself."""
    three(bus)
    bus.quote("BTC-USDT", "binance", 200, 202)
    without = ask(client, "BTC-USD", convert="USDT", min_sources=3).json()
    [binance] = [source for source in without["sources"] if source["venue"] == "binance"]
    assert (binance["reason"], binance["conversion"]) == ("no_conversion", {"pair": "USDT-USD", "price": None})
    bus.quote("USDT-USD", "kraken", "0.49", "0.51")
    bus.quote("USDT-USD", "okx", "0.49", "0.51")
    converted = ask(client, "BTC-USD", convert="USDT", method="median").json()
    [binance] = [source for source in converted["sources"] if source["venue"] == "binance"]
    assert (binance["raw_price"], binance["adjusted_price"]) == ("201", "100.5")
    assert binance["conversion"] == {"pair": "USDT-USD", "price": "0.5"}
    assert converted["value"] == "100.75"
    assert all(source["venue"] != "binance" for source in ask(client, "BTC-USD").json()["sources"])


@pytest.mark.parametrize(
    ("path", "status", "field", "says"),
    [
        ("/prices/BTCUSB", 404, None, "did you mean"),
        ("/prices/BTC-USD?method=mode", 422, "method", "clamped_mean"),
        ("/prices/BTC-USD?input=middle", 422, "input", "'mid'"),
        ("/prices/BTC-USD?venues=krakn", 422, "venues", "coinbase, deribit, kraken, okx"),
        ("/prices/BTC-USD?venues=binance", 422, "venues", "has no price of BTC-USD"),
        ("/prices/BTC-USD?min_sources=5", 422, "min_sources", "more than the 4"),
        ("/prices/BTC-USD?min_sources=0", 422, "min_sources", "greater than or equal to 1"),
        ("/prices/BTC-USD?max_age_s=0", 422, "max_age_s", "greater than 0"),
        ("/prices/BTC-USD?max_age_s=nan", 422, "max_age_s", ""),
        ("/prices/BTC-USD?methode=mean", 422, "methode", "is unknown"),
        ("/prices/BTC-USD?convert=DOGE", 422, "convert", "there is no BTC-DOGE"),
    ],
)
def test_bad_requests_name_their_field(
    client: httpx.Client, path: str, status: int, field: str | None, says: str
) -> None:
    """As problem+json, with what would be right."""
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert says in problem["detail"]
    if field is None:
        assert "BTC-USD" in problem["near"]
    else:
        assert problem["errors"][0]["field"] == field


def test_the_venues_and_their_switch(client: httpx.Client, bus: Bus) -> None:
    """How each is read; only an admin may switch, and only what is there."""
    three(bus)
    time.sleep(KEPT_S)
    venues = {venue["venue"]: venue for venue in client.get("/venues").json()["venues"]}
    assert set(venues) == {"binance", "coinbase", "deribit", "htx", "kraken", "okx"}
    kraken = venues["kraken"]
    assert (kraken["state"], kraken["reason"], kraken["enabled"]) == ("connected", None, True)
    assert (kraken["messages_per_s"], kraken["gaps"], kraken["reconnects"], kraken["token"]) == (12.5, 2, 1, 7)
    ages = {pair["pair"]: pair["quote_age_ms"] for pair in kraken["pairs"]}
    assert 0 <= ages["BTC-USD"] < 60_000
    assert ages["ETH-USD"] is None
    assert (venues["binance"]["state"], venues["binance"]["reason"]) == ("down", "no_collector")
    other = {"Authorization": "Bearer another"}
    assert client.patch("/venues/kraken", json={"enabled": False}, headers=other).status_code == 403
    assert client.patch("/venues/krakn", json={"enabled": False}).status_code == 404
    for body, says in (({}, "nothing"), ({"enabled": 0}, "0"), ({"enabled": True, "x": 1}, "x")):
        answer = client.patch("/venues/kraken", json=body)
        assert (answer.status_code, says in answer.json()["detail"]) == (422, True)
    assert (
        "gaps seen: coinbase 2, kraken 2, okx 2" in client.get("/health/ready").json()["parts"]["collectors"]["detail"]
    )
    client.patch("/venues/kraken", json={"enabled": False})
    assert {v["venue"]: v["reason"] for v in client.get("/venues").json()["venues"]}["kraken"] == "venue_disabled"
