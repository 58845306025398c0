"""The book that matches orders against what venues show. Pure: no IO, no clock, integers inside.

`Book.step` takes what came since the last step, in the order in which it is judged: venues switched
on or off, deadlines, cancels, quotes and marks one by one, silence, new orders one by one. The same
inputs give the same outcomes, so replay, audit and what-if are the same function.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from math import inf

from sortedcontainers import SortedDict

from models.domain.decimals import EXACT
from models.domain.instruments import Instrument, Instruments
from models.domain.ledger import Ledger
from models.domain.orders import Order, OrderState, Reason, Side, TimeInForce
from models.domain.outcomes import Level, Outcome, Split, StepResult, VenueSwitch
from models.domain.quotes import BusItem, Mark, Quote
from models.domain.waiting import nearest

OUTCOMES_MAX = 500


class _Resting:
    """An order in the book; `left` in lots, `key` sorts by price, then accept sequence."""

    __slots__ = ("key", "left", "limit", "order", "queue", "splits")

    def __init__(self, order: Order, limit: int, left: int) -> None:
        self.order = order
        self.limit = limit
        self.left = left
        self.key = (limit if order.side is Side.SELL else -limit, order.seq)
        self.queue: SortedDict | None = None
        self.splits: list[Split] = []


class _Product:
    """One venue product: its two ledgers and the quote that they show."""

    __slots__ = ("id", "ledgers", "live", "number", "quote", "symbol", "token", "venue")

    def __init__(self, venue: "_Venue", product_id: str, symbol: "_Symbol", ledger: Callable[[Side], Ledger]) -> None:
        self.venue = venue
        self.id = product_id
        self.symbol = symbol
        self.ledgers = {side: ledger(side) for side in Side}
        self.token = 0
        self.number = 0
        self.quote: Quote | None = None  # None: nothing to be believed yet
        self.live = False

    def blind(self) -> None:
        self.quote = None
        for ledger in self.ledgers.values():
            ledger.blind()

    def available(self, side: Side, now_us: int) -> int:
        if self.quote is None or not self.venue.enabled or not self.venue.fed:
            return 0
        return self.ledgers[side].available(now_us)


class _Venue:
    __slots__ = ("enabled", "fed", "marked_us", "name", "products", "token")

    def __init__(self, name: str, *, enabled: bool) -> None:
        self.name = name
        self.enabled = enabled
        self.products: dict[str, _Product] = {}
        self.token = 0
        self.fed = False
        self.marked_us = 0


@dataclass
class _Symbol:
    instrument: Instrument
    products: list[_Product] = field(default_factory=list)
    # One sorted structure for each side and set of allowed venues, so that no quote walks past
    # orders that may not use it.
    queues: dict[Side, dict[frozenset[str], SortedDict]] = field(default_factory=lambda: {side: {} for side in Side})


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
        self._venues: dict[str, _Venue] = {}
        self._symbols: dict[str, _Symbol] = {}
        self._resting: dict[int, _Resting] = {}
        self._deadlines: list[tuple[int, int]] = []
        self._inputs: deque[Callable[[], None]] = deque()
        self._unmatched: dict[tuple[str, Side], None] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._filling: dict[int, _Resting] = {}
        self._touched: set[tuple[str, str, Side]] = set()
        off = frozenset(disabled)
        for instrument in instruments:
            symbol = self._symbols[instrument.symbol] = _Symbol(instrument)
            # Of two venues with the same price the first in the alphabet is taken: a rule that no table changes.
            for product in sorted(instrument.books, key=lambda each: each.venue):
                venue = self._venues.setdefault(product.venue, _Venue(product.venue, enabled=product.venue not in off))
                made = venue.products[product.id] = _Product(venue, product.id, symbol, ledger)
                symbol.products.append(made)
        for name, token in (tokens or {}).items():
            if name in self._venues:
                self._venues[name].token = token
        for level in levels:
            self._restore(level)

    def __len__(self) -> int:
        return len(self._resting)

    @property
    def next_deadline_us(self) -> int | None:
        """When the next open order may expire; None where none has a deadline."""
        while self._deadlines and self._deadlines[0][1] not in self._resting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

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
        """Take in what came and return what it did, at most about `outcomes_max` orders at a time.

        Where more is to be done, `more` is True: what is left of the inputs stays inside and is
        worked, at the time of its own step, by the next call. Time never goes back.
        """
        if switches or cancels or items or orders or not self._inputs:
            self._queue(now_us, items, switches, cancels, orders)
        while len(self._outcomes) + len(self._filling) < outcomes_max:
            if self._unmatched:
                symbol, side = next(iter(self._unmatched))
                if self._match(self._symbols[symbol], side, outcomes_max):
                    del self._unmatched[symbol, side]
            elif self._inputs:
                self._inputs.popleft()()
            else:
                break
        return self._result()

    def _queue(
        self,
        now_us: int,
        items: Sequence[BusItem],
        switches: Sequence[VenueSwitch],
        cancels: Sequence[int],
        orders: Sequence[Order],
    ) -> None:
        inputs = self._inputs
        cancelled = frozenset(cancels)
        inputs.append(lambda: self._begin(now_us, switches, cancels))
        inputs.extend((lambda item=item: self._take(item)) for item in items)  # type: ignore[misc] # a bound default
        inputs.append(self._silence)
        inputs.extend(
            (lambda order=order: self._place(order, cancelled=order.seq in cancelled))  # type: ignore[misc] # likewise
            for order in orders
        )

    def _begin(self, now_us: int, switches: Sequence[VenueSwitch], cancels: Sequence[int]) -> None:
        self._now_us = max(self._now_us, now_us)
        for switch in switches:
            venue = self._venues.get(switch.venue)
            if venue is not None and venue.enabled is not switch.enabled:
                venue.enabled = switch.enabled
                for product in venue.products.values():
                    self._rematch(product.symbol)
        while self._deadlines and self._deadlines[0][0] <= self._now_us:
            resting = self._resting.get(heapq.heappop(self._deadlines)[1])
            if resting is not None:
                self._end(resting, OrderState.EXPIRED, Reason.DEADLINE)
        for seq in cancels:
            resting = self._resting.get(seq)
            if resting is not None:
                self._end(resting, OrderState.CANCELLED, Reason.CANCELLED)

    def _rematch(self, symbol: _Symbol) -> None:
        for side in Side:
            self._unmatched[symbol.instrument.symbol, side] = None

    # What venues say

    def _take(self, item: BusItem) -> None:
        if isinstance(item, Quote):
            self._take_quote(item)
        elif isinstance(item, Mark):
            venue = self._venues.get(item.venue)
            if venue is not None and self._admit(venue, item.token):
                venue.marked_us = self._now_us
                if not venue.fed:
                    venue.fed = True
                    for product in venue.products.values():
                        self._rematch(product.symbol)

    def _admit(self, venue: _Venue, token: int) -> bool:
        """Say whether a connection's word counts; a newer one makes everything older unbelievable."""
        if token > venue.token:
            venue.token = token
            venue.fed = False
            for product in venue.products.values():
                product.blind()
        return token == venue.token

    def _take_quote(self, quote: Quote) -> None:
        venue = self._venues.get(quote.venue)
        if venue is None or not self._admit(venue, quote.token):
            return
        product = venue.products.get(quote.product_id)
        if product is None or (product.token == quote.token and quote.number <= product.number):
            return
        product.token, product.number, product.quote = quote.token, quote.number, quote
        product.live = quote.live
        instrument, now_us = product.symbol.instrument, self._now_us
        for side, price, size in (
            (Side.SELL, quote.bid_price, quote.bid_size),
            (Side.BUY, quote.ask_price, quote.ask_size),
        ):
            ledger = product.ledgers[side]
            if not quote.live:
                ledger.blind()  # it says nothing of what is shown, and the doubt goes against selling
                continue
            if price is None or size is None:
                ledger.show(now_us, None, 0)
                continue
            scaled = _scaled_quote(side, price, instrument.tick)
            ledger.show(now_us, scaled, _floor(size, instrument.lot))
            if self._could_match(product, side, scaled):
                self._unmatched[instrument.symbol, side] = None

    def _could_match(self, product: _Product, side: Side, price: int) -> bool:
        for venues, queue in product.symbol.queues[side].items():
            if queue and product.venue.name in venues:
                first: _Resting = queue.peekitem(0)[1]
                if (first.limit <= price) if side is Side.SELL else (first.limit >= price):
                    return True
        return False

    def _silence(self) -> None:
        for venue in self._venues.values():
            if venue.fed and self._now_us - venue.marked_us >= self._silence_us:
                venue.fed = False
                for product in venue.products.values():
                    product.blind()

    # Matching

    def _best(self, symbol: _Symbol, side: Side, venues: frozenset[str]) -> _Product | None:
        """Return the product with the best price that has something left, among these venues."""
        best: _Product | None = None
        sign = 1 if side is Side.SELL else -1
        for product in symbol.products:
            if product.venue.name not in venues or not product.available(side, self._now_us):
                continue
            price, best_price = product.ledgers[side].best, best and best.ledgers[side].best
            assert price is not None
            if best is None or (price - (best_price or 0)) * sign > 0:
                best = product
        return best

    def _match(self, symbol: _Symbol, side: Side, outcomes_max: int) -> bool:
        """Fill the first order by price, then accept sequence, from its best venue, until none crosses.

        Returns False where it stopped at `outcomes_max` orders with work left.
        """
        while True:
            first: _Resting | None = None
            source: _Product | None = None
            for venues, queue in symbol.queues[side].items():
                if not queue:
                    continue
                resting: _Resting = queue.peekitem(0)[1]
                if first is not None and first.key < resting.key:
                    continue
                product = self._best(symbol, side, venues)
                if product is not None and _crosses(resting, product):
                    first, source = resting, product
            if first is None or source is None:
                return True
            if first.order.seq not in self._filling and len(self._outcomes) + len(self._filling) >= outcomes_max:
                return False
            self._fill(first, source)

    def _fill(self, resting: _Resting, product: _Product) -> None:
        side = resting.order.side
        ledger, quote, instrument = product.ledgers[side], product.quote, product.symbol.instrument
        assert quote is not None
        assert ledger.best is not None
        size = min(resting.left, ledger.available(self._now_us))
        before = ledger.take(size)
        self._touched.add((product.venue.name, product.id, side))
        resting.left -= size
        resting.splits.append(
            Split(
                product.venue.name,
                product.id,
                side,
                ledger.best * instrument.tick,
                size * instrument.lot,
                quote.token,
                quote.number,
                ledger.shown * instrument.lot,
                before * instrument.lot,
                quote.exchange_time_us,
                quote.received_time_us,
            ),
        )
        self._filling[resting.order.seq] = resting
        if resting.left == 0:
            self._end(resting, OrderState.FILLED, None)

    # Orders come and go

    def _place(self, order: Order, *, cancelled: bool) -> None:
        try:
            self._place_checked(order, cancelled=cancelled)
        except Exception:  # noqa: BLE001 -- whatever one order holds, the others never wait for it
            self._resting.pop(order.seq, None)
            self._filling.pop(order.seq, None)
            self._outcomes[order.seq] = Outcome(order, OrderState.REJECTED, Reason.STEP_FAILED, (), self._now_us)

    def _place_checked(self, order: Order, *, cancelled: bool) -> None:
        if order.seq in self._resting:
            return
        symbol = self._symbols.get(order.symbol)
        venues = None if symbol is None else symbol.instrument.venues & (order.venues or symbol.instrument.venues)
        if symbol is None or not venues:
            self._outcomes[order.seq] = Outcome(order, *_gone(order), (), self._now_us)
            return
        limit = symbol.instrument.scale_price(order.price)
        left = symbol.instrument.scale_size(order.size - order.filled_size)
        resting = _Resting(order, limit, left)
        if order.deadline_us is not None and order.deadline_us <= self._now_us:
            self._end(resting, OrderState.EXPIRED, Reason.DEADLINE)
        elif cancelled:
            self._end(resting, OrderState.CANCELLED, Reason.CANCELLED)
        elif order.time_in_force is TimeInForce.FOK and self._fillable(symbol, resting, venues) < left:
            self._end(resting, OrderState.EXPIRED, Reason.FOK)
        else:
            self._rest(symbol, resting, venues)

    def _fillable(self, symbol: _Symbol, resting: _Resting, venues: frozenset[str]) -> int:
        side = resting.order.side
        return sum(
            product.available(side, self._now_us)
            for product in symbol.products
            if product.venue.name in venues and _crosses(resting, product)
        )

    def _rest(self, symbol: _Symbol, resting: _Resting, venues: frozenset[str]) -> None:
        order = resting.order
        # Whoever was here before has been served, so the new order takes what is left, and it alone.
        while (product := self._best(symbol, order.side, venues)) is not None and _crosses(resting, product):
            self._fill(resting, product)
            if resting.left == 0:
                return
        if order.time_in_force in (TimeInForce.IOC, TimeInForce.FOK):
            self._end(resting, OrderState.EXPIRED, Reason(order.time_in_force.lower()))
            return
        queue = symbol.queues[order.side].setdefault(venues, SortedDict())
        queue[resting.key] = resting
        resting.queue = queue
        self._resting[order.seq] = resting
        if order.deadline_us is not None:
            heapq.heappush(self._deadlines, (order.deadline_us, order.seq))
        if order.state is OrderState.QUEUED:
            self._filling.setdefault(order.seq, resting)

    def _end(self, resting: _Resting, state: OrderState, reason: Reason | None) -> None:
        order = resting.order
        if resting.queue is not None:
            del resting.queue[resting.key]
            del self._resting[order.seq]
        self._filling.pop(order.seq, None)
        self._outcomes[order.seq] = Outcome(order, state, reason, tuple(resting.splits), self._now_us)

    def _result(self) -> StepResult:
        for seq, resting in self._filling.items():
            order, splits = resting.order, tuple(resting.splits)
            self._outcomes[seq] = Outcome(order, OrderState.WORKING, None, splits, self._now_us)
            with localcontext(EXACT):
                size = sum((split.size for split in splits), order.filled_size)
                value = sum((split.price * split.size for split in splits), order.filled_value)
            resting.order = replace(order, state=OrderState.WORKING, filled_size=size, filled_value=value)
            resting.splits = []
        outcomes = list(self._outcomes.values())
        self._outcomes, self._filling = {}, {}
        return StepResult(outcomes, self._changed(), bool(self._inputs or self._unmatched))

    # Levels

    def _restore(self, level: Level) -> None:
        venue = self._venues.get(level.venue)
        product = venue.products.get(level.product_id) if venue is not None else None
        if product is not None and level.taken:
            instrument = product.symbol.instrument
            scaled = _scaled_quote(level.side, level.price, instrument.tick)
            product.ledgers[level.side].taken[scaled] = -_floor(-level.taken, instrument.lot)

    def _changed(self) -> list[Level]:
        levels = []
        for venue_name, product_id, side in self._touched:
            product = self._venues[venue_name].products[product_id]
            ledger, instrument = product.ledgers[side], product.symbol.instrument
            levels += [
                Level(
                    venue_name, product_id, side, price * instrument.tick, ledger.taken.get(price, 0) * instrument.lot
                )
                for price in sorted(ledger.changed)
            ]
            ledger.changed.clear()
        self._touched.clear()
        return levels

    # Why an order waits

    def waiting_reason(self, seq: int) -> Reason | None:
        """Say why an open order is not filled now; None where it is not in the book."""
        resting = self._resting.get(seq)
        if resting is None:
            return None
        symbol = self._symbols[resting.order.symbol]
        allowed = resting.order.venues or symbol.instrument.venues
        return nearest(self._reason(resting, product) for product in symbol.products if product.venue.name in allowed)

    def waiting_counts(self) -> dict[Reason, int]:
        """Count the open orders by why each is not filled now; a queue is asked once, however many are in it."""
        counts: dict[Reason, int] = {}
        for symbol in self._symbols.values():
            for side, by_venues in symbol.queues.items():
                for venues, queue in by_venues.items():
                    if queue:
                        _count(symbol, side, venues, queue, counts)
        return counts

    def _reason(self, resting: _Resting, product: _Product) -> Reason:
        shut = _shut(product)
        if shut is not None:
            return shut
        return Reason.TAKEN_BY_OTHERS if _crosses(resting, product) else Reason.OUTSIDE_LIMIT


def _shut(product: _Product) -> Reason | None:
    """Return why nobody is sold anything by a product now, or None where it depends on the order."""
    if not product.venue.enabled:
        return Reason.VENUE_DISABLED
    if product.venue.marked_us and not product.venue.fed:
        return Reason.VENUE_STALE
    if product.quote is None or not product.venue.fed:
        return Reason.NO_QUOTE_YET
    return None if product.live else Reason.NOT_LIVE


def _count(symbol: _Symbol, side: Side, venues: frozenset[str], queue: SortedDict, counts: dict[Reason, int]) -> None:
    allowed = [product for product in symbol.products if product.venue.name in venues]
    shut = [_shut(product) for product in allowed]
    prices = [product.ledgers[side].best for product, reason in zip(allowed, shut, strict=True) if reason is None]
    # The queue is sorted by limit, so those that the best price reaches are its first.
    keys = [price if side is Side.SELL else -price for price in prices if price is not None]
    crossing = queue.bisect_right((max(keys), inf)) if keys else 0
    others = nearest(reason or Reason.OUTSIDE_LIMIT for reason in shut)
    for reason, count in ((Reason.TAKEN_BY_OTHERS, crossing), (others, len(queue) - crossing)):
        if count:
            counts[reason] = counts.get(reason, 0) + count


def _gone(order: Order) -> tuple[OrderState, Reason]:
    # An order that works cannot be rejected any more: what it got is kept, the rest expires.
    state = OrderState.REJECTED if order.state is OrderState.QUEUED else OrderState.EXPIRED
    return state, Reason.INSTRUMENT_GONE


def _crosses(resting: _Resting, product: _Product) -> bool:
    price = product.ledgers[resting.order.side].best
    if price is None:
        return False
    return resting.limit <= price if resting.order.side is Side.SELL else resting.limit >= price


def _floor(value: Decimal, step: Decimal) -> int:
    return int((value / step).to_integral_value(ROUND_FLOOR))


def _scaled_quote(side: Side, price: Decimal, tick: Decimal) -> int:
    """Round a finer price so that less is sold: a bid down, an ask up."""
    return int((price / tick).to_integral_value(ROUND_FLOOR if side is Side.SELL else ROUND_CEILING))
