"""The comparison of variants: by hand, and whether its intervals hold what they claim."""

import math
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from statistics import fmean, stdev
from typing import Any

import msgspec
import pytest

from models.domain.moving_averages import Kind
from models.domain.report import (
    HORIZONS,
    STRETCHES_MIN,
    Closes,
    Estimate,
    Report,
    Sample,
    difference,
    estimate,
    report,
)
from models.domain.report import _student as student
from models.domain.signals import Cross, Signal
from models.domain.strategies import Strategy, Variant

HOUR_US = 3_600_000_000
STRATEGY = Strategy("small", {"a": Variant(Kind.SMA, 1, 2), "b": Variant(Kind.SMA, 2, 4)})
GOLDEN, DEATH = Cross.GOLDEN, Cross.DEATH


def d(value: object) -> Decimal:
    return Decimal(str(value))


def signal(number: int, cross: Cross, close: object, variant: str = "a", symbol: str = "BTC-USD") -> Signal:
    return Signal(
        strategy="small",
        version=1,
        variant=variant,
        venue="all",
        symbol=symbol,
        interval_s=3_600,
        open_time_us=number * HOUR_US,
        cross=cross,
        close=d(close),
        fast=d(2),
        slow=d(1),
        raised_us=0,
        market="replay",
    )


def bars(closes: Sequence[object], first: int = 0) -> list[tuple[int, Decimal]]:
    return [(number * HOUR_US, d(close)) for number, close in enumerate(closes, first)]


def test_returns_are_turned_by_the_direction() -> None:
    """Up 10 % after a golden cross and down 10 % after a death cross are both 1,000 bps; -500 is a loss."""
    closes = {"BTC-USD": bars([100, 110, 100, 90, 100, 105, 1])}
    signals = [signal(0, GOLDEN, 100), signal(2, DEATH, 100), signal(4, DEATH, 100), signal(6, GOLDEN, 1)]
    a, b = report(STRATEGY, signals, closes, [1]).variants
    assert (a.golden, a.death, b.golden, b.death) == (2, 2, 0, 0)
    [returns] = a.returns
    # Mean 500, standard deviation 750 * sqrt(4 / 3) = 866.03, over sqrt(3) = 500; t of 2 degrees is 4.303.
    assert returns.estimate == Estimate(d("500.00"), d("-1651.50"), d("2651.50"))
    assert (returns.signals, returns.stretches, returns.pending, returns.missing) == (3, 3, 1, 0)
    assert b.returns[0].estimate == Estimate(None)
    assert b.drawdown_max_bps is None


def test_signals_whose_bars_have_not_passed_are_left_out_and_counted() -> None:
    """Likewise those whose later candle is not there; a pair without closes has not passed any."""
    closes = {"BTC-USD": [*bars([100, 101, 102]), *bars([105, 106], 4)]}
    signals = [signal(0, GOLDEN, 100), signal(2, GOLDEN, 102), signal(4, GOLDEN, 105), signal(5, GOLDEN, 106)]
    signals.append(signal(0, GOLDEN, 1, symbol="ETH-USD"))
    one, five, twenty = report(STRATEGY, signals, closes).variants[0].returns
    assert [(each.bars, each.signals, each.pending, each.missing) for each in (one, five, twenty)] == [
        (1, 2, 2, 1),
        (5, 1, 4, 0),
        (20, 0, 5, 0),
    ]
    assert five.estimate == Estimate(d("600.00"))
    assert tuple(each.bars for each in (one, five, twenty)) == HORIZONS


def test_the_drawdown_is_of_following_every_signal() -> None:
    """Long from 100 to 120, down to 90; then short to 99 (10 % lost) and to 49.5 (half won)."""
    closes = {"BTC-USD": bars([50, 100, 120, 90, 99, "49.5"])}
    variant = report(STRATEGY, [signal(1, GOLDEN, 100), signal(3, DEATH, 90)], closes, [1]).variants[0]
    assert variant.drawdown_max_bps == d("3250.00")  # 1.2 to 0.9 to 0.81


def test_the_drawdown_of_several_pairs_is_of_their_sum() -> None:
    """One falls by half while the other doubles: 1 + 1 becomes 0.5 + 2, and nothing is lost."""
    closes = {"BTC-USD": bars([100, 50]), "ETH-USD": bars([100, 200]), "LTC-USD": bars([100, 1])}
    signals = [signal(0, GOLDEN, 100), signal(0, GOLDEN, 100, symbol="ETH-USD")]
    assert report(STRATEGY, signals, closes, [1]).variants[0].drawdown_max_bps == 0
    assert report(STRATEGY, signals[:1], closes, [1]).variants[0].drawdown_max_bps == 5_000


def test_who_is_short_of_what_triples_has_lost_all_and_no_more() -> None:
    """The deepest fall is 10,000 bps."""
    closes = {"BTC-USD": bars([100, 300, 100, 50])}
    assert report(STRATEGY, [signal(0, DEATH, 100)], closes, [1]).variants[0].drawdown_max_bps == 10_000


def test_the_quantiles_of_students_t() -> None:
    """Each has 2.5 % beyond it, by integration of the density; between those of the table the wider one is taken."""
    for degrees in (*range(1, 31), 40, 60, 100):
        scale = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
        steps, reach = 4_000, student(degrees)
        width = reach / steps
        inside = sum(
            scale * (1 + ((place + 0.5) * width) ** 2 / degrees) ** (-(degrees + 1) / 2) * width
            for place in range(steps)
        )
        assert inside == pytest.approx(0.475, abs=3e-5), degrees
    assert [student(degrees) for degrees in (35, 50, 99, 5_000)] == [2.042, 2.021, 2.0, 1.984]


def test_without_shared_stretches_it_is_the_usual_interval() -> None:
    """Student's t of n - 1 degrees on the standard error of the mean."""
    values = [12.5, -3.0, 7.25, 0.5, 9.0]
    found = estimate(list(enumerate(values)))
    reach = 2.776 * stdev(values) / math.sqrt(5)
    assert found.low_bps == pytest.approx(d(fmean(values) - reach), abs=d("0.01"))
    assert found.high_bps == pytest.approx(d(fmean(values) + reach), abs=d("0.01"))


def test_one_stretch_has_no_interval() -> None:
    """However many signals are in it."""
    assert estimate([(5, 1.0), (5, 3.0)]) == Estimate(d("2.00"))
    assert difference([(5, 1.0), (6, 3.0)], [(5, 1.0)]) == Estimate(d("1.00"))


def covered(draw: Callable[[random.Random], Sequence[Sample]], truth: float, seed: int, rounds: int = 2_000) -> float:
    chance = random.Random(seed)
    found = [estimate(draw(chance)) for _ in range(rounds)]
    return fmean(each.low_bps is not None and each.low_bps <= truth <= (each.high_bps or 0) for each in found)


@pytest.mark.parametrize("count", [3, 12, 40])
def test_an_interval_holds_the_truth_as_often_as_it_claims(count: int) -> None:
    """95 % of the time where returns are normal, give or take what 2,000 rounds show."""
    assert 0.935 < covered(lambda chance: [(n, chance.gauss(20, 300)) for n in range(count)], 20, count) < 0.965


def test_pairs_that_move_together_do_not_make_it_narrow() -> None:
    """Ten pairs that share most of their return in each of 20 stretches: taken for 200 it would be right in a third."""

    def together(chance: random.Random) -> list[Sample]:
        shared = [chance.gauss(20, 300) for _ in range(20)]
        return [(n, each + chance.gauss(0, 50)) for n, each in enumerate(shared) for _ in range(10)]

    def apart(chance: random.Random) -> list[Sample]:
        return [(n, value) for n, (_, value) in enumerate(together(chance))]

    assert 0.93 < covered(together, 20, 1, 1_000) < 0.97
    assert covered(apart, 20, 1, 1_000) < 0.6


def simulated(chance: random.Random, edge_bps: float, count: int = 30) -> tuple[list[Signal], Closes]:
    """Signals of both variants on pairs of their own, every other hour; those of "a" bring more by the edge."""
    signals, closes = [], {}
    for variant, drift_bps in (("a", edge_bps), ("b", 0.0)):
        values: list[tuple[int, Decimal]] = []
        for number in range(0, 2 * count, 2):
            cross = chance.choice((GOLDEN, DEATH))
            turned = 1 if cross is GOLDEN else -1
            after = 100 * (1 + turned * chance.gauss(drift_bps, 200) / 10_000)
            signals.append(signal(number, cross, 100, variant, f"{variant.upper()}-USD"))
            values += [(number * HOUR_US, d(100)), ((number + 1) * HOUR_US, d(round(after, 8)))]
        closes[f"{variant.upper()}-USD"] = values
    return signals, closes


def verdicts(edge_bps: float, rounds: int) -> list[str]:
    chance = random.Random(11)
    made = (report(STRATEGY, *simulated(chance, edge_bps), [1]) for _ in range(rounds))
    return [each.differences[0].verdict for each in made]


def test_variants_without_a_difference_are_rarely_called_different() -> None:
    """One time in twenty, as the interval says; and what is far apart is seen."""
    assert 0.02 < fmean(verdict.startswith(("a ", "b ")) for verdict in verdicts(0, 400)) < 0.08
    assert fmean(verdict.startswith("a brought more than b") for verdict in verdicts(200, 40)) > 0.9


def test_identical_variants_are_not_different() -> None:
    """The same signals: the difference is 0 and so is its interval, and the sentence says so."""
    signals, closes = simulated(random.Random(3), 0)
    of_a = [each for each in signals if each.variant == "a"]
    both = of_a + [msgspec.structs.replace(each, variant="b") for each in of_a]
    [found] = report(STRATEGY, both, closes, [1]).differences
    zero = d("0.00")
    assert found.estimate == Estimate(zero, zero, zero)
    assert found.verdict == "the interval contains 0: no difference is shown"


def test_what_both_have_in_common_cancels() -> None:
    """Where one always brings 10 bps more in the same stretch, that is certain, however wild the stretches are."""
    chance = random.Random(2)
    first = [(n, chance.gauss(0, 500)) for n in range(12)]
    found = difference([(n, value + 10) for n, value in first], first)
    assert found == Estimate(d("10.00"), d("10.00"), d("10.00"))


def test_too_few_signals_are_said_to_be_too_few() -> None:
    """Counted by stretches: a crowd of signals in few of them is few."""
    closes = {"BTC-USD": bars([100 + n % 3 for n in range(100)])}
    few = [signal(n, GOLDEN, 100, "a") for n in range(0, 6, 2)] + [signal(n, DEATH, 100, "b") for n in range(5)]
    assert report(STRATEGY, few, closes, [1]).differences[0].verdict == "too few signals to tell: 3 and 5"
    crowd = [signal(n, GOLDEN, 100, name) for n in range(60) for name in "ab"]
    verdict = report(STRATEGY, crowd, closes, [20]).differences[0].verdict
    assert verdict == "too few signals to tell: 60 and 60, in 3 and 3 stretches of time"
    assert STRETCHES_MIN > 5


def test_a_difference_among_several_comparisons_comes_with_a_caution() -> None:
    """Three horizons are three chances to be fooled."""
    closes = {"BTC-USD": bars([100 * 1.001**n for n in range(400)])}
    signals = [signal(n, cross, 100 * 1.001**n, v) for n in range(300) for cross, v in ((GOLDEN, "a"), (DEATH, "b"))]
    differences = report(STRATEGY, signals, closes).differences
    assert [each.bars for each in differences] == [1, 5, 20]
    for each in differences:
        assert each.verdict.startswith("a brought more than b")
        assert each.verdict.endswith("of 3 comparisons one in 20 looks so by chance")


def test_the_order_of_signals_does_not_matter() -> None:
    """The same report to the last digit."""
    chance = random.Random(4)
    signals, closes = simulated(chance, 20)
    made: list[Report] = [report(STRATEGY, chance.sample(signals, len(signals)), closes) for _ in range(5)]
    assert all(each == made[0] for each in made)
    encoded: Any = msgspec.json.decode(msgspec.json.encode(made[0]))
    assert encoded["variants"][0]["returns"][0]["estimate"]["mean_bps"] == str(
        made[0].variants[0].returns[0].estimate.mean_bps
    )
