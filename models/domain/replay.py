"""A session played to books by its own clock: what each order gets is a function of quotes and orders alone.

Each pair has a book of its own, of the class and by the steps of the fulfilment loop. Pairs share nothing
but the word of their venues, which is told to every book; so how they are spread over processes
changes nothing.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from itertools import groupby
from operator import itemgetter
from typing import Any

from models.domain import journal
from models.domain.book import Book
from models.domain.decimals import EXACT
from models.domain.instruments import Instrument, Instruments
from models.domain.ledger import Ledger
from models.domain.orders import Order, OrderState, Reason, Side
from models.domain.outcomes import Outcome, Split, StepResult
from models.domain.quotes import Mark, Quote


@dataclass(frozen=True, slots=True)
class Placing:
    """An order, when it is placed, and when its owner asks for its cancel (None: never)."""

    at_us: int
    order: Order
    cancel_us: int | None = None


@dataclass(slots=True)
class Played:
    """What became of an order. Each split has the time of its step; `reason` says why the order is not filled."""

    order: Order
    placed_us: int
    state: OrderState = OrderState.QUEUED
    reason: Reason | None = None
    ended_us: int | None = None
    splits: list[tuple[int, Split]] = field(default_factory=list)

    @property
    def filled_size(self) -> Decimal:
        """The sum of its splits, and what it had before."""
        with localcontext(EXACT):
            return sum((split.size for _, split in self.splits), self.order.filled_size)

    @property
    def filled_value(self) -> Decimal:
        """Price times size, summed."""
        with localcontext(EXACT):
            return sum((split.price * split.size for _, split in self.splits), self.order.filled_value)


class _Results:
    """What became of each order so far, by its id."""

    def __init__(self) -> None:
        self.played: dict[str, Played] = {}

    def placed(self, order: Order, now_us: int) -> None:
        """Note that a book takes an order; what that order has got is what it says itself.

        Another book may have filled it before and failed to commit that: then it never was.
        """
        known = self.played.get(order.id)
        if known is None:
            self.played[order.id] = Played(order, now_us, order.state)
            return
        while known.splits and known.filled_size > order.filled_size:
            known.splits.pop()
        known.state, known.reason, known.ended_us = order.state, None, None

    def take(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            played = self.played[outcome.order.id]
            played.splits += [(outcome.time_us, split) for split in outcome.splits]
            played.state, played.reason = outcome.state, outcome.reason
            played.ended_us = outcome.time_us if outcome.state.ended else None

    def waiting(self, book: Book) -> None:
        """Say of each order that is open why it is, where this book has it."""
        for played in self.played.values():
            if not played.state.ended:
                played.reason = book.waiting_reason(played.order.seq) or played.reason

    def in_order(self) -> list[Played]:
        return sorted(self.played.values(), key=lambda each: each.order.seq)


class Replay:
    """Plays what venues said, and orders, to one book for each pair.

    A book takes a step at each moment at which a quote of its pair or a mark comes, when orders are placed or
    cancelled, at each deadline, and where a venue has become silent: time is that of the session and
    nothing happens late. At one moment, which is a microsecond, quotes come before orders.
    """

    def __init__(
        self, instruments: Iterable[Instrument], *, silence_us: int, ledger: Callable[[Side], Ledger] = Ledger
    ) -> None:
        self._silence_us = silence_us
        self._books: dict[str, Book] = {}
        self._symbols: dict[tuple[str, str], str] = {}  # by venue and product
        self._listing: dict[str, list[str]] = {}  # the pairs of each venue
        self._alarms: list[tuple[int, str]] = []  # when a book must look at the time
        self._results = _Results()
        for instrument in instruments:
            symbol = instrument.symbol
            self._books[symbol] = Book(Instruments([instrument]), silence_us=silence_us, ledger=ledger)
            self._symbols.update({(product.venue, product.id): symbol for product in instrument.books})
            for venue in sorted(instrument.venues):
                self._listing.setdefault(venue, []).append(symbol)

    def run(
        self, told: Iterable[tuple[int, Sequence[Quote | Mark]]], placings: Iterable[Placing], ended_us: int
    ) -> list[Played]:
        """Return what became of the orders, in accept order, when the session ended.

        `told` has what came at each moment, in order of time; what would happen after the end does not.
        """
        acts = deque(_acts(placings, ended_us))
        for now_us, some in groupby(told, key=itemgetter(0)):
            items = [item for _, more in some for item in more]
            while acts and acts[0].now_us < now_us:
                self._act(acts.popleft())
            self._catch_up(now_us)
            for symbol, mine in self._sorted(now_us, items).items():
                self.step(symbol, now_us, items=mine)
        while acts:
            self._act(acts.popleft())
        self._catch_up(ended_us + 1)
        for book in self._books.values():
            self._results.waiting(book)
        return self._results.in_order()

    def step(self, symbol: str, now_us: int, **inputs: Any) -> None:  # noqa: ANN401 -- those of Book.step
        """Step the book of a pair until nothing is left to be done."""
        book = self._books[symbol]
        self._results.take(_outcomes(book, book.step(now_us, **inputs), now_us))

    def _sorted(self, now_us: int, items: Sequence[Quote | Mark]) -> dict[str, list[Quote | Mark]]:
        by_symbol: dict[str, list[Quote | Mark]] = {}
        for item in items:
            if isinstance(item, Quote):
                symbol = self._symbols.get((item.venue, item.product_id))
                if symbol is not None:
                    by_symbol.setdefault(symbol, []).append(item)
            else:
                for symbol in self._listing.get(item.venue, ()):
                    by_symbol.setdefault(symbol, []).append(item)
                    heapq.heappush(self._alarms, (now_us + self._silence_us, symbol))
        return by_symbol

    def _act(self, act: "_Act") -> None:
        self._catch_up(act.now_us)
        for order in act.orders:
            self._results.placed(order, act.now_us)
            if order.deadline_us is not None:
                heapq.heappush(self._alarms, (order.deadline_us, act.symbol))
        self.step(act.symbol, act.now_us, cancels=act.cancels, orders=act.orders)

    def _catch_up(self, now_us: int) -> None:
        """Do what was due before a time."""
        while self._alarms and self._alarms[0][0] < now_us:
            due_us, symbol = heapq.heappop(self._alarms)
            self.step(symbol, due_us)


@dataclass(slots=True)
class _Act:
    """What owners of orders of one pair do at one moment."""

    now_us: int
    symbol: str
    orders: list[Order] = field(default_factory=list)
    cancels: list[int] = field(default_factory=list)


def _acts(placings: Iterable[Placing], ended_us: int) -> list[_Act]:
    acts: dict[tuple[int, str], _Act] = {}
    for placing in sorted(placings, key=lambda each: each.order.seq):
        symbol = placing.order.symbol
        acts.setdefault((placing.at_us, symbol), _Act(placing.at_us, symbol)).orders.append(placing.order)
        if placing.cancel_us is not None:
            act = acts.setdefault((placing.cancel_us, symbol), _Act(placing.cancel_us, symbol))
            act.cancels.append(placing.order.seq)
    return [act for (at_us, _), act in sorted(acts.items()) if at_us <= ended_us]


def _outcomes(book: Book, result: StepResult, now_us: int) -> list[Outcome]:
    outcomes = list(result.outcomes)
    while result.more:
        result = book.step(now_us)
        outcomes += result.outcomes
    return outcomes


class NoOpeningError(ValueError):
    """A journal does not begin with the book that its steps were for."""


def rerun(
    entries: Iterable[Mapping[str, Any]],
    *,
    silence_us: int | None = None,
    ledger: Callable[[Side], Ledger] = Ledger,
) -> list[Played]:
    """Do the steps of a shard's journals again and return what became of the orders, in accept order.

    An entry with an opening begins a new book, as a new owner of the shard does. `silence_us` is that of
    the journal where none is given. Raises NoOpeningError, ValueError, KeyError and TypeError for what is no journal.
    """
    results, book = _Results(), None
    for entry in entries:
        opened = journal.read_opening(entry)
        if opened is not None:
            book = Book(
                opened.instruments,
                levels=opened.levels,
                disabled=opened.disabled,
                tokens=opened.tokens,
                silence_us=opened.silence_us if silence_us is None else silence_us,
                ledger=ledger,
            )
        elif book is None:
            raise NoOpeningError
        step = journal.read(entry)
        for order in step["orders"]:
            results.placed(order, step["now_us"])
        results.take(_outcomes(book, book.step(**step), step["now_us"]))
    if book is not None:
        results.waiting(book)
    return results.in_order()
