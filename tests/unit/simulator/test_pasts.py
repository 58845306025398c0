"""The made-up past: one for each seed, from wherever it is asked for; it ends where the live prices begin."""

import json
from decimal import Decimal

import pytest

from exchanges.pasts import read_past
from exchanges.registry import PASTS
from models.domain.instruments import INSTRUMENTS
from models.domain.pasts import PastCandle
from simulator.market import START_USD, TICK_US, Candle, Market
from simulator.registry import WIRES

HOUR_S = 3_600
HOUR_US = HOUR_S * 1_000_000
MINUTE_US = 60_000_000
START_US = 1_790_272_800_000_000 // HOUR_US * HOUR_US
PRODUCTS = {
    "binance": "BTCUSDT",
    "coinbase": "BTC-USD",
    "kraken": "BTC/USD",
    "htx": "btcusdt",
    "okx": "BTC-USDT",
    "deribit": "BTC_USDC",
}


def market(seed: int = 7, start_us: int = START_US) -> Market:
    return Market(INSTRUMENTS, sorted(INSTRUMENTS.venues), seed, start_us)


def hours(made: Market, count: int = 200, product: tuple[str, str] = ("binance", "BTCUSDT")) -> list[Candle]:
    return made.listings[product].candles(HOUR_US, START_US - count * HOUR_US, START_US, START_US)


def asked(made: Market, venue: str, start_us: int, end_us: int, now_us: int) -> list[PastCandle]:
    path = PASTS[venue].request(PRODUCTS[venue], HOUR_S, start_us, end_us, now_us)
    answer = WIRES[venue].past(path, made.of_venue(venue), now_us)
    assert answer is not None
    assert answer.status == 200
    return read_past(PASTS[venue], json.dumps(answer.body).encode(), HOUR_S, start_us, end_us)


def test_one_seed_has_one_past() -> None:
    """Another one has another."""
    assert hours(market()) == hours(market())
    assert hours(market())[:5] != hours(market(8))[:5]


def test_it_is_the_same_from_wherever_it_is_asked_for() -> None:
    """A part of it is what the whole says, and what was asked for before changes nothing."""
    made = market()
    whole = hours(made)
    assert hours(market(), 3) == whole[-3:]
    assert hours(made, 3) == whole[-3:]


def test_hours_are_those_of_their_minutes() -> None:
    """They open and close alike; each begins where the one before ended."""
    listing = market().listings["kraken", "ETH/USD"]
    from_us = START_US - 5 * HOUR_US
    whole = listing.candles(HOUR_US, from_us, START_US, START_US)
    minutes = listing.candles(MINUTE_US, from_us, START_US, START_US)
    assert [each.close for each in whole] == [each.close for each in minutes[59::60]]
    assert [each.open for each in whole] == [each.open for each in minutes[::60]]
    assert [each.open for each in minutes[1:]] == [each.close for each in minutes[:-1]]
    assert all(each.low <= min(each.open, each.close) <= max(each.open, each.close) <= each.high for each in minutes)


@pytest.mark.parametrize("venue", list(PRODUCTS))
def test_its_newest_close_joins_the_live_price(venue: str) -> None:
    """Within what a venue's prices differ from another's; and it has moved, within reason, before."""
    made = market()
    listing = made.listings[venue, PRODUCTS[venue]]
    mid = Decimal(START_USD["BTC"]) / Decimal(START_USD[listing.instrument.quote])
    found = hours(made, 200, (venue, PRODUCTS[venue]))
    assert abs(found[-1].close / mid - 1) < Decimal("0.001")
    moved = [abs(each.close / mid - 1) for each in found]
    assert Decimal("0.005") < max(moved) < Decimal("0.6")


def test_since_the_beginning_it_is_what_assets_were_worth() -> None:
    """To the minute, whether or not anybody listened."""
    made = market()
    for minute in (1, 2, 30):
        for tick in range(40):
            made.tick(START_US + minute * MINUTE_US + tick * TICK_US)
    listing = made.listings["binance", "ETHUSDT"]
    now_us = START_US + 40 * MINUTE_US
    [open_one] = listing.candles(HOUR_US, START_US, START_US + HOUR_US, now_us)
    bid, ask = listing.levels("buy")[0][0], listing.levels("sell")[0][0]
    assert abs(open_one.close / ((bid + ask) / 2) - 1) < Decimal("0.002")


@pytest.mark.parametrize("venue", list(PRODUCTS))
def test_each_venue_tells_it_in_its_own_dialect(venue: str) -> None:
    """Our requests are understood, and the answers are believed: closed candles, each with a volume."""
    made, now_us = market(), START_US + 600_000_000
    found = asked(made, venue, START_US - 50 * HOUR_US, START_US, now_us)
    assert [each.open_time_us for each in found] == [START_US - hour * HOUR_US for hour in range(50, 0, -1)]
    assert all(each.volume > 0 for each in found)
    listing = made.listings[venue, PRODUCTS[venue]]
    right = listing.candles(HOUR_US, START_US - 50 * HOUR_US, START_US, now_us)
    assert [(each.open, each.close) for each in found] == [(each.open, each.close) for each in right]


@pytest.mark.parametrize("venue", list(PRODUCTS))
def test_a_page_is_as_long_as_the_venues(venue: str) -> None:
    """What is beyond it is asked for anew, and where only the newest are told, what is before it is not there."""
    past, made = PASTS[venue], market()
    count = past.page + 10
    found = asked(made, venue, START_US - count * HOUR_US, START_US - 10 * HOUR_US, START_US + 1)
    newest = past.page - 10 - 1  # without those after the end, and the one that is still made
    assert len(found) == (newest if past.newest_only else past.page)


@pytest.mark.parametrize("venue", list(PRODUCTS))
def test_what_is_not_there_is_refused_in_the_venues_words(venue: str) -> None:
    """An unknown product; another path is no request for candles."""
    product_id = PRODUCTS[venue]
    path = PASTS[venue].request(product_id, HOUR_S, START_US - HOUR_US, START_US, START_US)
    answer = WIRES[venue].past(path, {}, START_US)
    assert answer is not None
    told = json.dumps(answer.body)
    assert any(word in told for word in ("nvalid", "NotFound", "Unknown", "exist"))
    assert WIRES[venue].past("/stream", market().of_venue(venue), START_US) is None
