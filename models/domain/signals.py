"""Signals: what a strategy says when one moving average crosses another."""

from decimal import Decimal
from enum import StrEnum

import msgspec


class Cross(StrEnum):
    """The faster average rises above the slower one, or falls below it."""

    GOLDEN = "golden_cross"
    DEATH = "death_cross"


class Signal(msgspec.Struct, frozen=True, gc=False):
    """One variant of a strategy saw the averages cross when the candle of `open_time_us` closed.

    Its strategy, version, variant, venue, pair, interval, candle and market are its identity: there is one.
    """

    strategy: str
    version: int
    variant: str
    venue: str
    symbol: str
    interval_s: int
    open_time_us: int
    cross: Cross
    close: Decimal
    fast: Decimal
    slow: Decimal
    raised_us: int
    market: str
