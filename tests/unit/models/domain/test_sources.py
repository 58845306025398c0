"""Which sources count, why the others do not, and what is said of both."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from models.domain.averages import Fill, Method, quotient
from models.domain.sources import Consolidated, Conversion, LeftOut, Seen, consolidate

AGE_MAX = 10_000_000


def seen(venue: str, price: object = 100, **more: Any) -> Seen:
    given = {"quote_age_us": 1_000, "connection_age_us": 5_000_000, **more}
    return Seen(venue, f"{venue}-p", None if price is None else Decimal(str(price)), **given)


def ask(*products: Seen, method: Method = Method.MEAN, sources_min: int = 1, **more: Any) -> Consolidated:
    return consolidate(method, products, sources_min=sources_min, age_us_max=AGE_MAX, **more)


def reasons(answer: Consolidated) -> dict[str, LeftOut | None]:
    return {source.seen.venue: source.reason for source in answer.sources}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"enabled": False}, "venue_disabled"),
        ({"connection_age_us": None}, "not_connected"),
        ({"price": None}, "no_price_yet"),
        ({"quote_age_us": None}, "no_price_yet"),
        ({"quote_age_us": AGE_MAX + 1}, "too_old"),
        ({"convert_by": "USDT-USD"}, "no_conversion"),
        ({"price": 107}, "deviates"),
        ({"coverage": Decimal("0.79")}, "coverage"),
        # The first reason in the order of the words is the one that is told.
        ({"enabled": False, "connection_age_us": None, "price": None}, "venue_disabled"),
    ],
)
def test_each_reason_to_leave_a_source_out(bad: dict[str, Any], reason: str) -> None:
    """It is told with the source, which has no weight; the others are averaged without it."""
    answer = ask(seen("a", 100), seen("b", 101), seen("c", **bad), coverage_min=Decimal("0.8"))
    assert reasons(answer)["c"] == reason
    assert answer.sources[2].weight == 0
    assert answer.value == Decimal("100.5")
    assert [source.weight for source in answer.sources[:2]] == [Decimal("0.5")] * 2


def test_below_the_least_number_of_sources_the_price_is_withheld() -> None:
    """The sentence names who is missing and why; the sources are told all the same."""
    answer = ask(seen("a"), seen("b", None), seen("c", enabled=False), sources_min=2)
    assert answer.value is None
    assert answer.problem == "2 sources are needed, 1 can be used; left out: b (no_price_yet), c (venue_disabled)"
    assert reasons(answer) == {"a": None, "b": LeftOut.NO_PRICE_YET, "c": LeftOut.VENUE_DISABLED}
    assert ask(seen("a"), sources_min=1).value == 100


def test_who_fell_out_comes_back_below_half_of_the_limit() -> None:
    """5 % to go, 2.5 % to come back; in between nothing changes, in either direction."""
    others = (seen("a"), seen("b"))
    out: frozenset[tuple[str, str]] = frozenset()
    told = []
    for price in (104, 106, 104, "102.6", "102.5", 104, "105.1"):
        answer = ask(*others, seen("c", price), out=out)
        out = answer.out
        told.append(reasons(answer)["c"] is LeftOut.DEVIATES)
    assert told == [False, True, True, True, False, False, True]


def test_two_that_contradict_each_other_are_both_left_out() -> None:
    """Nobody knows which of them is right, so there is no price."""
    answer = ask(seen("a", 100), seen("b", 120), sources_min=1)
    assert answer.value is None
    assert set(reasons(answer).values()) == {LeftOut.DEVIATES}
    assert ask(seen("a", 100), seen("b", 120), deviation_max=None).value == 110


def test_published_conversions(recordings: Path) -> None:
    """slinky's: a price in another currency goes through its index; without the index it is no source."""
    cases = json.loads((recordings / "reference/index_price.json").read_text())["cross_rate_median"]
    checked = 0
    for case in cases:
        products = [seen(f"d{n}", price) for n, price in enumerate(case.get("direct", ()))]
        index = case.get("index", {}).get("USDT/USD")
        conversion = None if index is None else Conversion("USDT-USD", Decimal(index))
        products += [
            seen(f"u{n}", price, convert_by="USDT-USD", conversion=conversion)
            for n, price in enumerate(case.get("usdt_quoted", ()))
        ]
        # An inverted price is what a venue that lists the pair the other way round shows.
        inverted = [quotient(Decimal(1), Decimal(price)) for price in case.get("inverted", ())]
        inverted += [quotient(Decimal(by), Decimal(of)) for of, by in case.get("inverted_cross", ())]
        products += [seen(f"i{n}", price) for n, price in enumerate(inverted)]
        needed = case.get("min_providers", 1)
        answer = ask(*products, method=Method.MEDIAN, sources_min=needed, deviation_max=None)
        if case["expect"] is None:
            assert answer.value is None, case
        else:
            assert answer.value is not None
            assert round(answer.value, 20) == Decimal(case["expect"]), case
        checked += 1
    assert checked >= 5


def test_a_converted_source_shows_both_prices() -> None:
    """The raw one as the venue has it, the adjusted one in the currency that was asked for."""
    conversion = Conversion("USDT-USD", Decimal("1.1"))
    answer = ask(seen("a", 77), seen("b", 70, convert_by="USDT-USD", conversion=conversion))
    assert answer.value == 77
    assert (answer.sources[1].seen.price, answer.sources[1].adjusted_price) == (Decimal(70), Decimal(77))


def test_only_trades_of_sources_that_count_are_counted_and_converted() -> None:
    """The trades of a venue that is left out do not move a method of trades."""
    conversion = Conversion("USDT-USD", Decimal(2))
    fills = [
        Fill("a", "a-p", 999, Decimal(100), Decimal(1)),
        Fill("b", "b-p", 999, Decimal(50), Decimal(1)),
        Fill("c", "c-p", 999, Decimal(1), Decimal(100)),
    ]
    products = (seen("a"), seen("b", 50, convert_by="USDT-USD", conversion=conversion), seen("c", enabled=False))
    answer = ask(*products, method=Method.TIME_DECAY, fills=fills, now_us=1_000)
    assert answer.value == 100
    assert [source.weight for source in answer.sources] == [Decimal("0.5"), Decimal("0.5"), 0]


def test_a_method_without_anything_to_weigh_by_says_so() -> None:
    """A method of volumes where nothing was traded is withheld, not 0."""
    for method in (Method.VOLUME_WEIGHTED, Method.VOLUME_DECAY, Method.WEIGHTED_MEDIAN, Method.TWAP_OF_VWM):
        answer = ask(seen("a"), seen("b"), method=method)
        assert answer.value is None
        assert answer.problem is not None
        assert str(method) in answer.problem


def test_confidence_is_told_by_votes() -> None:
    """A venue's is half of its spread, and is converted with its price."""
    conversion = Conversion("USDT-USD", Decimal(2))
    product = seen("a", 50, convert_by="USDT-USD", conversion=conversion, confidence=Decimal(1))
    answer = ask(product, method=Method.VOTES)
    assert (answer.value, answer.confidence) == (Decimal(100), Decimal(2))
