"""The outbox: nothing is left out while the bus keeps up, and only the newest counts when it does not."""

from decimal import Decimal

import pytest

from exchanges.protocol import LastPrice
from models.domain.quotes import Quote, Trade
from workers import outbox as room
from workers.outbox import Outbox


def quote(product_id: str, bid: int, received_us: int = 1) -> Quote:
    one = Decimal(1)
    return Quote("binance", product_id, 1, 0, Decimal(bid), one, Decimal(bid + 1), one, True, None, received_us)


def trade(number: int, *, before: bool = False, exchange_us: int | None = None, received_us: int = 1) -> Trade:
    price = Decimal(100 + number)
    return Trade("binance", "A", 1, str(number), price, Decimal(1), "buy", exchange_us, received_us, before)


def bids(outbox: Outbox) -> list[tuple[str, int, int]]:
    items = [item for item in outbox.take()[0] if isinstance(item, Quote)]
    return [(item.product_id, item.number, int(item.bid_price or 0)) for item in items]


@pytest.fixture
def outbox() -> Outbox:
    return Outbox("binance", "simulated")


def test_quotes_are_numbered_in_the_order_of_their_arrival(outbox: Outbox) -> None:
    """One count for all products of a connection, from 1."""
    for item in (quote("A", 1), quote("B", 2), quote("A", 3)):
        outbox.put(item)
    assert bids(outbox) == [("A", 1, 1), ("B", 2, 2), ("A", 3, 3)]
    assert bids(outbox) == []


def test_a_backlog_becomes_the_newest_quote_of_each_product(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waited too long is no news; the count says how much was left out, and trades all stay."""
    for item in (quote("A", 1), quote("B", 2), trade(1), quote("A", 3), trade(2)):
        outbox.put(item)
    monkeypatch.setattr(room, "BACKLOG_S", -1)  # the measure of time itself is the subject
    items, _ = outbox.take()
    assert [getattr(item, "number", None) for item in items] == [2, None, 3, None]
    assert (outbox.conflated, outbox.trades_lost) == (1, 0)


def test_bounds_hold_and_what_goes_is_counted(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the bus is away, memory is bounded; the newest quote and the newest trades are kept."""
    monkeypatch.setattr(room, "QUOTES_MAX", 10)
    monkeypatch.setattr(room, "TRADES_MAX", 10)
    for number in range(100):
        outbox.put(quote("A", number))
        outbox.put(trade(number))
    items, _ = outbox.take()
    kept_quotes = [item for item in items if isinstance(item, Quote)]
    kept_trades = [item for item in items if isinstance(item, Trade)]
    assert len(kept_quotes) <= 11
    assert len(kept_trades) <= 11
    assert kept_quotes[-1].bid_price == 99
    assert kept_trades[-1].trade_id == "99"
    assert outbox.conflated == 100 - len(kept_quotes)
    assert outbox.trades_lost == 100 - len(kept_trades)


def test_after_a_lost_write_only_the_current_quotes_come_again(outbox: Outbox) -> None:
    """Under new numbers, once a product, also for a product whose newest quote still waits."""
    outbox.put(quote("A", 1))
    outbox.put(quote("B", 2))
    outbox.lost(outbox.take()[0])
    outbox.put(quote("A", 3))
    outbox.current_again()
    assert sorted(bids(outbox)) == [("A", 3, 3), ("B", 4, 2)]
    assert outbox.conflated == 2


def test_a_new_connection_begins_without_the_old_ones_quotes(outbox: Outbox) -> None:
    """Its quotes, sent or not, are gone; trades and last prices stay; numbers begin again."""
    outbox.put(quote("A", 1))
    outbox.put(trade(1))
    outbox.forget()
    items, latest = outbox.take()
    assert [type(item) for item in items] == [Trade]
    assert (latest["A"].last, latest["A"].bid, latest["A"].live) == (Decimal(101), None, False)
    assert outbox.current() == ([], latest)
    outbox.put(quote("A", 5))
    assert bids(outbox) == [("A", 1, 5)]


def test_a_trade_from_before_does_not_look_new(outbox: Outbox) -> None:
    """It has the venue's time; it never replaces a newer price; an ordinary trade has the time of its arrival."""
    outbox.put(trade(1, before=True, exchange_us=50, received_us=1_000))
    assert outbox.take()[1]["A"].last_time_us == 50
    outbox.put(trade(2, exchange_us=60, received_us=2_000))
    outbox.put(trade(1, before=True, exchange_us=50, received_us=3_000))
    latest = outbox.take()[1]["A"]
    assert (latest.last, latest.last_time_us) == (Decimal(102), 2_000)


def test_a_last_price_is_no_trade(outbox: Outbox) -> None:
    """A ticker's price joins the latest prices and does not go into the stream."""
    outbox.put(LastPrice("coinbase", "A", Decimal(7), 10))
    items, latest = outbox.take()
    assert items == []
    assert latest["A"].last == Decimal(7)
