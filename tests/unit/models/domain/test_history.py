"""The time-weighted mean of a window, by hand and against a plain computation for every microsecond."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.domain.history import Chunk, Print, Sample, Span, WindowMean, fills_of, price_of, window_mean
from models.domain.sources import Input


def sample(time_us: int, last: object, bid: object = None, ask: object = None) -> Sample:
    return Sample(time_us, *(None if value is None else Decimal(str(value)) for value in (bid, ask, last)))


def chunk(*samples: Sample, token: int = 1) -> Chunk:
    return Chunk("v", "p", token, samples, ())


def last(sample_: Sample) -> Decimal | None:
    return sample_.last


def over(chunks: list[Chunk], spans: list[Span], start: int = 0, end: int = 100) -> WindowMean:
    return window_mean(chunks, spans, start, end, last)


def span(from_us: int, until_us: int, token: int = 1) -> Span:
    return Span("v", token, from_us, until_us)


def test_each_value_holds_until_the_next() -> None:
    """The one before the window holds at its start, the last one until its end."""
    mean = over([chunk(sample(-50, 10), sample(25, 20)), chunk(sample(75, 40))], [span(-60, 120)])
    assert (mean.value, mean.coverage) == (Decimal("22.5"), Decimal(1))


def test_time_without_a_connection_is_left_out() -> None:
    """It is no value and no coverage; a new connection knows nothing before its first sample."""
    chunks = [chunk(sample(0, 10)), chunk(sample(70, 30), token=2)]
    mean = over(chunks, [span(0, 40), span(60, 100, token=2)])
    assert mean.value == (Decimal(10) * 40 + Decimal(30) * 30) / 70
    assert mean.coverage == Decimal("0.7")
    assert over([], [span(0, 100)]) == WindowMean(None, Decimal(0), 0)
    assert over([chunk(sample(0, 10))], []) == WindowMean(None, Decimal(0), 0)


def test_where_connections_overlap_the_newer_one_counts() -> None:
    """Nothing is counted twice."""
    chunks = [chunk(sample(0, 10)), chunk(sample(50, 20), token=2)]
    mean = over(chunks, [span(0, 80), span(50, 100, token=2)])
    assert (mean.value, mean.coverage) == (Decimal(15), Decimal(1))


def test_a_price_that_is_not_there_covers_nothing() -> None:
    """An empty side has no price for as long as it is empty."""
    samples = [sample(0, None, bid=1, ask=3), sample(50, None, bid=1)]
    mean = window_mean([chunk(*samples)], [span(0, 100)], 0, 100, lambda each: price_of(each, Input.MID))
    assert (mean.value, mean.coverage) == (Decimal(2), Decimal("0.5"))


def test_the_inputs() -> None:
    """Bid, ask, their middle, the last price; a product without a book has its last price for the middle."""
    full = sample(0, 5, bid="1.1", ask="1.4")
    wanted = {Input.LAST: "5", Input.BID: "1.1", Input.ASK: "1.4", Input.MID: "1.25"}
    assert {each: str(price_of(full, each)) for each in Input} == wanted
    assert price_of(sample(0, 7), Input.MID) == 7
    assert price_of(sample(0, 7, bid=1), Input.MID) is None


@st.composite
def histories(draw: Any) -> tuple[list[Chunk], list[Span]]:
    """Some connections, one after the other or overlapping, with samples and pauses."""
    chunks, spans = [], []
    for token in range(1, draw(st.integers(1, 4)) + 1):
        begin = draw(st.integers(-20, 90))
        for _ in range(draw(st.integers(1, 3))):
            end = begin + draw(st.integers(0, 40))
            spans.append(span(begin, end, token))
            begin = end + draw(st.sampled_from([0, 0, 5]))
        times = draw(st.lists(st.integers(-20, 120), unique=True, max_size=6))
        values = st.one_of(st.none(), st.integers(1, 9))
        chunks.append(chunk(*(sample(time, draw(values)) for time in sorted(times)), token=token))
    return chunks, spans


@given(histories())
def test_it_is_the_mean_over_every_microsecond(history: tuple[list[Chunk], list[Span]]) -> None:
    """Of the newest connection that lived then, and of its newest sample by then."""
    chunks, spans = history
    known = []
    for now in range(100):
        living = max((each.token for each in spans if each.from_us <= now < each.until_us), default=None)
        samples = [each for each in chunks[living - 1].samples if each.time_us <= now] if living else []
        if samples and samples[-1].last is not None:
            known.append(Fraction(samples[-1].last))
    mean = over(chunks, spans)
    assert Fraction(mean.coverage) == Fraction(len(known), 100)
    if known:
        assert mean.value is not None
        assert abs(Fraction(mean.value) - sum(known, Fraction(0)) / len(known)) < Fraction(1, 10**20)
    else:
        assert mean.value is None


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_trade_that_two_connections_saw_is_one_trade(order: tuple[int, int]) -> None:
    """By the venue's id; the window is closed at its start and open at its end."""
    prints = [Print(time, str(time), Decimal(time), Decimal(1)) for time in (-1, 0, 50, 99, 100)]
    both = [Chunk("v", "p", 1, (), tuple(prints)), Chunk("v", "p", 2, (), tuple(prints[2:]))]
    assert [fill.time_us for fill in fills_of([both[place] for place in order], 0, 100)] == [0, 50, 99]
