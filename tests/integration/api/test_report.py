"""The report of a strategy over HTTP: from stored signals and stored candles."""

import time
from decimal import Decimal
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

from api import strategies
from models.domain.candles import Candle
from models.domain.moving_averages import Kind
from models.domain.signals import Cross, Signal
from models.domain.strategies import Strategy, Variant
from models.store.candles import upsert_candles
from models.store.database import Database
from models.store.events import rfc3339
from models.store.signals import insert_signals
from models.store.strategies import put_strategy

HOUR_US = 3_600_000_000
CROSS = Strategy("cross", {"a": Variant(Kind.SMA, 2, 3), "b": Variant(Kind.SMA, 2, 4)})


def noon_us() -> int:
    """Return the beginning of an hour, 30 hours ago."""
    return (time.time_ns() // 1000 // HOUR_US - 30) * HOUR_US


def candle(open_time_us: int, close: int, symbol: str = "BTC-USDT", **values: Any) -> Candle:
    price, one = Decimal(close), Decimal(1)
    made = Candle("all", symbol, 3_600, open_time_us, *(price,) * 4, *(one,) * 3, 1, "simulated")
    return replace(made, **values)


def signal(open_time_us: int, close: int, variant: str = "a", cross: Cross = Cross.GOLDEN, **values: Any) -> Signal:
    numbers = (Decimal(close), Decimal(2), Decimal(1), open_time_us + HOUR_US)
    made = Signal("cross", 1, variant, "all", "BTC-USDT", 3_600, open_time_us, cross, *numbers, "simulated")
    return replace(made, **values)


def report(client: httpx.Client, **query: Any) -> dict[str, Any]:
    answer = client.get("/strategies/cross/report", params=query, headers={"Authorization": ""})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_variants_are_compared_by_what_followed_their_signals(client: httpx.Client, database: Database) -> None:
    """Long after a golden cross, short after a death cross; an hour without trades has the close before."""
    start_us = noon_us()
    put_strategy(database, CROSS)
    prices = {0: 100, 1: 110, 2: 121, 4: 100, 21: 200}
    upsert_candles(database, [candle(start_us + hour * HOUR_US, close) for hour, close in prices.items()])
    insert_signals(
        database,
        [
            signal(start_us, 100),
            signal(start_us + HOUR_US, 110, "b", Cross.DEATH),
            signal(start_us + 20 * HOUR_US, 100, "b"),
            signal(start_us, 100, version=2),
            signal(start_us, 100, market="live"),
        ],
    )
    answer = report(client)
    assert answer["strategy"]["version"] == 1
    assert (answer["market"], answer["pair"], answer["signals"], answer["since"]) == ("simulated", None, 3, None)
    assert answer["confidence"] == "0.95"
    first, second = answer["variants"]
    assert (first["variant"], first["golden"], first["death"]) == ("a", 1, 0)
    means = [
        (each["bars"], each["signals"], each["pending"], each["estimate"]["mean_bps"]) for each in first["returns"]
    ]
    assert means == [(1, 1, 0, "1000.00"), (5, 1, 0, "0.00"), (20, 1, 0, "0.00")]
    assert (second["variant"], second["golden"], second["death"]) == ("b", 1, 1)
    # One bar after: 110 to 121, short, and 100 to 200, long; five after: 110 to 100, short, and not there yet.
    assert [each["estimate"]["mean_bps"] for each in second["returns"][:2]] == ["4500.00", "909.09"]
    assert [each["pending"] for each in second["returns"]] == [0, 1, 1]
    verdicts = [each["verdict"] for each in answer["differences"]]
    assert verdicts[0] == "too few signals to tell: 1 and 2"


def test_an_hour_that_nobody_looked_at_has_no_close(client: httpx.Client, database: Database) -> None:
    """A return that would end there is missing."""
    start_us = noon_us()
    put_strategy(database, CROSS)
    upsert_candles(database, [candle(start_us, 100), candle(start_us + 2 * HOUR_US, 120, incomplete=True)])
    insert_signals(database, [signal(start_us, 100)])
    one = report(client)["variants"][0]["returns"][0]
    assert (one["signals"], one["missing"], one["pending"]) == (0, 1, 0)


def test_one_pair_or_one_version_is_asked_for(client: httpx.Client, database: Database) -> None:
    """Of others nothing is counted; without signals the answer says so."""
    start_us = noon_us()
    put_strategy(database, CROSS)
    insert_signals(database, [signal(start_us, 100), signal(start_us, 5, symbol="ETH-USDT")])
    assert report(client)["signals"] == 2
    answer = report(client, pair="ethusdt")
    assert (answer["pair"], answer["signals"]) == ("ETH-USDT", 1)
    put_strategy(database, replace(CROSS, interval="1m"))
    answer = report(client)
    assert (answer["strategy"]["version"], answer["signals"]) == (2, 0)
    assert {each["verdict"] for each in answer["differences"]} == {"too few signals to tell: 0 and 0"}
    assert report(client, version=1)["signals"] == 2
    assert client.get("/strategies/cross/report?version=3").status_code == 404
    assert client.get("/strategies/none/report").status_code == 404
    assert "LTC-BTC" in client.get("/strategies/cross/report?pair=LTCBTX").json()["near"]


def test_a_report_is_bounded(client: httpx.Client, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals before what one answer has room for are left out, and it says since when they count."""
    start_us = noon_us()
    put_strategy(database, CROSS)
    hours = [candle(start_us + hour * HOUR_US, 100 + hour) for hour in range(28)]
    upsert_candles(database, [*hours, *(replace(each, symbol="ETH-USDT") for each in hours)])
    made = [signal(start_us + hour * HOUR_US, 100 + hour) for hour in range(0, 28, 4)]  # the last at the 24th
    insert_signals(database, [*made, replace(made[3], symbol="ETH-USDT")])
    assert (report(client)["signals"], report(client)["since"]) == (8, None)
    monkeypatch.setattr(strategies, "CLOSES_MAX", 20 * 2)
    answer = report(client)
    assert (answer["signals"], answer["since"]) == (5 + 1, rfc3339(start_us + 8 * HOUR_US))
    monkeypatch.setattr(strategies, "CLOSES_MAX", 50_000)
    monkeypatch.setattr(strategies, "SIGNALS_MAX", 3)
    answer = report(client, pair="BTC-USDT")
    assert (answer["signals"], answer["since"]) == (3, rfc3339(start_us + 13 * HOUR_US))
