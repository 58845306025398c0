"""Binance's klines over REST (binance-spot-api-docs, rest-api.md): oldest first, from a start time on."""

from decimal import Decimal

import msgspec

from exchanges.binance.wire import Milliseconds
from exchanges.pasts import Past
from models.domain.pasts import PastCandle

# By their length in seconds. Days begin at midnight UTC.
NAMES = {60: "1m", 300: "5m", 900: "15m", 3_600: "1h", 14_400: "4h", 86_400: "1d"}
PAGE = 1_000


class _Kline(msgspec.Struct, array_like=True):
    open_time: Milliseconds
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    close_time: Milliseconds
    quote_volume: Decimal
    trades: int


_klines = msgspec.json.Decoder(list[_Kline])


def request(product_id: str, interval_s: int, start_us: int, end_us: int, _now_us: int) -> str:
    """Return the path of a page of candles."""
    times = f"startTime={start_us // 1_000}&endTime={end_us // 1_000 - 1}"
    return f"/api/v3/klines?symbol={product_id}&interval={NAMES[interval_s]}&{times}&limit={PAGE}"


def parse(body: bytes) -> list[PastCandle]:
    """Return what an answer says. Raises msgspec.MsgspecError where it is none."""
    return [
        PastCandle(k.open_time * 1_000, k.open, k.high, k.low, k.close, k.volume, k.quote_volume, k.trades)
        for k in _klines.decode(body)
    ]


# A request has a weight of 2, of 6,000 a minute.
PAST = Past("https://api.binance.com", NAMES, PAGE, 0.1, request, parse)
