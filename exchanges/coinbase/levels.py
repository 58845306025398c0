"""The levels of one product, kept from a snapshot and its updates, because the channel has no best bid and ask."""

from collections.abc import Sequence
from decimal import Decimal
from heapq import heapify, heappop, heappush

from exchanges.protocol import Numbers, level

Best = tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]
SPARE = 1_000  # prices in a heap that are no levels any more, before it is made anew


class CrossedError(ValueError):
    """The best bid is not below the best ask: an update was lost, for no exchange shows such a book."""


class _Side:
    """One side's sizes by price, and a heap of its prices, some of which are no levels any more.

    A heap, because only the best price is asked for: a sorted structure takes twice as long to keep.
    """

    __slots__ = ("_heap", "_sign", "sizes")

    def __init__(self, sizes: dict[Decimal, Decimal], sign: int) -> None:
        self.sizes = sizes
        self._sign = sign  # -1 where the highest price is the best
        self._heap = [price * sign for price in sizes]
        heapify(self._heap)

    def set(self, price: Decimal, size: Decimal) -> None:
        if not size:
            self.sizes.pop(price, None)
        elif price in self.sizes:
            self.sizes[price] = size
        else:
            self.sizes[price] = size
            heappush(self._heap, price if self._sign > 0 else -price)
            if len(self._heap) > 2 * len(self.sizes) + SPARE:
                self._heap = [price * self._sign for price in self.sizes]
                heapify(self._heap)

    def best(self) -> tuple[Decimal | None, Decimal | None]:
        while self._heap:
            price = self._heap[0] if self._sign > 0 else -self._heap[0]
            size = self.sizes.get(price)
            if size is not None:
                return price, size
            heappop(self._heap)
        return None, None


class Levels:
    """Bids and asks by price; sizes are absolute, and 0 deletes a level."""

    __slots__ = ("_asks", "_bids", "_shown", "changed")

    def __init__(self, bids: Sequence[tuple[str, str]], asks: Sequence[tuple[str, str]]) -> None:
        # Thousands of levels that are read once: they would drive out of `numbers` what comes again.
        believed = Numbers()
        self._bids = _Side(dict(found for each in bids if (found := level(*each, believed))[1]), -1)
        self._asks = _Side(dict(found for each in asks if (found := level(*each, believed))[1]), 1)
        self._shown: Best = (None, None, None, None)
        self.changed = True  # at the best prices; most updates are far from them

    def change(self, changes: Sequence[tuple[str, str, str]]) -> None:
        """Set what levels hold. Raises ValueError for a malformed one; the levels are of no use then."""
        best_bid, _, best_ask, _ = self._shown
        for side, price_text, size_text in changes:
            price, size = level(price_text, size_text)
            if side == "buy":
                self._bids.set(price, size)
                if best_bid is None or price >= best_bid:
                    self.changed = True
            elif side == "sell":
                self._asks.set(price, size)
                if best_ask is None or price <= best_ask:
                    self.changed = True
            else:
                raise ValueError(f"no side: {side!r}")

    def news(self) -> Best | None:
        """Return the best bid, its size, the best ask and its size where they changed since the last call.

        Raises CrossedError.
        """
        if not self.changed:
            return None
        bid, ask = self._bids.best(), self._asks.best()
        if bid[0] is not None and ask[0] is not None and bid[0] >= ask[0]:
            raise CrossedError(f"bid {bid[0]} is not below ask {ask[0]}")
        best: Best = (*bid, *ask)
        before, self._shown, self.changed = self._shown, best, False
        return None if best == before else best
