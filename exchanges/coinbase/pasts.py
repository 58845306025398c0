"""Coinbase Exchange's candles over REST (docs.cdp.coinbase.com, /products/{id}/candles): newest first."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from exchanges.pasts import SECOND_US, Past
from models.domain.pasts import PastCandle

# By their length in seconds; there are none of four hours.
NAMES = {60: "60", 300: "300", 900: "900", 3_600: "3600", 86_400: "86400"}
PAGE = 300


class _Candle(msgspec.Struct, array_like=True):
    time: int
    low: Decimal
    high: Decimal
    open: Decimal
    close: Decimal
    volume: Decimal


_candles = msgspec.json.Decoder(list[_Candle])


def request(product_id: str, interval_s: int, start_us: int, end_us: int, _now_us: int) -> str:
    """Return the path of a page of candles; both of its ends are of open times, and the last one is included."""
    start, end = (_time(time_us // SECOND_US) for time_us in (start_us, end_us - interval_s * SECOND_US))
    return f"/products/{product_id}/candles?granularity={NAMES[interval_s]}&start={start}&end={end}"


def _time(time_s: int) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse(body: bytes) -> list[PastCandle]:
    """Return what an answer says; a quiet interval is left out. Raises msgspec.MsgspecError where it is none."""
    return [
        PastCandle(each.time * SECOND_US, each.open, each.high, each.low, each.close, each.volume)
        for each in _candles.decode(body)
    ]


PAST = Past("https://api.exchange.coinbase.com", NAMES, PAGE, 0.15, request, parse)  # of 10 a second
