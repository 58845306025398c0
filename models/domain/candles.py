"""Candles: what was traded in an interval of time."""

from decimal import Decimal

import msgspec


class Candle(msgspec.Struct, frozen=True, gc=False, tag="candle", array_like=True):
    """One product's candle as its venue tells it, so far or (`closed`) for good.

    `volume` is in the base asset and `quote_volume` in the quote asset; that, the number of trades and
    whether it is closed are None where the venue does not say. The interval begins at `open_time_us`.
    """

    venue: str
    product_id: str
    token: int
    interval_s: int
    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None
    trades: int | None
    closed: bool | None
    received_time_us: int
