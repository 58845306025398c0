"""Coinbase's protocol: every rule by hand, and the recorded session against a plain book."""

import gzip
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest

from exchanges.coinbase.products import parse
from exchanges.coinbase.protocol import Coinbase
from exchanges.protocol import Acknowledged, Event, Gap, Heartbeat, LastPrice, Unknown, VenueError
from models.domain.quotes import Quote, Trade

RECORDING = "sessions/coinbase_exchange_2021-04-17.jsonl.gz"
TIME = "2026-09-02T07:44:10.104422Z"
TIME_US = 1_788_335_050_104_422


@pytest.fixture
def protocol() -> Coinbase:
    return Coinbase(None, ["BTC-USD"], 7)


def decode(protocol: Coinbase, **message: object) -> list[Event]:
    events = protocol.decode(json.dumps(message).encode(), 1_000)
    return [event for event in events if not isinstance(event, LastPrice)]


def snapshot(protocol: Coinbase) -> list[Event]:
    levels = {"bids": [["10.5", "2"], ["10.4", "9"]], "asks": [["10.7", "1"], ["10.6", "3"]]}
    return decode(protocol, type="snapshot", product_id="BTC-USD", **levels)


def best(events: list[Event]) -> tuple[str, ...]:
    [quote] = events
    assert isinstance(quote, Quote)
    return tuple(str(value) for value in (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size))


def change(protocol: Coinbase, *changes: tuple[str, str, str]) -> list[Event]:
    return decode(protocol, type="l2update", product_id="BTC-USD", changes=changes, time=TIME)


def match(protocol: Coinbase, trade_id: int, kind: str = "match", side: str = "buy") -> list[Event]:
    more = {"side": side, "size": "0.1", "price": "10.5", "product_id": "BTC-USD", "sequence": 1, "time": TIME}
    return decode(protocol, type=kind, trade_id=trade_id, **more)


def test_the_book_gives_live_quotes(protocol: Coinbase) -> None:
    """The best of snapshot and updates; an update behind the best says nothing; 0 deletes a level."""
    assert best(snapshot(protocol)) == ("10.5", "2", "10.6", "3")
    assert change(protocol, ("buy", "10.4", "1")) == []
    assert best(change(protocol, ("buy", "10.5", "0.00000000"))) == ("10.4", "1", "10.6", "3")
    events = change(protocol, ("sell", "10.6", "4"), ("buy", "10.55", "7"))
    assert best(events) == ("10.55", "7", "10.6", "4")
    assert isinstance(events[0], Quote)
    assert (events[0].live, events[0].exchange_time_us) == (True, TIME_US)


def test_an_update_without_a_snapshot_says_nothing(protocol: Coinbase) -> None:
    """A book cannot be known by its changes alone."""
    assert change(protocol, ("buy", "10.5", "1")) == []


def test_a_ticker_is_not_live(protocol: Coinbase) -> None:
    """It speaks only on a trade; once there is a live book it gives no quote at all."""
    ticker = {"product_id": "BTC-USD", "price": "10.5", "best_bid": "10.4", "best_ask": "10.6", "time": TIME}
    events = decode(protocol, type="ticker", **ticker)
    assert [event.live for event in events if isinstance(event, Quote)] == [False]
    snapshot(protocol)
    assert not [event for event in decode(protocol, type="ticker", **ticker) if isinstance(event, Quote)]


def test_the_side_of_a_match_is_the_makers(protocol: Coinbase) -> None:
    """A maker who bought had a taker who sold."""
    [sold] = match(protocol, 1)
    [bought] = match(protocol, 2, side="sell")
    assert isinstance(sold, Trade)
    assert isinstance(bought, Trade)
    assert (sold.taker_side, bought.taker_side, sold.before) == ("sell", "buy", False)


def test_gaps_are_seen_from_the_last_match_on(protocol: Coinbase) -> None:
    """Trade ids rise by one from `last_match`; what a heartbeat knew and what has not come by the next is lost."""
    [before] = match(protocol, 10, "last_match")
    assert isinstance(before, Trade)
    assert before.before
    _, gap = match(protocol, 13)
    assert isinstance(gap, Gap)
    assert (gap.missed, gap.resync) == (2, True)
    assert match(protocol, 12) == []
    beat = {"product_id": "BTC-USD", "sequence": 1, "time": TIME}
    assert [type(event) for event in decode(protocol, type="heartbeat", last_trade_id=13, **beat)] == [Heartbeat]
    assert [type(event) for event in decode(protocol, type="heartbeat", last_trade_id=14, **beat)] == [Heartbeat]
    kinds = [type(event) for event in decode(protocol, type="heartbeat", last_trade_id=14, **beat)]
    assert kinds == [Heartbeat, Gap]


def test_an_acknowledgement_is_compared_with_what_was_asked(protocol: Coinbase) -> None:
    """`level2_50` is the echo of `level2_batch`; a channel that is missing was refused."""
    names = ["level2_50", "ticker", "matches"]
    channels = [{"name": name, "product_ids": ["BTC-USD"], "account_ids": None} for name in names]
    [ack] = decode(protocol, type="subscriptions", channels=channels)
    assert isinstance(ack, Acknowledged)
    assert [name for name in ack.refused if "heartbeat" in name]


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (b'{"type":"error","message":"Failed to subscribe","reason":"no"}', VenueError),
        (b'{"type":"dance"}', Unknown),
        (b'{"type":"match","trade_id":"x"}', Unknown),
        (b'{"type":"snapsh', Unknown),
        (b"\xff", Unknown),
        (b"[]", Unknown),
    ],
)
def test_complaints_and_nonsense(protocol: Coinbase, frame: bytes, kind: type) -> None:
    """Nothing that a venue may send raises."""
    assert isinstance(protocol.decode(frame, 1)[0], kind)


def test_the_recording_decodes_to_what_a_plain_book_says(recordings: Path) -> None:
    """After every frame of the session the quote is the best of a book kept by hand."""
    products = [
        "SKL-USD",
        "SKL-BTC",
        "BAND-GBP",
        "NMR-EUR",
        "BAND-BTC",
        "YFI-BTC",
        "DASH-BTC",
        "NU-GBP",
        "CRV-EUR",
        "SKL-GBP",
    ]
    protocol = Coinbase(None, products, 1)
    books: dict[str, dict[str, dict[Decimal, Decimal]]] = defaultdict(lambda: {"buy": {}, "sell": {}})
    last: dict[str, tuple[Decimal | None, ...]] = {}
    trades = 0
    with gzip.open(recordings / RECORDING, "rt") as lines:
        for line in lines:
            message = json.loads(line)
            for event in protocol.decode(line.encode(), 1):
                assert not isinstance(event, Unknown | Gap)
                trades += isinstance(event, Trade) and not event.before
                if isinstance(event, Quote) and event.live:
                    last[event.product_id] = (event.bid_price, event.bid_size, event.ask_price, event.ask_size)
            if message["type"] not in ("snapshot", "l2update"):
                continue
            product = message["product_id"]
            changes = message.get("changes") or [
                [side, *level] for side, key in (("buy", "bids"), ("sell", "asks")) for level in message[key]
            ]
            for side, price, size in changes:
                books[product][side].pop(Decimal(price), None)
                if Decimal(size):
                    books[product][side][Decimal(price)] = Decimal(size)
            bid, ask = max(books[product]["buy"]), min(books[product]["sell"])
            assert last[product] == (bid, books[product]["buy"][bid], ask, books[product]["sell"][ask])
    assert trades == 97


def test_the_list_of_products_is_read(recordings: Path) -> None:
    """Every product of a recorded list, with its steps; the least size is the lot where none is said."""
    line = gzip.decompress((recordings / "instruments/coinbase_rest_products.txt.gz").read_bytes()).split(b"\n")[0]
    body = line.partition(b": ")[2]
    listed, raw = parse(body), json.loads(body)
    assert [(each.base, each.quote, each.product.id, each.product.tick) for each in listed] == [
        (row["base_currency"], row["quote_currency"], row["id"], Decimal(row["quote_increment"])) for row in raw
    ]
    row = {**raw[0], "trading_disabled": True}
    del row["base_min_size"]
    [off] = parse(json.dumps([row]).encode())
    assert not off.trading
    assert off.product.min_size == Decimal(row["base_increment"])


def test_endless_nesting_is_unknown(protocol: Coinbase) -> None:
    """A frame that no parser follows to its end is one that is not understood."""
    [event] = protocol.decode(b'{"a":' * 100_000, 1_000)
    assert isinstance(event, Unknown)
