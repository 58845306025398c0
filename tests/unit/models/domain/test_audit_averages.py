"""Stored averages: whatever a price job computes is made again from its sources, and a changed one is found."""

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.audit_averages import check_average, recomputable
from models.domain.averages import OF_TRADES, Method
from models.domain.history import Chunk, Print, Sample, Span
from models.domain.instruments import INSTRUMENTS
from workers.averages import part_of, wanted_of

START = 1_790_000_000_000_000
END = START + 60_000_000
PAIR = INSTRUMENTS["BTC-USDT"]


def _payload(method: Method) -> dict[str, Any]:
    times = {"start": "then", "end": "later", "start_us": START, "end_us": END}
    return {"pairs": [PAIR.symbol], "method": method, "input": "mid", "venues": None, "min_sources": 2, **times}


def _result(method: Method, seen: dict[str, tuple[int, int, int, int]], off: frozenset[str]) -> dict[str, Any]:
    """Return what a job stores; `seen`: of each venue its bid, spread, trades, and for how many seconds it lived."""
    chunks, spans = [], {}
    for product in PAIR.products:
        bid, spread, trades, lived_s = seen.get(product.venue, (0, 0, 0, 0))
        prices = Decimal(bid), Decimal(bid + spread)
        samples = (Sample(START, *prices, None), Sample(START + 7_000_003, prices[0] + 1, prices[1] + 2, None))
        prints = tuple(
            Print(START + 1_000_000 * number, str(number), Decimal(bid + number % 3), Decimal(number) / 8)
            for number in range(1, trades + 1)
        )
        chunks += [Chunk(product.venue, product.id, 1, samples, prints)] if lived_s else []
        spans[product.venue] = [Span(product.venue, 1, START, START + lived_s * 1_000_000)] if lived_s else []
    part = part_of(wanted_of(_payload(method)), PAIR, chunks, spans, dict.fromkeys(off, False))
    head = {"method": method, "input": "mid", "start": "then", "end": "later", "market": "simulated"}
    stored: dict[str, Any] = json.loads(json.dumps({**head, "parts": [part]}))
    return stored


venues = st.sampled_from([product.venue for product in PAIR.products])
numbers = st.tuples(st.integers(95_000, 115_000), st.integers(1, 900), st.integers(0, 50), st.integers(30, 60))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(Method), st.dictionaries(venues, numbers), st.frozensets(venues, max_size=2))
def test_whatever_a_price_job_computes_verifies(
    method: Method, seen: dict[str, tuple[int, int, int, int]], off: frozenset[str]
) -> None:
    """Value, problem, weights, adjusted prices and reasons follow from the sources, by every method."""
    result = _result(method, seen, off)
    assert list(check_average("j", _payload(method), result)) == []
    assert recomputable(result) is (method not in OF_TRADES)


def test_volumes_are_exact_whatever_their_digits() -> None:
    """A billion and a unit in the twenty-fifth place are summed without rounding either."""
    [product, *others] = PAIR.products
    sizes = (Decimal("1000000000.5"), Decimal("0.0000000000000000000000001"))
    prints = tuple(Print(START + number, str(number), Decimal(1), size) for number, size in enumerate(sizes))
    spans: dict[str, list[Span]] = {each.venue: [] for each in others} | {
        product.venue: [Span(product.venue, 1, START, END)]
    }
    wanted = wanted_of(_payload(Method.VOLUME_WEIGHTED))
    part = part_of(wanted, PAIR, [Chunk(product.venue, product.id, 1, (), prints)], spans, {})
    [volume] = [source["volume"] for source in part["sources"] if source["venue"] == product.venue]
    assert volume == "1000000000.5000000000000000000000001"


SEEN = {"binance": (100_000, 2, 9, 60), "okx": (100_004, 3, 5, 60), "coinbase": (150_000, 3, 5, 60)}


def _of(result: dict[str, Any], venue: str) -> dict[str, Any]:
    return next(source for source in result["parts"][0]["sources"] if source["venue"] == venue)


BROKEN: list[tuple[str, Method, Callable[[dict[str, Any]], Any]]] = [
    ("average.value", Method.CLAMPED_MEAN, lambda r: r["parts"][0].update(value="1")),
    ("average.value", Method.MEDIAN, lambda r: _of(r, "okx").update(raw_price="100009")),
    ("average.value", Method.VOLUME_WEIGHTED, lambda r: _of(r, "okx").update(volume="1")),
    ("average.value", Method.VOLUME_DECAY, lambda r: _of(r, "okx").update(last_trade_age_us=None)),
    ("average.confidence", Method.VOTES, lambda r: _of(r, "okx").update(half_spread="900")),
    ("average.problem", Method.MEAN, lambda r: r["parts"][0].update(problem="none of it")),
    ("average.source.reason", Method.MEAN, lambda r: _of(r, "coinbase").update(reason=None)),
    ("average.source.reason", Method.TIME_DECAY, lambda r: _of(r, "coinbase").update(raw_price="100000")),
    ("average.source.weight", Method.TWAP_OF_VWM, lambda r: _of(r, "okx").update(weight="1")),
    ("average.source.adjusted_price", Method.MEAN, lambda r: _of(r, "okx").update(adjusted_price="1")),
    ("average.source.reason", Method.MEAN, lambda r: _of(r, "okx").update(coverage="0.5")),
    ("average.method", Method.MEAN, lambda r: r.update(method="median")),
    ("average.pairs", Method.MEAN, lambda r: r["parts"].clear()),
]


@pytest.mark.parametrize(("rule", "method", "breaks"), BROKEN, ids=[f"{n}-{each[0]}" for n, each in enumerate(BROKEN)])
def test_a_changed_average_is_found(rule: str, method: Method, breaks: Callable[[dict[str, Any]], Any]) -> None:
    """Whichever of its numbers was changed, and the sentence has both."""
    result = _result(method, SEEN, frozenset())
    assert list(check_average("j", _payload(method), result)) == []
    assert _of(result, "coinbase")["reason"] == "deviates"
    breaks(result)
    assert rule in {each.rule for each in check_average("j", _payload(method), result)}


@pytest.mark.parametrize(
    ("method", "name"), [(Method.VOTES, "half_spread"), (Method.VOLUME_DECAY, "last_trade_age_us")]
)
def test_an_older_result_that_names_too_little_is_not_accused(method: Method, name: str) -> None:
    """What its sources did not name then cannot be recomputed; who was left out still is."""
    result = _result(method, SEEN, frozenset())
    for source in result["parts"][0]["sources"]:
        del source[name]
    assert list(check_average("j", _payload(method), result)) == []
    assert not recomputable(result)
    _of(result, "coinbase")["reason"] = None
    assert [each.rule for each in check_average("j", _payload(method), result)] == ["average.source.reason"]
