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
from simulator.pasts import Past

MINUTE_US = 60_000_000
TICK_US = 50_000  # what a tick stands for: Coinbase batches its level updates so
SEQUENCE_STEP = 40  # what a sequence rises by at once is less; at a tick it is 8 in the mean, with what stands still
START_USD = {"BTC": 97_000.0, "ETH": 3_400.0, "LTC": 85.0, "USD": 1.0, "USDT": 1.0, "USDC": 1.0, "EUR": 1.05}
START_USD |= {"AAVE": 300.0, "ADA": 0.9, "ALGO": 0.3, "ATOM": 7.0, "AVAX": 38.0, "BCH": 480.0, "DOGE": 0.38}
START_USD |= {"DOT": 7.2, "EOS": 0.75, "ETC": 26.0, "FIL": 5.1, "GRT": 0.2, "LINK": 18.0, "MATIC": 0.52}
START_USD |= {"SOL": 190.0, "TRX": 0.25, "UNI": 9.3, "XLM": 0.41, "XMR": 190.0, "XRP": 2.2, "XTZ": 1.2, "ZEC": 55.0}
# A tick's standard deviation; others have OTHERS'.
VOLATILITY = {"BTC": 0.25e-4, "ETH": 0.35e-4, "USD": 0.0, "USDT": 0.01e-4, "USDC": 0.01e-4, "EUR": 0.02e-4}
OTHERS = 0.5e-4
REVERSION = 0.0005  # a tick, towards the start, so that a long run stays within about 0.2 % of where it began
# What a best level shows, in US dollars on average. An order of some thousands of dollars takes
# several quotes; the README's (1,000 LTC, 85,000 dollars) takes 6 to 18 s, measured over 8 seeds.
LEVEL_USD = 3_000.0
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


# About 50 messages a second and venue: a trade is two or three of them, and Coinbase also sends a
# heartbeat a second for each product.
HABITS = {
    "binance": Habits(0.00008, 0.13, 0.03),
    "coinbase": Habits(0.00012, 0.08, 0.02),
    "kraken": Habits(0.00014, 0.09, 0.015),
    "htx": Habits(0.00012, 0.15, 0.03),
    "okx": Habits(0.00010, 0.30, 0.05),
    "deribit": Habits(0.00025, 0.25, 0.03),
}
ELSEWHERE = Habits(0.00015, 0.2, 0.04)
# Pairs of other assets are traded less: so much of the habits' chances is theirs.
MAJORS = frozenset({"BTC", "ETH", "LTC", "USD", "USDT", "USDC"})
MINOR = 0.2


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
class Candle:
    """What was traded in a minute, so far. `volume` is in the base asset, `turnover` in the quote asset."""

    start_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    turnover: Decimal
    trades: int
    first_trade_id: int
    last_trade_id: int

    def with_trade(self, price: Decimal, size: Decimal, trade_id: int) -> "Candle":
        """Return the candle with one more trade."""
        return Candle(
            self.start_us,
            self.open,
            max(self.high, price),
            min(self.low, price),
            price,
            self.volume + size,
            self.turnover + price * size,
            self.trades + 1,
            self.first_trade_id,
            trade_id,
        )


@dataclass(frozen=True, slots=True)
class Traded:
    """A trade at the best price. `taker_side` is "buy" or "sell"; `top` is what is left after it.

    `open`, `low`, `high`, `volume` (base asset), `turnover` (quote asset) and `trades` are those since
    the market began. `candle` is that of the trade's minute, with it; `closed` the one before, where
    this trade is the first of its minute.
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
    turnover: Decimal
    trades: int
    candle: Candle
    closed: Candle | None
    time_us: int


@dataclass(frozen=True, slots=True)
class IndexMoved:
    """An index (a price-only product) has another value."""

    product: Product
    price: Decimal
    time_us: int


Event = BookChanged | Traded | IndexMoved
Sides = dict[str, dict[int, int]]  # "buy" and "sell" -> price in ticks -> size in lots


class Listing:
    """One product: its levels and trades. It rises and falls with the assets that it is made of.

    An index has neither: only `index`, its value.
    """

    def __init__(self, instrument: Instrument, product: Product, habits: Habits, random: Random, past: Past) -> None:
        self.instrument = instrument
        self._past = past
        self.product = product
        self.sequence = random.randrange(1_000)
        self.time_us = 0  # of the latest tick
        self._last_trade: Traded | None = None
        self._habits = habits
        self._random = random
        self._tick, self.lot = float(product.tick), float(product.lot)
        self._share = 1.0 if {instrument.base, instrument.quote} <= MAJORS else MINOR
        self.index = Decimal(0)
        self._offset = 0.0
        self._sides: Sides = {"buy": {}, "sell": {}}
        self._first_trade_id = random.randrange(1_000)

    def open(self, mid: float, lot_usd: float, time_us: int) -> None:
        """Show the first levels, and have one trade behind it."""
        self.time_us = time_us
        # Higher than those of a market that was opened before: what has a lower id is an old trade.
        self._first_trade_id += time_us // TICK_US
        self.sequence += time_us // TICK_US * SEQUENCE_STEP // 2
        if self.product.price_only:
            self.index = _index(mid)
            return
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

    def candles(self, interval_us: int, start_us: int, end_us: int, now_us: int) -> list[Candle]:
        """Return made-up candles with start <= open time < end, the one that is still made among them.

        They agree with the values of the assets, and not with each trade since the market began. One in which nothing
        was traded is there with a volume of 0. The latest begins by `now_us`.
        """
        first_us = start_us + -start_us % interval_us
        return [
            self._candle(interval_us, open_us, now_us)
            for open_us in range(first_us, min(end_us, now_us + 1), interval_us)
        ]

    def _candle(self, interval_us: int, open_us: int, now_us: int) -> Candle:
        ends_us = min(open_us + interval_us, now_us)
        step_us = (ends_us - open_us) // 3
        times_us = (open_us, open_us + step_us, open_us + 2 * step_us, ends_us)
        prices = [self._price(time_us) for time_us in times_us]
        drawn, habits, ticks = 0.5 + self._past.chance(self.product.id, open_us), self._habits, interval_us // TICK_US
        trades = round(habits.trade_chance * self._share * ticks * drawn)
        lots = round(trades * LEVEL_USD * TRADED_MAX / 2 / (self._past.value(self.instrument.base, ends_us) * self.lot))
        volume = max(lots, trades) * self.product.lot
        first = self._first_trade_id
        return Candle(
            open_us, prices[0], max(prices), min(prices), prices[-1], volume, volume * prices[-1], trades, first, first
        )

    def _price(self, time_us: int) -> Decimal:
        # The same at the end of a candle and at the beginning of the next one.
        instrument = self.instrument
        mid = self._past.value(instrument.base, time_us) / self._past.value(instrument.quote, time_us)
        away = (self._past.chance(self.product.venue, self.product.id, time_us) - 0.5) * self._habits.spread
        return max(1, round(mid * (1 + away) / self._tick)) * self.product.tick

    def advance(self, mid: float, lot_usd: float, time_us: int) -> list[Event]:
        """Go one tick on. `mid` is the price that the assets stand for, `lot_usd` what a lot is worth."""
        random, habits = self._random, self._habits
        self.time_us = time_us
        self._offset += random.gauss(0, habits.spread * 0.1) - 0.05 * self._offset
        trades = random.random() < habits.trade_chance * self._share
        quotes = random.random() < habits.quote_chance * self._share
        if self.product.price_only:
            moved, self.index = quotes and _index(mid) != self.index, _index(mid) if quotes else self.index
            return [IndexMoved(self.product, self.index, time_us)] if moved else []
        if not trades and not quotes:
            return []
        before = {side: dict(held) for side, held in self._sides.items()}
        events: list[Event] = []
        if trades:
            events.append(self._trade(time_us))
        if quotes:
            sides = random.choice((("buy",), ("sell",), ("buy", "sell")))
            self._requote(mid * (1 + self._offset), lot_usd, sides)
        self.sequence += random.randrange(1, SEQUENCE_STEP)
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
        self.sequence += self._random.randrange(1, SEQUENCE_STEP)
        last, price, size = self._last_trade, best * self.product.tick, lots * self.product.lot
        trade_id = last.trade_id + 1 if last else self._first_trade_id
        minute_us = time_us - time_us % MINUTE_US
        candle = Candle(minute_us, price, price, price, price, size, price * size, 1, trade_id, trade_id)
        closed = last.candle if last else None
        if closed and closed.start_us == minute_us:
            candle, closed = closed.with_trade(price, size, trade_id), None
        self._last_trade = Traded(
            self.product,
            self.sequence,
            self._top(),
            trade_id,
            price,
            size,
            taker,
            last.open if last else price,
            min(last.low, price) if last else price,
            max(last.high, price) if last else price,
            last.volume + size if last else size,
            last.turnover + price * size if last else price * size,
            last.trades + 1 if last else 1,
            candle,
            closed,
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


def _index(value: float) -> Decimal:
    """Return an index's value with six significant digits."""
    return Decimal(f"{value:.6g}")


class Market:
    """All venues' products around one value of each asset."""

    def __init__(self, instruments: Instruments, venues: Collection[str], seed: int, start_us: int) -> None:
        self._values = dict(START_USD)
        self._random = Random(seed)  # noqa: S311 -- a market, not a secret
        self._past = Past(seed, START_USD, lambda asset: VOLATILITY.get(asset, OTHERS), start_us, TICK_US)
        self.listings = {
            (product.venue, product.id): Listing(
                instrument,
                product,
                HABITS.get(product.venue, ELSEWHERE),
                Random(f"{seed}:{product.venue}:{product.id}"),  # noqa: S311 -- likewise
                self._past,
            )
            for instrument in instruments
            for product in instrument.products
            if product.venue in venues
        }
        for listing in self.listings.values():
            listing.open(*self._worth(listing), start_us)

    def tick(self, now_us: int) -> list[Event]:
        """Go one tick on and return what happened, over all venues."""
        for asset, start in START_USD.items():
            away = start / self._values[asset] - 1
            self._values[asset] *= 1 + self._random.gauss(0, VOLATILITY.get(asset, OTHERS)) + away * REVERSION
        self._past.note(self._values, now_us)
        return [event for each in self.listings.values() for event in each.advance(*self._worth(each), now_us)]

    def of_venue(self, venue: str) -> dict[str, Listing]:
        """Return a venue's products by their id."""
        return {product_id: listing for (name, product_id), listing in self.listings.items() if name == venue}

    def _worth(self, listing: Listing) -> tuple[float, float]:
        base = self._values[listing.instrument.base]
        return base / self._values[listing.instrument.quote], base * listing.lot
