"""The synthetic market: the same from the same seed, agreeing with itself, and right for the README's order."""

from collections import Counter
from decimal import Decimal
from functools import cache

import pytest

from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import Order, OrderState, Side, TimeInForce
from models.domain.outcomes import Split
from models.domain.quotes import BusItem, Mark, Quote
from simulator.market import MINUTE_US, TICK_US, BookChanged, Candle, Event, IndexMoved, Market, Traded

VENUES = tuple(sorted(INSTRUMENTS.venues))


@cache
def _events(seed: int, ticks: int, venues: tuple[str, ...] = VENUES) -> list[Event]:
    market = Market(INSTRUMENTS, venues, seed, 0)
    return [event for tick in range(1, ticks + 1) for event in market.tick(tick * TICK_US)]


def test_the_same_seed_gives_the_same_market() -> None:
    """Two markets of one seed say the same; one of another seed does not."""
    assert _events(7, 200) == _events.__wrapped__(7, 200)
    assert _events(7, 200) != _events(8, 200)


def test_a_venue_is_the_same_without_the_other() -> None:
    """Replaying one venue changes nothing about the other, synthetic one."""
    alone = Market(INSTRUMENTS, ["coinbase"], 7, 0)
    events = [event for tick in range(1, 201) for event in alone.tick(tick * TICK_US)]
    assert events == [event for event in _events(7, 200) if event.product.venue == "coinbase"]


def test_prices_and_sizes_are_whole_steps() -> None:
    """Every price is a whole number of ticks and every size of lots, all positive; a bid is below the ask."""
    for event in _events(7, 600):
        if isinstance(event, IndexMoved):
            assert event.price > 0
            continue
        tick, lot, top = event.product.tick, event.product.lot, event.top
        assert 0 < top.bid < top.ask
        prices, sizes = [top.bid, top.ask], [top.bid_size, top.ask_size]
        if isinstance(event, Traded):
            prices, sizes = [*prices, event.price], [*sizes, event.size]
        assert all(size > 0 for size in sizes)
        if isinstance(event, BookChanged):
            prices += [price for _, price, _ in event.changes]
            sizes += [size for _, _, size in event.changes]
        assert all(price > 0 and not price % tick for price in prices)
        assert all(size >= 0 and not size % lot for size in sizes)


def test_changes_lead_from_one_book_to_the_next() -> None:
    """Levels at the start with all changes applied are the levels at the end, and the best ones are the top."""
    market = Market(INSTRUMENTS, VENUES, 7, 0)
    books = {
        key: {(side, price): size for side in ("buy", "sell") for price, size in listing.levels(side)}
        for key, listing in market.listings.items()
    }
    for tick in range(1, 400):
        for event in market.tick(tick * TICK_US):
            if isinstance(event, BookChanged):
                levels = books[event.product.venue, event.product.id]
                levels.update({(side, price): size for side, price, size in event.changes})
                for gone in [key for key, size in levels.items() if not size]:
                    del levels[gone]
                assert event.top.bid == max(price for side, price in levels if side == "buy")
                assert event.top.ask == min(price for side, price in levels if side == "sell")
    for key, listing in market.listings.items():
        shown = {(side, price): size for side in ("buy", "sell") for price, size in listing.levels(side)}
        assert shown == books[key]


def test_trade_ids_rise_by_one_and_sequences_rise() -> None:
    """A client that counts trades finds no gap, and no product's sequence ever falls or stands."""
    trades, sequences = dict[tuple[str, str], int](), dict[tuple[str, str], int]()
    for event in _events(7, 600):
        if isinstance(event, IndexMoved):
            continue
        key = (event.product.venue, event.product.id)
        assert event.sequence > sequences.get(key, 0)
        sequences[key] = event.sequence
        if isinstance(event, Traded):
            assert event.trade_id == trades.get(key, event.trade_id - 1) + 1
            trades[key] = event.trade_id


def test_a_market_that_is_opened_later_goes_on_with_higher_ids() -> None:
    """Whatever its seed: a reader that knew the one before takes no trade of it for an old one."""
    ended_us, ids = 600 * TICK_US, dict[tuple[str, str], tuple[int, int]]()
    for event in _events(7, 600):
        if isinstance(event, Traded):
            ids[event.product.venue, event.product.id] = event.trade_id, event.sequence
    for seed in (7, 8):
        later = Market(INSTRUMENTS, VENUES, seed, ended_us + 60_000_000).listings
        for key, (trade_id, sequence) in ids.items():
            assert (later[key].last_trade.trade_id > trade_id) is (later[key].last_trade.sequence > sequence) is True


def test_a_trade_takes_what_the_level_showed() -> None:
    """A trade is at the best price of the moment before, and no larger than what was there."""
    market = Market(INSTRUMENTS, ["binance"], 7, 0)
    tops = {key[1]: None for key in market.listings} | {
        listing.product.id: listing.last_trade.top for listing in market.listings.values()
    }
    seen = 0
    for tick in range(1, 400):
        for event in market.tick(tick * TICK_US):
            assert not isinstance(event, IndexMoved)
            before = tops[event.product.id]
            if isinstance(event, Traded) and before is not None:
                seen += 1
                buys = event.taker_side == "buy"
                assert event.price == (before.ask if buys else before.bid)
                assert event.size <= (before.ask_size if buys else before.bid_size)
            tops[event.product.id] = event.top
    assert seen > 50


def test_pairs_agree_with_each_other() -> None:
    """LTC-BTC is LTC over BTC, on both venues, up to a spread and a tick."""
    market = Market(INSTRUMENTS, VENUES, 7, 0)
    for tick in range(1, 600):
        market.tick(tick * TICK_US)
    mids = {}
    for key, listing in market.listings.items():
        if listing.product.price_only:
            mids[key] = listing.index
            continue
        mids[key] = (listing.levels("buy")[0][0] + listing.levels("sell")[0][0]) / 2
    right = mids["binance", "LTCUSDT"] / mids["binance", "BTCUSDT"]
    for key in (("binance", "LTCBTC"), ("coinbase", "LTC-BTC"), ("kraken", "LTC/BTC"), ("htx", "ltcbtc")):
        assert abs(mids[key] / right - 1) < Decimal("0.002")
        assert Decimal("0.0007") < mids[key] < Decimal("0.001")
    assert abs(mids["deribit", "eth_btc"] / mids["binance", "ETHBTC"] - 1) < Decimal("0.002")


def test_candles_are_made_of_the_trades_of_their_minute() -> None:
    """Each trade's candle is that of the minute's trades up to it; the first of a minute brings the closed one."""
    made: dict[tuple[str, str], list[Traded]] = {}
    closed = 0
    for event in _events(7, 2_600, ("okx", "binance")):
        if not isinstance(event, Traded):
            continue
        key = (event.product.venue, event.product.id)
        minute = event.time_us - event.time_us % MINUTE_US
        before = made.get(key, [])
        mine = [trade for trade in before if trade.time_us - trade.time_us % MINUTE_US == minute] + [event]
        if event.candle.first_trade_id == mine[0].trade_id:  # not the minute in which the market was opened
            assert event.candle == _candle(minute, mine)
            if event.closed is not None and len(mine) < len(before):
                closed += event.closed.last_trade_id == event.trade_id - 1
        made[key] = mine
    assert closed > 5


def _candle(minute: int, trades: list[Traded]) -> Candle:
    prices, sizes = [trade.price for trade in trades], [trade.size for trade in trades]
    turnover = sum((trade.price * trade.size for trade in trades), Decimal(0))
    ends = (trades[0].trade_id, trades[-1].trade_id)
    total = sum(sizes, Decimal(0))
    return Candle(minute, prices[0], max(prices), min(prices), prices[-1], total, turnover, len(trades), *ends)


def _fill(seed: int, after_ticks: int) -> tuple[float, list[Split]]:
    """Sell 1,000 LTC at or above 0.0001 BTC to a market; return seconds and splits."""
    market, book, numbers = Market(INSTRUMENTS, VENUES, seed, 0), Book(INSTRUMENTS), Counter[str]()
    order = Order(1, "1", "", "", "LTC-BTC", Side.SELL, Decimal("0.0001"), Decimal(1000), TimeInForce.GTC, None, None)
    splits: list[Split] = []
    for tick in range(1, after_ticks + 1_000):
        now = tick * TICK_US
        items: list[BusItem] = [Mark(venue, 1, now) for venue in VENUES]
        for event in market.tick(now):
            if isinstance(event, BookChanged):
                product, top = event.product, event.top
                numbers[product.venue] += 1
                sides = (top.bid, top.bid_size, top.ask, top.ask_size)
                number = numbers[product.venue]
                items.append(Quote(product.venue, product.id, 1, number, *sides, True, None, now))
        for outcome in book.step(now, items=items, orders=[order] if tick == after_ticks else []).outcomes:
            splits += outcome.splits
            if outcome.state is OrderState.FILLED:
                return (tick - after_ticks) * TICK_US / 1e6, splits
    raise AssertionError("not filled")


@pytest.mark.parametrize("seed", [7, 1])
@pytest.mark.parametrize("after_ticks", [40, 400])
def test_the_order_of_the_readme_takes_a_while(seed: int, after_ticks: int) -> None:
    """1,000 LTC fill in 5 to 20 s of market time, over at least 5 splits and 2 venues, far above the limit."""
    seconds, splits = _fill(seed, after_ticks)
    assert 5 <= seconds <= 20
    assert len(splits) >= 5
    assert len({split.venue for split in splits}) >= 2
    assert all(Decimal("0.0007") < split.price < Decimal("0.001") for split in splits)
