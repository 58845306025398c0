"""The past of a product as its venue tells it: closed candles over REST, with which averages are warmed up."""

from decimal import Decimal

import msgspec


class PastCandle(msgspec.Struct, frozen=True, gc=False):
    """One closed candle as its venue tells it.

    `volume` is in the base asset; `quote_volume` and the number of trades are None where the venue does not say.
    """

    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None = None
    trades: int | None = None
