"""The book that matches orders against what venues show. Pure: no IO, no clock, integers inside.

`Book.step` takes what came since the last step, in the order in which it is judged: venues switched
on or off, deadlines, cancels, quotes and marks one by one, silence, new orders one by one. The same
inputs give the same outcomes, so replay, audit and what-if are the same function.

Symbols share nothing but the word of their venues. So each has inputs of its own: where one has more
to do than fits into a step, its later inputs wait behind that in their order, and other symbols are
served in between.
"""

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import localcontext
from math import inf
from typing import Any

from models.domain.decimals import EXACT
from models.domain.instruments import Instrument, Instruments
from models.domain.ledger import Ledger
from models.domain.offers import BUY, SELL, SEQ_BITS, SEQ_MASK, Offer, Resting, Symbol, Venue, VenueProduct
from models.domain.orders import Order, OrderState, Reason, Side, TimeInForce
from models.domain.outcomes import Level, Outcome, Split, StepResult, VenueSwitch
from models.domain.quotes import BusItem, Mark, Quote
from models.domain.waiting import nearest

OUTCOMES_MAX = 500

QUEUED, WORKING, FILLED = OrderState.QUEUED, OrderState.WORKING, OrderState.FILLED  # as in offers


class Book:
    """Resting orders and displayed liquidity of a set of instruments.

    `levels` are those of an earlier book, as committed; `disabled` the venues that are switched off;
    `tokens` the newest connection token of each venue that is known: older ones count for nothing.
    """

    def __init__(
        self,
        instruments: Instruments,
        *,
        levels: Iterable[Level] = (),
        disabled: Iterable[str] = (),
        tokens: Mapping[str, int] | None = None,
        silence_us: int = 3_000_000,
        ledger: Callable[[Side], Ledger] = Ledger,
    ) -> None:
        self._silence_us = silence_us
        self._now_us = 0
        self._venues: dict[str, Venue] = {}
        self._symbols: dict[str, Symbol] = {}
        self._nowhere = Symbol(Instrument("", "", ()))  # of orders for instruments that are gone
        self._resting: dict[int, Resting] = {}
        self._unplaced: dict[int, Symbol] = {}  # orders that wait for their turn
        # When a symbol must look at its deadlines: at the earliest of them, or sooner.
        self._alarms: list[tuple[int, str]] = []
        self._busy: deque[Symbol] = deque()  # whose turn comes next
        self._outcomes: dict[int, Outcome] = {}
        self._filling: dict[int, Resting] = {}
        self._touched: set[Offer] = set()
        off = frozenset(disabled)
        for instrument in instruments:
            symbol = self._symbols[instrument.symbol] = Symbol(instrument)
            # Of two venues with the same price the first in the alphabet is taken: a rule that no table changes.
            for product in sorted(instrument.books, key=lambda each: each.venue):
                venue = self._venues.setdefault(product.venue, Venue(product.venue, enabled=product.venue not in off))
                made = venue.products[product.id] = VenueProduct(venue, product.id, symbol, ledger)
                symbol.products.append(made)
        for name, token in (tokens or {}).items():
            if name in self._venues:
                self._venues[name].token = token
        with localcontext(EXACT):
            for level in levels:
                self._restore(level)

    def __len__(self) -> int:
        return len(self._resting)

    @property
    def unplaced(self) -> Collection[int]:
        """The sequences of orders that were given to it and wait for their turn."""
        return self._unplaced.keys()

    @property
    def next_deadline_us(self) -> int | None:
        """When the next open order may expire; None where none has a deadline."""
        while self._alarms:
            due_us, name = self._alarms[0]
            first_us = self._first_deadline(self._symbols[name])
            if first_us == due_us:
                return due_us
            heapq.heappop(self._alarms)
            if first_us is not None:
                heapq.heappush(self._alarms, (first_us, name))
        return None

    def _first_deadline(self, symbol: Symbol) -> int | None:
        deadlines = symbol.deadlines
        while deadlines and deadlines[0][1] not in self._resting:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def step(
        self,
        now_us: int,
        *,
        items: Sequence[BusItem] = (),
        switches: Sequence[VenueSwitch] = (),
        cancels: Sequence[int] = (),
        orders: Sequence[Order] = (),
        outcomes_max: int = OUTCOMES_MAX,
    ) -> StepResult:
        """Take in what came and return what it did, at most `outcomes_max` orders at a time.

        Where more is to be done, `more` is True: what is left stays inside and is worked, at the time
        of its own step, by the next calls, together with what they bring. Symbols take turns. Time never goes back.
        """
        self._now_us = max(self._now_us, now_us)
        with localcontext(EXACT):
            self._begin(switches, cancels)
            for item in items:
                if isinstance(item, Quote):
                    self._take_quote(item)
                elif isinstance(item, Mark):
                    self._take_mark(item)
            self._silence()
            self._receive(orders, frozenset(cancels))
            self._work(outcomes_max)
            return self._result()

    # Whose turn it is

    def _later(self, symbol: Symbol, act: Callable[..., None], *about: Any) -> None:  # noqa: ANN401 -- what it is told
        """Do something with a symbol after what it has still to do."""
        symbol.inputs.append((self._now_us, act, about))
        if not symbol.busy:
            self._wait(symbol)

    def _wait(self, symbol: Symbol) -> None:
        symbol.busy = True
        self._busy.append(symbol)

    def _unmatch(self, symbol: Symbol, side: Side) -> None:
        if side not in symbol.unmatched:
            symbol.unmatched.append(side)
        if not symbol.busy:
            self._wait(symbol)

    def _work(self, outcomes_max: int) -> None:
        """Give each symbol that has something to do an even share of the outcomes, in turn, until none is left."""
        while self._busy and (room := outcomes_max - self._done()) > 0:
            symbol = self._busy.popleft()
            self._turn(symbol, self._done() + max(1, room // (len(self._busy) + 1)))
            symbol.busy = bool(symbol.inputs or symbol.unmatched)
            if symbol.busy:
                self._busy.append(symbol)

    def _turn(self, symbol: Symbol, outcomes_max: int) -> None:
        inputs, unmatched, outcomes, filling = symbol.inputs, symbol.unmatched, self._outcomes, self._filling
        while len(outcomes) + len(filling) < outcomes_max:
            if unmatched:
                if self._match(symbol, unmatched[0], outcomes_max):
                    del unmatched[0]
            elif inputs:
                symbol.now_us, act, about = inputs.popleft()
                act(*about)
            else:
                break

    def _done(self) -> int:
        return len(self._outcomes) + len(self._filling)

    # What a step begins and ends with

    def _begin(self, switches: Sequence[VenueSwitch], cancels: Sequence[int]) -> None:
        for switch in switches:
            venue = self._venues.get(switch.venue)
            if venue is not None and venue.enabled is not switch.enabled:
                venue.enabled = switch.enabled
                self._tell(venue)
        # An order that waits to be placed may be due as soon as it rests.
        due = dict.fromkeys(self._busy)
        while self._alarms and self._alarms[0][0] <= self._now_us:
            due[self._symbols[heapq.heappop(self._alarms)[1]]] = None
        for symbol in due:
            self._later(symbol, self._expire, symbol)
        for seq in cancels:
            resting = self._resting.get(seq)
            found = self._unplaced.get(seq) if resting is None else resting.queue.symbol
            if found is not None:
                self._later(found, self._cancel, seq)

    def _expire(self, symbol: Symbol) -> None:
        first_us = self._first_deadline(symbol)
        if first_us is None:
            return
        if first_us <= symbol.now_us:
            self._end(self._resting[symbol.deadlines[0][1]], OrderState.EXPIRED, Reason.DEADLINE)
            symbol.inputs.appendleft((symbol.now_us, self._expire, (symbol,)))
        else:
            heapq.heappush(self._alarms, (first_us, symbol.instrument.symbol))

    def _cancel(self, seq: int) -> None:
        resting = self._resting.get(seq)
        if resting is not None:
            self._end(resting, OrderState.CANCELLED, Reason.CANCELLED)

    def _receive(self, orders: Sequence[Order], cancelled: frozenset[int]) -> None:
        for order in orders:
            symbol = self._symbols.get(order.symbol, self._nowhere)
            if order.seq not in self._unplaced:
                self._unplaced[order.seq] = symbol
                self._later(symbol, self._place, symbol, order, order.seq in cancelled)

    # What venues say

    def _tell(self, venue: Venue, *, blind: bool = False) -> None:
        """Tell all products of a venue whether it sells, each after what it has heard before."""
        for product in venue.products.values():
            symbol = product.symbol
            about = (product, venue.enabled and venue.fed, blind)
            if symbol.busy:
                self._later(symbol, self._hear, *about)
            else:
                symbol.now_us = self._now_us
                self._hear(*about)

    def _hear(self, product: VenueProduct, open_: bool, blind: bool) -> None:  # noqa: FBT001 -- from the queue of inputs
        product.hear(open_=open_, blind=blind)
        if open_:
            self._unmatch(product.symbol, SELL)
            self._unmatch(product.symbol, BUY)

    def _take_mark(self, mark: Mark) -> None:
        venue = self._venues.get(mark.venue)
        if venue is not None and self._admit(venue, mark.token):
            venue.marked_us = self._now_us
            if not venue.fed:
                venue.fed = True
                self._tell(venue)

    def _admit(self, venue: Venue, token: int) -> bool:
        """Say whether a connection's word counts; a newer one makes everything older unbelievable."""
        if token > venue.token:
            venue.token = token
            venue.fed = False
            self._tell(venue, blind=True)
        return token == venue.token

    def _take_quote(self, quote: Quote) -> None:
        venue = self._venues.get(quote.venue)
        if venue is None or not (quote.token == venue.token or self._admit(venue, quote.token)):
            return
        product = venue.products.get(quote.product_id)
        if product is None or (product.token == quote.token and quote.number <= product.number):
            return
        product.token, product.number = quote.token, quote.number
        symbol = product.symbol
        if symbol.busy:
            symbol.inputs.append((self._now_us, self._show, (product, quote)))
        else:
            symbol.now_us = self._now_us
            self._show(product, quote)

    def _show(self, product: VenueProduct, quote: Quote) -> None:
        product.quote, product.live = quote, quote.live
        if not quote.live:
            product.bids.blind()  # it says nothing of what is shown, and the doubt goes against selling
            product.asks.blind()
            return
        now_us = product.symbol.now_us
        if product.bids.show(now_us, quote.bid_price, quote.bid_size):
            self._unmatch(product.symbol, SELL)
        if product.asks.show(now_us, quote.ask_price, quote.ask_size):
            self._unmatch(product.symbol, BUY)

    def _silence(self) -> None:
        for venue in self._venues.values():
            if venue.fed and self._now_us - venue.marked_us >= self._silence_us:
                venue.fed = False
                self._tell(venue, blind=True)

    # Matching

    def _match(self, symbol: Symbol, side: Side, outcomes_max: int) -> bool:
        """Fill the first order by price, then accept sequence, from its best venue, until none crosses.

        Returns False where it stopped at `outcomes_max` orders with work left.
        """
        queues, outcomes, filling = symbol.queues[side].values(), self._outcomes, self._filling
        while True:
            first: float = inf
            source: Offer | None = None
            for queue in queues:
                if queue.head < first and (offer := queue.best(queue.first)) is not None:
                    first, source = queue.head, offer
            if source is None:
                return True
            seq = int(first) & SEQ_MASK
            if len(outcomes) + len(filling) >= outcomes_max and seq not in filling:
                return False
            self._fill(self._resting[seq], source)

    def _fill(self, resting: Resting, offer: Offer) -> None:
        offer.sell(resting)
        self._touched.add(offer)
        if resting.left:
            self._filling[resting.order.seq] = resting
        else:
            self._end(resting, FILLED, None)

    # Orders come and go

    def _place(self, symbol: Symbol, order: Order, cancelled: bool) -> None:  # noqa: FBT001 -- from the queue of inputs
        del self._unplaced[order.seq]
        try:
            self._place_checked(symbol, order, cancelled=cancelled)
        except Exception:  # noqa: BLE001 -- whatever one order holds, the others never wait for it
            # What it took from ledgers stays taken: the doubt goes against selling.
            self._resting.pop(order.seq, None)
            self._filling.pop(order.seq, None)
            self._outcomes[order.seq] = Outcome(order, OrderState.REJECTED, Reason.STEP_FAILED, (), symbol.now_us)

    def _place_checked(self, symbol: Symbol, order: Order, *, cancelled: bool) -> None:
        if order.seq in self._resting:
            return
        instrument = symbol.instrument
        venues = instrument.venues & order.venues if order.venues else instrument.venues
        if not venues:
            self._outcomes[order.seq] = Outcome(order, *_gone(order), (), symbol.now_us)
            return
        limit = instrument.scale_price(order.price)
        left = instrument.scale_size(order.size - order.filled_size)
        key = ((limit if order.side is SELL else -limit) << SEQ_BITS) + order.seq
        resting = Resting(order, key, left, symbol.queue(order.side, venues))
        if order.deadline_us is not None and order.deadline_us <= symbol.now_us:
            self._end(resting, OrderState.EXPIRED, Reason.DEADLINE)
        elif cancelled:
            self._end(resting, OrderState.CANCELLED, Reason.CANCELLED)
        elif order.time_in_force is TimeInForce.FOK and self._fillable(resting) < left:
            self._end(resting, OrderState.EXPIRED, Reason.FOK)
        else:
            self._rest(symbol, resting)

    def _fillable(self, resting: Resting) -> int:
        return sum(offer.ledger.left for offer in resting.queue.offers if resting.limit <= offer.reach)

    def _rest(self, symbol: Symbol, resting: Resting) -> None:
        order, queue = resting.order, resting.queue
        # Whoever was here before has been served, so the new order takes what is left, and it alone.
        while (offer := queue.best(resting.limit)) is not None:
            self._fill(resting, offer)
            if resting.left == 0:
                return
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            self._end(resting, OrderState.EXPIRED, Reason(order.time_in_force.lower()))
            return
        queue.add(resting.key)
        self._resting[order.seq] = resting
        if order.deadline_us is not None:
            heapq.heappush(symbol.deadlines, (order.deadline_us, order.seq))
            if symbol.deadlines[0][1] == order.seq:
                heapq.heappush(self._alarms, (order.deadline_us, symbol.instrument.symbol))
        if order.state is QUEUED:
            self._filling.setdefault(order.seq, resting)

    def _end(self, resting: Resting, state: OrderState, reason: Reason | None) -> None:
        order = resting.order
        if self._resting.pop(order.seq, None) is not None:
            resting.queue.remove(resting.key)
        self._filling.pop(order.seq, None)
        splits = tuple(resting.splits or ())
        self._outcomes[order.seq] = Outcome(order, state, reason, splits, resting.queue.symbol.now_us)

    def _result(self) -> StepResult:
        for seq, resting in self._filling.items():
            order, splits = resting.order, tuple(resting.splits or ())
            self._outcomes[seq] = Outcome(order, WORKING, None, splits, resting.queue.symbol.now_us)
            resting.order = _worked(order, splits)
            resting.splits = None
        outcomes = list(self._outcomes.values())
        self._outcomes, self._filling = {}, {}
        return StepResult(outcomes, self._changed(), bool(self._busy))

    # Levels

    def _restore(self, level: Level) -> None:
        venue = self._venues.get(level.venue)
        product = venue.products.get(level.product_id) if venue is not None else None
        if product is not None and level.taken:
            product.offer(level.side).restore(level)

    def _changed(self) -> list[Level]:
        levels = [level for offer in self._touched for level in offer.changed()]
        self._touched.clear()
        return levels

    # Why an order waits

    def waiting_reason(self, seq: int) -> Reason | None:
        """Say why an open order is not filled now; None where it is not in the book."""
        resting = self._resting.get(seq)
        if resting is None:
            return None
        limit, offers = resting.limit, resting.queue.offers
        reached = [Reason.TAKEN_BY_OTHERS if limit <= offer.price else Reason.OUTSIDE_LIMIT for offer in offers]
        return nearest(offer.product.shut or reason for offer, reason in zip(offers, reached, strict=True))

    def waiting_counts(self) -> dict[Reason, int]:
        """Count the open orders by why each is not filled now; a queue is asked once, however many are in it."""
        counts: dict[Reason, int] = {}
        for symbol in self._symbols.values():
            for queues in symbol.queues.values():
                for queue in queues.values():
                    if queue:
                        queue.count(counts)
        return counts


def _gone(order: Order) -> tuple[OrderState, Reason]:
    # An order that works cannot be rejected any more: what it got is kept, the rest expires.
    state = OrderState.REJECTED if order.state is QUEUED else OrderState.EXPIRED
    return state, Reason.INSTRUMENT_GONE


def _worked(order: Order, splits: Iterable[Split]) -> Order:
    """Return the order as it is once these splits are committed."""
    size, value = order.filled_size, order.filled_value
    for split in splits:
        size += split.size
        value += split.price * split.size
    return Order(
        order.seq,
        order.id,
        order.job_id,
        order.owner_id,
        order.symbol,
        order.side,
        order.price,
        order.size,
        order.time_in_force,
        order.venues,
        order.deadline_us,
        WORKING,
        size,
        value,
    )
