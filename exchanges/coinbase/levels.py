"""The levels of one product, kept from a snapshot and its updates, because the channel has no best bid and ask."""

from collections.abc import Sequence
from decimal import Decimal

from sortedcontainers import SortedDict

from exchanges.protocol import check_level

Best = tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]


class CrossedError(ValueError):
    """The best bid is not below the best ask: an update was lost, for no exchange shows such a book."""


class Levels:
    """Bids and asks by price; sizes are absolute, and 0 deletes a level."""

    __slots__ = ("_asks", "_bids", "_changed", "_shown")

    def __init__(self, bids: Sequence[tuple[Decimal, Decimal]], asks: Sequence[tuple[Decimal, Decimal]]) -> None:
        for side in (bids, asks):
            for price, size in side:
                check_level(price, size)
        self._bids = SortedDict((price, size) for price, size in bids if size)
        self._asks = SortedDict((price, size) for price, size in asks if size)
        self._shown: Best = (None, None, None, None)
        self._changed = True  # at the best prices; most updates are far from them

    def change(self, changes: Sequence[tuple[str, Decimal, Decimal]]) -> None:
        """Set what levels hold, all of them or, where one is malformed (ValueError), none."""
        for side, price, size in changes:
            check_level(price, size)
            if side not in ("buy", "sell"):
                raise ValueError(f"no side: {side!r}")
        best_bid, _, best_ask, _ = self._shown
        for side, price, size in changes:
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
