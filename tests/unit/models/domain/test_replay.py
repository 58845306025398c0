"""Replays by the session's clock, and loops' journals done again."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS, Instruments
from models.domain.journal import entry, opening, read
from models.domain.ledger import RULES
from models.domain.orders import Order, OrderState, Reason, Side, TimeInForce
from models.domain.outcomes import VenueSwitch
from models.domain.quotes import BusItem, Mark, Quote
from models.domain.replay import NoOpeningError, Placing, Played, Replay, rerun
from tests.examples import examples
from tests.oracle import expected

SECOND = 1_000_000
T0 = 1_000 * SECOND
SILENCE_US = 3 * SECOND
PAIRS = [INSTRUMENTS["LTC-BTC"], INSTRUMENTS["ETH-BTC"]]
PRODUCTS = {
    ("binance", "LTC-BTC"): "LTCBTC",
    ("binance", "ETH-BTC"): "ETHBTC",
    ("coinbase", "LTC-BTC"): "LTC-BTC",
    ("coinbase", "ETH-BTC"): "ETH-BTC",
}
Told = list[tuple[int, Sequence[Quote | Mark]]]


def quote(number: int, bid: str, size: str, venue: str = "binance", symbol: str = "LTC-BTC", token: int = 1) -> Quote:
    sides = (Decimal(bid), Decimal(size), Decimal("0.9"), Decimal(1))
    product_id = PRODUCTS[venue, symbol]
    return Quote(venue, product_id, token, number, *sides, live=True, exchange_time_us=None, received_time_us=T0)


def mark(at_us: int, venue: str = "binance", token: int = 1) -> tuple[int, Sequence[Quote | Mark]]:
    return at_us, [Mark(venue, token, at_us)]


def placing(seq: int, size: str, at_us: int = T0, *, cancel_us: int | None = None, **more: Any) -> Placing:
    """A sale of LTC at any price, which waits for ever unless more is said."""
    values: dict[str, Any] = {
        "symbol": "LTC-BTC",
        "side": Side.SELL,
        "price": Decimal("0.0001"),
        "time_in_force": TimeInForce.GTC,
        "venues": None,
        "deadline_us": None,
    } | more
    return Placing(at_us, Order(seq=seq, id=str(seq), job_id="", owner_id="", size=Decimal(size), **values), cancel_us)


def play(told: Told, placings: list[Placing], ended_us: int) -> dict[str, Played]:
    return {each.order.id: each for each in Replay(PAIRS, silence_us=SILENCE_US).run(told, placings, ended_us)}


def got(played: Played) -> list[tuple[int, str]]:
    return [(time_us - T0, str(split.size.normalize())) for time_us, split in played.splits]


def test_an_order_meets_the_quote_of_its_own_moment() -> None:
    """At one moment quotes come before orders, and an order sees nothing of later ones before they come."""
    told: Told = [mark(T0), (T0 + 5, [quote(1, "0.001", "2")]), (T0 + 6, [quote(2, "0.001", "3")])]
    assert got(play(told, [placing(1, "9", T0 + 5)], T0 + 6)["1"]) == [(5, "2"), (6, "1")]


def test_a_deadline_is_kept_to_the_microsecond() -> None:
    """Nothing is filled at the deadline, and the order ends then, though nothing else happens at that time."""
    told: Told = [mark(T0), (T0 + 100, [quote(1, "0.001", "2")]), (T0 + 500, [])]
    played = play(told, [placing(1, "1", deadline_us=T0 + 100), placing(2, "9", deadline_us=T0 + 333)], T0 + 500)
    assert (got(played["1"]), played["1"].ended_us, played["1"].reason) == ([], T0 + 100, Reason.DEADLINE)
    assert (got(played["2"]), played["2"].ended_us) == ([(100, "2")], T0 + 333)


def test_what_would_happen_after_the_end_does_not() -> None:
    """An order whose deadline or cancel is later is open, and says why it waits."""
    told: Told = [mark(T0), (T0 + 1, [quote(1, "0.00001", "2")])]
    played = play(told, [placing(1, "1", deadline_us=T0 + 3), placing(2, "1", cancel_us=T0 + 3)], T0 + 2)
    assert {(each.state, each.reason, each.ended_us) for each in played.values()} == {
        (OrderState.WORKING, Reason.OUTSIDE_LIMIT, None)
    }


def test_a_cancel_comes_when_it_was_asked_for() -> None:
    """What came until then is kept; an order that is cancelled in the moment of its placing gets nothing."""
    told: Told = [mark(T0), (T0 + 1, [quote(1, "0.001", "2")]), (T0 + 9, [quote(2, "0.001", "9")])]
    played = play(told, [placing(1, "5", cancel_us=T0 + 4), placing(2, "5", T0 + 9, cancel_us=T0 + 9)], T0 + 9)
    assert (got(played["1"]), played["1"].state, played["1"].ended_us) == ([(1, "2")], OrderState.CANCELLED, T0 + 4)
    assert (got(played["2"]), played["2"].state) == ([], OrderState.CANCELLED)


def test_a_venue_without_a_mark_is_silent_to_the_microsecond() -> None:
    """An order is filled a microsecond before the silence is too long, and not at it."""
    told: Told = [mark(T0), (T0 + 1, [quote(1, "0.001", "2")])]
    orders = [placing(1, "1", T0 + SILENCE_US - 1), placing(2, "1", T0 + SILENCE_US)]
    played = play(told, orders, T0 + 2 * SILENCE_US)
    assert got(played["1"]) == [(SILENCE_US - 1, "1")]
    assert (got(played["2"]), played["2"].reason) == ([], Reason.VENUE_STALE)


AMOUNTS = st.integers(1, 9)
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["quote", "mark", "token", "order"]),
        st.sampled_from(sorted(PRODUCTS)),
        st.sampled_from([0, 1, SECOND // 3, SECOND, SILENCE_US]),
        AMOUNTS,
        AMOUNTS,
        st.sampled_from(list(TimeInForce)),
    ),
    max_size=40,
)


def _happening(events: list[Any]) -> tuple[Told, list[Placing], int]:
    """Return what was told, orders, and the end, of drawn events."""
    told: Told = []
    now_us, orders = T0, []
    tokens, number = dict.fromkeys(("binance", "coinbase"), 1), 0
    for what, (venue, symbol), later_us, price, size, time_in_force in events:
        now_us, number = now_us + later_us, number + 1
        if what == "order":
            deadline_us = now_us + size * SECOND // 4 if time_in_force is TimeInForce.GTD else None
            cancel_us = now_us + price * SECOND // 5 if size == 3 else None
            more = {"price": Decimal(price).scaleb(-3), "time_in_force": time_in_force, "symbol": symbol}
            venues = frozenset([venue]) if size % 2 else None
            orders.append(
                placing(number, str(size), now_us, cancel_us=cancel_us, deadline_us=deadline_us, venues=venues, **more)
            )
            continue
        tokens[venue] += what == "token"
        shown = quote(number, f"0.00{price}", str(size), venue, symbol, tokens[venue])
        told.append((now_us, [shown if what == "quote" else Mark(venue, tokens[venue], now_us)]))
    return told, orders, now_us + SECOND


def _one_by_one(told: Told, orders: list[Placing], ended_us: int) -> list[dict[str, Any]]:
    """Return the steps that one book for all pairs takes: at each time at which anything comes or is due."""
    marked = {at_us for at_us, items in told for item in items if isinstance(item, Mark)}
    times = {at_us for at_us, _ in told} | {at_us + SILENCE_US for at_us in marked}
    times |= {at for each in orders for at in (each.at_us, each.cancel_us, each.order.deadline_us) if at is not None}
    journal = []
    for now_us in sorted(at_us for at_us in times if at_us <= ended_us):
        items = [item for at_us, some in told if at_us == now_us for item in some]
        placed = [each.order for each in orders if each.at_us == now_us]
        cancelled = [each.order.seq for each in orders if each.cancel_us == now_us]
        journal += [entry(now_us, items, (), (), ()), entry(now_us, (), (), cancelled, placed)]
    return journal


@given(EVENTS)
@settings(deadline=None, max_examples=examples(120))
def test_a_book_for_each_pair_fills_as_one_book_for_all_and_as_the_oracle(events: list[Any]) -> None:
    """Pairs share nothing but their venues' words; the oracle shares no code with the book."""
    told, orders, ended_us = _happening(events)
    played = play(told, orders, ended_us)
    journal = _one_by_one(told, orders, ended_us)
    together = {each.order.id: each for each in rerun([opening(T0, Instruments(PAIRS), (), (), SILENCE_US), *journal])}
    right = expected(journal, SILENCE_US)
    assert played.keys() == together.keys() == right.keys()
    for order_id, each in played.items():
        assert each == together[order_id]
        quotes = [(s.venue, s.product_id, s.price, s.size, s.token, s.quote_number) for _, s in each.splits]
        assert quotes == right[order_id]["splits"]
        assert each.state.value == right[order_id]["state"]


def _journal(*entries: dict[str, Any]) -> list[dict[str, Any]]:
    """Entries as a file gives them back."""
    return [json.loads(json.dumps(each)) for each in entries]


def _live(book: Book, journal: list[dict[str, Any]], now_us: int, **inputs: Any) -> Any:
    """Step a book and note it as a loop does."""
    journal += _journal(entry(now_us, *(inputs.get(name, ()) for name in ("items", "switches", "cancels", "orders"))))
    return book.step(now_us, **inputs)


def test_a_journal_begins_with_its_book() -> None:
    """Levels, venues that are off, steps and the limit of silence are as they were, unless another one is tried."""
    first = Book(Instruments(PAIRS))
    feed: list[BusItem] = [Mark("binance", 1, T0), quote(1, "0.001", "5")]
    levels = first.step(T0, items=feed, orders=[placing(1, "3").order]).levels
    tokens = {"binance": 2}
    book = Book(Instruments(PAIRS), levels=levels, disabled=["coinbase"], tokens=tokens, silence_us=SECOND)
    journal = _journal(opening(T0, Instruments(PAIRS), levels, ["coinbase"], SECOND, tokens))
    overtaken: list[BusItem] = [Mark("binance", 1, T0), quote(9, "0.001", "99")]
    marks = [Mark("binance", 2, T0), Mark("coinbase", 1, T0)]
    quotes = [quote(1, "0.001", "5", token=2), quote(1, "0.002", "7", "coinbase")]
    on = [VenueSwitch("coinbase", enabled=True)]
    live = [
        *_live(book, journal, T0, items=overtaken, orders=[placing(2, "11").order]).outcomes,
        *_live(book, journal, T0, items=[*marks, *quotes]).outcomes,
        *_live(book, journal, T0 + 1, switches=on).outcomes,
        *_live(book, journal, T0 + 2, items=[quote(2, "0.002", "8", "coinbase")]).outcomes,
        *_live(book, journal, T0 + SECOND, items=[], orders=[placing(3, "1").order]).outcomes,
    ]
    made = [split for outcome in live for split in outcome.splits]

    def sizes(**rules: Any) -> list[list[str]]:
        return [[str(split.size.normalize()) for _, split in each.splits] for each in rerun(journal, **rules)]

    assert [split for each in rerun(journal) for _, split in each.splits] == made
    assert sizes() == [["2", "7", "1"], []]
    # A rule that forgets with each quote sells what was taken before the journal began, and at its end once more.
    assert sizes(ledger=RULES["each-quote"]) == [["5", "6"], []]
    assert sizes(ledger=RULES["each-quote"], silence_us=SILENCE_US) == [["5", "6"], ["1"]]


def test_what_was_not_committed_was_not_filled() -> None:
    """The next owner loads the orders as they were committed; what the step before gave them is taken back."""
    journal = _journal(opening(T0, Instruments(PAIRS), (), (), SILENCE_US))
    book = Book(Instruments(PAIRS), silence_us=SILENCE_US)
    feed = [Mark("binance", 1, T0), quote(1, "0.001", "5")]
    [committed] = _live(book, journal, T0, items=feed, orders=[placing(1, "9").order]).outcomes
    [lost] = _live(book, journal, T0 + 1, items=[quote(2, "0.001", "9")]).outcomes
    assert lost.state is OrderState.FILLED
    working = read(journal[1])["orders"][0]
    journal += _journal(
        opening(T0 + 2, Instruments(PAIRS), (), (), SILENCE_US),
        entry(T0 + 2, (), (), (), [placing(1, "9", state=OrderState.WORKING, filled_size=Decimal(5)).order]),
    )
    [played] = rerun(journal)
    assert [split for _, split in played.splits] == list(committed.splits)
    assert (played.order, played.state, played.ended_us) == (working, OrderState.WORKING, None)


def test_a_journal_without_its_book_is_refused() -> None:
    """A step without the book that it was for cannot be done again."""
    with pytest.raises(NoOpeningError):
        rerun(_journal(entry(T0, (), (), (), ())))
