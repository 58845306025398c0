"""The levels of one product, kept from a snapshot and its updates, because the channel has no best bid and ask."""

from collections.abc import Sequence
from decimal import Decimal

from sortedcontainers import SortedDict

from exchanges.protocol import Numbers, level

Best = tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]


class CrossedError(ValueError):
    """The best bid is not below the best ask: an update was lost, for no exchange shows such a book."""


class Levels:
    """Bids and asks by price; sizes are absolute, and 0 deletes a level."""

    __slots__ = ("_asks", "_bids", "_changed", "_shown")

    def __init__(self, bids: Sequence[tuple[str, str]], asks: Sequence[tuple[str, str]]) -> None:
        # Thousands of levels that are read once: they would drive out of `numbers` what comes again.
        believed = Numbers()
        self._bids = SortedDict(found for each in bids if (found := level(*each, believed))[1])
        self._asks = SortedDict(found for each in asks if (found := level(*each, believed))[1])
        self._shown: Best = (None, None, None, None)
        self._changed = True  # at the best prices; most updates are far from them

    def change(self, changes: Sequence[tuple[str, str, str]]) -> None:
        """Set what levels hold, all of them or, where one is malformed (ValueError), none."""
        found = []
        for side, price_text, size_text in changes:
            if side not in ("buy", "sell"):
                raise ValueError(f"no side: {side!r}")
            found.append((side, *level(price_text, size_text)))
        best_bid, _, best_ask, _ = self._shown
        for side, price, size in found:
            if side == "buy":
                levels, best = self._bids, best_bid is None or price >= best_bid
            else:
                levels, best = self._asks, best_ask is None or price <= best_ask
            self._changed = self._changed or best
            if size:
                levels[price] = size
            else:
                levels.pop(price, None)

    def news(self) -> Best | None:
        """Return the best bid, its size, the best ask and its size where they changed since the last call.

        Raises CrossedError.
        """
        if not self._changed:
            return None
        bid = self._bids.peekitem(-1) if self._bids else (None, None)
        ask = self._asks.peekitem(0) if self._asks else (None, None)
        if bid[0] is not None and ask[0] is not None and bid[0] >= ask[0]:
            raise CrossedError(f"bid {bid[0]} is not below ask {ask[0]}")
        best: Best = (*bid, *ask)
        before, self._shown, self._changed = self._shown, best, False
        return None if best == before else best
