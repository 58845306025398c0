"""The past of a product as its venue tells it: closed candles over REST, with which averages are warmed up."""

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from models.domain.candles import EVERY_VENUE, Candle
from models.domain.instruments import Instruments
from models.domain.strategies import Strategy

COUNTED_MAX = 5_000  # closes of a series are looked through at most
FETCHED_MAX = 1_000  # and so many are fetched: at OKX, which tells the fewest at once, in ten requests


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


class Followed(NamedTuple):
    """A series that strategies look at; `venue` may be EVERY_VENUE."""

    venue: str
    symbol: str
    interval_s: int


def followed(strategies: Iterable[Strategy], instruments: Instruments, venues: Collection[str]) -> dict[Followed, int]:
    """Return how many closes strategies want of each series, pair by pair.

    Where they look at all venues together, each of `venues` that trades the pair is followed before it. A venue
    that a strategy names is there whether it is among them or not.
    """
    wanted: dict[Followed, int] = {}
    for strategy in strategies:
        closes = min(COUNTED_MAX, max(variant.closes_needed for variant in strategy.variants.values()))
        for instrument in instruments:
            trading = [product.venue for product in instrument.books]
            mine = [strategy.venue] if strategy.venue in trading else []
            if strategy.venue == EVERY_VENUE and (read := [venue for venue in trading if venue in venues]):
                mine = [*read, EVERY_VENUE]
            for venue in mine:
                if strategy.follows(strategy.venue, instrument.symbol, strategy.interval_s):
                    series = Followed(venue, instrument.symbol, strategy.interval_s)
                    wanted[series] = max(closes, wanted.get(series, 0))
    return wanted


def known_closes(closes: Iterable[Candle]) -> int:
    """Return how many of the closes with which an average is warmed up are known, and not the one before repeated."""
    return sum(1 for candle in closes if candle.trades or not candle.incomplete)


def next_span(lacking: Sequence[int], from_us: int, until_us: int, interval_us: int) -> tuple[int, int] | None:
    """Return the span of time, [start, end), that a venue is to be asked for next; None where it was asked for all.

    `lacking`: open times of candles that we have not, in order; the venue was asked for those in [from, until).
    What lies before that is asked for from there on anew, so that there is one span and nothing is left out in it.
    """
    before = [time_us for time_us in lacking if time_us < from_us]
    asking = lacking if before else [time_us for time_us in lacking if time_us >= until_us]
    return (asking[0], asking[-1] + interval_us) if asking else None
