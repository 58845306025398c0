"""What a strategy's variants would have brought, side by side, and whether that tells anything. Pure.

A signal's return is that of its pair's close some bars later over its own, with the sign turned for a death cross
(golden: long, death: short), in basis points, before any fee. Money is exact until here; statistics are floats.

Signals near each other are not independent: pairs move together, and windows of many bars overlap. So signals whose
candles lie in the same stretch of as many bars as the horizon, of whatever pair, count as one for the width of an
interval: the variance of a mean is the cluster-robust one, G / (G - 1) times the sum of squared sums of residuals in
each of G stretches, over n squared, with Student's t of G - 1 degrees of freedom (Cameron and Miller, A
Practitioner's Guide to Cluster-Robust Inference, 2015). Where no two share a stretch, that is the usual t interval.
A difference of two variants is treated alike, so that what they have in common in a stretch cancels; its G is the
smaller one of theirs. Stretches that touch still share some bars, so intervals are rather too narrow than too wide.
"""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from itertools import combinations, groupby
from operator import itemgetter

import msgspec

from models.domain.signals import Cross, Signal
from models.domain.strategies import Strategy

HORIZONS = (1, 5, 20)  # bars
CONFIDENCE = Decimal("0.95")  # of each interval by itself
STRETCHES_MIN = 10  # with fewer a difference is not judged
# Student's t for 0.975, by degrees of freedom from 1 to 30, then from these on (NIST/SEMATECH e-Handbook, 1.3.6.7.2).
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_T_FROM = ((100, 1.984), (60, 2.000), (40, 2.021))

Closes = Mapping[str, Sequence[tuple[int, Decimal]]]  # by symbol: (open time in us, close), oldest first
Sample = tuple[int, float]  # the stretch that a signal is in, and its return in bps


class Estimate(msgspec.Struct, frozen=True):
    """A mean in bps and its interval; None without a signal, and the interval with fewer than two stretches."""

    mean_bps: Decimal | None
    low_bps: Decimal | None = None
    high_bps: Decimal | None = None


class Returns(msgspec.Struct, frozen=True):
    """A variant's returns after some bars: of `signals`, in so many stretches of time.

    Left out are the `pending`, whose bars have not passed, and the `missing`, whose later candle is not there.
    """

    bars: int
    signals: int
    stretches: int
    pending: int
    missing: int
    estimate: Estimate


class VariantReport(msgspec.Struct, frozen=True):
    """What one variant said and would have brought.

    The drawdown is the deepest fall from a peak, in bps of it, of who follows each signal from its close to the
    next one's, long or short, with equal shares in the pairs that have signals, at every bar; None without any.
    """

    variant: str
    golden: int
    death: int
    returns: tuple[Returns, ...]
    drawdown_max_bps: Decimal | None


class Difference(msgspec.Struct, frozen=True):
    """The first variant's mean return less the second's, after some bars, and in a sentence what that shows."""

    first: str
    second: str
    bars: int
    estimate: Estimate
    verdict: str


class Report(msgspec.Struct, frozen=True):
    """A strategy's variants beside each other."""

    variants: tuple[VariantReport, ...]
    differences: tuple[Difference, ...]


def report(strategy: Strategy, signals: Iterable[Signal], closes: Closes, horizons: Sequence[int] = HORIZONS) -> Report:
    """Compare a strategy's variants by their signals, of one version and market, in any order."""
    said: dict[str, list[Signal]] = {name: [] for name in strategy.variants}
    for signal in sorted(signals, key=lambda signal: (signal.open_time_us, signal.symbol)):
        said[signal.variant].append(signal)
    bar_us = strategy.interval_s * 1_000_000
    found = {(name, bars): _samples(said[name], closes, bars, bar_us) for name in said for bars in horizons}
    variants = tuple(
        VariantReport(
            name,
            sum(signal.cross is Cross.GOLDEN for signal in said[name]),
            sum(signal.cross is Cross.DEATH for signal in said[name]),
            tuple(_returns(bars, *found[name, bars]) for bars in horizons),
            _drawdown(said[name], closes),
        )
        for name in said
    )
    compared = [(first, second, bars) for first, second in combinations(said, 2) for bars in horizons]
    differences = []
    for first, second, bars in compared:
        one, other = found[first, bars][0], found[second, bars][0]
        estimated = difference(one, other)
        verdict = _verdict(first, second, one, other, estimated, len(compared))
        differences.append(Difference(first, second, bars, estimated, verdict))
    return Report(variants, tuple(differences))


def estimate(samples: Sequence[Sample]) -> Estimate:
    """Return the mean of samples and its interval."""
    if not samples:
        return Estimate(None)
    return _estimate(_mean(samples), _residuals(samples), _stretches(samples))


def difference(first: Sequence[Sample], second: Sequence[Sample]) -> Estimate:
    """Return the difference of two samples' means, the first's less the second's, and its interval."""
    if not first or not second:
        return Estimate(None)
    residuals = _residuals(first)
    for stretch, residual in _residuals(second).items():
        residuals[stretch] -= residual
    return _estimate(_mean(first) - _mean(second), residuals, min(_stretches(first), _stretches(second)))


def _samples(signals: Iterable[Signal], closes: Closes, bars: int, bar_us: int) -> tuple[list[Sample], int, int]:
    samples, pending, missing = [], 0, 0
    for signal in signals:
        of_pair = closes.get(signal.symbol, ())
        until_us = signal.open_time_us + bars * bar_us
        at = bisect_left(of_pair, until_us, key=itemgetter(0))
        if at == len(of_pair):
            pending += 1
        elif of_pair[at][0] != until_us:
            missing += 1
        else:
            change = float(of_pair[at][1] / signal.close - 1)
            samples.append((signal.open_time_us // (bars * bar_us), 10_000 * _sign(signal) * change))
    return samples, pending, missing


def _returns(bars: int, samples: list[Sample], pending: int, missing: int) -> Returns:
    return Returns(bars, len(samples), _stretches(samples), pending, missing, estimate(samples))


def _drawdown(signals: Iterable[Signal], closes: Closes) -> Decimal | None:
    by_pair: dict[str, list[Signal]] = defaultdict(list)
    for signal in signals:
        by_pair[signal.symbol].append(signal)
    if not by_pair:
        return None
    worth = dict.fromkeys(by_pair, 1.0)
    steps = sorted((step for symbol, said in by_pair.items() for step in _followed(symbol, said, closes)))
    peak, deepest = 1.0, 0.0
    for _, together in groupby(steps, key=itemgetter(0)):
        for _, symbol, factor in together:
            worth[symbol] *= factor
        total = math.fsum(worth.values()) / len(worth)
        peak = max(peak, total)
        deepest = max(deepest, 1 - total / peak)
    return _rounded(10_000 * deepest)


def _followed(symbol: str, signals: Sequence[Signal], closes: Closes) -> Iterable[tuple[int, str, float]]:
    # What one unit becomes from each bar to the next. Who is short of what doubles has nothing left, and no less.
    coming = list(reversed(signals))
    held: Signal | None = None
    before = Decimal(0)
    for time_us, close in closes.get(symbol, ()):
        if held is not None:
            yield time_us, symbol, max(0.0, 1 + _sign(held) * float(close / before - 1))
        while coming and coming[-1].open_time_us <= time_us:
            held = coming.pop()
        before = close


def _verdict(
    first: str, second: str, one: Sequence[Sample], other: Sequence[Sample], found: Estimate, comparisons: int
) -> str:
    stretches = _stretches(one), _stretches(other)
    if min(stretches) < STRETCHES_MIN or found.low_bps is None or found.high_bps is None:
        sentence = f"too few signals to tell: {len(one)} and {len(other)}"
        if stretches == (len(one), len(other)):
            return sentence
        return f"{sentence}, in {stretches[0]} and {stretches[1]} stretches of time"
    if found.low_bps <= 0 <= found.high_bps:
        return "the interval contains 0: no difference is shown"
    better, worse = (first, second) if found.low_bps > 0 else (second, first)
    caution = "" if comparisons == 1 else f"; of {comparisons} comparisons one in 20 looks so by chance"
    return f"{better} brought more than {worse}: the interval does not contain 0{caution}"


def _sign(signal: Signal) -> int:
    return 1 if signal.cross is Cross.GOLDEN else -1


def _mean(samples: Sequence[Sample]) -> float:
    return math.fsum(value for _, value in samples) / len(samples)


def _stretches(samples: Iterable[Sample]) -> int:
    return len({stretch for stretch, _ in samples})


def _residuals(samples: Sequence[Sample]) -> dict[int, float]:
    mean = _mean(samples)
    sums: dict[int, float] = defaultdict(float)
    for stretch, value in samples:
        sums[stretch] += (value - mean) / len(samples)
    return sums


def _estimate(mean: float, residuals: Mapping[int, float], stretches: int) -> Estimate:
    if stretches < 2:  # noqa: PLR2004 -- one stretch has no spread
        return Estimate(_rounded(mean))
    variance = math.fsum(each * each for each in residuals.values()) * stretches / (stretches - 1)
    reach = _student(stretches - 1) * math.sqrt(variance)
    return Estimate(_rounded(mean), _rounded(mean - reach), _rounded(mean + reach))


def _student(degrees: int) -> float:
    if degrees <= len(_T):
        return _T[degrees - 1]
    return next((t for least, t in _T_FROM if degrees >= least), _T[-1])


def _rounded(value: float) -> Decimal:
    return Decimal(f"{value:.2f}") + 0  # no -0.00
