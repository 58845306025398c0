"""GET /instruments over HTTP: open to everybody, with the evidence of each product."""

from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import update

from models.domain.instruments import INSTRUMENTS, Listed, Product
from models.domain.listings import EVIDENCE
from models.domain.quotes import Market
from models.settings import Settings
from models.store.database import Database
from models.store.listings import replace_listings
from models.store.tables import orders
from tests.integration.api.serving import serving


@pytest.fixture
def live(settings: Settings, database: Database) -> Iterator[httpx.Client]:
    """The API of a live market whose OKX lists one pair, in steps of its own."""
    replace_listings(
        database,
        "okx",
        [Listed("BTC", "USDT", Product("okx", "BTC-USDT", Decimal("0.001"), Decimal("1E-9"), Decimal("0.1")), True)],
    )
    with serving(settings.model_copy(update={"market": Market.LIVE})) as made:
        yield made


def test_every_pair_is_listed(client: httpx.Client) -> None:
    """Without a token; numbers are texts in plain notation, and an index has no steps."""
    answer = client.get("/instruments", headers={"Authorization": ""})
    assert answer.status_code == 200
    listed = answer.json()["instruments"]
    assert answer.json()["market"] == "simulated"
    assert [each["pair"] for each in listed] == [instrument.symbol for instrument in INSTRUMENTS]
    assert all(each["pair"] == f"{each['base']}-{each['quote']}" for each in listed)
    by_pair = {each["pair"]: each for each in listed}
    assert (by_pair["DOGE-BTC"]["tick"], by_pair["DOGE-BTC"]["lot"]) == ("0.0000000001", "0.00000001")
    products = {each["venue"]: each for each in by_pair["BTC-USD"]["products"]}
    assert list(products) == ["coinbase", "deribit", "kraken", "okx"]
    assert products["kraken"] == {
        "venue": "kraken",
        "product_id": "BTC/USD",
        "tick": "0.1",
        "lot": "0.00000001",
        "min_size": "0.0002",
        "price_only": False,
        "evidence": EVIDENCE["kraken-2021"],
    }
    index = products["deribit"]
    assert (index["tick"], index["lot"], index["min_size"], index["price_only"]) == (None, None, None, True)


@pytest.mark.parametrize("pair", ["LTC-BTC", "LTCBTC", "ltc/btc", "LTC_XBT"])
def test_a_pair_is_found_however_it_is_spelled(client: httpx.Client, pair: str) -> None:
    """Also with a slash."""
    answer = client.get(f"/instruments/{pair}").json()
    assert (answer["pair"], answer["market"]) == ("LTC-BTC", "simulated")
    assert {each["venue"] for each in answer["products"]} == INSTRUMENTS["LTC-BTC"].venues


def test_an_unknown_pair_is_told_what_is_near(client: httpx.Client) -> None:
    """As a problem."""
    answer = client.get("/instruments/LTCBTX")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "LTC-BTC" in answer.json()["near"]


def test_an_order_whose_pair_is_gone_is_still_shown(live: httpx.Client, database: Database) -> None:
    """Nobody can say what it waits for."""
    placed = live.post("/order/limit", json={"symbol": "BTCUSDT", "order_size": 1, "price": 1}).json()
    with database.write() as connection:
        connection.execute(update(orders).values(symbol="SOL-USD", state="working"))
    shown = live.get(f"/orders/{placed['order']['id']}").json()
    assert (shown["symbol"], shown["reason"]) == ("SOL-USD", None)


def test_a_live_market_shows_what_the_venues_list(live: httpx.Client) -> None:
    """What OKX lists no more is gone there; evidence says on which day it was listed."""
    products = {each["venue"]: each for each in live.get("/instruments/BTCUSDT").json()["products"]}
    okx = products["okx"]
    assert (okx["tick"], okx["lot"], okx["min_size"]) == ("0.001", "0.000000001", "0.1")
    assert okx["evidence"].startswith("listed by the venue on 20")
    assert products["binance"]["evidence"] == EVIDENCE["binance-2021"]
    assert live.get("/instruments/SOL-USD").status_code == 404
    assert live.get("/prices/SOL-USD").status_code == 404
    order = {"symbol": "BTCUSDT", "order_size": "0.000000001", "price": "100000.001"}
    assert live.post("/order/limit", json=order).status_code == 202
    refused = live.post("/order/limit", json={**order, "symbol": "SOLUSD"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "symbol"
