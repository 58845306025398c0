"""The methods: published answers, and what holds for all prices."""

import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.averages import (
    AGE_FACTORS,
    CLAMP,
    PARTITION_US,
    Candidate,
    Fill,
    Method,
    age_factor,
    average,
    clamped,
    mean,
    median,
    time_decay,
    twap_of_vwm,
    vote,
    weighted_mean,
    weighted_median,
)

HOUR_US = 3_600_000_000
prices = st.decimals("0.00000001", "1000000", places=8)
sizes = st.decimals("0.00000001", "10000", places=8)


def d(text: object) -> Decimal:
    return Decimal(str(text))


@pytest.fixture
def answers(recordings: Path) -> dict[str, Any]:
    """The published answers."""
    loaded: dict[str, Any] = json.loads((recordings / "reference/index_price.json").read_text())
    return loaded


def test_published_medians(answers: dict[str, Any]) -> None:
    """Those of bothan and slinky, exactly."""
    for case in answers["median"]:
        assert median([d(value) for value in case["in"]]) == d(case["expect"]), case
    for case in answers["weighted_median"]:
        assert weighted_median([(d(price), d(weight)) for price, weight in case["pairs"]]) == d(case["expect"]), case
    assert len(answers["median"]) + len(answers["weighted_median"]) >= 8


def test_the_published_capped_mean(answers: dict[str, Any]) -> None:
    """Deribit's worked example: clamped to the median's half per cent, then weighed."""
    for case in answers["capped_weighted_mean"]:
        quotes, weights = zip(*((d(price), d(weight)) for price, weight in case["prices"].values()), strict=True)
        centre = median(quotes)
        assert centre == d(case["expect"]["median"])
        adjusted = clamped(quotes, centre, d(case["cap_pct"]) / 100)
        assert list(adjusted) == [d(value) for value in case["expect"]["clamped"]]
        assert weighted_mean(adjusted, weights) == d(case["expect"]["index"])
        candidates = [Candidate(str(n), "p", p, w) for n, (p, w) in enumerate(zip(quotes, weights, strict=True))]
        assert average(Method.WEIGHTED_CLAMPED_MEAN, candidates).value == d(case["expect"]["index"])


def test_the_published_mean(answers: dict[str, Any]) -> None:
    """Deribit's price ranking, to the digits that its page shows."""
    [case] = [case for case in answers["equal_weight_mean"] if "prices" in case]
    assert round(mean([d(price) for price in case["prices"]]), 6) == d(case["expect_round6"])


@given(st.lists(prices, min_size=1, max_size=12))
def test_a_mean_is_the_exact_one_to_28_digits(values: list[Decimal]) -> None:
    """Rounded once, at the end, whatever the digits of what is summed."""
    exact = sum(map(Fraction, values), Fraction(0)) / len(values)
    assert abs(Fraction(mean(values)) - exact) <= abs(exact) / 2 / Fraction(10**27)


@given(st.lists(prices, min_size=1, max_size=12), st.randoms())
def test_no_method_of_prices_leaves_their_range_or_minds_their_order(values: list[Decimal], random: Any) -> None:
    """Between the least and the greatest price; the same for another order of the venues."""
    candidates = [Candidate(f"v{n}", "p", value, Decimal(n + 1), n) for n, value in enumerate(values)]
    shuffled = random.sample(candidates, len(candidates))
    low, high = min(values) * (1 - Decimal("1e-27")), max(values) * (1 + Decimal("1e-27"))
    for method in Method:
        if method in (Method.TIME_DECAY, Method.TWAP_OF_VWM):
            continue
        made = average(method, candidates)
        assert low <= made.value <= high
        assert made.value == average(method, shuffled).value
        assert abs(sum(made.weights, Decimal(-1))) < Decimal("1e-20")


@given(st.lists(prices, min_size=3, max_size=9))
def test_a_clamped_price_is_within_its_distance_of_the_median(values: list[Decimal]) -> None:
    """And a price that was there before is not moved."""
    centre = median(values)
    for before, after in zip(values, clamped(values, centre), strict=True):
        assert centre * (1 - CLAMP) <= after <= centre * (1 + CLAMP)
        if centre * (1 - CLAMP) <= before <= centre * (1 + CLAMP):
            assert after == before


@given(st.lists(st.tuples(prices, sizes), min_size=1, max_size=12))
def test_half_of_the_weight_lies_on_either_side_of_a_weighted_median(pairs: list[tuple[Decimal, Decimal]]) -> None:
    """At most half is below it and at most half above."""
    value, total = weighted_median(pairs), sum(Fraction(weight) for _, weight in pairs)
    assert sum(Fraction(weight) for price, weight in pairs if price < value) <= total / 2
    assert sum(Fraction(weight) for price, weight in pairs if price > value) <= total / 2


def test_votes_are_quartiles_of_three_votes_each() -> None:
    """By hand: three venues, nine votes; the quarter is the third vote from either end."""
    pairs = [(d(100), d(1)), (d(101), d(2)), (d(110), d(1))]
    # Sorted: 99 99 100 101 101 103 109 110 111; n = 9, n // 4 = 2.
    assert vote(pairs) == (d(101), d(8))
    # One venue alone: 99 100 101, n // 4 = 0.
    assert vote([(d(100), d(1))]) == (d(100), d(1))
    # Two: 99 99 100 101 101 103: the middle is the mean of 100 and 101; n // 4 = 1.
    assert vote(pairs[:2]) == (d("100.5"), d("1.5"))


def test_nothing_to_go_by_is_an_error() -> None:
    """No price, no weight and no trade are told apart from a price of 0."""
    for call in (lambda: mean([]), lambda: median([]), lambda: vote([]), lambda: weighted_median([(d(1), d(0))])):
        with pytest.raises(ValueError, match=r"no price|nothing has a weight"):
            call()
    with pytest.raises(ValueError, match="no trade in 30 s"):
        time_decay([], 0)
    with pytest.raises(ValueError, match="no trade in 3600 s"):
        twap_of_vwm([], 0)


@pytest.mark.parametrize(("age_s", "factor"), [(0, 0), (60, 0), (60.1, 1), (200, 3), (299, 4), (300, 4), (301, 5)])
def test_a_venue_that_has_not_traded_counts_for_less(age_s: float, factor: int) -> None:
    """In the steps that the docstring names; without any trade it counts for nothing."""
    assert age_factor(int(age_s * 1e6)) == AGE_FACTORS[factor]
    assert age_factor(None) == 0


def fill(age_s: float, price: object, size: object = 1, venue: str = "v") -> Fill:
    return Fill(venue, "p", HOUR_US - int(age_s * 1e6), d(price), d(size))


def test_the_reference_rate_is_the_mean_of_partition_medians() -> None:
    """Twelve partitions, each with the median by volume of all venues' trades; empty ones are left out."""
    fills = [fill(300 * n + 150, 100 + n) for n in range(12)]
    assert twap_of_vwm(fills, HOUR_US) == mean([d(100 + n) for n in range(12)])
    # Volume decides within a partition: the price of the larger trade, whatever the number of the small ones.
    heavy = [*fills, fill(10, 50, 100, "w"), *[fill(20 + n, 1, "0.1") for n in range(20)]]
    assert twap_of_vwm(heavy, HOUR_US) == mean([d(50), *[d(100 + n) for n in range(1, 12)]])
    assert twap_of_vwm(fills[:3], HOUR_US) == d(101)
    # A trade at the boundary belongs to the older partition, and one an hour old to none.
    edge = [fill(PARTITION_US / 1e6, 7), fill(0.000001, 9), fill(3_600.000001, 1_000)]
    assert twap_of_vwm(edge, HOUR_US) == d(8)


def test_newer_bins_weigh_more() -> None:
    """A bin's weight halves with every 9 s: by hand for the first and the fourth bin."""
    fills = [fill(1, 100), fill(10, 200)]
    # Middles at 1.5 and 10.5 s; weights 2^(-1/6) and half of that.
    assert abs(time_decay(fills, HOUR_US) - d(400) / 3) < Decimal("1e-20")
    assert time_decay([fill(1, 100)], HOUR_US) == 100
    assert time_decay([fill(29.9, 5), fill(31, 7)], HOUR_US) == 5


def test_methods_of_trades_show_the_venues_volumes_as_weights() -> None:
    """The candidates' own prices are shown and do not count."""
    candidates = [Candidate("v", "p", d(1)), Candidate("w", "p", d(2))]
    made = average(Method.TWAP_OF_VWM, candidates, [fill(10, 100, 3), fill(20, 100, 1, "w")], HOUR_US)
    assert (made.value, made.weights, made.adjusted) == (d(100), (d("0.75"), d("0.25")), (d(1), d(2)))
