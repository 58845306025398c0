"""GET /vwap over HTTP: open to everybody, from the bus alone."""

from decimal import Decimal
from typing import Any

import httpx
from pydantic import SecretStr

from models.bus.analysis import tell_vwaps
from models.bus.client import connect
from models.domain.vwap import Vwap
from models.settings import Settings
from models.store.database import Database
from tests.integration.api.serving import serving

SECOND_US = 1_000_000
THEN_US = 1_700_000_040_000_000


def vwap(venue: str, quote_volume: str, size: str = "3", **values: Any) -> Vwap:
    span = {"from_us": THEN_US, "until_us": THEN_US + 90 * SECOND_US, "market": "simulated"}
    told = {"venue": venue, "symbol": "BTC-USDT", "window": 200, "points": 7, **span}
    return Vwap(**{**told, "size": Decimal(size), "quote_volume": Decimal(quote_volume), **values})


def tell(redis_url: str, **by_name: Vwap) -> None:
    with connect(redis_url) as bus, bus.pipeline() as pipeline:
        tell_vwaps(pipeline, "BTC-USDT", {name.replace("_", ":"): told for name, told in by_name.items()})
        pipeline.execute()


def read(client: httpx.Client, **query: Any) -> dict[str, Any]:
    answer = client.get("/vwap/BTC-USDT", params=query, headers={"Authorization": ""})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert body.pop("time").endswith("Z")
    return body


def test_the_averages_of_each_venue_and_of_all(client: httpx.Client, redis_url: str) -> None:
    """To 28 digits, with what they are made of; those of another market are not shown."""
    tell(
        redis_url,
        okx=vwap("okx", "200", points=0, size="0", from_us=None, until_us=None),
        binance=vwap("binance", "190525"),
        all=vwap("all", "1E+2", "1.50"),
        htx=vwap("htx", "1", market="replay"),
    )
    span = {"from": "2023-11-14T22:14:00.000000Z", "until": "2023-11-14T22:15:30.000000Z"}
    assert read(client) == {
        "pair": "BTC-USDT",
        "market": "simulated",
        "windows": [200],
        "window": 200,
        "merged": {
            "venue": "all",
            "vwap": "66.66666666666666666666666667",
            "window": 200,
            "points": 7,
            "size": "1.5",
            **span,
        },
        "venues": [
            {
                "venue": "binance",
                "vwap": "63508.33333333333333333333333",
                "window": 200,
                "points": 7,
                "size": "3",
                **span,
            },
            {"venue": "okx", "vwap": None, "window": 200, "points": 0, "size": "0", "from": None, "until": None},
        ],
    }


def test_windows_of_time_stand_beside_those_of_trades(client: httpx.Client, redis_url: str) -> None:
    """By length; the number of trades is what is shown where nothing is said."""
    names = ("binance", "all", "binance_1h", "binance_5m", "all_5m", "binance_10s", "binance_24h")
    tell(redis_url, **{name: vwap(name.split("_")[0], str(place)) for place, name in enumerate(names, 1)})
    assert read(client)["windows"] == [200, "10s", "5m", "1h", "24h"]
    assert [each["vwap"] for each in read(client, window=200)["venues"]] == [plain_third(1)]
    answer = read(client, window="5m")
    assert (answer["window"], answer["merged"]["window"]) == ("5m", "5m")
    assert [each["vwap"] for each in answer["venues"]] == [plain_third(4)]
    assert read(client, window="300s")["window"] == "5m"
    answer = read(client, window="60m")
    assert answer["merged"] is None
    assert [(each["venue"], each["vwap"]) for each in answer["venues"]] == [("binance", "1")]


def plain_third(number: int) -> str:
    return {1: "0.3333333333333333333333333333", 4: "1.333333333333333333333333333"}[number]


def test_a_pair_without_trades_says_so(client: httpx.Client) -> None:
    """It is no error."""
    answer = read(client, window=7)
    assert (answer["windows"], answer["merged"], answer["venues"]) == ([], None, [])
    assert answer["problem"] == "nothing was traded of BTC-USDT since this market is read"


def test_what_cannot_be_asked_is_named(client: httpx.Client, redis_url: str) -> None:
    """The field, what was wrong and what would be right."""
    tell(redis_url, binance=vwap("binance", "1"), binance_5m=vwap("binance", "1"))
    right = "give a number of trades, 1 to 1000000, or a time such as 5m"
    for window, problem in {
        "0": f"0 is out of range; {right}",
        "-5": f"-5 is out of range; {right}",
        "1000001": f"1000001 is out of range; {right}",
        "5y": f"'5y' is no window; {right}",
        "0m": f"'0m' is no window; {right}",
        "²": f"'²' is no window; {right}",
        "201": "201 is not kept; one of 200, 5m is, and POST /vwap takes any",
        "7m": "7m is not kept; one of 200, 5m is, and POST /vwap takes any",
    }.items():
        answer = client.get("/vwap/BTC-USDT", params={"window": window})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["problem"] == problem
        assert answer.json()["errors"][0]["field"] == "window"
    assert client.get("/vwap/BTC-USDT?windows=5").json()["errors"][0]["field"] == "windows"
    unknown = client.get("/vwap/LTCBTX")
    assert unknown.status_code == 404
    assert "LTC-BTC" in unknown.json()["near"]


def test_without_the_bus_there_is_no_answer(settings: Settings, database: Database) -> None:
    """It may be there again in a moment."""
    nobody = settings.model_copy(update={"bus_url": SecretStr("redis://127.0.0.1:1/0")})
    with serving(nobody) as client:
        answer = client.get("/vwap/BTC-USDT")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["detail"].startswith("averages cannot be read: ")
