"""A state machine that drives a book and the oracle at once, and compares them after every step."""

from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal
from operator import add
from typing import Any, ClassVar
from unittest.mock import patch

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from models.domain.book import Book
from models.domain.instruments import Instrument, Instruments, Product
from models.domain.journal import entry
from models.domain.ledger import Ledger
from models.domain.orders import Order, OrderState, Side, TimeInForce
from models.domain.outcomes import Level, Outcome, StepResult, VenueSwitch
from models.domain.quotes import BusItem, Mark, Quote
from tests import oracle

SECOND = 1_000_000
SILENCE = 3 * SECOND
T0 = 1_000 * SECOND
TICK, LOT = Decimal("0.0001"), Decimal("0.01")
PRODUCTS = {
    "binance": {"LTC-BTC": "LTCBTC", "ETH-BTC": "ETHBTC"},
    "coinbase": {"LTC-BTC": "LTC-BTC", "ETH-BTC": "ETH-BTC"},
    "kraken": {"LTC-BTC": "LTC/BTC"},
}


def _instrument(symbol: str, *, finest: str) -> Instrument:
    # One venue has the finest steps of the pair, the others coarser ones.
    return Instrument(
        symbol[:3],
        symbol[4:],
        tuple(
            Product(venue, ids[symbol], TICK if venue == finest else 2 * TICK, LOT if venue == finest else 5 * LOT)
            for venue, ids in PRODUCTS.items()
            if symbol in ids
        ),
    )


PAIRS = Instruments([_instrument("LTC-BTC", finest="kraken"), _instrument("ETH-BTC", finest="binance")])
LISTED = {
    symbol: (TICK, LOT, frozenset(venue for venue, ids in PRODUCTS.items() if symbol in ids))
    for symbol in ("LTC-BTC", "ETH-BTC")
}

# Few prices and sizes, so that orders and quotes meet; some finer than the steps.
venues = st.sampled_from(["binance"] * 4 + ["coinbase", "kraken"])
symbols = st.sampled_from(["LTC-BTC"] * 5 + ["ETH-BTC"])
prices = st.sampled_from([10 * TICK, 11 * TICK, 12 * TICK, 13 * TICK])
offsets = st.sampled_from([Decimal(0)] * 5 + [TICK / 4, -TICK / 4])
sizes = st.sampled_from([LOT * number for number in (1, 2, 3, 7, 40)])
shown = st.sampled_from([LOT * Decimal(number) for number in ("0", "1", "2", "3", "3.6", "5", "8")])
pauses = st.sampled_from([1, SECOND // 2, SECOND // 2, SECOND - 1, SECOND, SECOND, SECOND, SILENCE - 1, SILENCE])
Key = tuple[str, str, str, Decimal]  # venue, product, side, price


class BookMachine(RuleBasedStateMachine):
    """A loop with its book, its collectors and its store, all as plain as can be."""

    make_book: ClassVar[Callable[..., Book]] = Book
    make_ledger: ClassVar[type[Ledger]] = Ledger
    hidden_max = 4_096

    def __init__(self) -> None:
        super().__init__()
        self.patches = [patch("models.domain.ledger.HIDDEN_MAX", self.hidden_max)]
        self.patches += [patch("tests.oracle.HIDDEN_MAX", self.hidden_max)]
        for each in self.patches:
            each.start()
        self.now = T0
        self.seq = 0
        self.tokens = dict.fromkeys(PRODUCTS, 1)
        self.sent: dict[tuple[str, int], list[Quote]] = defaultdict(list)  # by venue and token
        self.enabled = dict.fromkeys(PRODUCTS, True)
        # What is committed.
        self.rows: dict[int, Order] = {}
        self.levels: dict[Key, Decimal] = {}
        self.sold: dict[Key, Decimal] = defaultdict(Decimal)
        self.cancelling: set[int] = set()
        self.given: list[Quote] = []
        # What comes with the next step.
        self.items: list[BusItem] = []
        self.switches: list[VenueSwitch] = []
        self.cancels: list[int] = []
        self.orders: list[Order] = []
        self.begin()
        for venue in PRODUCTS:
            self.items.append(Mark(venue, 1, self.now))
        self.step(500)

    def teardown(self) -> None:
        """End whatever is patched, and look at what was sold in all."""
        for each in self.patches:
            each.stop()
        if self.hidden_max > len(self.given):
            allowed = _allowed(self.given)
            assert {key: size for key, size in self.sold.items() if size > allowed[key]} == {}

    @initialize(venue=venues, hungry=st.sampled_from([None, LOT, 40 * LOT, 40 * LOT]))
    def start(self, venue: str, hungry: Decimal | None) -> None:
        """A market to begin with, and orders that take whatever comes."""
        self.quote(venue, "LTC-BTC", (11 * TICK, 0, 5 * LOT), (12 * TICK, 0, 5 * LOT), "live", go=True)
        if hungry is not None:
            self.place("LTC-BTC", Side.SELL, 10 * TICK, hungry, TimeInForce.GTC, None, 1)
            self.place("LTC-BTC", Side.BUY, 13 * TICK, hungry, TimeInForce.GTC, None, 1)

    # What comes

    @rule(
        venue=venues,
        symbol=symbols,
        bid=st.tuples(prices, offsets, shown),
        ask=st.tuples(prices, offsets, shown),
        kind=st.sampled_from(["live"] * 9 + ["dead", "no bid", "no ask"]),
        go=st.booleans(),
    )
    def quote(self, venue: str, symbol: str, bid: Any, ask: Any, kind: str, go: bool) -> None:
        sent = self.sent[venue, self.tokens[venue]]
        (bid_price, bid_offset, bid_size), (ask_price, ask_offset, ask_size) = bid, ask
        made = Quote(
            venue,
            PRODUCTS[venue].get(symbol, PRODUCTS[venue]["LTC-BTC"]),
            self.tokens[venue],
            len(sent) + 1,
            None if kind == "no bid" else bid_price + bid_offset,
            bid_size,
            ask_price + ask_offset,
            None if kind == "no ask" else ask_size,
            kind != "dead",
            None,
            self.now,
        )
        sent.append(made)
        self.take(made, go=go)

    @rule(
        venue=venues,
        symbol=symbols,
        ticks=st.sampled_from([0, 0, 0, 1, -1]),
        dips=st.tuples(shown, shown),
        pause=pauses,
        sizes=st.one_of(st.none(), st.tuples(shown, shown)),
    )
    def something_else_for_a_while(
        self, venue: str, symbol: str, ticks: int, dips: Any, pause: int, sizes: Any
    ) -> None:
        """A product shows other sizes or prices, and then what it showed before, or that in other sizes."""
        sent = self.sent[venue, self.tokens[venue]]
        last = [each for each in sent if each.product_id == PRODUCTS[venue].get(symbol) and each.live]
        if not last or last[-1].bid_price is None or last[-1].ask_price is None:
            return
        bid, ask = last[-1].bid_price, last[-1].ask_price
        before = (last[-1].bid_size, last[-1].ask_size)
        for wait, move, (bid_size, ask_size) in ((0, ticks * TICK, dips), (pause, 0, sizes or before)):
            self.now += wait
            self.items.append(Mark(venue, self.tokens[venue], self.now))
            made = (bid + move, bid_size, ask + move, ask_size, True, None, self.now)
            sent.append(Quote(venue, last[-1].product_id, self.tokens[venue], len(sent) + 1, *made))
            self.take(sent[-1], go=True)

    @rule(venue=venues, back=st.integers(1, 4), older=st.integers(0, 2))
    def quote_that_comes_again(self, venue: str, back: int, older: int) -> None:
        sent = self.sent[venue, self.tokens[venue] - older]
        if sent:
            self.take(sent[-min(back, len(sent))], go=True)

    @rule(venue=venues, back=st.integers(2, 5))
    def quote_that_is_lost(self, venue: str, back: int) -> None:
        sent = self.sent[venue, self.tokens[venue]]
        if sent:
            sent.append(replace_number(sent[-min(back, len(sent))], len(sent) + 1))

    @rule(venue=venues, sizes=st.tuples(shown, shown))
    def overlap(self, venue: str, sizes: Any) -> None:
        """A new connection takes over, and the old one goes on."""
        before = self.sent[venue, self.tokens[venue]]
        if not before:
            return
        self.reconnect(venue, marked=True)
        last, after = before[-1], self.sent[venue, self.tokens[venue]]
        rest = (last.bid_price, last.bid_size, last.ask_price, last.ask_size, last.live, None, self.now)
        after.append(Quote(venue, last.product_id, self.tokens[venue], 1, *rest))
        self.take(after[-1], go=True)
        other = (last.bid_price, sizes[0], last.ask_price, sizes[1], True, None, self.now)
        before.append(Quote(venue, last.product_id, last.token, len(before) + 1, *other))
        self.take(before[-1], go=True)

    @rule(
        bids=st.tuples(prices, prices, prices),
        asks=st.tuples(prices, prices, prices),
        sizes=st.tuples(shown, shown),
        side=st.sampled_from(list(Side)),
        word=st.sampled_from([TimeInForce.IOC, TimeInForce.FOK]),
    )
    def all_over(self, bids: Any, asks: Any, sizes: Any, side: Side, word: TimeInForce) -> None:
        """All venues show the same sizes, and somebody takes two thirds of that, or exactly all or nothing."""
        for venue, bid, ask in zip(PRODUCTS, bids, asks, strict=True):
            self.quote(venue, "LTC-BTC", (bid, 0, sizes[0]), (ask, 0, sizes[1]), "live", go=False)
        self.step(500)
        price, size = (min(bids), sizes[0]) if side is Side.SELL else (max(asks), sizes[1])
        count = 3 if word is TimeInForce.FOK else 2
        self.place("LTC-BTC", side, price, count * (size // LOT * LOT) or LOT, word, None, 1)

    @rule(venue=venues, older=st.sampled_from([0, 0, 0, 1]), go=st.booleans())
    def mark(self, venue: str, older: int, go: bool) -> None:
        self.take(Mark(venue, max(1, self.tokens[venue] - older), self.now), go=go)

    @rule(venue=venues, marked=st.sampled_from([True, True, True, False]))
    def reconnect(self, venue: str, marked: bool) -> None:
        self.tokens[venue] += 1
        if marked:
            self.take(Mark(venue, self.tokens[venue], self.now), go=True)

    @rule(
        item=st.sampled_from(
            [Mark("nowhere", 1, T0), Quote("nowhere", "LTCBTC", 1, 1, TICK, LOT, TICK, LOT, True, None, T0)]
        )
    )
    def stranger(self, item: BusItem) -> None:
        self.items.append(item)

    def take(self, item: Mark | Quote, *, go: bool) -> None:
        self.items.append(item)
        if isinstance(item, Quote):
            self.given.append(item)
        if go:
            self.step(500)

    @rule(
        symbol=st.sampled_from(["LTC-BTC"] * 15 + ["ETH-BTC"] * 3 + ["DOGE-BTC"]),
        side=st.sampled_from(list(Side)),
        limit=st.builds(add, prices, st.sampled_from([Decimal(0)] * 30 + [TICK / 2])),
        size=sizes,
        word=st.sampled_from([TimeInForce.GTC, TimeInForce.GTC, TimeInForce.GTD, TimeInForce.IOC, TimeInForce.FOK]),
        allowed=st.sampled_from([None, None, None, {"binance"}, {"coinbase", "kraken"}, {"kraken", "nowhere"}]),
        ends=st.one_of(st.just(0), pauses),
    )
    def place(
        self,
        symbol: str,
        side: Side,
        limit: Decimal,
        size: Decimal,
        word: TimeInForce,
        allowed: set[str] | None,
        ends: int,
    ) -> None:
        self.seq += 1
        made = Order(
            seq=self.seq,
            id=str(self.seq),
            job_id="",
            owner_id="",
            symbol=symbol,
            side=side,
            price=limit,
            size=size,
            time_in_force=word,
            venues=frozenset(allowed) if allowed else None,
            deadline_us=self.now + ends if word is TimeInForce.GTD else None,
        )
        self.rows[made.seq] = made
        self.orders.append(made)
        if self.seq % 4:
            self.step(500)

    @rule(which=st.integers(0, 9), go=st.booleans())
    def cancel(self, which: int, go: bool) -> None:
        working = [seq for seq, row in self.rows.items() if not row.state.ended]
        if working:
            self.cancels.append(working[which % len(working)])
        if go:
            self.step(500)

    @rule(us=pauses, silent=st.sampled_from([False] * 5 + [True]))
    def time(self, us: int, silent: bool) -> None:
        self.now += us
        if not silent:
            self.items += [Mark(venue, token, self.now) for venue, token in self.tokens.items()]

    @rule(venue=venues, enabled=st.sampled_from([True, True, True, False]), go=st.booleans())
    def switch(self, venue: str, enabled: bool, go: bool) -> None:
        self.enabled[venue] = enabled
        self.switches.append(VenueSwitch(venue, enabled))
        if go:
            self.step(500)

    @rule(early=st.sampled_from([0, 0, 1]))
    def to_the_deadline(self, early: int) -> None:
        deadline = None if self.more else self.book.next_deadline_us
        if deadline is not None:
            self.now = max(self.now, deadline - early)
            self.step(500)

    @rule(bound=st.sampled_from([1, 2, 500]))
    def run(self, bound: int) -> None:
        self.step(bound)

    @rule(bound=st.sampled_from([1, 2]))
    def run_in_part(self, bound: int) -> None:
        """More comes in before what came before is worked."""
        self.step(bound, drain=False)

    # The book's life

    @rule(lost=st.booleans())
    def restart(self, lost: bool) -> None:
        """A new owner starts from what was committed; the last step of the old one may be lost."""
        self.step(500, lost=lost)
        self.begin()
        self.orders = [row for row in self.rows.values() if row.state is OrderState.WORKING]
        self.step(500)
        self.orders = [row for row in self.rows.values() if row.state is OrderState.QUEUED]
        self.step(500)

    def begin(self) -> None:
        off = [venue for venue, enabled in self.enabled.items() if not enabled]
        levels = [
            Level(venue, product, Side(side), price, size)
            for (venue, product, side, price), size in self.levels.items()
        ]
        self.book = type(self).make_book(
            PAIRS, levels=levels, disabled=off, silence_us=SILENCE, ledger=type(self).make_ledger
        )
        self.right = oracle.Oracle(SILENCE, LISTED)
        self.right.off = set(off)
        for (venue, product, side, price), size in self.levels.items():
            made = self.right.side(venue, product, side)
            made.taken[price] = size
        self.seen: dict[str, tuple[str, int]] = {}
        self.results: list[StepResult] = []
        self.more = False
        self.switches, self.cancels, self.items, self.orders = [], [], [], []

    def step(self, bound: int, *, drain: bool = True, lost: bool = False) -> None:
        """Hand what came to both, and compare them once the book has no work left."""
        if self.more and not (self.items or self.switches or self.cancels or self.orders):
            self.items.append(Mark("nowhere", 1, self.now))  # an empty step would only go on with the last one
        inputs = (self.items, self.switches, self.cancels, self.orders)
        self.switches, self.cancels, self.items, self.orders = [], [], [], []
        self.right.step(entry(self.now, *inputs))
        names = ("items", "switches", "cancels", "orders")
        result = self.book.step(self.now, **dict(zip(names, inputs, strict=True)), outcomes_max=bound)  # type: ignore[arg-type] # in this order
        self.results.append(result)
        while drain and result.more:
            result = self.book.step(self.now, outcomes_max=bound)
            self.results.append(result)
        self.more = result.more
        if not self.more and not lost:
            self.compare()

    # What must hold

    def compare(self) -> None:
        results, self.results = self.results, []
        due = self.due()
        got: dict[str, list[Any]] = {}
        for outcome in (each for result in results for each in result.outcomes):
            self.commit(outcome)
            mine = got.setdefault(outcome.order.id, [None, None, []])
            mine[:2] = outcome.state.value, outcome.reason.value if outcome.reason else None
            mine[2] += [
                (s.venue, s.product_id, s.price, s.size, s.token, s.quote_number, s.shown, s.taken_before)
                for s in outcome.splits
            ]
        assert got == due
        filled = {(each[0], each[1], self.right.orders[oid]["side"]) for oid, mine in got.items() for each in mine[2]}
        for level in (each for result in results for each in result.levels):
            key = (level.venue, level.product_id, level.side.value, level.price)
            self.levels[key] = level.taken
            if not level.taken:
                del self.levels[key]
        self.compare_levels(filled if len(results) == 1 else set())

    def due(self) -> dict[str, list[Any]]:
        """Return what the oracle says was done to each order since the last comparison."""
        due = {}
        for order_id, order in self.right.orders.items():
            row = self.rows[order["seq"]]
            state, count = self.seen.get(order_id, ("queued" if row.state is OrderState.QUEUED else "working", 0))
            if state != order["state"] or count < len(order["splits"]):
                new = zip(order["splits"][count:], order["found"][count:], strict=True)
                due[order_id] = [order["state"], order["reason"], [(*split, *found) for split, found in new]]
            self.seen[order_id] = (order["state"], len(order["splits"]))
        return due

    def commit(self, outcome: Outcome) -> None:
        """Make an outcome true, where it may be."""
        order = outcome.order
        assert order == self.rows[order.seq], "the book thinks otherwise of the order than what is committed"
        assert not order.state.ended
        filled = order.filled_size
        for split in outcome.splits:
            filled += split.size
            assert split.size > 0
            assert split.price >= order.price if order.side is Side.SELL else split.price <= order.price
            assert order.deadline_us is None or outcome.time_us < order.deadline_us
            assert order.venues is None or split.venue in order.venues
            self.sold[split.venue, split.product_id, split.side.value, split.price] += split.size
        assert filled <= order.size
        assert (filled == order.size) is (outcome.state is OrderState.FILLED)
        value = sum((split.size * split.price for split in outcome.splits), order.filled_value)
        self.rows[order.seq] = msgspec.structs.replace(
            order, state=outcome.state, filled_size=filled, filled_value=value
        )

    def compare_levels(self, filled: set[tuple[str, str, str]]) -> None:
        for venue in self.book._venues.values():
            for product in venue.products.values():
                for side, ledger in product.ledgers.items():
                    place = (venue.name, product.id, side.value)
                    mine = {price * TICK: size * LOT for price, size in ledger.taken.items()}
                    right = self.right.sides.get(place, oracle.Side(side is Side.SELL))
                    assert mine == {price: size for price, size in right.taken.items() if size}
                    stored = {key[3]: size for key, size in self.levels.items() if key[:3] == place}
                    # What was forgotten is stored with the next fill: until then more is stored as taken.
                    assert all(stored.get(price, 0) >= size for price, size in mine.items())
                    assert place not in filled or stored == mine

    @invariant()
    def the_same_orders_rest(self) -> None:
        if self.more:
            return
        mine = {(seq, resting.left * LOT) for seq, resting in self.book._resting.items()}
        assert mine == {(order["seq"], order["left"]) for order in self.right.open}
        deadlines = [order["deadline"] for order in self.right.open if order["deadline"] is not None]
        assert self.book.next_deadline_us == min(deadlines, default=None)
        queued = sum(
            len(q) for s in self.book._symbols.values() for queues in s.queues.values() for q in queues.values()
        )
        assert queued == len(self.book)


def replace_number(quote: Quote, number: int) -> Quote:
    """Return the quote under another number."""
    values = [getattr(quote, name) for name in quote.__struct_fields__]
    values[quote.__struct_fields__.index("number")] = number
    return Quote(*values)


def _allowed(quotes: list[Quote]) -> dict[Key, Decimal]:
    """Return first size plus all growth of each level, in steps, as the quotes came in."""
    rounding = oracle.Oracle(SILENCE, LISTED)
    showing: dict[tuple[str, str, str], dict[Decimal, Decimal]] = defaultdict(dict)
    allowed: dict[Key, Decimal] = defaultdict(Decimal)
    for quote in quotes:
        for side, raw, raw_size in (
            ("sell", quote.bid_price, quote.bid_size),
            ("buy", quote.ask_price, quote.ask_size),
        ):
            place = (quote.venue, quote.product_id, side)
            if not quote.live:
                continue
            if raw is None or raw_size is None:
                showing[place].clear()
                continue
            price, size = rounding.rounded(quote.product_id, side, raw, raw_size)
            levels = showing[place]
            for better in [p for p in levels if (p > price if side == "sell" else p < price)]:
                del levels[better]
            allowed[*place, price] += max(Decimal(0), size - levels.get(price, Decimal(0)))
            levels[price] = size
    return allowed
