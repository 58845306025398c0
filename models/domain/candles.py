"""Candles: what was traded in an interval of time."""

from decimal import Decimal

import msgspec

from models.domain.averages import quotient

EVERY_VENUE = "all"  # the venue of what is made of all venues' trades
INTERVALS_S = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}


class Candle(msgspec.Struct, frozen=True, gc=False):
    """What was traded of a pair in [open time, open time + interval), at one venue or (EVERY_VENUE) at all.

    `volume` and `taker_buy_volume` are in the base asset; `quote_volume` is the exact sum of price times size.
    One without trades has the close before it four times. `revision` is 0 when the candle is closed, and one
    more each time that a late trade changed it. `incomplete`: trades of it may be missing. Days begin at
    midnight UTC. `closed` is False only for the one that is still made.
    """

    venue: str
    symbol: str
    interval_s: int
    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    trades: int
    market: str
    revision: int = 0
    incomplete: bool = False
    closed: bool = True

    @property
    def vwap(self) -> Decimal | None:
        """The volume-weighted average price, to 28 significant digits; None where nothing was traded."""
        return quotient(self.quote_volume, self.volume) if self.volume else None


class VenueCandle(msgspec.Struct, frozen=True, gc=False, tag="candle", array_like=True):
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
