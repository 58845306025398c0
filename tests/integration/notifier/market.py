"""A market on the bus, as collectors and the analyst tell it."""

import time
from collections.abc import Sequence
from decimal import Decimal

import redis

from models.bus.analysis import tell_candles, tell_signal, tell_vwaps
from models.bus.latest import LatestPrice
from models.bus.quotes import QuoteWriter
from models.domain.candles import Candle
from models.domain.quotes import BusItem, Quote, Trade
from models.domain.signals import Cross, Signal
from models.domain.vwap import Vwap

MARKET = "simulated"
NOW_US = time.time_ns() // 1000


def latest(bid: str, *, venue: str = "binance", product_id: str = "BTCUSDT", told_us: int = NOW_US) -> LatestPrice:
    sides = (Decimal(bid), Decimal("1.50"), Decimal("30000.10"), Decimal("2.00"))
    return LatestPrice(venue, product_id, Decimal("29999.90"), told_us, *sides, True, told_us, MARKET)


def tell_price(bus: redis.Redis, bid: str, symbol: str = "BTC-USDT", product_id: str = "BTCUSDT") -> None:
    QuoteWriter(bus).write({}, {symbol: latest(bid, product_id=product_id)})


def tell_vwap(bus: redis.Redis, points: int, symbol: str = "BTC-USDT", venue: str = "all") -> None:
    told = Vwap(venue, symbol, 200, points, Decimal(3), Decimal(points), 1, 2, MARKET)
    tell_vwaps(bus, symbol, {venue: told, f"{venue}:1m": told})


def tell_candle(bus: redis.Redis, trades: int, interval_s: int = 60, symbol: str = "BTC-USDT") -> None:
    name = {1: "1s", 60: "1m"}[interval_s]
    ten, high, low, close = map(Decimal, ("10", "12.50", "9", "11"))
    volume, quote_volume, bought = map(Decimal, ("4", "42", "1.5"))
    told = Candle(
        venue="okx",
        symbol=symbol,
        interval_s=interval_s,
        open_time_us=60_000_000,
        open=ten,
        high=high,
        low=low,
        close=close,
        volume=volume,
        quote_volume=quote_volume,
        taker_buy_volume=bought,
        trades=trades,
        market=MARKET,
        closed=False,
    )
    tell_candles(bus, symbol, {f"okx:{name}": told})


def signal(number: int, symbol: str = "BTC-USDT", market: str = MARKET) -> Signal:
    close, fast, slow = map(Decimal, ("11", "10.5", "10.25"))
    opened_us = number * 60_000_000
    return Signal("averages", 1, "a", "all", symbol, 60, opened_us, Cross.GOLDEN, close, fast, slow, number, market)


def tell_signals(bus: redis.Redis, *signals: Signal) -> None:
    for each in signals:
        tell_signal(bus, each)


def quote(number: int, *, venue: str = "binance", product_id: str = "BTCUSDT", bid: str | None = None) -> Quote:
    sides = (Decimal(bid or f"{number}.50"), Decimal("1.500"), Decimal("30000.10"), Decimal("0.00010000"))
    return Quote(venue, product_id, 1, number, *sides, True, None, NOW_US + number)


def trade(
    number: int, price: str, *, venue: str = "binance", product_id: str = "BTCUSDT", before: bool = False
) -> Trade:
    size, at_us = Decimal("0.1"), NOW_US + number
    return Trade(venue, product_id, 1, str(number), Decimal(price), size, "buy", at_us, at_us, before)


def stream(bus: redis.Redis, items: Sequence[BusItem], shard: int = 0) -> None:
    QuoteWriter(bus).write({shard: items}, {})
