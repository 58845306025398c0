"""The book: its rules one by one, against invariants, and against an oracle that shares no code with it."""

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS, Instruments
from models.domain.journal import entry, read
from models.domain.ledger import EachQuote, Ledger
from models.domain.orders import Order, OrderState, Reason, Side, TimeInForce
from models.domain.outcomes import Level, StepResult, VenueSwitch
from models.domain.quotes import BusItem, Mark, Quote
from tests.oracle import expected

SECOND = 1_000_000
T0 = 1_000 * SECOND
PAIRS = Instruments([INSTRUMENTS["LTC-BTC"]])
PRODUCTS = {"binance": "LTCBTC", "coinbase": "LTC-BTC"}


def quote(
    number: int,
    bid: str,
    size: str,
    *,
    ask: str = "0.9",
    ask_size: str = "1",
    venue: str = "binance",
    token: int = 1,
    live: bool = True,
) -> Quote:
    """A quote of LTC-BTC."""
    sides = (Decimal(bid), Decimal(size), Decimal(ask), Decimal(ask_size))
    return Quote(venue, PRODUCTS[venue], token, number, *sides, live, None, T0)


def mark(venue: str = "binance", token: int = 1) -> Mark:
    return Mark(venue, token, T0)


def order(seq: int, size: str, price: str = "0.0001", **more: Any) -> Order:
    """A resting order to sell LTC, unless more is said."""
    values: dict[str, Any] = {
        "side": Side.SELL,
        "time_in_force": TimeInForce.GTC,
        "venues": None,
        "deadline_us": None,
    } | more
    return Order(
        seq=seq,
        id=str(seq),
        job_id="",
        owner_id="",
        symbol="LTC-BTC",
        price=Decimal(price),
        size=Decimal(size),
        **values,
    )


def sizes(result: StepResult) -> list[tuple[int, str, list[str]]]:
    return [(o.order.seq, o.state.value, [str(s.size.normalize()) for s in o.splits]) for o in result.outcomes]


@pytest.fixture
def book() -> Book:
    """A book whose venue binance is fed."""
    made = Book(PAIRS)
    made.step(T0, items=[mark()])
    return made


def test_a_fill_is_at_the_quotes_price_and_not_at_the_limit(book: Book) -> None:
    """The seller gets what the buyer shows."""
    [outcome] = book.step(T0, items=[quote(1, "0.0009", "5")], orders=[order(1, "2")]).outcomes
    assert outcome.state is OrderState.FILLED
    assert outcome.splits[0].price == Decimal("0.0009")


def test_a_unit_is_sold_once(book: Book) -> None:
    """The same quote again sells nothing; growth sells its growth."""
    assert sizes(book.step(T0, items=[quote(1, "0.0009", "5")], orders=[order(1, "20")])) == [(1, "working", ["5"])]
    assert sizes(book.step(T0 + 1, items=[quote(2, "0.0009", "5")])) == []
    assert sizes(book.step(T0 + 2, items=[quote(3, "0.0009", "7")])) == [(1, "working", ["2"])]


def test_a_new_book_knows_which_connections_were_overtaken() -> None:
    """Quotes and marks of a token older than the newest one given out count for nothing, whoever is heard first."""
    book = Book(PAIRS, tokens={"binance": 3, "nobody": 9})
    older: list[BusItem] = [quote(7, "0.0009", "5", token=2), mark(token=2)]
    assert sizes(book.step(T0, items=older, orders=[order(1, "2")])) == [(1, "working", [])]
    newest: list[BusItem] = [quote(1, "0.0009", "5", token=3), mark(token=3)]
    assert sizes(book.step(T0 + 1, items=newest)) == [(1, "filled", ["2"])]


def test_a_flicker_is_not_sold_again(book: Book) -> None:
    """A level that dips for less than a second remembers; after a full second it becomes what it shows."""
    book.step(T0, items=[quote(1, "0.0009", "5")], orders=[order(1, "20")])
    book.step(T0 + 1, items=[quote(2, "0.0009", "1")])
    assert sizes(book.step(T0 + SECOND // 2, items=[quote(3, "0.0009", "5")])) == []
    book.step(T0 + SECOND, items=[mark(), quote(4, "0.0009", "1")])
    assert sizes(book.step(T0 + 2 * SECOND, items=[mark(), quote(5, "0.0009", "5")])) == [(1, "working", ["4"])]


def test_looking_at_a_level_changes_nothing() -> None:
    """Only quotes of a product judge what is forgotten of it, and not whether somebody happened to look."""
    sold = []
    for fok in ([], [order(2, "9", time_in_force=TimeInForce.FOK)]):
        book = Book(PAIRS)
        book.step(T0, items=[mark(), quote(1, "0.0009", "5")], orders=[order(1, "20")])
        book.step(T0 + 1, items=[quote(2, "0.0009", "1")])
        book.step(T0 + 2 * SECOND, items=[mark()], orders=fok)
        later: list[BusItem] = [mark(token=2), quote(1, "0.0009", "5", token=2)]
        sold.append(sizes(book.step(T0 + 2 * SECOND + 1, items=later)))
    assert sold == [[], []]


def test_a_better_price_in_front_hides_a_level_and_forgets_nothing(book: Book) -> None:
    """When the better price goes, what was taken behind it is still taken."""
    book.step(T0, items=[quote(1, "0.0009", "5")], orders=[order(1, "20")])
    assert sizes(book.step(T0 + 1, items=[quote(2, "0.00091", "1")])) == [(1, "working", ["1"])]
    assert sizes(book.step(T0 + 2 * SECOND, items=[mark(), quote(3, "0.0009", "6")])) == [(1, "working", ["1"])]


def test_what_was_taken_outlives_the_book(book: Book) -> None:
    """A book made from the levels of another sells nothing again."""
    levels = book.step(T0, items=[quote(1, "0.0009", "5")], orders=[order(1, "3")]).levels
    assert levels == [Level("binance", "LTCBTC", Side.SELL, Decimal("0.0009"), Decimal(3))]
    again = Book(PAIRS, levels=levels)
    result = again.step(T0, items=[mark(token=2), quote(1, "0.0009", "5", token=2)], orders=[order(2, "9")])
    assert sizes(result) == [(2, "working", ["2"])]


def test_price_then_accept_sequence_decides(book: Book) -> None:
    """The lowest limit sells first, and of equal ones the earlier."""
    book.step(T0, orders=[order(1, "1", "0.0003"), order(2, "1", "0.0002"), order(3, "1", "0.0002")])
    assert sizes(book.step(T0, items=[quote(1, "0.0009", "2.5")])) == [
        (2, "filled", ["1"]),
        (3, "filled", ["1"]),
        (1, "working", ["0.5"]),
    ]


def test_the_best_venue_comes_first(book: Book) -> None:
    """An order takes the better price first and goes on at the next venue."""
    items: list[BusItem] = [mark("coinbase"), quote(1, "0.0009", "2"), quote(1, "0.00091", "1", venue="coinbase")]
    [outcome] = book.step(T0, items=items, orders=[order(1, "3")]).outcomes
    assert [(split.venue, int(split.size)) for split in outcome.splits] == [("coinbase", 1), ("binance", 2)]


@pytest.mark.parametrize("venues", [("binance", "coinbase"), ("coinbase", "binance")])
def test_of_equal_prices_the_venue_first_in_the_alphabet_is_taken(venues: tuple[str, ...]) -> None:
    """Whatever the order in which the table of instruments has them."""
    known = INSTRUMENTS["LTC-BTC"]
    products = tuple(product for venue in venues for product in known.books if product.venue == venue)
    book = Book(Instruments([replace(known, products=products)]))
    items: list[BusItem] = [mark(venue) for venue in venues]
    items += [quote(1, "0.0009", "2", venue=venue) for venue in venues]
    [outcome] = book.step(T0, items=items, orders=[order(1, "3")]).outcomes
    assert [(split.venue, int(split.size)) for split in outcome.splits] == [("binance", 2), ("coinbase", 1)]


def test_an_order_keeps_to_its_venues(book: Book) -> None:
    """A venue that the order does not name fills nothing of it."""
    only = frozenset({"coinbase"})
    assert sizes(book.step(T0, items=[quote(1, "0.0009", "2")], orders=[order(1, "1", venues=only)])) == [
        (1, "working", [])
    ]


@pytest.mark.parametrize(
    ("word", "size", "want"),
    [
        (TimeInForce.IOC, "3", ("expired", Reason.IOC, ["2"])),
        (TimeInForce.IOC, "2", ("filled", None, ["2"])),
        (TimeInForce.FOK, "3", ("expired", Reason.FOK, [])),
        (TimeInForce.FOK, "2", ("filled", None, ["2"])),
    ],
)
def test_ioc_and_fok_end_in_the_step_that_places_them(book: Book, word: TimeInForce, size: str, want: object) -> None:
    """IOC takes what is there, FOK all or nothing; neither rests."""
    [outcome] = book.step(T0, items=[quote(1, "0.0009", "2")], orders=[order(1, size, time_in_force=word)]).outcomes
    assert (outcome.state.value, outcome.reason, [str(split.size.normalize()) for split in outcome.splits]) == want
    assert len(book) == 0


def test_nothing_fills_after_its_deadline(book: Book) -> None:
    """The deadline comes before the quote of the same step."""
    book.step(T0, orders=[order(1, "1", deadline_us=T0 + 10)])
    [outcome] = book.step(T0 + 10, items=[quote(1, "0.0009", "2")]).outcomes
    assert (outcome.state, outcome.reason, outcome.splits) == (OrderState.EXPIRED, Reason.DEADLINE, ())


def test_a_cancel_comes_before_the_quotes_of_its_step(book: Book) -> None:
    """Cancel, deadline and fill in one step: the deadline first, then the cancel, then the fill."""
    book.step(T0, orders=[order(1, "1"), order(2, "1", deadline_us=T0 + 10)])
    result = book.step(T0 + 10, cancels=[1, 2], items=[quote(1, "0.0009", "2")])
    assert [(o.order.seq, o.reason) for o in result.outcomes] == [(2, Reason.DEADLINE), (1, Reason.CANCELLED)]


def test_a_silent_venue_sells_nothing(book: Book) -> None:
    """Three seconds without a mark, and its quotes count for nothing until it speaks anew."""
    book.step(T0, items=[quote(1, "0.0009", "2")])
    assert sizes(book.step(T0 + 3 * SECOND, orders=[order(1, "1")])) == [(1, "working", [])]
    assert book.waiting_reason(1) is Reason.VENUE_STALE
    assert sizes(book.step(T0 + 4 * SECOND, items=[mark()])) == []
    assert sizes(book.step(T0 + 4 * SECOND, items=[quote(2, "0.0009", "2")])) == [(1, "filled", ["1"])]


def test_an_older_connection_counts_for_nothing(book: Book) -> None:
    """A higher token silences the old one, and counts from its first quote on."""
    book.step(T0, orders=[order(1, "9")], items=[mark(token=2)])
    assert sizes(book.step(T0, items=[quote(7, "0.0009", "2", token=1), mark(token=1)])) == []
    assert sizes(book.step(T0, items=[quote(1, "0.0009", "2", token=2)])) == [(1, "working", ["2"])]


def test_a_venue_that_is_off_sells_nothing_and_on_sells_at_once(book: Book) -> None:
    """Switching is honoured at the step."""
    book.step(
        T0, switches=[VenueSwitch("binance", enabled=False)], items=[quote(1, "0.0009", "2")], orders=[order(1, "1")]
    )
    assert book.waiting_reason(1) is Reason.VENUE_DISABLED
    assert sizes(book.step(T0, switches=[VenueSwitch("binance", enabled=True)])) == [(1, "filled", ["1"])]


def test_a_quote_that_is_not_live_fills_nothing(book: Book) -> None:
    """Best prices as of the last trade join averages only."""
    book.step(T0, items=[quote(1, "0.0009", "2", live=False)], orders=[order(1, "1")])
    assert book.waiting_reason(1) is Reason.NOT_LIVE


def test_a_quote_that_is_not_live_forgets_nothing(book: Book) -> None:
    """It says nothing of what the level shows: not, that it shows nothing. Coinbase has one after each connection."""
    book.step(T0, items=[quote(1, "0.0009", "5")], orders=[order(1, "20")])
    book.step(T0, items=[mark(token=2), quote(1, "0.0009", "5", token=2, live=False)])
    later: list[BusItem] = [mark(token=2), quote(2, "0.0009", "6", token=2)]
    assert sizes(book.step(T0 + 2 * SECOND, items=later)) == [(1, "working", ["1"])]


def test_an_order_that_cannot_be_placed_is_rejected_alone(book: Book) -> None:
    """A price finer than the instrument's step raises in the step; the others do not notice."""
    result = book.step(T0, items=[quote(1, "0.0009", "9")], orders=[order(1, "1", "0.00000001"), order(2, "1")])
    assert [(o.order.seq, o.state, o.reason) for o in result.outcomes] == [
        (1, OrderState.REJECTED, Reason.STEP_FAILED),
        (2, OrderState.FILLED, None),
    ]


def test_a_step_in_parts_gives_what_it_gives_whole() -> None:
    """A bound on outcomes changes how many calls it takes, and nothing else."""
    results = []
    for bound in (500, 3):
        book = Book(PAIRS)
        result = book.step(T0, items=[mark()], orders=[order(seq, "1") for seq in range(20)], outcomes_max=bound)
        while result.more:
            result = book.step(T0, outcomes_max=bound)
        result = book.step(T0, items=[quote(1, "0.0009", "12.5"), quote(2, "0.0008", "1")], outcomes_max=bound)
        seen = sizes(result)
        while result.more:
            result = book.step(T0, outcomes_max=bound)
            assert len(result.outcomes) <= bound
            seen += sizes(result)
        filled: dict[int, list[str]] = defaultdict(list)
        for seq, _, parts in seen:
            filled[seq] += parts
        results.append(filled)
    assert results[0] == results[1]


TWO = Instruments([INSTRUMENTS["LTC-BTC"], INSTRUMENTS["ETH-BTC"]])


def eth(number: int, bid: str, size: str) -> Quote:
    sides = (Decimal(bid), Decimal(size), Decimal("0.9"), Decimal(1))
    return Quote("binance", "ETHBTC", 1, number, *sides, live=True, exchange_time_us=None, received_time_us=T0)


def crowded(count: int) -> Book:
    """Return a book in which so many orders to sell LTC rest at three limits, the earliest highest, and one of ETH."""
    made = Book(TWO)
    orders = [order(seq, "1", f"0.000{9 - 3 * seq // count}") for seq in range(count)]
    result = made.step(
        T0, items=[mark()], orders=[*orders, msgspec.structs.replace(order(count, "9"), symbol="ETH-BTC")]
    )
    while result.more:
        result = made.step(T0)
    return made


def test_a_quote_that_crosses_thousands_is_worked_in_steps_and_others_are_served_in_between() -> None:
    """Each step ends at most 500 orders, in price-time order; what comes for another symbol need not wait."""
    count = 2_000
    book, seen, eth_at = crowded(count), [], []
    result = book.step(T0 + 1, items=[quote(1, "0.001", str(count)), eth(2, "0.001", "1")])
    while True:
        assert 0 < len(result.outcomes) <= 500
        mine = [outcome.order for outcome in result.outcomes if outcome.order.symbol == "LTC-BTC"]
        seen += [(each.price, each.seq) for each in mine]
        eth_at.append(len(result.outcomes) - len(mine))
        if not result.more:
            break
        result = book.step(T0 + 1 + len(eth_at), items=[eth(2 + len(eth_at), "0.001", str(1 + len(eth_at)))])
    assert seen == sorted(seen)
    assert len(seen) == count
    assert len(eth_at) > 4
    assert set(eth_at) == {1}  # in each of the steps it gets what its own quote brought


def test_what_comes_for_a_symbol_that_is_not_done_is_judged_afterwards_at_its_own_time() -> None:
    """A cancel and a deadline from after a quote do not overtake it, however many steps its fills take."""
    book = Book(PAIRS)
    orders = [order(seq, "1", deadline_us=T0 + 10 if seq == 3 else None) for seq in range(5)]
    result = book.step(T0, items=[mark()], orders=orders)
    assert not result.more
    found = sizes(book.step(T0 + 1, items=[quote(1, "0.0009", "4")], outcomes_max=1))
    result = book.step(T0 + 10, cancels=[2, 4], outcomes_max=1)
    while True:
        found += sizes(result)
        assert all(outcome.time_us == T0 + (10 if outcome.order.seq == 4 else 1) for outcome in result.outcomes)
        if not result.more:
            break
        result = book.step(T0 + 11, outcomes_max=1)
    assert found == [*((seq, "filled", ["1"]) for seq in range(4)), (4, "cancelled", [])]


def test_an_order_that_waits_to_be_placed_expires_before_what_came_after_its_deadline() -> None:
    """It is placed at the time of its step, when nothing crosses it, and sells nothing on the later quote."""
    book = Book(PAIRS)
    orders = [order(0, "1"), order(1, "1", "0.0002", deadline_us=T0 + 5)]
    found = sizes(book.step(T0, items=[mark(), quote(1, "0.0001", "1")], orders=orders, outcomes_max=1))
    result = book.step(T0 + 10, items=[quote(2, "0.0003", "9")], outcomes_max=1)
    found += sizes(result)
    while result.more:
        result = book.step(T0 + 11, outcomes_max=1)
        found += sizes(result)
    assert found == [(0, "filled", ["1"]), (1, "working", []), (1, "expired", [])]


def test_an_order_that_waits_to_be_placed_is_cancelled_and_not_placed_twice() -> None:
    """It may be given again before its turn has come, and its cancel too."""
    book = Book(PAIRS)
    orders = [order(seq, "1") for seq in range(4)]
    found = sizes(book.step(T0, items=[mark(), quote(1, "0.0009", "9")], orders=orders, outcomes_max=1))
    assert sorted(book.unplaced) == [1, 2, 3]
    result = book.step(T0 + 1, orders=orders[1:], cancels=[3], outcomes_max=2)
    found += sizes(result)
    while result.more:
        result = book.step(T0 + 1)
        found += sizes(result)
    assert found == [(seq, "filled", ["1"]) for seq in range(4)]  # each was given before the cancel came


def test_a_cancel_of_an_order_that_waits_to_be_placed_ends_it_once_it_rests() -> None:
    """Though the cancel is given once only."""
    book = Book(PAIRS)
    orders = [order(0, "1"), order(1, "1", "0.0002")]
    book.step(T0, items=[mark(), quote(1, "0.0001", "1")], orders=orders, outcomes_max=1)
    assert list(book.unplaced) == [1]
    result = book.step(T0 + 1, cancels=[1])
    assert (sizes(result), result.more, len(book)) == ([(1, "cancelled", [])], False, 0)


prices = st.sampled_from(["0.0008", "0.000801", "0.000802"])
amounts = st.integers(1, 9).map(str)
venues = st.sampled_from(["binance", "coinbase"])
moves = st.one_of(
    st.tuples(st.just("quote"), venues, prices, st.integers(0, 9).map(str), prices, amounts),
    st.tuples(st.just("mark"), venues),
    st.tuples(
        st.just("order"),
        st.sampled_from(list(Side)),
        prices,
        amounts,
        st.sampled_from([TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK]),
        st.sampled_from([None, frozenset({"binance"}), frozenset({"coinbase"})]),
    ),
    st.tuples(st.just("cancel"), st.integers(1, 10)),
    st.tuples(st.just("switch"), venues, st.booleans()),
    st.tuples(st.just("reconnect"), venues),
    st.tuples(st.just("time"), st.sampled_from([1, SECOND // 3, SECOND, 4 * SECOND])),
)


def journal_of(script: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Turn a drawn script into a journal: one step a move."""
    now, seq = T0, 0
    tokens, numbers = {"binance": 1, "coinbase": 1}, {"binance": 0, "coinbase": 0}
    journal = [entry(now, [mark("binance"), mark("coinbase")], [], [], [])]
    for move in script:
        given: dict[str, list[Any]] = {"items": [], "switches": [], "cancels": [], "orders": []}
        kind, *rest = move
        now += 1
        if kind == "quote":
            venue, bid, size, ask, ask_size = rest
            numbers[venue] += 1
            given["items"] = [
                quote(numbers[venue], bid, size, ask=ask, ask_size=ask_size, venue=venue, token=tokens[venue])
            ]
        elif kind == "mark":
            given["items"] = [mark(rest[0], tokens[rest[0]])]
        elif kind == "order":
            seq += 1
            side, price, size, word, allowed = rest
            deadline = now + 2 * SECOND if word is TimeInForce.GTD else None
            given["orders"] = [
                order(seq, size, price, side=side, time_in_force=word, venues=allowed, deadline_us=deadline)
            ]
        elif kind == "cancel":
            given["cancels"] = rest
        elif kind == "switch":
            given["switches"] = [VenueSwitch(*rest)]
        elif kind == "reconnect":
            tokens[rest[0]] += 1
            numbers[rest[0]] = 0
            given["items"] = [mark(rest[0], tokens[rest[0]])]
        else:
            now += rest[0]
        journal.append(entry(now, given["items"], given["switches"], given["cancels"], given["orders"]))
    return journal


def run(journal: list[dict[str, Any]], ledger: Any = Ledger) -> dict[str, dict[str, Any]]:
    """Give a journal to a book and return what each order got, in the oracle's form."""
    book = Book(PAIRS, ledger=ledger)
    got: dict[str, dict[str, Any]] = {}
    for each in journal:
        result = book.step(**read(each))
        assert not result.more
        for outcome in result.outcomes:
            mine = got.setdefault(outcome.order.id, {"splits": []})
            mine |= {"state": outcome.state.value, "reason": outcome.reason.value if outcome.reason else None}
            mine["splits"] += [
                (s.venue, s.product_id, s.price, s.size, s.token, s.quote_number) for s in outcome.splits
            ]
    return got


@settings(max_examples=150, deadline=None)
@given(st.lists(moves, min_size=5, max_size=40))
def test_the_book_agrees_with_the_oracle(script: list[tuple[Any, ...]]) -> None:
    """Whatever comes in whichever order, both give every order the same splits and the same end."""
    journal = journal_of(script)
    right = expected(journal, 3 * SECOND)
    got = run(journal)
    assert got.keys() == right.keys()
    for order_id, mine in got.items():
        assert mine == {key: right[order_id][key] for key in ("state", "reason", "splits")}, order_id


def oversold(journal: list[dict[str, Any]], got: dict[str, dict[str, Any]]) -> bool:
    """Say whether more was sold on a level than its first size and all its growth."""
    shown: dict[tuple[str, ...], dict[Decimal, Decimal]] = defaultdict(dict)
    allowed: dict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    sides = {row[1]: row[3] for each in journal for row in each["orders"]}
    for each in journal:
        for item in each["items"]:
            if item[0] == "quote":
                for side, price, size in (("sell", item[5], item[6]), ("buy", item[7], item[8])):
                    levels, best = shown[item[1], side], Decimal(price)
                    for gone in [p for p in levels if (p > best if side == "sell" else p < best)]:
                        del levels[gone]
                    allowed[item[1], side, best] += max(Decimal(0), Decimal(size) - levels.get(best, Decimal(0)))
                    levels[best] = Decimal(size)
    sold: dict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for order_id, mine in got.items():
        for venue, _, price, size, *_ in mine["splits"]:
            sold[venue, sides[order_id], price] += size
    return any(size > allowed[level] for level, size in sold.items())


@settings(max_examples=150, deadline=None)
@given(st.lists(moves, min_size=5, max_size=40))
def test_no_level_is_sold_beyond_what_it_showed(script: list[tuple[Any, ...]]) -> None:
    """On each level the sum sold is at most its first size and all its growth."""
    journal = journal_of(script)
    assert not oversold(journal, run(journal))


def test_a_forgetful_ledger_is_found() -> None:
    """The invariant can fail: it does for a ledger that forgets at each quote."""
    script: list[tuple[Any, ...]] = [("order", Side.SELL, "0.0008", "9", TimeInForce.GTC, None)]
    script += [("quote", "binance", "0.0008", "2", "0.000802", "1")] * 3
    journal = journal_of(script)
    assert not oversold(journal, run(journal))
    assert oversold(journal, run(journal, EachQuote))
