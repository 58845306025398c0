"""What was seen of a market over time, and the time-weighted mean of a window of it. Pure.

A venue's prices are a step function: each sample holds until the next one. It is known only while the
connection lived, which its spans say; a new connection knows nothing before its first sample.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext

import msgspec

from models.domain.averages import Fill, quotient
from models.domain.decimals import EXACT
from models.domain.sources import Input


class Sample(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A product's prices as they are from a time on; None: not known. Sizes are those of that moment.

    A change of a size alone makes no sample.
    """

    time_us: int
    bid: Decimal | None
    ask: Decimal | None
    last: Decimal | None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None


class Print(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A trade: when it was received, its id at the venue, price and size, who crossed, and the venue's own time."""

    time_us: int
    trade_id: str
    price: Decimal
    size: Decimal
    taker_side: str = ""  # "" in entries that were written before it was kept
    exchange_time_us: int | None = None


class Chunk(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What one connection saw of one product for some seconds, in order."""

    venue: str
    product_id: str
    token: int
    samples: tuple[Sample, ...]
    prints: tuple[Print, ...]
    market: str = ""  # "" in entries that were written before it was kept


class Span(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """From when until when a connection lived; `gaps`: the products of which trades were missed in it."""

    venue: str
    token: int
    from_us: int
    until_us: int
    gaps: tuple[str, ...] = ()
    market: str = ""


@dataclass(frozen=True, slots=True)
class WindowMean:
    """A time-weighted mean over what was seen of a window; None where nothing was. `coverage` is 0 to 1."""

    value: Decimal | None
    coverage: Decimal
    samples: int


def price_of(sample: Sample, wanted: Input) -> Decimal | None:
    """Return a sample's price; the mid is exact. A product without a book has its last price only."""
    if wanted is Input.LAST or (wanted is Input.MID and sample.bid is None and sample.ask is None):
        return sample.last
    if wanted is Input.BID:
        return sample.bid
    if wanted is Input.ASK:
        return sample.ask
    if sample.bid is None or sample.ask is None:
        return None
    return EXACT.multiply(EXACT.add(sample.bid, sample.ask), Decimal("0.5"))


def window_mean(
    chunks: Iterable[Chunk],
    spans: Iterable[Span],
    start_us: int,
    end_us: int,
    wanted: Callable[[Sample], Decimal | None],
) -> WindowMean:
    """Return the time-weighted mean of one product's price over [start, end).

    Each value holds until the next sample of the same connection; time without a living connection, or
    without a value, is left out. Where connections overlap, the newer one's word counts.
    """
    by_token: dict[int, list[Sample]] = {}
    for chunk in chunks:
        by_token.setdefault(chunk.token, []).extend(chunk.samples)
    seen_us = counted = 0
    with localcontext(EXACT):
        total = Decimal(0)
        for token, from_us, until_us in lived(spans, start_us, end_us):
            samples = sorted(by_token.get(token, ()), key=lambda sample: sample.time_us)
            for value, held_us in _steps(samples, from_us, until_us, wanted):
                total += value * held_us
                seen_us += held_us
                counted += 1
    mean = quotient(total, Decimal(seen_us)) if seen_us else None
    return WindowMean(mean, quotient(Decimal(seen_us), Decimal(end_us - start_us)), counted)


def lived(spans: Iterable[Span], start_us: int, end_us: int) -> list[tuple[int, int, int]]:
    """Return (token, from, until) within a window, without overlaps, the newer connection before the older."""
    found: list[tuple[int, int, int]] = []
    taken: list[tuple[int, int]] = []
    for span in sorted(spans, key=lambda span: (-span.token, span.from_us)):
        pieces = [(max(span.from_us, start_us), min(span.until_us, end_us))]
        for low, high in taken:
            pieces = [
                part
                for begin, end in pieces
                for part in ((begin, min(end, low)), (max(begin, high), end))
                if part[0] < part[1]
            ]
        pieces = [(begin, end) for begin, end in pieces if begin < end]
        found += [(span.token, begin, end) for begin, end in pieces]
        taken += pieces
    return found


def _steps(
    samples: Sequence[Sample],
    from_us: int,
    until_us: int,
    wanted: Callable[[Sample], Decimal | None],
) -> Iterable[tuple[Decimal, int]]:
    """Yield each value with how long it held between two times."""
    place = max(0, bisect_right(samples, from_us, key=lambda sample: sample.time_us) - 1)
    for index in range(place, len(samples)):
        begin = max(samples[index].time_us, from_us)
        end = min(samples[index + 1].time_us if index + 1 < len(samples) else until_us, until_us)
        if begin >= until_us:
            return
        value = wanted(samples[index])
        if begin < end and value is not None:
            yield value, end - begin


def fills_of(chunks: Iterable[Chunk], start_us: int, end_us: int) -> list[Fill]:
    """Return the trades of a window in the order of their times, each once, whichever connection saw it."""
    found: dict[tuple[str, str, str], Fill] = {}
    for chunk in chunks:
        for made in chunk.prints:
            if start_us <= made.time_us < end_us:
                key = (chunk.venue, chunk.product_id, made.trade_id)
                found.setdefault(key, Fill(chunk.venue, chunk.product_id, made.time_us, made.price, made.size))
    return sorted(found.values(), key=lambda fill: fill.time_us)
