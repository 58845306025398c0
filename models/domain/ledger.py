"""What each level shows, and what was taken from it.

A level is one price on one side of one venue product. `max(0, shown - taken)` can be sold. `taken`
falls in one case only: the level has shown less than `taken` for a full second; then it becomes what
is shown. So growth is sold; a dip, a flicker or a late frame is not, and the doubt goes against selling.
"""

from bisect import bisect_left, bisect_right, insort

from models.domain.orders import Side

MEMORY_US = 1_000_000  # for so long a level must have shown less before the rest of `taken` is forgotten
# Records kept of levels behind the best price, nearest first. With 32 of them the recorded session of
# six minutes sold four levels again to which the price came back; see docs/adr/0009.
HIDDEN_MAX = 4_096
# Goes up whenever the same quotes and orders would give other fills: what was computed by different
# versions need not agree.
RULE_VERSION = 1


class Ledger:
    """One side of one product, seen from the orders that take it: a `SELL` ledger holds bids.

    Prices and sizes are scaled integers. `best` is None where the side shows nothing; `left` is how much of the best
    level can be sold now. `taken` has what was taken from each price; only the methods here change it.
    """

    __slots__ = ("_prices", "_short_since", "best", "changed", "left", "shown", "sign", "taken")

    def __init__(self, side: Side) -> None:
        self.sign = 1 if side is Side.SELL else -1  # a higher bid is better, a lower ask is better
        self.best: int | None = None
        self.shown = 0
        self.left = 0
        self.taken: dict[int, int] = {}
        self._prices: list[int] = []  # those of `taken`, from low to high
        self.changed: set[int] = set()
        # Levels that show less than was taken from them: since when, and how much they show.
        self._short_since: dict[int, tuple[int, int]] = {}

    def show(self, now_us: int, price: int | None, size: int) -> None:
        """Take in what the venue shows now: its best price (None: nothing) and the size there."""
        if not self.taken:
            self.best, self.shown, self.left = price, size, size
            return
        self._judge(now_us, price, size)
        self.best, self.shown = price, size
        self._look()

    def _judge(self, now_us: int, price: int | None, size: int) -> None:
        if self._short_since:
            self._forget(now_us)
            for level in list(self._short_since):
                if price is not None and (level - price) * self.sign < 0:
                    del self._short_since[level]  # behind the best price: hidden, not gone
        elif price is not None and len(self.taken) <= HIDDEN_MAX:
            # Most quotes show at least what was taken, at a price that none with a record is better than.
            top = self._prices[-1] if self.sign > 0 else self._prices[0]
            if (size >= self.taken[top]) if price == top else (price - top) * self.sign > 0:
                return
        # Levels in front of the best price are few: a second later they are forgotten.
        for level in self._in_front(price):
            taken, shown = self.taken[level], size if level == price else 0
            if shown >= taken:
                self._short_since.pop(level, None)
            else:
                since, _ = self._short_since.get(level, (now_us, 0))
                self._short_since[level] = (since, shown)
        if len(self.taken) > HIDDEN_MAX and price is not None:
            self._prune(price)

    def _look(self) -> None:
        left = self.shown - self.taken.get(self.best, 0) if self.best is not None else 0
        self.left = left if left > 0 else 0  # noqa: FURB136 -- max() takes twice as long, millions of times

    def blind(self) -> None:
        """Show nothing and judge nothing: the feed is not to be believed until its next quote."""
        self.best, self.shown, self.left = None, 0, 0
        self._short_since.clear()

    def take(self, size: int) -> int:
        """Take from the best level and return what had been taken from it before."""
        price = self.best
        assert price is not None
        assert 0 < size <= self.left
        before = self.taken.get(price, 0)
        if not before:
            insort(self._prices, price)
        self.taken[price] = before + size
        self.left -= size
        self.changed.add(price)
        return before

    def restore(self, price: int, taken: int) -> None:
        """Know what was taken from a level, in all and more than nothing, whoever took it."""
        if price not in self.taken:
            insort(self._prices, price)
        self.taken[price] = taken
        self._look()

    def _forget(self, now_us: int) -> None:
        for level, (since, shown) in list(self._short_since.items()):
            if now_us - since >= MEMORY_US:
                del self._short_since[level]
                self.changed.add(level)
                if shown:
                    self.taken[level] = shown
                else:
                    self._drop(level)

    def _drop(self, level: int) -> None:
        del self.taken[level]
        del self._prices[bisect_left(self._prices, level)]

    def _in_front(self, price: int | None) -> list[int]:
        """Return the levels with a record at this price and better ones; all of them where nothing is shown."""
        prices = self._prices
        if price is None:
            return prices[:]
        return prices[bisect_left(prices, price) :] if self.sign > 0 else prices[: bisect_right(prices, price)]

    def _prune(self, best: int) -> None:
        prices = self._prices
        hidden = prices[: bisect_left(prices, best)] if self.sign > 0 else prices[bisect_right(prices, best) :]
        far = hidden[:-HIDDEN_MAX] if self.sign > 0 else hidden[HIDDEN_MAX:]
        for level in far:
            self._drop(level)
            self.changed.add(level)


class GrowthOnly(Ledger):
    """What was taken is never forgotten: only what a level shows beyond that is sold, however much later."""

    __slots__ = ()

    def _judge(self, now_us: int, price: int | None, size: int) -> None:
        pass


class NoHold(Ledger):
    """A dip is believed at once: `taken` becomes what is shown as soon as that is less."""

    __slots__ = ()

    def _judge(self, now_us: int, price: int | None, size: int) -> None:
        super()._judge(now_us, price, size)
        self._forget(now_us + MEMORY_US)


class LevelReset(Ledger):
    """What was taken is forgotten when the best level changes, in price or size, or vanishes."""

    __slots__ = ()

    def _judge(self, now_us: int, price: int | None, size: int) -> None:  # noqa: ARG002 -- at once
        if (price, size) != (self.best, self.shown):
            self._reset()

    def _reset(self) -> None:
        self.changed.update(self.taken)
        self.taken.clear()
        self._prices.clear()


class EachQuote(LevelReset):
    """What was taken is forgotten with each quote, even one that says the same again."""

    __slots__ = ()

    def _judge(self, now_us: int, price: int | None, size: int) -> None:  # noqa: ARG002 -- always
        self._reset()


PRESENT = "hold-1s"  # the rule of the loops
# By the names that `crossfill replay --replenish` knows. All but the present one answer "what if": growth-only
# is the most cautious, the last two are those of common simulators.
RULES: dict[str, type[Ledger]] = {
    PRESENT: Ledger,
    "growth-only": GrowthOnly,
    "no-hold": NoHold,
    "level-reset": LevelReset,
    "each-quote": EachQuote,
}
