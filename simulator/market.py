"""The synthetic market: correlated pairs around one value an asset, from a seed.

Each asset has one value in US dollars that wanders; a pair's mid is the ratio of two of them, so
LTC-BTC always agrees with LTC-USDT and BTC-USDT. Each venue sees it with its own offset, spread and
trade flow. Nothing here reads a clock: the same seed and the same ticks give the same market.

Numbers are drawn as floats and become whole ticks and lots at once; from there on they are exact.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from models.domain.instruments import Instrument, Instruments, Product

TICK_US = 50_000  # what a tick stands for: Coinbase batches its level updates so
START_USD = {"BTC": 97_000.0, "ETH": 3_400.0, "LTC": 85.0, "USD": 1.0, "USDT": 1.0, "USDC": 1.0}
VOLATILITY = {"BTC": 0.25e-4, "ETH": 0.35e-4, "LTC": 0.5e-4, "USDT": 0.01e-4, "USDC": 0.01e-4}  # a tick
REVERSION = 0.0005  # a tick, towards the start, so that a long run stays within about 0.2 % of where it began
# What a best level shows, in US dollars on average. An order of some thousands of dollars takes
# several quotes; the README's (1,000 LTC, 85,000 dollars) takes 7 to 18 s, measured over 20 seeds.
LEVEL_USD = 3_500.0
LEVEL_SIGMA = 0.7  # of the sizes' lognormal distribution
DEPTH = 12  # levels a side
TRADED_MAX = 0.3  # the part of a best level that a trade takes, at most
SWEEP_CHANCE = 0.05  # of a trade to take the whole level instead


@dataclass(frozen=True)
class Habits:
    """How a venue differs from the others. Chances are for each product at each tick."""

    spread: float
    quote_chance: float
    trade_chance: float


# About 50 messages a second: a trade is two of Binance's (trade, bookTicker) and three of Coinbase's
# (match, ticker, l2update), which also sends a heartbeat a second for each product.
HABITS = {"binance": Habits(0.00008, 0.35, 0.08), "coinbase": Habits(0.00012, 0.18, 0.05)}


@dataclass(frozen=True, slots=True)
class Top:
    """The best bid and ask."""

    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal


@dataclass(frozen=True, slots=True)
class BookChanged:
    """Levels hold something else; `changes` are (side, price, size), "buy" for bids, size 0 for gone."""

    product: Product
    sequence: int
    top: Top
    changes: tuple[tuple[str, Decimal, Decimal], ...]
    time_us: int


@dataclass(frozen=True, slots=True)
class Traded:
    """A trade at the best price. `taker_side` is "buy" or "sell"; `top` is what is left after it.

    `open`, `low`, `high` and `volume` are those since the market began.
    """

    product: Product
    sequence: int
    top: Top
    trade_id: int
    price: Decimal
    size: Decimal
    taker_side: str
    open: Decimal
    low: Decimal
    high: Decimal
    volume: Decimal
    time_us: int


Event = BookChanged | Traded
Sides = dict[str, dict[int, int]]  # "buy" and "sell" -> price in ticks -> size in lots


class Listing:
    """One product: its levels and trades. It rises and falls with the assets that it is made of."""

    def __init__(self, instrument: Instrument, product: Product, habits: Habits, random: Random) -> None:
        self.instrument = instrument
        self.product = product
        self.sequence = random.randrange(10**9, 10**10)
        self.time_us = 0  # of the latest tick
        self._last_trade: Traded | None = None
        self._habits = habits
        self._random = random
        self._tick, self._lot = float(product.tick), float(product.lot)
        self._offset = 0.0
        self._sides: Sides = {"buy": {}, "sell": {}}
        self._first_trade_id = random.randrange(10**6, 10**8)

    def open(self, mid: float, lot_usd: float, time_us: int) -> None:
        """Show the first levels, and have one trade behind it."""
        self.time_us = time_us
        self._requote(mid, lot_usd, ("buy", "sell"))
        self._trade(time_us)

    @property
    def last_trade(self) -> Traded:
        """The latest trade."""
        assert self._last_trade is not None, "the listing is not open"
        return self._last_trade

    def levels(self, side: str) -> list[tuple[Decimal, Decimal]]:
        """Return the (price, size) of a side's levels, best first."""
        held = sorted(self._sides[side].items(), reverse=side == "buy")
        return [(price * self.product.tick, size * self.product.lot) for price, size in held]

    def advance(self, mid: float, lot_usd: float, time_us: int) -> list[Event]:
        """Go one tick on. `mid` is the price that the assets stand for, `lot_usd` what a lot is worth."""
        random, habits = self._random, self._habits
        self.time_us = time_us
        self._offset += random.gauss(0, habits.spread * 0.1) - 0.05 * self._offset
        trades, quotes = random.random() < habits.trade_chance, random.random() < habits.quote_chance
        if not trades and not quotes:
            return []
        before = {side: dict(held) for side, held in self._sides.items()}
        events: list[Event] = []
        if trades:
            events.append(self._trade(time_us))
        if quotes:
            sides = random.choice((("buy",), ("sell",), ("buy", "sell")))
            self._requote(mid * (1 + self._offset), lot_usd, sides)
        self.sequence += random.randrange(1, 40)
        events.append(BookChanged(self.product, self.sequence, self._top(), self._changes(before), time_us))
        return events

    def _requote(self, mid: float, lot_usd: float, sides: Collection[str]) -> None:
        """Move both sides to the mid, and let the best levels of `sides` hold something else."""
        half = mid * self._habits.spread / 2
        best_bid = math.floor((mid - half) / self._tick)
        best_ask = max(math.ceil((mid + half) / self._tick), best_bid + 1)
        step = max(1, round(half / self._tick))
        for side, best, away in (("buy", best_bid, -1), ("sell", best_ask, 1)):
            held = self._sides[side]
            for price in [price for price in held if (price - best) * away < 0]:
                del held[price]
            if side in sides or best not in held:
                held[best] = self._size(lot_usd)
            while len(held) > DEPTH:
                del held[max(held, key=lambda price: price * away)]
            while len(held) < DEPTH:
                worst = max(held, key=lambda price: price * away)
                held[worst + away * self._random.randint(1, step * 2)] = self._size(lot_usd)

    def _size(self, lot_usd: float) -> int:
        # The mean of a lognormal distribution is exp(mu + sigma^2 / 2).
        dollars = LEVEL_USD * self._random.lognormvariate(-(LEVEL_SIGMA**2) / 2, LEVEL_SIGMA)
        return max(1, round(dollars / lot_usd))

    def _trade(self, time_us: int) -> Traded:
        taker, maker = self._random.choice((("buy", "sell"), ("sell", "buy")))
        held = self._sides[maker]
        best = min(held) if maker == "sell" else max(held)
        part = 1.0 if self._random.random() < SWEEP_CHANCE else self._random.random() * TRADED_MAX
        lots = min(held[best], max(1, round(held[best] * part)))
        held[best] -= lots
        if not held[best]:
            del held[best]
        self.sequence += self._random.randrange(1, 40)
        last, price, size = self._last_trade, best * self.product.tick, lots * self.product.lot
        self._last_trade = Traded(
            self.product,
            self.sequence,
            self._top(),
            last.trade_id + 1 if last else self._first_trade_id,
            price,
            size,
            taker,
            last.open if last else price,
            min(last.low, price) if last else price,
            max(last.high, price) if last else price,
            last.volume + size if last else size,
            time_us,
        )
        return self._last_trade

    def _top(self) -> Top:
        tick, lot = self.product.tick, self.product.lot
        bids, asks = self._sides["buy"], self._sides["sell"]
        bid, ask = max(bids), min(asks)
        return Top(bid * tick, bids[bid] * lot, ask * tick, asks[ask] * lot)

    def _changes(self, before: Sides) -> tuple[tuple[str, Decimal, Decimal], ...]:
        tick, lot = self.product.tick, self.product.lot
        return tuple(
            (side, price * tick, held.get(price, 0) * lot)
            for side, held in self._sides.items()
            for price in sorted(before[side].keys() | held.keys())
            if before[side].get(price) != held.get(price)
        )


class Market:
    """All venues' products around one value of each asset."""

    def __init__(self, instruments: Instruments, venues: Collection[str], seed: int, start_us: int) -> None:
        self._values = dict(START_USD)
        self._random = Random(seed)  # noqa: S311 -- a market, not a secret
        self.listings = {
            (product.venue, product.id): Listing(
                instrument,
                product,
                HABITS[product.venue],
                Random(f"{seed}:{product.venue}:{product.id}"),  # noqa: S311 -- likewise
            )
            for instrument in instruments
            for product in instrument.products
            if product.venue in venues
        }
        for listing in self.listings.values():
            listing.open(*self._worth(listing), start_us)

    def tick(self, now_us: int) -> list[Event]:
        """Go one tick on and return what happened, over all venues."""
        for asset, volatility in VOLATILITY.items():
            away = START_USD[asset] / self._values[asset] - 1
            self._values[asset] *= 1 + self._random.gauss(0, volatility) + away * REVERSION
        return [event for each in self.listings.values() for event in each.advance(*self._worth(each), now_us)]

    def of_venue(self, venue: str) -> dict[str, Listing]:
        """Return a venue's products by their id."""
        return {product_id: listing for (name, product_id), listing in self.listings.items() if name == venue}

    def _worth(self, listing: Listing) -> tuple[float, float]:
        base = self._values[listing.instrument.base]
        return base / self._values[listing.instrument.quote], base * float(listing.product.lot)
