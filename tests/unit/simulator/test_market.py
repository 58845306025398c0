"""The synthetic market: the same from the same seed, agreeing with itself, and right for the README's order."""

from decimal import Decimal

import pytest

from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import Order, OrderState, Side, TimeInForce
from models.domain.quotes import BusItem, Mark, Quote
from simulator.market import BookChanged, Market, Traded
from simulator.server import TICK_S

TICK_US = int(TICK_S * 1_000_000)


def test_the_same_seed_gives_the_same_market() -> None:
    """Two markets of one seed say the same; one of another seed does not."""
    first, second, other = (Market(INSTRUMENTS, "binance", seed) for seed in (7, 7, 8))
    said = [[market.tick(time) for time in range(200)] for market in (first, second, other)]
    assert said[0] == said[1]
    assert said[0] != said[2]


def test_prices_and_sizes_are_whole_steps() -> None:
    """Every price is a whole number of ticks and every size of lots; a bid is below the ask."""
    for venue in ("binance", "coinbase"):
        market = Market(INSTRUMENTS, venue, 7)
        for time in range(300):
            for event in market.tick(time):
                if isinstance(event, Traded):
                    assert not event.price % event.product.tick
                    assert not event.size % event.product.lot
                    continue
                assert event.after.bids[0].price < event.after.asks[0].price
                for level in (*event.after.bids, *event.after.asks):
                    assert level.size > 0
                    assert not level.price % event.product.tick
                    assert not level.size % event.product.lot


def test_trade_ids_rise_by_one() -> None:
    """A client that counts finds no gap."""
    market, last = Market(INSTRUMENTS, "coinbase", 7), dict[str, int]()
    for time in range(500):
        for event in market.tick(time):
            if isinstance(event, Traded):
                assert event.trade_id == last.get(event.product.id, event.trade_id - 1) + 1
                last[event.product.id] = event.trade_id


def _fill_time_s(seed: int) -> tuple[float, int, set[str]]:
    """Sell 1,000 LTC at or above 0.0001 BTC to a market; return seconds, splits and venues."""
    markets = {venue: Market(INSTRUMENTS, venue, seed) for venue in ("binance", "coinbase")}
    book, now = Book(INSTRUMENTS), 10**9
    numbers = dict.fromkeys(markets, 0)
    for _ in range(250):  # somewhere in the market's life
        for market in markets.values():
            market.tick(now)
    order = Order(1, "1", "", "", "LTC-BTC", Side.SELL, Decimal("0.0001"), Decimal(1000), TimeInForce.GTC, None, None)
    splits, venues, orders = 0, set[str](), [order]
    for tick in range(2_000):
        now += TICK_US
        items: list[BusItem] = []
        for venue, market in markets.items():
            items.append(Mark(venue, 1, now))
            for event in market.tick(now):
                if isinstance(event, BookChanged):
                    numbers[venue] += 1
                    bid, ask = event.after.bids[0], event.after.asks[0]
                    sides = (bid.price, bid.size, ask.price, ask.size)
                    items.append(
                        Quote(
                            venue,
                            event.product.id,
                            1,
                            numbers[venue],
                            *sides,
                            live=True,
                            exchange_time_us=None,
                            received_time_us=now,
                        )
                    )
        for outcome in book.step(now, items=items, orders=orders).outcomes:
            splits += len(outcome.splits)
            venues |= {split.venue for split in outcome.splits}
            if outcome.state is OrderState.FILLED:
                return tick * TICK_S, splits, venues
        orders = []
    raise AssertionError("not filled")


@pytest.mark.parametrize("seed", [7, 1, 2, 3])
def test_the_order_of_the_readme_takes_a_while(seed: int) -> None:
    """1,000 LTC fill in 5 to 20 s of market time, over at least 5 splits and 2 venues."""
    seconds, splits, venues = _fill_time_s(seed)
    assert 5 <= seconds <= 20
    assert splits >= 5
    assert venues == {"binance", "coinbase"}
