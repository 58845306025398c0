"""Strategies and their crosses: what is a signal and what is none, and what a configuration may say."""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.candles import EVERY_VENUE, Candle
from models.domain.moving_averages import Kind, Seed
from models.domain.signals import Cross, Signal
from models.domain.strategies import (
    GOLDEN_CROSS,
    Crosses,
    CrossesState,
    Strategy,
    StrategyError,
    Variant,
    read_strategy,
)

HOUR_US = 3_600_000_000
GOLDEN, DEATH = Cross.GOLDEN, Cross.DEATH
VARIANTS = {
    "a": Variant(Kind.SMA, 1, 2),
    "b": Variant(Kind.SMA, 2, 4),
    "c": Variant(Kind.EMA, 2, 4, Seed.SMA),
    "d": Variant(Kind.EMA, 2, 4, Seed.FIRST),
}
SMALL = Strategy("small", VARIANTS)
closes = st.lists(st.integers(1, 5), min_size=1, max_size=40)


def candle(number: int, close: object, revision: int = 0) -> Candle:
    price, zero = Decimal(str(close)), Decimal(0)
    values = (price, price, price, price, zero, zero, zero, 0)
    return Candle(EVERY_VENUE, "BTC-USD", 3_600, number * HOUR_US, *values, "replay", revision)


def fed(crosses: Crosses, closes: Iterable[object], first: int = 0, *, raising: bool = True) -> list[Signal]:
    candles = (candle(number, close) for number, close in enumerate(closes, first))
    signals = (crosses.close(each, each.open_time_us + 1, raising=raising) for each in candles)
    return [signal for signal in signals if signal]


def seen(signals: Sequence[Signal]) -> list[tuple[int, Cross]]:
    return [(signal.open_time_us // HOUR_US, signal.cross) for signal in signals]


def restarted(crosses: Crosses, variant: str) -> Crosses:
    state = msgspec.json.decode(msgspec.json.encode(crosses.state), type=CrossesState)
    return Crosses(SMALL, variant, state)


def test_a_signal_says_what_was_seen() -> None:
    """With the averages, the close and the time at which it was raised."""
    [signal] = fed(Crosses(SMALL, "a"), [3, 2, 5])
    assert signal == Signal(
        strategy="small",
        version=1,
        variant="a",
        venue=EVERY_VENUE,
        symbol="BTC-USD",
        interval_s=3_600,
        open_time_us=2 * HOUR_US,
        cross=GOLDEN,
        close=Decimal(5),
        fast=Decimal(5),
        slow=Decimal("3.5"),
        raised_us=2 * HOUR_US + 1,
        market="replay",
    )


@pytest.mark.parametrize(
    ("closes", "signals"),
    [
        ([2, 3, 4], []),  # the first side is no cross
        ([3, 2, 2, 1, 3], [(4, GOLDEN)]),  # touch and return, then through
        ([3, 2, 2, 3], [(3, GOLDEN)]),  # touch and go through
        ([3, 3, 4, 4, 3], [(4, DEATH)]),  # equal from the first on
        ([1, 2, 1, 2], [(2, DEATH), (3, GOLDEN)]),
        ([5, 5, 5, 5], []),
    ],
)
def test_what_is_a_cross(closes: list[int], signals: list[tuple[int, Cross]]) -> None:
    """Strictly above after strictly below, or the other way, whatever lay between."""
    assert seen(fed(Crosses(SMALL, "a"), closes)) == signals


@settings(max_examples=80)
@given(st.sampled_from(sorted(VARIANTS)), closes)
def test_signals_alternate_and_tell_the_truth(variant: str, closes: list[int]) -> None:
    """None before `slow` closes, each the other way than the one before, with averages that say the same."""
    signals = fed(Crosses(SMALL, variant), closes)
    for signal in signals:
        assert (signal.fast > signal.slow) == (signal.cross is GOLDEN)
        assert signal.fast != signal.slow
        assert signal.open_time_us // HOUR_US >= VARIANTS[variant].slow
    assert all(one.cross is not other.cross for one, other in pairwise(signals))


@settings(max_examples=80)
@given(st.sampled_from(sorted(VARIANTS)), closes, st.integers(0, 40), st.integers(0, 3))
def test_a_restart_or_the_same_candles_again_raise_nothing_more(
    variant: str, closes: list[int], at: int, again: int
) -> None:
    """Each signal once: with the state, and where the newest candles come a second time."""
    whole = fed(Crosses(SMALL, variant), closes)
    crosses = Crosses(SMALL, variant)
    signals = fed(crosses, closes[:at])
    crosses = restarted(crosses, variant)
    first = max(0, min(at, len(closes)) - again)
    assert signals + fed(crosses, closes[first:], first) == whole


@settings(max_examples=80)
@given(st.sampled_from(sorted(VARIANTS)), closes, st.integers(0, 40))
def test_warm_up_raises_nothing_and_changes_nothing_else(variant: str, closes: list[int], at: int) -> None:
    """After stored closes the signals are those that would have come anyway."""
    crosses = Crosses(SMALL, variant)
    assert fed(crosses, closes[:at], raising=False) == []
    whole = [signal for signal in fed(Crosses(SMALL, variant), closes) if signal.open_time_us >= at * HOUR_US]
    assert fed(crosses, closes[at:], at) == whole


@settings(max_examples=80)
@given(st.sampled_from(sorted(VARIANTS)), closes, st.integers(1, 5))
def test_a_revised_close_counts_from_then_on(variant: str, closes: list[int], revised: int) -> None:
    """It raises nothing itself; later averages are those of the closes as they are at last."""
    crosses, other = Crosses(SMALL, variant), Crosses(SMALL, variant)
    fed(crosses, closes)
    last = len(closes) - 1
    assert crosses.close(candle(last, revised, revision=1), 0) is None
    assert crosses.close(candle(last, 9, revision=1), 0) is None
    assert crosses.close(candle(last, 9, revision=0), 0) is None
    fed(other, [*closes[:-1], revised])
    assert crosses.state.averages == other.state.averages


def test_a_cross_that_was_told_is_taken_back_by_the_next_candle() -> None:
    """A revision that undoes it says nothing; the next candle is judged by what was told."""
    crosses = Crosses(SMALL, "a")
    assert seen(fed(crosses, [3, 2, 5])) == [(2, GOLDEN)]
    crosses.close(candle(2, 1, revision=1), 0)
    assert seen(fed(crosses, [1, Decimal("0.5")], 3)) == [(4, DEATH)]


def test_a_signal_that_is_known_to_be_raised_is_not_raised_again() -> None:
    """Without its state, a variant is fed stored candles and told of the latest signal that is stored."""
    crosses = Crosses(SMALL, "a")
    crosses.signalled(2 * HOUR_US)
    assert seen(fed(crosses, [3, 2, 5, 1])) == [(3, DEATH)]


@settings(max_examples=200)
@given(st.sampled_from(sorted(VARIANTS)), closes, closes, closes)
def test_one_with_more_closes_takes_the_place_of_another_and_tells_nothing_twice(
    variant: str, past: list[int], before: list[int], after: list[int]
) -> None:
    """Signals alternate across it, though its averages may cross at another candle; none is of the past."""
    first, now = Crosses(SMALL, variant), len(past) + len(before)
    told = fed(first, before, len(past))
    second = Crosses(SMALL, variant)
    fed(second, [*past, *before], raising=False)
    second.succeed(first)
    later = fed(restarted(second, variant), after, now)
    assert all(signal.open_time_us >= now * HOUR_US for signal in later)
    assert all(one.cross is not other.cross for one, other in pairwise([*told, *later]))
    # From the first cross on it sees what one does that was warm from the beginning.
    warm = Crosses(SMALL, variant)
    fed(warm, [*past, *before], raising=False)
    right = seen(fed(warm, after, now))
    assert seen(later) in (right, right[1:])


def test_the_state_is_small() -> None:
    """A simple average keeps as many closes as it needs, an exponential one a few numbers whatever its length."""
    sizes = {}
    for name in GOLDEN_CROSS.variants:
        crosses = Crosses(GOLDEN_CROSS, name)
        fed(crosses, [60_000 + number % 7 for number in range(500)])
        sizes[name] = len(msgspec.json.encode(crosses.state))
        assert GOLDEN_CROSS.variants[name].closes_needed == {"a": 200, "b": 1_000}[name]
    assert sizes["a"] < 200 * 9 + 150
    assert sizes["b"] < 250


def test_an_exponential_average_that_is_warm_has_forgotten_its_seed() -> None:
    """After the closes that it needs, two that began at opposite ends differ by less than a thousandth of that."""
    needed = GOLDEN_CROSS.variants["b"].closes_needed
    values = []
    for seed in (1, 1_000):
        averages = GOLDEN_CROSS.variants["b"].averages(None, 1)
        for close in [seed] * 200 + [500] * (needed - 200):
            averages.add(Decimal(close))
        values.append(averages.values[1])
    low, high = values
    assert low is not None
    assert high is not None
    assert high - low < 1


def test_the_strategy_that_is_there() -> None:
    """The simple 50 and 200 beside the exponential ones, on hours, at all venues together, of all pairs."""
    assert (
        read_strategy(
            {
                "name": "golden-cross",
                "variants": {
                    "a": {"kind": "sma", "fast": 50, "slow": 200},
                    "b": {"kind": "ema", "fast": 50, "slow": 200},
                },
            }
        )
        == GOLDEN_CROSS
    )
    assert read_strategy(msgspec.json.decode(msgspec.json.encode(GOLDEN_CROSS))) == GOLDEN_CROSS
    assert GOLDEN_CROSS.follows(EVERY_VENUE, "BTC-USD", 3_600)
    assert not GOLDEN_CROSS.follows("binance", "BTC-USD", 3_600)
    assert not GOLDEN_CROSS.follows(EVERY_VENUE, "BTC-USD", 60)
    some = msgspec.structs.replace(GOLDEN_CROSS, pairs=("BTC-USD",))
    assert [some.follows(EVERY_VENUE, symbol, 3_600) for symbol in ("BTC-USD", "ETH-USD")] == [True, False]


@pytest.mark.parametrize(
    ("change", "field", "problem"),
    [
        ([], "", "must be a JSON object"),
        ({"colour": "red"}, "colour", "is none of name, variants, version, interval, venue, pairs"),
        ({"name": None}, "name", "must look like golden-cross"),
        ({"name": "Golden"}, "name", "not 'Golden'"),
        ({"version": 0}, "version", "from 1 to 1,000,000, not 0"),
        ({"version": True}, "version", "not True"),
        ({"interval": "2h"}, "interval", "one of 1s, 1m, 5m, 15m, 1h, 4h, 1d, not '2h'"),
        ({"interval": ["1h"]}, "interval", "not ['1h']"),
        ({"venue": ""}, "venue", "not ''"),
        ({"pairs": []}, "pairs", "a list of 1 to 1,000 pairs"),
        ({"pairs": ["BTC-USD", "eth"]}, "pairs[1]", "must look like BTC-USD, not 'eth'"),
        ({"variants": None}, "variants", "must be a JSON object"),
        ({"variants": {}}, "variants", "must be 1 to 8, and there are 0"),
        ({"variants": {"A": {}}}, "variants.A", "not 'A'"),
        ({"variants": {"a": 5}}, "variants.a", "must be a JSON object"),
        ({"variants": {"a": {"length": 5}}}, "variants.a.length", "is none of kind, fast, slow, seed"),
        ({"variants": {"a": {"fast": 1, "slow": 2}}}, "variants.a.kind", "must be one of sma, ema, not None"),
        ({"variants": {"a": {"kind": "sma", "slow": 2}}}, "variants.a.fast", "whole number from 1 to 5,000, not None"),
        ({"variants": {"a": {"kind": "sma", "fast": 2, "slow": 6_000}}}, "variants.a.slow", "not 6000"),
        ({"variants": {"a": {"kind": "sma", "fast": 2, "slow": 2}}}, "variants.a.fast", "2 is not less than 2"),
        ({"variants": {"a": {"kind": "ema", "fast": 1, "slow": 2, "seed": "x"}}}, "variants.a.seed", "sma, first"),
        ({"variants": {"a": {"kind": "sma", "fast": 1, "slow": 2, "seed": "sma"}}}, "variants.a.seed", "exponential"),
    ],
)
def test_a_configuration_that_is_wrong(change: Any, field: str, problem: str) -> None:
    """One sentence, which names the field."""
    given = {**msgspec.to_builtins(GOLDEN_CROSS), **change} if isinstance(change, dict) else change
    with pytest.raises(StrategyError) as caught:
        read_strategy(given)
    assert caught.value.field == field
    assert problem in caught.value.problem
    assert str(caught.value).endswith(caught.value.problem)
