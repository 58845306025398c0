"""What a connection's history keeps: every change of the prices, every trade once, and when it was heard."""

from decimal import Decimal

import pytest

from models.bus.latest import LatestPrice
from models.domain.history import Sample, Span
from models.domain.quotes import Quote, Trade
from workers import history as room
from workers.history import SLOT_US, History

SECOND_US = 1_000_000


def quote(time_us: int, bid: int, size: int = 1) -> Quote:
    return Quote("okx", "A", 7, 1, Decimal(bid), Decimal(size), Decimal(bid + 1), Decimal(size), True, None, time_us)


def trade(time_us: int, number: int, *, before: bool = False) -> Trade:
    return Trade("okx", "A", 7, str(number), Decimal(number), Decimal(2), "buy", time_us + 500, time_us, before)


def samples(history: History, now_us: int) -> list[tuple[int, int | None, int | None]]:
    chunks, _ = history.flush(now_us, now_us, ())
    return [(each.time_us, _int(each.bid), _int(each.last)) for each in (chunks["A"].samples if chunks else ())]


def _int(value: Decimal | None) -> int | None:
    return None if value is None else int(value)


@pytest.fixture
def history() -> History:
    return History("okx", 7, 0, "live")


def test_a_change_of_prices_is_kept_and_a_change_of_sizes_is_not(history: History) -> None:
    """The last trade's price stands beside the quote's, each from the time at which it was received."""
    items: list[Quote | Trade] = [
        quote(SECOND_US, 10),
        quote(2 * SECOND_US, 10, 5),
        trade(3 * SECOND_US, 99),
        quote(4 * SECOND_US, 11),
    ]
    history.take(items, {}, 0)
    assert samples(history, 5 * SECOND_US) == [
        (SECOND_US, 10, None),
        (3 * SECOND_US, 10, 99),
        (4 * SECOND_US, 11, 99),
    ]
    assert samples(history, 6 * SECOND_US) == []


def test_a_sample_has_the_sizes_of_its_moment(history: History) -> None:
    """Those of the newest quote, also where a trade made the sample; before any quote there are none."""
    history.take(
        [trade(1, 98), quote(2 * SECOND_US, 10, 3), quote(3 * SECOND_US, 10, 5), trade(4 * SECOND_US, 99)], {}, 0
    )
    chunks, _ = history.flush(5 * SECOND_US, 5 * SECOND_US, ())
    sizes = [(_int(each.bid_size), _int(each.ask_size)) for each in chunks["A"].samples]
    assert sizes == [(None, None), (3, 3), (5, 5)]


def test_of_a_burst_the_newest_counts_from_its_own_time(history: History) -> None:
    """Prices that stood for less than the slot are passed over; the first one of a burst stays."""
    times = [SECOND_US + step * SLOT_US // 5 for step in range(8)]
    history.take([quote(time, 10 + place) for place, time in enumerate(times)], {}, 0)
    kept = samples(history, 2 * SECOND_US)
    assert [time for time, _, _ in kept] == [times[0], times[4], times[7]]
    assert [bid for _, bid, _ in kept] == [10, 14, 17]


def test_trades_are_kept_but_for_those_before_the_subscription(history: History) -> None:
    """They seed the last price and are no news."""
    history.take([trade(SECOND_US, 5, before=True), trade(2 * SECOND_US, 6)], {}, 0)
    chunks, _ = history.flush(3 * SECOND_US, 3 * SECOND_US, ())
    assert [(each.time_us, each.trade_id) for each in chunks["A"].prints] == [(2 * SECOND_US, "6")]
    assert [_int(each.last) for each in chunks["A"].samples] == [5, 6]
    assert [(each.taker_side, each.exchange_time_us) for each in chunks["A"].prints] == [("buy", 2 * SECOND_US + 500)]


def test_a_last_price_that_is_told_without_a_trade_is_kept(history: History) -> None:
    """An index has nothing else."""
    nothing = (None,) * 4
    latest = LatestPrice("okx", "A", Decimal(7), SECOND_US, *nothing, False, None, "simulated")
    history.take([], {"A": latest}, 2 * SECOND_US)
    assert samples(history, 3 * SECOND_US) == [(2 * SECOND_US, None, 7)]


def test_a_quiet_product_is_told_again_each_minute(history: History) -> None:
    """At the time up to which the connection was heard, so that nobody looks back further."""
    history.take([quote(SECOND_US, 10)], {}, 0)
    assert samples(history, 2 * SECOND_US) == [(SECOND_US, 10, None)]
    assert samples(history, 61 * SECOND_US) == []
    chunks, _ = history.flush(63 * SECOND_US, 62 * SECOND_US, ())
    assert chunks["A"].samples == (Sample(62 * SECOND_US, Decimal(10), Decimal(11), None, Decimal(1), Decimal(1)),)


def test_spans_follow_one_another_and_never_go_back(history: History) -> None:
    """Each begins where the one before ended; what was missed is told with the span in which it was."""
    spans = [
        history.flush(now, until, missed)[1] for now, until, missed in ((5, 4, ()), (9, 3, ("B", "A")), (20, 15, ()))
    ]
    assert spans == [
        Span("okx", 7, 0, 4, (), "live"),
        Span("okx", 7, 4, 4, ("A", "B"), "live"),
        Span("okx", 7, 4, 15, (), "live"),
    ]


def test_trades_beyond_the_bound_are_missed_and_said_to_be(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; the span names the product."""
    monkeypatch.setattr(room, "PRINTS_MAX", 2)
    history.take([trade(number, number) for number in range(1, 5)], {}, 0)
    chunks, span = history.flush(10, 10, ())
    assert ([each.trade_id for each in chunks["A"].prints], span.gaps) == (["1", "2"], ("A",))
