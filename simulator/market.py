"""The synthetic market: correlated pairs around one mid price an asset, from a seed.

Each asset has one value in US dollars that wanders; a pair's mid is the ratio of two of them, so
LTC-BTC always agrees with LTC-USDT and BTC-USDT. Each venue sees it with its own offset, spread and
trade flow. Nothing here reads a clock: the same seed and the same ticks give the same market.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from random import Random

from models.domain.instruments import Instrument, Instruments, Product

VALUES_USD = {"BTC": 97_000.0, "ETH": 3_400.0, "LTC": 85.0, "USD": 1.0, "USDT": 1.0, "USDC": 1.0}
VOLATILITY = {"BTC": 0.6e-4, "ETH": 0.8e-4, "LTC": 1.2e-4, "USDT": 0.05e-4, "USDC": 0.05e-4}  # a tick
REVERSION = 0.002  # a tick, towards the starting value, so that a long run stays where it began
# What a best level shows, in US dollars on average: small enough that an order worth some thousands
# of dollars takes several levels.
LEVEL_USD = 2_700.0
SIGMA = 0.5  # of the logarithm of a size
QUOTE_CHANCE = 0.24  # of a product's quote to change at a tick
TRADE_CHANCE = 0.05
SPREAD = {"binance": 0.00008, "coinbase": 0.00012}
DEPTH = 12  # levels a side, as far as a venue shows more than the best one


@dataclass(frozen=True, slots=True)
class Level:
    """A price and what can be had there."""

    price: Decimal
    size: Decimal


@dataclass(slots=True)
class Book:
    """One product's levels, best first."""

    bids: list[Level]
    asks: list[Level]


@dataclass(frozen=True, slots=True)
class BookChanged:
    """A product shows other levels; `number` rises with each change of the venue."""

    product: Product
    before: Book
    after: Book
    number: int
    time_us: int


@dataclass(frozen=True, slots=True)
class Traded:
    """A trade at a product's best price; `taker_side` is "buy" or "sell"."""

    product: Product
    book: Book
    number: int
    trade_id: int
    price: Decimal
    size: Decimal
    taker_side: str
    time_us: int


class Market:
    """One venue's products. Venues with one seed share the assets' values and differ in all else."""

    def __init__(self, instruments: Instruments, venue: str, seed: int) -> None:
        self._values = dict(VALUES_USD)
        self._assets = Random(seed)  # noqa: S311 -- a market, not a secret
        self._venue = Random(f"{seed}:{venue}")  # noqa: S311 -- likewise
        self._spread = SPREAD.get(venue, 0.0001)
        self._ticks = 0
        self._number = 1_000_000
        self._products = [
            (instrument, product)
            for instrument in instruments
            for product in instrument.products
            if product.venue == venue
        ]
        self.trade_ids = {product.id: 1_000 + place * 1_000_000 for place, (_, product) in enumerate(self._products)}
        self.books = {product.id: self._book(instrument, product) for instrument, product in self._products}
        self.last_trades: dict[str, Traded] = {}

    @property
    def product_ids(self) -> list[str]:
        """The venue's products."""
        return list(self.books)

    def tick(self, time_us: int) -> list[BookChanged | Traded]:
        """Go one step on and return what happened."""
        self._ticks += 1
        self._move_assets()
        events: list[BookChanged | Traded] = []
        for instrument, product in self._products:
            if self._venue.random() < TRADE_CHANCE:
                events.append(self._trade(product, time_us))
            if self._venue.random() < QUOTE_CHANCE:
                before = self.books[product.id]
                after = self.books[product.id] = self._book(instrument, product)
                self._number += 1
                events.append(BookChanged(product, before, after, self._number, time_us))
        return events

    def _move_assets(self) -> None:
        for asset, volatility in VOLATILITY.items():
            start = VALUES_USD[asset]
            drawn = self._assets.gauss(0, volatility)
            self._values[asset] *= 1 + drawn + (start / self._values[asset] - 1) * REVERSION

    def _book(self, instrument: Instrument, product: Product) -> Book:
        mid = self._values[instrument.base] / self._values[instrument.quote]
        mid *= 1 + self._venue.gauss(0, self._spread / 3)
        half = max(mid * self._spread / 2, float(product.tick) / 2)
        best_bid = _round(mid - half, product.tick, ROUND_FLOOR)
        best_ask = max(_round(mid + half, product.tick, ROUND_CEILING), best_bid + product.tick)
        return Book(
            [Level(best_bid - product.tick * place, self._size(instrument, product)) for place in range(DEPTH)],
            [Level(best_ask + product.tick * place, self._size(instrument, product)) for place in range(DEPTH)],
        )

    def _size(self, instrument: Instrument, product: Product) -> Decimal:
        dollars = LEVEL_USD * self._venue.lognormvariate(0, SIGMA)
        lots = dollars / self._values[instrument.base] / float(product.lot)
        # Coinbase's lots are far finer than what anybody trades in; six decimals are plenty.
        return max(_round(lots * float(product.lot), max(product.lot, Decimal("0.000001")), ROUND_FLOOR), product.lot)

    def _trade(self, product: Product, time_us: int) -> Traded:
        book = self.books[product.id]
        side = self._venue.choice(("buy", "sell"))
        level = book.asks[0] if side == "buy" else book.bids[0]
        size = _round(
            float(level.size) * self._venue.random() * 0.3, max(product.lot, Decimal("0.000001")), ROUND_FLOOR
        )
        self.trade_ids[product.id] += 1
        self._number += 1
        number, trade_id = self._number, self.trade_ids[product.id]
        traded = Traded(product, book, number, trade_id, level.price, max(size, product.lot), side, time_us)
        self.last_trades[product.id] = traded
        return traded


def _round(value: float, step: Decimal, rounding: str) -> Decimal:
    """Return a drawn number as a whole number of steps: from here on it is exact."""
    return (Decimal(repr(value)) / step).to_integral_value(rounding) * step
