"""Volume-weighted average prices of the last trades, exact whatever has passed through."""

from decimal import Decimal

import msgspec

from models.domain.averages import quotient


class Vwap(msgspec.Struct, frozen=True, gc=False):
    """The last trades of a pair, at most `window` of them, at one venue or (candles.EVERY_VENUE) at all.

    `size` is in the base asset, `quote_volume` the exact sum of price times size; both are None-free: 0 where
    `points` is 0. The span is from the oldest to the newest trade's time.
    """

    venue: str
    symbol: str
    window: int
    points: int
    size: Decimal
    quote_volume: Decimal
    from_us: int | None
    until_us: int | None
    market: str

    @property
    def value(self) -> Decimal | None:
        """The average to 28 significant digits, half-even; None where nothing was traded."""
        return quotient(self.quote_volume, self.size) if self.size else None
