"""What each order must have got: slow, plain, and without a line of the book's own code.

It walks the journal of a loop step by step and keeps, for each venue product and side, the best price
shown, its size, and what was taken from each price. All numbers are Decimals as the texts gave them,
rounded to steps only where an oracle is told of them.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

SECOND_US = 1_000_000
HIDDEN_MAX = 4_096


@dataclass
class Side:
    """One side of one product, seen by the orders that take it: "sell" takes bids."""

    sell: bool
    best: Decimal | None = None
    shown: Decimal = Decimal(0)
    taken: dict[Decimal, Decimal] = field(default_factory=dict)
    short: dict[Decimal, tuple[int, Decimal]] = field(default_factory=dict)  # since when, showing how much

    def better(self, a: Decimal, b: Decimal) -> bool:
        return a > b if self.sell else a < b

    def forget(self, now: int) -> None:
        for price, (since, shown) in list(self.short.items()):
            if now - since >= SECOND_US:
                del self.short[price]
                self.taken[price] = shown

    def show(self, now: int, price: Decimal | None, size: Decimal) -> None:
        self.forget(now)
        self.best, self.shown = price, size
        for level, taken in self.taken.items():
            if price is not None and self.better(price, level):
                self.short.pop(level, None)
                continue
            shown = size if level == price else Decimal(0)
            if shown >= taken:
                self.short.pop(level, None)
            else:
                self.short[level] = (self.short[level][0] if level in self.short else now, shown)
        self.taken = {level: taken for level, taken in self.taken.items() if taken}
        if price is not None:
            hidden = sorted((p for p in self.taken if self.better(price, p)), key=lambda p: abs(p - price))
            for level in hidden[HIDDEN_MAX:]:
                del self.taken[level]

    def blind(self) -> None:
        self.best, self.shown = None, Decimal(0)
        self.short.clear()

    def left(self) -> Decimal:
        return max(Decimal(0), self.shown - self.taken.get(self.best, Decimal(0))) if self.best else Decimal(0)


class Oracle:
    """The state of one shard.

    `listed` has the tick, the lot and the venues of each symbol that there is; without it every symbol
    is listed everywhere and nothing is rounded.
    """

    def __init__(
        self, silence_us: int, listed: dict[str, tuple[Decimal, Decimal, frozenset[str]]] | None = None
    ) -> None:
        self.silence_us = silence_us
        self.listed = listed
        self.now = 0
        self.sides: dict[tuple[str, str, str], Side] = {}  # venue, product, side
        self.shown: dict[tuple[str, str], list[tuple[str, str, Side]]] = defaultdict(list)  # by symbol and side
        self.quotes: dict[tuple[str, str], tuple[int, int]] = {}  # token and number of what is believed
        self.seen: dict[tuple[str, str], tuple[int, int]] = {}  # the newest of each product
        self.tokens: dict[str, int] = {}
        self.marked: dict[str, int] = {}
        self.fed: set[str] = set()
        self.off: set[str] = set()
        self.open: list[dict[str, Any]] = []
        self.orders: dict[str, dict[str, Any]] = {}

    def blind(self, venue: str) -> None:
        self.fed.discard(venue)
        for (name, product, _), side in self.sides.items():
            if name == venue:
                self.quotes.pop((name, product), None)
                side.blind()

    def admit(self, venue: str, token: int) -> bool:
        if token > self.tokens.get(venue, 0):
            self.tokens[venue] = token
            self.blind(venue)
        return token == self.tokens[venue]

    def item(self, item: list[Any]) -> None:
        kind, venue = item[0], item[1]
        if kind == "mark":
            if self.admit(venue, item[2]):
                self.marked[venue] = self.now
                self.fed.add(venue)
        elif self.admit(venue, item[3]):
            _, _, product, token, number, bid, bid_size, ask, ask_size, live, *_ = item
            if self.gone(symbol_of(product), [venue]):
                return
            seen = self.seen.get((venue, product))
            if seen is not None and seen[0] == token and number <= seen[1]:
                return
            self.seen[venue, product] = self.quotes[venue, product] = (token, number)
            for name, price, size in (("sell", bid, bid_size), ("buy", ask, ask_size)):
                side = self.side(venue, product, name)
                if not live:
                    side.blind()
                elif price is not None and size is not None:
                    side.show(self.now, *self.rounded(product, name, Decimal(price), Decimal(size)))
                else:
                    side.show(self.now, None, Decimal(0))
        self.match()

    def side(self, venue: str, product: str, name: str) -> Side:
        """Return a side of a product, made where there is none yet."""
        side = self.sides.get((venue, product, name))
        if side is None:
            side = self.sides[venue, product, name] = Side(name == "sell")
            self.shown[symbol_of(product), name].append((venue, product, side))
        return side

    def rounded(self, product: str, side: str, price: Decimal, size: Decimal) -> tuple[Decimal, Decimal]:
        """Round what is finer than the steps so that less is sold: a bid and sizes down, an ask up."""
        if self.listed is None:
            return price, size
        tick, lot, _ = self.listed[symbol_of(product)]
        floor = price // tick * tick
        return floor if side == "sell" or floor == price else floor + tick, size // lot * lot

    def offers(self, order: dict[str, Any]) -> list[tuple[str, str, Side]]:
        """Return who has something within the limit, the best price first."""
        found = []
        for venue, product, side in self.shown[order["symbol"], order["side"]]:
            if side.best is None:
                continue
            allowed = order["venues"] is None or venue in order["venues"]
            crosses = not side.better(order["price"], side.best)
            believed = venue in self.fed and venue not in self.off and (venue, product) in self.quotes
            if allowed and crosses and believed and side.left():
                found.append((venue, product, side))
        # Equal prices: the venue first in the alphabet.
        return sorted(found, key=lambda each: (-each[2].best if each[2].sell else each[2].best, each[0]))  # type: ignore[operator] # best is set

    def fill(self, order: dict[str, Any]) -> None:
        while order["left"] and (offers := self.offers(order)):
            venue, product, side = offers[0]
            assert side.best is not None
            size = min(order["left"], side.left())
            before = side.taken.get(side.best, Decimal(0))
            order["found"].append((side.shown, before))
            side.taken[side.best] = before + size
            order["left"] -= size
            order["splits"].append((venue, product, side.best, size, *self.quotes[venue, product]))
        if not order["left"]:
            self.end(order, "filled", None)

    def end(self, order: dict[str, Any], state: str, reason: str | None) -> None:
        order["state"], order["reason"] = state, reason
        self.open = [other for other in self.open if other is not order]

    def match(self) -> None:
        first = {
            "sell": lambda order: (order["price"], order["seq"]),
            "buy": lambda order: (-order["price"], order["seq"]),
        }
        for side in ("buy", "sell"):
            for order in sorted((each for each in self.open if each["side"] == side), key=first[side]):
                self.fill(order)

    def place(self, row: list[Any], cancels: list[int]) -> None:
        seq, order_id, symbol, side, price, size, tif, venues, deadline, state, filled = row
        if any(each["seq"] == seq for each in self.open):
            return
        order = {"seq": seq, "symbol": symbol, "side": side, "price": Decimal(price), "venues": venues}
        order |= {"left": Decimal(size) - Decimal(filled), "deadline": deadline, "splits": [], "reason": None}
        order["found"] = []  # for each split what its level showed, and what had been taken from it
        self.orders[order_id] = order
        order["state"] = "working"
        if self.gone(symbol, venues):
            self.end(order, "rejected" if state == "queued" else "expired", "instrument_gone")
        elif self.too_fine(symbol, order["price"], order["left"]):
            self.end(order, "rejected", "step_failed")
        elif deadline is not None and deadline <= self.now:
            self.end(order, "expired", "deadline")
        elif seq in cancels:
            self.end(order, "cancelled", "cancelled")
        elif tif == "FOK" and sum(each[2].left() for each in self.offers(order)) < order["left"]:
            self.end(order, "expired", "fok")
        else:
            self.fill(order)
            if order["left"] and tif in ("IOC", "FOK"):
                self.end(order, "expired", tif.lower())
            elif order["left"]:
                self.open.append(order)

    def gone(self, symbol: str, venues: list[str] | None) -> bool:
        if self.listed is None:
            return False
        _, _, listing = self.listed.get(symbol, (0, 0, frozenset()))
        return not any(venues is None or venue in venues for venue in listing)

    def too_fine(self, symbol: str, price: Decimal, size: Decimal) -> bool:
        if self.listed is None:
            return False
        tick, lot, _ = self.listed[symbol]
        return bool(price % tick or size % lot)

    def step(self, entry: dict[str, Any]) -> None:
        self.now = max(self.now, entry["now"])
        for venue, enabled in entry["switches"]:
            (self.off.discard if enabled else self.off.add)(venue)
        for order in list(self.open):
            if order["deadline"] is not None and order["deadline"] <= self.now:
                self.end(order, "expired", "deadline")
        for order in [each for each in self.open if each["seq"] in entry["cancels"]]:
            self.end(order, "cancelled", "cancelled")
        self.match()
        for item in entry["items"]:
            self.item(item)
        for venue in list(self.fed):
            if self.now - self.marked[venue] >= self.silence_us:
                self.blind(venue)
        for row in entry["orders"]:
            self.place(row, entry["cancels"])


@cache
def symbol_of(product: str) -> str:
    """Return the symbol of a product id: venues part it by a dash, an underscore or a slash, or not at all."""
    joined = product.upper()
    for mark in "-_/":
        if mark in joined:
            return joined.replace(mark, "-")
    quotes = ("USDT", "USDC", "BTC", "ETH", "USD", "EUR")
    return next(f"{joined[: -len(quote)]}-{quote}" for quote in quotes if joined.endswith(quote))


def expected(journal: list[dict[str, Any]], silence_us: int) -> dict[str, dict[str, Any]]:
    """Return state, reason and splits of each order, from a journal."""
    oracle = Oracle(silence_us)
    for entry in journal:
        oracle.step(entry)
    return oracle.orders
