"""What a collector has read and not yet sent: everything while the bus keeps up, the newest quotes when it does not."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from decimal import Decimal

import msgspec

from exchanges.protocol import LastPrice
from models.bus.latest import LatestPrice
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade

# A batch leaves within milliseconds; a quote that had to wait for so long is no news any more.
BACKLOG_S = 0.05
QUOTES_MAX = 2_000
TRADES_MAX = 20_000
SLOW_S = 0.04  # a write that takes so long held too much
ROOM_MIN = 10  # trades that a batch may always hold
WAIT_S = 1.0  # a trade that waited so long for room is lost


class Outbox:
    """Quotes and trades of one venue in the order of their arrival, and each product's latest prices.

    One thread puts, another takes. `conflated` counts the quotes and `trades_lost` the trades that
    came in and did not go out.
    """

    def __init__(self, venue: str, market: str) -> None:
        self._venue = venue
        self.conflated = 0
        self.trades_lost = 0
        self._market = market
        self._items: list[Quote | Trade] = []
        self._quotes = 0
        self._since = 0.0  # when the oldest of the waiting items came
        self._number = 0
        self._current: dict[str, Quote] = {}  # by product: its newest quote
        self._lasts: dict[str, tuple[Decimal, int]] = {}  # by product: its last price, and when that was
        self._touched: set[str] = set()
        self._candles: dict[tuple[str, int], VenueCandle] = {}
        self._lock = threading.Lock()
        self._filled = threading.Event()

    def put(self, item: Quote | Trade | LastPrice | VenueCandle) -> None:
        """Add an item, a quote under the next number; beyond the bounds the older ones go, counted."""
        with self._lock:
            if isinstance(item, Quote):
                self._put_quote(item)
            elif isinstance(item, Trade):
                self._put_trade(item)
            elif isinstance(item, VenueCandle):
                self._candles[item.product_id, item.open_time_us] = item
                return
            else:
                self._note_last(item.product_id, item.price, item.time_us)
        if not self._filled.is_set():
            self._filled.set()

    def wait(self, wait_s: float) -> None:
        """Wait for something to take, up to a time."""
        self._filled.wait(wait_s)

    def take(self, *, slow: bool = False) -> tuple[list[Quote | Trade], dict[str, LatestPrice]]:
        """Return what has come, and the latest prices by product; on a slow bus only the newest quotes."""
        with self._lock:
            self._filled.clear()
            if self._items and (slow or time.monotonic() - self._since > BACKLOG_S):
                self._conflate()
            items, touched = self._items, self._touched
            self._items, self._touched, self._quotes = [], set(), 0
            return items, {product_id: self._latest(product_id) for product_id in touched}

    def take_candles(self) -> list[VenueCandle]:
        """Return what was told of candles since the last call: of each its newest form."""
        with self._lock:
            taken, self._candles = self._candles, {}
            return list(taken.values())

    def inherit(self, older: "Outbox") -> None:
        """Take over the counters of another connection's outbox, and last prices that this one does not know."""
        with self._lock:
            self.conflated += older.conflated
            self.trades_lost += older.trades_lost
            lasts = older._lasts  # noqa: SLF001 -- the same class
            self._lasts = {**lasts, **self._lasts}
            self._touched.update(lasts)

    def current(self) -> tuple[list[Quote], dict[str, LatestPrice]]:
        """Return each product's newest quote that was already taken, and all latest prices by product."""
        with self._lock:
            waiting = {item.product_id for item in self._items if isinstance(item, Quote)}
            quotes = [quote for product_id, quote in self._current.items() if product_id not in waiting]
            known = {*self._current, *self._lasts}
            return quotes, {product_id: self._latest(product_id) for product_id in known}

    def lost(self, items: Sequence[Quote | Trade]) -> None:
        """Count items that were taken and could not be written."""
        with self._lock:
            quotes = sum(isinstance(item, Quote) for item in items)
            self.conflated += quotes
            self.trades_lost += len(items) - quotes

    def current_again(self) -> None:
        """Put each product's newest quote once more, under new numbers: a write was lost, nobody knows how much."""
        with self._lock:
            self._conflate()
            waiting = {item.product_id for item in self._items if isinstance(item, Quote)}
            for quote in [quote for product_id, quote in self._current.items() if product_id not in waiting]:
                self._put_quote(quote)
            self._touched.update(self._lasts)
        self._filled.set()

    def forget(self) -> None:
        """Forget an old connection's quotes, sent or not, and number from 1 again; trades and last prices stay."""
        with self._lock:
            self._number = 0
            self._touched.update(self._current, self._lasts)
            self._current.clear()
            trades: list[Quote | Trade] = [item for item in self._items if isinstance(item, Trade)]
            self.conflated += len(self._items) - len(trades)
            self._items, self._quotes = trades, 0

    def _append(self, item: Quote | Trade) -> None:
        if not self._items:
            self._since = time.monotonic()
        self._items.append(item)
        self._touched.add(item.product_id)

    def _put_quote(self, quote: Quote) -> None:
        self._number += 1
        numbered = msgspec.structs.replace(quote, number=self._number)
        self._append(numbered)
        self._current[quote.product_id] = numbered
        self._quotes += 1
        if self._quotes > QUOTES_MAX:
            self._conflate()

    def _conflate(self) -> None:
        kept = [item for item in self._items if isinstance(item, Trade) or self._current[item.product_id] is item]
        self.conflated += len(self._items) - len(kept)
        self._items = kept
        self._quotes = sum(isinstance(item, Quote) for item in kept)

    def _put_trade(self, trade: Trade) -> None:
        self._append(trade)
        # A trade from before the subscription may be hours old; it is no older for being told now.
        told = trade.exchange_time_us if trade.before else None
        self._note_last(trade.product_id, trade.price, trade.received_time_us if told is None else told)
        if len(self._items) - self._quotes > TRADES_MAX:
            self._drop_trades()

    def _drop_trades(self) -> None:
        trades = [item for item in self._items if isinstance(item, Trade)]
        lost = {id(trade) for trade in trades[: len(trades) // 2]}
        self.trades_lost += len(lost)
        self._items = [item for item in self._items if id(item) not in lost]

    def _note_last(self, product_id: str, price: Decimal, time_us: int) -> None:
        before = self._lasts.get(product_id)
        if before is None or time_us >= before[1]:
            self._lasts[product_id] = (price, time_us)
            self._touched.add(product_id)

    def _latest(self, product_id: str) -> LatestPrice:
        last, last_us = self._lasts.get(product_id, (None, None))
        quote = self._current.get(product_id)
        if quote is None:
            nothing = (None,) * 4
            return LatestPrice(self._venue, product_id, last, last_us, *nothing, False, None, self._market)  # noqa: FBT003 -- live
        sides = (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size)
        live, told_us = quote.live, quote.received_time_us
        return LatestPrice(self._venue, product_id, last, last_us, *sides, live, told_us, self._market)


class Pace:
    """How much one write holds, so that it stays short when the bus is slow and the newest quotes get through.

    Quotes always go. Trades wait their turn, for WAIT_S at most; how many go at once shrinks with each
    slow write to half of what that one held, and grows by a quarter with each other one.
    """

    def __init__(self) -> None:
        self._room = TRADES_MAX
        self._waiting: deque[Trade] = deque()

    @property
    def slow(self) -> bool:
        """Whether writes were slow a short while ago: only what is needed most should be written then."""
        return self._room < TRADES_MAX

    def batch(
        self, items: Sequence[Quote | Trade], now_us: int, *, all_of_it: bool = False
    ) -> tuple[Sequence[Quote | Trade], list[Trade]]:
        """Return what to write now, of what has come and what waits; and the trades that waited for too long."""
        trades = [item for item in items if isinstance(item, Trade)]
        if not self._waiting and len(trades) <= self._room:
            return items, []
        lost = []
        while self._waiting and self._waiting[0].received_time_us < now_us - WAIT_S * 1e6 and not all_of_it:
            lost.append(self._waiting.popleft())
        self._waiting.extend(trades)
        count = len(self._waiting) if all_of_it else min(self._room, len(self._waiting))
        going: list[Quote | Trade] = [self._waiting.popleft() for _ in range(count)]
        return going + [item for item in items if isinstance(item, Quote)], lost

    def wrote(self, batch: Sequence[Quote | Trade], took_s: float) -> None:
        """Learn from a write."""
        if took_s > SLOW_S:
            trades = sum(isinstance(item, Trade) for item in batch)
            self._room = max(ROOM_MIN, min(self._room, trades) // 2)
        else:
            self._room = min(TRADES_MAX, self._room * 5 // 4)
