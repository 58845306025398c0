"""What venues show, and who waits for it: offers, each with its ledger, and queues of orders, each with its offers.

Scaled integers inside. Here nothing decides whose turn it is: that is the book's.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from math import inf
from typing import Any

import msgspec

from models.domain.instruments import Instrument
from models.domain.ledger import Ledger
from models.domain.orders import Order, Reason, Side
from models.domain.outcomes import Level, Split
from models.domain.quotes import Quote
from models.domain.waiting import nearest

# Python 3.11 takes 0.1 us to read a member of an enum by its class.
BUY, SELL = Side.BUY, Side.SELL

# An order's place in its queue is one integer: its limit, so that the first to be served is the lowest, then
# its accept sequence, which is below 2^63.
SEQ_BITS = 63
SEQ_MASK = (1 << SEQ_BITS) - 1

RUN_MAX = 512  # keys that lie in one list: the first of them is taken by moving 4 KB


class Resting(msgspec.Struct, gc=False):
    """An order in the book, or on its way there; `left` in lots. There may be millions of them."""

    order: Order
    key: int
    left: int
    queue: "Queue"
    splits: list[Split] | None = None  # since the last result

    @property
    def limit(self) -> int:
        """The limit as far as it is reached by an offer's `reach`."""
        return self.key >> SEQ_BITS


class Queue:
    """The resting orders of one symbol and side that may use the same venues: `offers`, the alphabet's first first.

    No quote walks past orders that may not use it. `head` is the first order's key, `first` its limit; without one
    both are inf. Keys lie in order in lists of at most RUN_MAX; a `SortedList` takes the first one in 0.7 us, this
    in 0.2.
    """

    __slots__ = ("_lows", "_runs", "first", "head", "offers", "symbol")

    def __init__(self, symbol: "Symbol", offers: "list[Offer]") -> None:
        self.symbol = symbol
        self.offers = offers
        self._runs: list[list[int]] = []
        self._lows: list[int] = []  # the first of each
        self.head: float = inf
        self.first: float = inf
        for offer in offers:
            offer.queues.append(self)

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, key: int) -> None:
        """Take an order's key in."""
        runs, lows = self._runs, self._lows
        if key < self.head:
            self.head, self.first = key, key >> SEQ_BITS
        if not runs:
            runs.append([key])
            lows.append(key)
            return
        at = self._run(key)
        run = runs[at]
        insort(run, key)
        lows[at] = run[0]
        if len(run) > RUN_MAX:
            half = run[RUN_MAX // 2 :]
            del run[RUN_MAX // 2 :]
            runs.insert(at + 1, half)
            lows.insert(at + 1, half[0])

    def remove(self, key: int) -> None:
        """Let an order's key go."""
        runs, lows = self._runs, self._lows
        at = 0 if key == self.head else self._run(key)
        run = runs[at]
        del run[bisect_left(run, key)]
        if run:
            lows[at] = run[0]
        else:
            del runs[at], lows[at]
        if at == 0:
            self.head = lows[0] if lows else inf
            self.first = lows[0] >> SEQ_BITS if lows else inf

    def _run(self, key: int) -> int:
        return max(bisect_right(self._lows, key) - 1, 0)

    def best(self, limit: float) -> "Offer | None":
        """Return the offer with the best price that satisfies a limit and has something left."""
        best: Offer | None = None
        for offer in self.offers:
            if offer.reach >= limit and (best is None or offer.reach > best.reach):
                best = offer
        return best

    def count(self, counts: dict[Reason, int]) -> None:
        """Count its orders by why each is not filled now."""
        shut = [offer.product.shut for offer in self.offers]
        price = max((offer.price for offer, why in zip(self.offers, shut, strict=True) if why is None), default=-inf)
        # The queue is sorted by limit, so those that the best price satisfies are its first.
        above = (int(price) + 1) << SEQ_BITS if price > -inf else -inf
        crossing = sum(bisect_left(run, above) for run in self._runs)
        others = nearest(reason or Reason.OUTSIDE_LIMIT for reason in shut)
        for reason, count in ((Reason.TAKEN_BY_OTHERS, crossing), (others, len(self) - crossing)):
            if count:
                counts[reason] = counts.get(reason, 0) + count


class Offer:
    """One side of a venue product, seen by the orders that take it: its ledger, and who wants something of it.

    `reach` is the highest limit, as keys have it, that something can be sold at; -inf where there is nothing left or
    its product is shut.
    """

    __slots__ = ("_lots", "_price", "_size", "_ticks", "ledger", "lot", "product", "queues", "reach", "side", "tick")

    def __init__(self, product: "VenueProduct", side: Side, ledger: Ledger, instrument: Instrument) -> None:
        self.product = product
        self.side = side
        self.ledger = ledger
        self.queues: list[Queue] = []
        self.reach: float = -inf
        self.tick, self.lot = instrument.tick, instrument.lot
        # A quote repeats most of what the last one said; what is the same is not scaled again.
        self._price = self._size = Decimal(0)
        self._ticks = self._lots = 0

    @property
    def price(self) -> float:
        """The highest limit, as keys have it, that the price shown satisfies, whatever is left; -inf without one."""
        best = self.ledger.best
        return -inf if best is None else best * self.ledger.sign

    def show(self, now_us: int, price: Decimal | None, size: Decimal | None) -> bool:
        """Take in what a quote says of this side, and say whether an order that rests may have something of it."""
        if price is None or size is None:
            self.reach = -inf
            self.ledger.show(now_us, None, 0)
            return False
        ledger = self.ledger
        moved = price != self._price
        if moved:
            self._ticks, self._price = _scaled_price(self.side, price, self.tick), price
        if size != self._size:
            self._lots, self._size = int(size // self.lot), size
        elif not moved and self.reach > -inf and not ledger.taken:
            return False  # it repeats itself, and whoever might have had something of it has been matched
        ledger.show(now_us, self._ticks, self._lots)
        if not (ledger.left and self.product.open):
            self.reach = -inf
            return False
        self.reach = reach = self._ticks if self.side is SELL else -self._ticks
        for queue in self.queues:  # noqa: SIM110 -- any() makes a generator for most quotes there are
            if queue.first <= reach:
                return True
        return False

    def look(self) -> None:
        """Reach as far as its ledger and its product allow now."""
        self.reach = self.price if self.ledger.left and self.product.open else -inf

    def blind(self) -> None:
        """Show nothing until the next quote."""
        self.reach = -inf
        self.ledger.blind()

    def sell(self, resting: Resting) -> None:
        """Fill an order as far as there is something left, with the split that names the quote it came from."""
        ledger, product, lot = self.ledger, self.product, self.lot
        quote = product.quote
        assert quote is not None
        assert ledger.best is not None
        size = resting.left if resting.left < ledger.left else ledger.left  # noqa: FURB136 -- as in the ledger
        before = ledger.take(size)
        resting.left -= size
        if not ledger.left:
            self.reach = -inf
        split = Split(
            product.venue.name,
            product.id,
            self.side,
            ledger.best * self.tick,
            size * lot,
            quote.token,
            quote.number,
            ledger.shown * lot,
            before * lot,
            quote.exchange_time_us,
            quote.received_time_us,
        )
        if resting.splits is None:
            resting.splits = [split]
        else:
            resting.splits.append(split)

    def restore(self, level: Level) -> None:
        """Know what was taken from a level by an earlier book."""
        self.ledger.restore(_scaled_price(self.side, level.price, self.tick), _ceiling(level.taken, self.lot))

    def changed(self) -> list[Level]:
        """Return the levels of which something was taken or forgotten since it was asked last."""
        venue, product_id, taken = self.product.venue.name, self.product.id, self.ledger.taken
        levels = [
            Level(venue, product_id, self.side, price * self.tick, taken.get(price, 0) * self.lot)
            for price in sorted(self.ledger.changed)
        ]
        self.ledger.changed.clear()
        return levels


class VenueProduct:
    """One venue product: the quote that it shows, and its two sides.

    `token` and `number` are those of the newest quote that came. Whatever else is here is as far as
    the inputs of its symbol have been worked.
    """

    __slots__ = ("asks", "bids", "id", "live", "number", "open", "quote", "symbol", "token", "venue")

    def __init__(self, venue: "Venue", product_id: str, symbol: "Symbol", ledger: Callable[[Side], Ledger]) -> None:
        self.venue = venue
        self.id = product_id
        self.symbol = symbol
        self.bids, self.asks = (Offer(self, side, ledger(side), symbol.instrument) for side in (SELL, BUY))
        self.token = 0
        self.number = 0
        self.quote: Quote | None = None  # None: nothing to be believed yet
        self.live = False
        self.open = False  # its venue is on, and fed

    @property
    def ledgers(self) -> dict[Side, Ledger]:
        """Its ledgers by the side of the orders that take from them."""
        return {SELL: self.bids.ledger, BUY: self.asks.ledger}

    @property
    def shut(self) -> Reason | None:
        """Why nobody is sold anything by it now, or None where it depends on the order."""
        if not self.venue.enabled:
            return Reason.VENUE_DISABLED
        if self.venue.marked_us and not self.venue.fed:
            return Reason.VENUE_STALE
        if self.quote is None or not self.venue.fed:
            return Reason.NO_QUOTE_YET
        return None if self.live else Reason.NOT_LIVE

    def offer(self, side: Side) -> Offer:
        """Return what it shows to the orders of a side."""
        return self.bids if side is SELL else self.asks

    def hear(self, *, open_: bool, blind: bool) -> None:
        """Hear whether its venue sells; blind: what was shown is not to be believed any more."""
        self.open = open_
        for offer in (self.bids, self.asks):
            if blind:
                offer.blind()
            else:
                offer.look()
        if blind:
            self.quote = None


class Venue:
    """What a venue said last; its products hear of it each in its turn."""

    __slots__ = ("enabled", "fed", "marked_us", "name", "products", "token")

    def __init__(self, name: str, *, enabled: bool) -> None:
        self.name = name
        self.enabled = enabled
        self.products: dict[str, VenueProduct] = {}
        self.token = 0
        self.fed = False
        self.marked_us = 0


class Symbol:
    """One instrument: its products, its queues, and what it has still to do."""

    __slots__ = ("busy", "deadlines", "inputs", "instrument", "now_us", "products", "queues", "unmatched")

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.products: list[VenueProduct] = []
        self.queues: dict[Side, dict[frozenset[str], Queue]] = {SELL: {}, BUY: {}}
        self.deadlines: list[tuple[int, int]] = []  # a heap, each with an order's sequence
        self.now_us = 0  # of the step that its inputs are from
        self.inputs: deque[tuple[int, Callable[..., None], tuple[Any, ...]]] = deque()
        self.unmatched: list[Side] = []
        self.busy = False  # there are inputs, or sides to be matched

    def queue(self, side: Side, venues: frozenset[str]) -> Queue:
        """Return the queue of a side's orders that may use these venues."""
        queue = self.queues[side].get(venues)
        if queue is None:
            offers = [product.offer(side) for product in self.products if product.venue.name in venues]
            queue = self.queues[side][venues] = Queue(self, offers)
        return queue


def _ceiling(value: Decimal, step: Decimal) -> int:
    whole, rest = divmod(value, step)
    return int(whole) + 1 if rest else int(whole)


def _scaled_price(side: Side, price: Decimal, tick: Decimal) -> int:
    """Round a finer price so that less is sold: a bid down, an ask up."""
    return int(price // tick) if side is SELL else _ceiling(price, tick)
