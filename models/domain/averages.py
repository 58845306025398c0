"""Averages over venues: ten methods, each a pure function of prices, weights or trades.

Numbers are exact until they are divided: a quotient has 28 significant digits, half-even. A method
takes at least one price; which prices it is given is decided by models.domain.sources.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from enum import StrEnum
from itertools import groupby
from operator import itemgetter

from models.domain.decimals import plain

PRECISION = 28  # significant digits of a quotient, which may have no exact decimal form
_QUOTIENT = Context(prec=PRECISION, rounding=ROUND_HALF_EVEN)
# Sums and products of prices and sizes are exact with so many digits (see models.domain.decimals).
_WIDE = Context(prec=200)

CLAMP = Decimal("0.005")  # of the median, to either side
# A venue whose last trade is so old (s) counts for less, and beyond the last step for next to nothing.
AGE_STEPS_S = (60, 120, 180, 240, 300)
AGE_FACTORS = tuple(Decimal(factor) for factor in ("1", "0.8", "0.6", "0.4", "0.2", "0.001"))
DECAY_BINS, DECAY_BIN_US, DECAY_HALF_LIFE_BINS = 10, 3_000_000, 3
PARTITIONS, PARTITION_US = 12, 300_000_000


class Method(StrEnum):
    """The names of the methods."""

    MEAN = "mean"
    MEDIAN = "median"
    CLAMPED_MEAN = "clamped_mean"
    WEIGHTED_CLAMPED_MEAN = "weighted_clamped_mean"
    WEIGHTED_MEDIAN = "weighted_median"
    VOLUME_WEIGHTED = "volume_weighted"
    VOLUME_DECAY = "volume_decay"
    TIME_DECAY = "time_decay"
    TWAP_OF_VWM = "twap_of_vwm"
    VOTES = "votes"


# Methods that look at the trades of a trailing time, in seconds; the others need the newest prices alone.
TRADE_WINDOWS_S = {
    Method.WEIGHTED_CLAMPED_MEAN: 3_600,
    Method.WEIGHTED_MEDIAN: 3_600,
    Method.VOLUME_WEIGHTED: 3_600,
    Method.VOLUME_DECAY: 3_600,
    Method.TIME_DECAY: DECAY_BINS * DECAY_BIN_US // 1_000_000,
    Method.TWAP_OF_VWM: PARTITIONS * PARTITION_US // 1_000_000,
}
# Methods whose value is made of the trades themselves, not of one price a venue.
OF_TRADES = frozenset({Method.TIME_DECAY, Method.TWAP_OF_VWM})


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade as the methods see it."""

    venue: str
    product_id: str
    time_us: int
    price: Decimal
    size: Decimal


@dataclass(frozen=True, slots=True)
class Candidate:
    """One venue's part in an average (a product's, where a venue has two that are converted).

    `volume` is what it traded in the trailing window, in the base asset; `last_trade_age_us` is None
    where it traded nothing; `confidence` is half of its spread, in the quote asset.
    """

    venue: str
    product_id: str
    price: Decimal
    volume: Decimal = Decimal(0)
    last_trade_age_us: int | None = None
    confidence: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Average:
    """A value with what each candidate gave to it: its price as it was used, and its weight (0 to 1)."""

    value: Decimal
    adjusted: tuple[Decimal, ...]
    weights: tuple[Decimal, ...]
    confidence: Decimal | None = None


def quotient(numerator: Decimal, denominator: Decimal) -> Decimal:
    """Return a quotient to 28 significant digits, half-even."""
    return _QUOTIENT.divide(numerator, denominator)


def mean(prices: Sequence[Decimal]) -> Decimal:
    """Return the arithmetic mean. Raises ValueError where there is no price."""
    if not prices:
        raise ValueError("no price counts")
    with localcontext(_WIDE):
        total = sum(prices, Decimal(0))
    return quotient(total, Decimal(len(prices)))


def median(prices: Sequence[Decimal]) -> Decimal:
    """Return the middle price, or the mean of the two in the middle. Raises ValueError where there is none."""
    if not prices:
        raise ValueError("no price counts")
    ordered = sorted(prices)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else mean(ordered[middle - 1 : middle + 1])


def clamped(prices: Sequence[Decimal], centre: Decimal, fraction: Decimal = CLAMP) -> tuple[Decimal, ...]:
    """Return prices, each moved to within a fraction of a centre."""
    with localcontext(_WIDE):
        low, high = centre - abs(centre) * fraction, centre + abs(centre) * fraction
        return tuple(min(max(price, low), high) for price in prices)


def weighted_mean(prices: Sequence[Decimal], weights: Sequence[Decimal]) -> Decimal:
    """Return the sum of price times weight over the sum of weights. Raises ValueError where that is 0."""
    with localcontext(_WIDE):
        total = sum(weights, Decimal(0))
        if not total:
            raise ValueError("nothing has a weight")
        value = sum((price * weight for price, weight in zip(prices, weights, strict=True)), Decimal(0))
    return quotient(value, total)


def weighted_median(pairs: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
    """Return the price at which half of all weight is reached; at exactly half, the mean of it and the next.

    `pairs` are (price, weight). The rule of the tie is that of Band's bothan (weighted_median.rs).
    Raises ValueError where nothing has a weight.
    """
    ordered = sorted((price, weight) for price, weight in pairs if weight)
    if not ordered:
        raise ValueError("nothing has a weight")
    with localcontext(_WIDE):
        half = sum((weight for _, weight in ordered), Decimal(0)) / 2
        reached = Decimal(0)
        for place, (price, weight) in enumerate(ordered):
            reached += weight
            if reached > half:
                return price
            if reached == half:
                return mean([price, ordered[place + 1][0]])
    raise AssertionError("all weights reach more than half of them")


def vote(pairs: Sequence[tuple[Decimal, Decimal]]) -> tuple[Decimal, Decimal]:
    """Return the price and its confidence from pairs of both.

    Each pair votes three times: price - confidence, price, price + confidence. The price is the middle
    vote (the mean of two where their number is even); the confidence is the larger distance from there
    to the quartiles, the votes at n / 4 from either end (Pyth's aggregation, pyth-client, program/rust).
    Raises ValueError where there is no pair.
    """
    if not pairs:
        raise ValueError("no price counts")
    with localcontext(_WIDE):
        votes = sorted(vote for price, spread in pairs for vote in (price - spread, price, price + spread))
        quarter = len(votes) // 4
        low, centre, high = votes[quarter], median(votes), votes[len(votes) - 1 - quarter]
        return centre, max(centre - low, high - centre)


def age_factor(age_us: int | None) -> Decimal:
    """Return what a venue's volume counts for when its last trade is so old.

    The factors 1, 0.8, 0.6, 0.4, 0.2 and 0.001 are those of CCData's CCIXB index (methodology, time
    penalty factor). The ages that part them are ours, a minute each: the document that names them was
    not at hand.
    """
    if age_us is None:
        return Decimal(0)
    return AGE_FACTORS[bisect_left(AGE_STEPS_S, age_us / 1_000_000)]


def time_decay(fills: Sequence[Fill], now_us: int, bin_us: int = DECAY_BIN_US) -> Decimal:
    """Return the mean of ten 3-second bins' volume-weighted medians, newer bins weighing more.

    The bins lie back to back before `now_us`; a bin's weight halves with each three bins (9 s) of the
    age of its middle. Bins without a trade are left out. Raises ValueError where all are.
    """
    medians = binned_medians(fills, now_us, DECAY_BINS, bin_us)
    if not medians:
        raise ValueError(f"no trade in {plain(Decimal(DECAY_BINS * bin_us) / 1_000_000)} s")
    half_lives = [quotient(Decimal(2 * place + 1), Decimal(2 * DECAY_HALF_LIFE_BINS)) for place, _ in medians]
    weights = [_QUOTIENT.power(Decimal("0.5"), halvings) for halvings in half_lives]
    return weighted_mean([price for _, price in medians], weights)


def twap_of_vwm(fills: Sequence[Fill], now_us: int, partition_us: int = PARTITION_US) -> Decimal:
    """Return the mean of twelve 5-minute partitions' volume-weighted medians, all venues' trades together.

    CME CF Bitcoin Reference Rate (methodology, section 4.1). A partition without a trade is left out.
    Raises ValueError where all are.
    """
    medians = binned_medians(fills, now_us, PARTITIONS, partition_us)
    if not medians:
        raise ValueError(f"no trade in {plain(Decimal(PARTITIONS * partition_us) / 1_000_000)} s")
    return mean([price for _, price in medians])


def binned_medians(fills: Sequence[Fill], now_us: int, bins: int, bin_us: int) -> list[tuple[int, Decimal]]:
    """Return the volume-weighted median of each bin that has trades; bin 0 is the newest."""
    placed = sorted(((now_us - fill.time_us - 1) // bin_us, fill.price, fill.size) for fill in fills)
    return [
        (place, weighted_median([(price, size) for _, price, size in group]))
        for place, group in groupby(placed, key=itemgetter(0))
        if 0 <= place < bins
    ]


def average(
    method: Method,
    candidates: Sequence[Candidate],
    fills: Sequence[Fill] = (),
    now_us: int = 0,
    window_us: int | None = None,
) -> Average:
    """Return the average of candidates (at least one) by a method; `fills` for those that need trades.

    `window_us` stretches the bins of those methods over another time than their own. Raises ValueError
    where the method has nothing to weigh by (no trade in its window).
    """
    if method in OF_TRADES:
        return _of_trades(method, candidates, fills, now_us, window_us or TRADE_WINDOWS_S[method] * 1_000_000)
    return _METHODS[method](candidates)


def _shares(weights: Sequence[Decimal]) -> tuple[Decimal, ...]:
    with localcontext(_WIDE):
        total = sum(weights, Decimal(0))
    return tuple(quotient(weight, total) if total else weight for weight in weights)


def _prices(candidates: Sequence[Candidate]) -> tuple[Decimal, ...]:
    return tuple(candidate.price for candidate in candidates)


def _equal(candidates: Sequence[Candidate]) -> tuple[Decimal, ...]:
    return _shares([Decimal(1)] * len(candidates))


def _mean(candidates: Sequence[Candidate]) -> Average:
    prices = _prices(candidates)
    return Average(mean(prices), prices, _equal(candidates))


def _median(candidates: Sequence[Candidate]) -> Average:
    prices = _prices(candidates)
    return Average(median(prices), prices, _equal(candidates))


def _clamped_mean(candidates: Sequence[Candidate]) -> Average:
    adjusted = clamped(_prices(candidates), median(_prices(candidates)))
    return Average(mean(adjusted), adjusted, _equal(candidates))


def _weighted_clamped_mean(candidates: Sequence[Candidate]) -> Average:
    # Deribit's rule for an index (support page, 25944739377309), with volumes for its fixed weights.
    volumes = [candidate.volume for candidate in candidates]
    adjusted = clamped(_prices(candidates), median(_prices(candidates)))
    return Average(weighted_mean(adjusted, volumes), adjusted, _shares(volumes))


def _weighted_median(candidates: Sequence[Candidate]) -> Average:
    volumes = [candidate.volume for candidate in candidates]
    prices = _prices(candidates)
    return Average(weighted_median(list(zip(prices, volumes, strict=True))), prices, _shares(volumes))


def _volume_weighted(candidates: Sequence[Candidate]) -> Average:
    volumes = [candidate.volume for candidate in candidates]
    prices = _prices(candidates)
    return Average(weighted_mean(prices, volumes), prices, _shares(volumes))


def _volume_decay(candidates: Sequence[Candidate]) -> Average:
    with localcontext(_WIDE):
        volumes = [candidate.volume * age_factor(candidate.last_trade_age_us) for candidate in candidates]
    prices = _prices(candidates)
    return Average(weighted_mean(prices, volumes), prices, _shares(volumes))


def _votes(candidates: Sequence[Candidate]) -> Average:
    prices = _prices(candidates)
    value, confidence = vote([(candidate.price, candidate.confidence) for candidate in candidates])
    return Average(value, prices, _equal(candidates), confidence)


def _of_trades(
    method: Method, candidates: Sequence[Candidate], fills: Sequence[Fill], now_us: int, window_us: int
) -> Average:
    if method is Method.TIME_DECAY:
        value = time_decay(fills, now_us, window_us // DECAY_BINS)
    else:
        value = twap_of_vwm(fills, now_us, window_us // PARTITIONS)
    earliest_us = now_us - window_us
    traded: dict[tuple[str, str], Decimal] = {}
    with localcontext(_WIDE):
        for fill in fills:
            if earliest_us <= fill.time_us < now_us:
                key = (fill.venue, fill.product_id)
                traded[key] = traded.get(key, Decimal(0)) + fill.size
    sizes = [traded.get((each.venue, each.product_id), Decimal(0)) for each in candidates]
    return Average(value, _prices(candidates), _shares(sizes))


_METHODS: dict[Method, Callable[[Sequence[Candidate]], Average]] = {
    Method.MEAN: _mean,
    Method.MEDIAN: _median,
    Method.CLAMPED_MEAN: _clamped_mean,
    Method.WEIGHTED_CLAMPED_MEAN: _weighted_clamped_mean,
    Method.WEIGHTED_MEDIAN: _weighted_median,
    Method.VOLUME_WEIGHTED: _volume_weighted,
    Method.VOLUME_DECAY: _volume_decay,
    Method.VOTES: _votes,
}
