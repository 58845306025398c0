"""What each level shows, and what was taken from it.

A level is one price on one side of one venue product. `max(0, shown - taken)` can be sold. `taken`
falls in one case only: the level has shown less than `taken` for a full second; then it becomes what
is shown. So growth is sold; a dip, a flicker or a late frame is not, and the doubt goes against selling.
"""

from models.domain.orders import Side

MEMORY_US = 1_000_000  # for so long a level must have shown less before the rest of `taken` is forgotten
HIDDEN_MAX = 32  # records kept of levels behind the best price, nearest first


class Ledger:
    """One side of one product, seen from the orders that take it: a `SELL` ledger holds bids.

    Prices and sizes are scaled integers. `best` is None where the side shows nothing.
    """

    __slots__ = ("_short_since", "best", "changed", "shown", "sign", "taken")

    def __init__(self, side: Side) -> None:
        self.sign = 1 if side is Side.SELL else -1  # a higher bid is better, a lower ask is better
        self.best: int | None = None
        self.shown = 0
        self.taken: dict[int, int] = {}
        self.changed: set[int] = set()
        # Levels that show less than was taken from them: since when, and how much they show.
        self._short_since: dict[int, tuple[int, int]] = {}

    def show(self, now_us: int, price: int | None, size: int) -> None:
        """Take in what the venue shows now: its best price (None: nothing) and the size there."""
        self.best, self.shown = price, size
        if not self.taken:
            return
        self._forget(now_us)
        for level, taken in self.taken.items():
            ahead = 1 if price is None else (level - price) * self.sign
            if ahead < 0:
                self._short_since.pop(level, None)  # behind the best price: hidden, not gone
                continue
            shown = size if ahead == 0 else 0
            if shown >= taken:
                self._short_since.pop(level, None)
            else:
                since, _ = self._short_since.get(level, (now_us, 0))
                self._short_since[level] = (since, shown)
        self._prune()

    def blind(self) -> None:
        """Show nothing and judge nothing: the feed is not to be believed until its next quote."""
        self.best, self.shown = None, 0
        self._short_since.clear()

    def available(self, now_us: int) -> int:
        """Return how much of the best level can be sold now."""
        if self.best is None:
            return 0
        if self._short_since:
            self._forget(now_us)
        return max(0, self.shown - self.taken.get(self.best, 0))

    def take(self, size: int) -> int:
        """Take from the best level and return what had been taken from it before."""
        assert self.best is not None
        before = self.taken.get(self.best, 0)
        assert 0 < size <= self.shown - before
        self.taken[self.best] = before + size
        self.changed.add(self.best)
        return before

    def _forget(self, now_us: int) -> None:
        for level, (since, shown) in list(self._short_since.items()):
            if now_us - since >= MEMORY_US:
                del self._short_since[level]
                self.changed.add(level)
                if shown:
                    self.taken[level] = shown
                else:
                    del self.taken[level]

    def _prune(self) -> None:
        if self.best is None or len(self.taken) <= HIDDEN_MAX:
            return
        best = self.best
        hidden = sorted((level for level in self.taken if (best - level) * self.sign > 0), key=lambda p: abs(best - p))
        for level in hidden[HIDDEN_MAX:]:
            del self.taken[level]
            self.changed.add(level)
