"""Kraken's protocol: every rule by hand, the recorded frames, and what the simulator's market told."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from exchanges.kraken.products import parse
from exchanges.kraken.protocol import Kraken
from exchanges.protocol import (
    Acknowledged,
    Closing,
    Event,
    Gap,
    Heartbeat,
    Limits,
    Reply,
    Unknown,
    VenueError,
)
from models.domain.candles import VenueCandle
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Quote, Trade
from simulator.faults import Faults
from simulator.kraken import WIRE, Session
from simulator.market import TICK_US, BookChanged, Market, Traded

TIME = "2026-07-07T23:00:04.585581Z"
TIME_US = 1_783_465_204_585_581
NOW_US = 1_783_465_205_000_000
BTC, ETH = "BTC/USD", "ETH/USD"
Side = Sequence[tuple[str, str]]
BIDS: Side = (("62703.4", "0.03184980"), ("62703.1", "2.00000000"))
ASKS: Side = (("62710.3", "0.00191335"), ("62711.0", "1.50000000"))


@pytest.fixture
def protocol() -> Kraken:
    return Kraken(None, [BTC, ETH], 7)


def checksum(bids: Side, asks: Side) -> int:
    """A book's checksum from the texts of its levels, the best first."""
    numbers = [number for side in (asks, bids) for level in side for number in level]
    return crc32("".join(number.replace(".", "").lstrip("0") for number in numbers).encode())


def levels(side: Side) -> str:
    return ",".join(f'{{"price":{price},"qty":{size}}}' for price, size in side)


def book(kind: str, bids: Side, asks: Side, total: int, symbol: str = BTC) -> bytes:
    data = f'"symbol":"{symbol}","bids":[{levels(bids)}],"asks":[{levels(asks)}],"checksum":{total}'
    return f'{{"channel":"book","type":"{kind}","data":[{{{data},"timestamp":"{TIME}"}}]}}'.encode()


def snapshot(protocol: Kraken, symbol: str = BTC, bids: Side = BIDS, asks: Side = ASKS) -> Sequence[Event]:
    return protocol.decode(book("snapshot", bids, asks, checksum(bids, asks), symbol), NOW_US)


def trade(*trade_ids: int, symbol: str = BTC, kind: str = "update", **changes: object) -> bytes:
    rows = [
        {
            "symbol": symbol,
            "side": "buy",
            "price": 1774.14,
            "qty": 0.5,
            "ord_type": "limit",
            "trade_id": each,
            "timestamp": TIME,
        }
        | changes
        for each in trade_ids
    ]
    return json.dumps({"channel": "trade", "type": kind, "data": rows}).encode()


def best(events: Sequence[Event]) -> tuple[str, ...]:
    [quote] = events
    assert isinstance(quote, Quote)
    return tuple(str(value) for value in (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size))


def kinds(events: Sequence[Event]) -> list[type]:
    return [type(event) for event in events]


def test_what_the_venue_promises(protocol: Kraken) -> None:
    """A heartbeat comes each second, so five of silence are plenty; asking it every two keeps an idle line alive."""
    assert Kraken.limits == Limits(silence_s=5, first_message_s=60, ping_s=2, lifetime_s=None)
    assert protocol.ping_frame(NOW_US) == '{"method":"ping"}'
    assert protocol.url() == "wss://ws.kraken.com/v2"
    assert Kraken("ws://127.0.0.1:9/v2", [BTC], 1).url() == "ws://127.0.0.1:9/v2"


def test_one_request_a_channel(protocol: Kraken) -> None:
    """The venue answers for each product, so a channel's products fit one request; its number tells the channel."""
    assert [json.loads(frame) for frame in protocol.subscribe_frames()] == [
        {"method": "subscribe", "params": {"channel": channel, "symbol": [BTC, ETH], **options}, "req_id": number}
        for number, channel, options in (
            (1, "book", {"depth": 10}),
            (2, "trade", {"snapshot": False}),
            (3, "ohlc", {"interval": 1}),
        )
    ]


def test_the_published_checksum() -> None:
    """The example of the venue's own guide (book-checksum-v2) has the checksum that it says, 3310070434."""
    asks = "45285.2 0.00100000 45286.4 1.54571953 45286.6 1.54571109 45289.6 1.54560911 45290.2 0.15890660 "
    asks += "45291.8 1.54553491 45294.7 0.04454749 45296.1 0.35380000 45297.5 0.09945542 45299.5 0.18772827"
    bids = "45283.5 0.10000000 45283.4 1.54582015 45282.1 0.10000000 45281.0 0.10000000 45280.3 1.54592586 "
    bids += "45279.0 0.07990000 45277.6 0.03310103 45277.5 0.30000000 45277.3 1.54602737 45276.6 0.15445238"
    events = Kraken(None, [BTC], 1).decode(book("snapshot", _pairs(bids), _pairs(asks), 3310070434), 1)
    assert best(events) == ("45283.5", "0.10000000", "45285.2", "0.00100000")


def _pairs(numbers: str) -> Side:
    texts = numbers.split()
    return [*zip(texts[::2], texts[1::2], strict=True)]


def test_the_book_gives_live_quotes(protocol: Kraken) -> None:
    """A quote for each change of the best prices or sizes, with the venue's time; 0 deletes; the rest says nothing."""
    [quote] = snapshot(protocol)
    assert quote == Quote(
        *("kraken", BTC, 7, 0, Decimal("62703.4"), Decimal("0.03184980"), Decimal("62710.3"), Decimal("0.00191335")),
        *(True, TIME_US, NOW_US),
    )
    behind = (("62703.4", "0.03184980"), ("62703.1", "3.00000000"))
    assert protocol.decode(book("update", behind[1:], (), checksum(behind, ASKS)), NOW_US) == []
    sized = (("62703.4", "0.50000000"), *behind[1:])
    assert best(protocol.decode(book("update", sized[:1], (), checksum(sized, ASKS)), NOW_US))[1] == "0.50000000"
    gone = (("62703.4", "0.00000000"),)
    new = (("62709.9", "0.10000000"),)
    events = protocol.decode(book("update", gone, new, checksum(sized[1:], (*new, *ASKS))), NOW_US)
    assert best(events) == ("62703.1", "3.00000000", "62709.9", "0.10000000")


def test_the_book_is_cut_to_its_depth(protocol: Kraken) -> None:
    """A level that is pushed out of the ten best is forgotten, on both sides, without a word of the venue."""
    bids = [(f"{price}.0", "1.00000000") for price in range(100, 90, -1)]
    asks = [(f"{price}.0", "1.00000000") for price in range(102, 112)]
    snapshot(protocol, bids=bids, asks=asks)
    new_bid, new_ask = ("100.5", "2.00000000"), ("101.5", "2.00000000")
    total = checksum([new_bid, *bids[:9]], [new_ask, *asks[:9]])
    assert best(protocol.decode(book("update", [new_bid], [new_ask], total), NOW_US))[::2] == ("100.5", "101.5")
    # Deleting the new levels leaves nine: the tenth is sent again.
    gone = [("100.5", "0.00000000"), bids[9]], [("101.5", "0.00000000"), asks[9]]
    assert best(protocol.decode(book("update", *gone, checksum(bids, asks)), NOW_US))[::2] == ("100.0", "102.0")


def test_small_numbers_keep_their_text_in_the_checksum(protocol: Kraken) -> None:
    """Below 0.000001 a Decimal prints itself with an exponent; the checksum reads plain digits."""
    bids, asks = (("0.00000051", "0.00000100"),), (("0.00000052", "9999.00000000"),)
    assert best(snapshot(protocol, bids=bids, asks=asks)) == ("5.1E-7", "0.00000100", "5.2E-7", "9999.00000000")


@pytest.mark.parametrize(
    ("bids", "asks", "shown"),
    [
        ((), ASKS, ("None", "None", "62710.3", "0.00191335")),
        (BIDS, (), ("62703.4", "0.03184980", "None", "None")),
        ((), (), ("None",) * 4),
    ],
)
def test_an_empty_side_has_no_price(protocol: Kraken, bids: Side, asks: Side, shown: tuple[str, ...]) -> None:
    """A book may be empty on a side, or on both."""
    assert best(snapshot(protocol, bids=bids, asks=asks)) == shown


@pytest.mark.parametrize(
    ("bids", "total"),
    [
        (((), 1)),
        (((("62710.3", "1.00000000"),), checksum((("62710.3", "1.00000000"), *BIDS), ASKS))),  # crossed
    ],
)
def test_a_wrong_book_is_asked_for_again(protocol: Kraken, bids: Side, total: int) -> None:
    """It is a gap, the last quote is taken back, and only that product is unsubscribed and subscribed."""
    snapshot(protocol)
    snapshot(protocol, ETH)
    events = protocol.decode(book("update", bids, (), total), NOW_US)
    assert kinds(events) == [Quote, Gap, Reply, Reply]
    assert best(events[:1]) == ("None",) * 4
    assert events[1] == Gap(BTC, 0)
    asked = [json.loads(event.frame) for event in events if isinstance(event, Reply)]
    assert [each["method"] for each in asked] == ["unsubscribe", "subscribe"]
    assert {json.dumps(each["params"]) for each in asked} == {'{"channel": "book", "symbol": ["BTC/USD"], "depth": 10}'}
    # What was on its way says nothing; the other product goes on; the snapshot mends it.
    assert protocol.decode(book("update", BIDS[1:], (), 1), NOW_US) == []
    sized = (("62703.4", "9.00000000"), BIDS[1])
    assert best(protocol.decode(book("update", sized[:1], (), checksum(sized, ASKS), ETH), NOW_US))[1] == "9.00000000"
    assert best(snapshot(protocol))[0] == "62703.4"
    assert protocol.decode(b'{"channel":"heartbeat"}', NOW_US + 9_000_000) == [Heartbeat()]


def test_a_book_that_stays_wrong_is_asked_for_every_five_seconds(protocol: Kraken) -> None:
    """Neither a wrong snapshot nor one that never comes makes more requests than that."""
    wrong = book("snapshot", BIDS, ASKS, 1)
    assert kinds(protocol.decode(wrong, NOW_US)) == [Gap, Reply, Reply]
    assert kinds(protocol.decode(wrong, NOW_US + 1_000_000)) == [Gap]
    beat = b'{"channel":"heartbeat"}'
    assert kinds(protocol.decode(beat, NOW_US + 4_999_999)) == [Heartbeat]
    assert kinds(protocol.decode(beat, NOW_US + 5_000_000)) == [Heartbeat, Reply, Reply]
    assert kinds(protocol.decode(beat, NOW_US + 9_999_999)) == [Heartbeat]
    assert kinds(protocol.decode(beat, NOW_US + 10_000_000)) == [Heartbeat, Reply, Reply]
    refusal = f'{{"error":"Currency pair not supported","method":"subscribe","req_id":1,"symbol":"{BTC}"}}'
    assert kinds(protocol.decode(refusal.encode(), NOW_US)) == [VenueError]
    assert kinds(protocol.decode(beat, NOW_US + 20_000_000)) == [Heartbeat]


def test_trades(protocol: Kraken) -> None:
    """`side` is the taker's; ids rise by one; what is not above the last is dropped."""
    [made] = protocol.decode(trade(10, side="sell"), NOW_US)
    assert made == Trade(
        "kraken", BTC, 7, "10", Decimal("1774.14"), Decimal("0.5"), "sell", TIME_US, NOW_US, before=False
    )
    assert [event.trade_id for event in protocol.decode(trade(11, 12), NOW_US) if isinstance(event, Trade)] == [
        "11",
        "12",
    ]
    assert protocol.decode(trade(12, 11), NOW_US) == []
    [_, gap] = protocol.decode(trade(15), NOW_US)
    assert gap == Gap(BTC, 2)
    assert kinds(protocol.decode(trade(3, symbol=ETH), NOW_US)) == [Trade]


def test_trades_of_a_snapshot_are_from_before(protocol: Kraken) -> None:
    """They are no new trades; the first new one follows them without a gap."""
    events = protocol.decode(trade(1, 2, kind="snapshot"), NOW_US)
    assert [event.before for event in events if isinstance(event, Trade)] == [True, True]
    assert kinds(protocol.decode(trade(3), NOW_US)) == [Trade]


OHLC = (
    '{"channel":"ohlc","type":"update","timestamp":"2023-10-04T16:26:30.524394914Z","data":[{"symbol":"BTC/USD",'
    '"open":106038.2,"high":106044.30,"low":106038.1,"close":106040.1,"trades":12,"volume":30927.68066220,'
    '"vwap":106039.6,"interval_begin":"2023-10-04T16:25:00.000000000Z","interval":1}]}'
)


def test_candles(protocol: Kraken) -> None:
    """Of one minute; the venue says neither whether one is closed nor its volume in the quote asset."""
    [candle] = protocol.decode(OHLC.encode(), NOW_US)
    assert isinstance(candle, VenueCandle)
    assert (candle.venue, candle.product_id, candle.token, candle.received_time_us) == ("kraken", BTC, 7, NOW_US)
    assert (candle.interval_s, candle.open_time_us) == (60, 1_696_436_700_000_000)
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    assert [str(price) for price in prices] == ["106038.2", "106044.30", "106038.1", "106040.1", "30927.68066220"]
    assert (candle.quote_volume, candle.trades, candle.closed) == (None, 12, None)
    assert kinds(protocol.decode(OHLC.replace('"interval":1', '"interval":5').encode(), NOW_US)) == [Unknown]


def answer(channel: str, symbol: str, error: str | None = None, method: str = "subscribe") -> bytes:
    number = ["book", "trade", "ohlc"].index(channel) + 1
    if error:
        said = {"error": error, "method": method, "req_id": number, "success": False, "symbol": symbol}
    else:
        said = {"method": method, "req_id": number, "result": {"channel": channel, "symbol": symbol}, "success": True}
    return json.dumps(said).encode()


def test_one_product_is_refused_alone(protocol: Kraken) -> None:
    """Once every stream has its answer, those that were refused are named; a later refusal is named at once."""
    problem = "Currency pair not supported ETH/USD"
    for channel in ("book", "trade"):
        assert protocol.decode(answer(channel, BTC), NOW_US) == []
        assert protocol.decode(answer(channel, ETH, problem), NOW_US) == [VenueError(problem)]
    assert protocol.decode(answer("ohlc", BTC), NOW_US) == []
    assert protocol.decode(answer("ohlc", ETH), NOW_US) == [Acknowledged(("book:ETH/USD", "trade:ETH/USD"))]
    assert protocol.decode(answer("book", BTC, method="unsubscribe"), NOW_US) == []
    assert protocol.decode(answer("book", BTC), NOW_US) == []
    assert protocol.decode(answer("book", BTC, "gone"), NOW_US) == [VenueError("gone"), Acknowledged(("book:BTC/USD",))]


def test_nothing_refused(protocol: Kraken) -> None:
    """All streams there is one word, with the last answer."""
    events = [protocol.decode(answer(*name.split(":")), NOW_US) for name in protocol.silent()]
    assert events == [[]] * 5 + [[Acknowledged()]]


def test_streams_are_silent_until_they_speak(protocol: Kraken) -> None:
    """Each channel of each product by itself; a wrong book has not spoken."""
    assert protocol.silent() == {f"{name}:{pid}": pid for name in ("book", "trade", "ohlc") for pid in (BTC, ETH)}
    protocol.decode(book("snapshot", BIDS, ASKS, 1), NOW_US)
    protocol.decode(trade(1), NOW_US)
    protocol.decode(OHLC.encode(), NOW_US)
    assert [*protocol.silent()] == ["book:BTC/USD", "book:ETH/USD", "trade:ETH/USD", "ohlc:ETH/USD"]
    snapshot(protocol)
    assert [*protocol.silent()] == ["book:ETH/USD", "trade:ETH/USD", "ohlc:ETH/USD"]


def status(system: str) -> str:
    row = f'"version":"2.0.10","system":"{system}","api_version":"v2","connection_id":16389994220698793191'
    return f'{{"channel":"status","type":"update","data":[{{{row}}}]}}'


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ('{"channel":"heartbeat"}', Heartbeat()),
        (status("online"), Heartbeat()),
        (status("maintenance"), Closing()),
        (status("cancel_only"), VenueError("the venue is not online but cancel_only")),
        ('{"method":"pong","req_id":42,"time_in":"x","time_out":"y"}', Heartbeat()),
        ('{"Error":"Exceeded msg rate"}', VenueError("Exceeded msg rate")),
        ('{"error":"Malformed request","success":false}', VenueError("Malformed request")),
        ('{"error":"No","method":"ping","success":false}', VenueError("No")),
        ('{"error":"No","method":"subscribe","req_id":9,"success":false,"symbol":"BTC/USD"}', VenueError("No")),
    ],
)
def test_signs_of_life_and_complaints(protocol: Kraken, frame: str, event: Event) -> None:
    """A connection_id may exceed 2^63; maintenance ends the connection, anything else but online is a complaint."""
    assert protocol.decode(frame.encode(), NOW_US) == [event]


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"channel":"dance","type":"update","data":[]}',
        b'{"channel":7}',
        b'{"channel":"status","type":"update","data":[{}]}',
        b'{"method":"subscribe","success":true}',
        b'{"method":"subscribe","success":true,"result":{"channel":"ticker","symbol":"BTC/USD"}}',
        b'{"method":"subscribe","success":false}',
        b'{"method":["subscribe"],"success":true}',
        b'{"channel":"trade","type":"dance","data":[]}',
        b'{"channel":"trade","type":"update","data":[null]}',
        trade(1, symbol="DOGE/USD"),
        trade(1, side="sold"),
        trade(-1),
        trade(1, price=-1.5),
        trade(1, price=0),
        trade(1, price=None),
        trade(1, price="NaN"),
        trade(1, price=True),
        trade(1, qty=-0.5),
        trade(1, qty="Infinity"),
        trade(1, qty=[]),
        trade(1, trade_id=1.5),
        trade(1, timestamp="yesterday"),
        trade(1, timestamp="2026-07-07T23:00:04"),
        trade(1).replace(b'"qty"', b'"size"'),
        trade(1).replace(b"1774.14", b"1e999"),
        OHLC.replace("106038.1", "-1").encode(),
        OHLC.replace("30927.68066220", "-0.1").encode(),
        OHLC.replace('"trades":12', '"trades":-1').encode(),
        OHLC.replace('"open":106038.2,', "").encode(),
        book("update", (), (), 1, "DOGE/USD"),
    ],
)
def test_nonsense_is_unknown(protocol: Kraken, frame: bytes) -> None:
    """Nothing that a venue may send raises, and nothing but Unknown is made of it."""
    assert kinds(protocol.decode(frame, NOW_US)) == [Unknown]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"qty":0.03184980', b'"qty":-0.03184980'),
        (b'"qty":0.03184980', b'"qty":null'),
        (b'"qty":0.03184980', b'"qty":"NaN"'),
        (b'"price":62703.4,', b'"price":0,'),
        (b'"price":62703.4,', b""),
        (b'"price":62703.4,', b'"price":[],'),
        (b'"checksum":', b'"checksum":-'),
        (b'"checksum":', b'"checksum":null,"sum":'),
        (b'"type":"update"', b'"type":"dance"'),
        (b'"bids":', b'"buys":'),
        (TIME.encode(), b"now"),
    ],
)
def test_a_malformed_book_is_unknown_and_lost(protocol: Kraken, old: bytes, new: bytes) -> None:
    """A part of it is missing from then on, so that product, and no other, is asked for again."""
    snapshot(protocol)
    frame = book("update", BIDS[:1], (), checksum(BIDS, ASKS))
    assert old in frame
    events = protocol.decode(frame.replace(old, new), NOW_US)
    assert kinds(events) == [Unknown, Quote, Gap, Reply, Reply]
    assert isinstance(events[0], Unknown)
    assert not events[0].resync


def test_a_book_without_a_name_ends_the_connection(protocol: Kraken) -> None:
    """Whose book it was cannot be known: only a new connection mends it. Other channels do not need one."""
    frame = book("update", BIDS, ASKS, 1)
    for broken in (frame.replace(b'"symbol"', b'"pair"'), frame[:-40]):
        [event] = protocol.decode(broken, NOW_US)
        assert isinstance(event, Unknown)
        assert event.resync
    [event] = protocol.decode(trade(1)[:-9], NOW_US)
    assert isinstance(event, Unknown)
    assert not event.resync


def test_a_bad_row_does_not_stop_the_others(protocol: Kraken) -> None:
    """A frame may speak of several products; each is judged by itself."""
    rows = [json.loads(trade(1, symbol=symbol))["data"][0] for symbol in (BTC, "DOGE/USD", ETH)]
    rows[0]["price"] = -1
    events = protocol.decode(json.dumps({"channel": "trade", "type": "update", "data": rows}).encode(), NOW_US)
    assert kinds(events) == [Unknown, Unknown, Trade]


@pytest.mark.parametrize("seed", [7, 8, 9])
def test_the_simulators_market_arrives_exactly(seed: int) -> None:
    """The last quote is the market's top after every change, and trades and candles are those that were made."""
    market = Market(INSTRUMENTS, ["kraken"], seed, NOW_US)
    listings = market.of_venue("kraken")
    session, protocol = Session("/v2", listings), Kraken(None, [*listings], 3)
    events = list(_decoded(protocol, [text for ask in protocol.subscribe_frames() for text in session.answer(ask, 1)]))
    assert [event for event in events if isinstance(event, Acknowledged)] == [Acknowledged()]
    shown = {event.product_id: event for event in events if isinstance(event, Quote)}
    assert shown.keys() == listings.keys()
    quotes = 0
    for tick in range(1, 400):
        for told in market.tick(NOW_US + tick * TICK_US):
            events = list(_decoded(protocol, session.frames(told)))
            product_id = told.product.id
            if isinstance(told, Traded):
                made, candle = events
                row = (product_id, str(told.trade_id), told.price, told.size, told.taker_side, told.time_us)
                assert isinstance(made, Trade)
                assert row == (*_row(made), made.exchange_time_us)
                assert isinstance(candle, VenueCandle)
                assert (candle.open_time_us, candle.close) == (told.candle.start_us, told.candle.close)
                assert (candle.volume, candle.trades) == (told.candle.volume, told.candle.trades)
            elif isinstance(told, BookChanged):
                top = told.top
                now = (top.bid, top.bid_size, top.ask, top.ask_size)
                assert [_best(event) for event in events] == ([now] if now != _best(shown[product_id]) else [])
                shown |= {event.product_id: event for event in events if isinstance(event, Quote)}
                quotes += len(events)
    assert quotes > 500


def _decoded(protocol: Kraken, frames: Sequence[str]) -> Iterator[Event]:
    for frame in frames:
        yield from protocol.decode(frame.encode(), 1)


def _best(event: Event) -> tuple[Decimal | None, ...]:
    assert isinstance(event, Quote)
    assert event.live
    return event.bid_price, event.bid_size, event.ask_price, event.ask_size


def _row(made: Trade) -> tuple[object, ...]:
    return made.product_id, made.trade_id, made.price, made.size, made.taker_side


def test_faults_of_the_wire_are_unknown() -> None:
    """A renamed field, an unheard-of channel and half a frame are Unknown, and the notice is Closing; no more."""
    market = Market(INSTRUMENTS, ["kraken"], 7, NOW_US)
    listings = market.of_venue("kraken")
    session, protocol = Session("/v2", listings), Kraken(None, [*listings], 3)
    for ask in protocol.subscribe_frames():
        list(_decoded(protocol, session.answer(ask, 1)))
    told = [event for tick in range(1, 200) for event in market.tick(NOW_US + tick * TICK_US)]
    frames = [frame for event in told for frame in session.frames(event)]
    assert {json.loads(frame)["channel"] for frame in frames} == {"book", "trade", "ohlc"}
    for fault in ("rename", "garbage"):
        faults = Faults(WIRE)
        faults.inject(fault, count=len(frames))
        for spoilt in (text for frame in frames for text in faults.spoil(frame)):
            text = spoilt if isinstance(spoilt, bytes) else spoilt.encode()
            assert kinds(protocol.decode(text, 1)) == [Unknown]
    assert kinds(protocol.decode(WIRE.novelty.encode(), 1)) == [Unknown]
    assert WIRE.notice is not None
    assert kinds(protocol.decode(WIRE.notice.encode(), 1)) == [Closing]


def _recorded(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for file in sorted((folder / "frames").glob("kraken_v2__*.jsonl")):
        lines = file.read_text().splitlines()
        # The documentation's examples have a name beside the frame; the frame's own text is what counts.
        yield file.name, [line.split('"frame":')[1][:-1] if line.startswith('{"fixture"') else line for line in lines]


def test_the_recorded_frames_decode_to_what_a_plain_reading_says(recordings: Path) -> None:
    """Every row of book, trade and candle becomes its event, with the numbers of the text."""
    counted: Counter[tuple[type, str]] = Counter()
    rows: Counter[tuple[str, str]] = Counter()
    for name, frames in _recorded(recordings):
        symbols = {part.split('"')[0] for frame in frames for part in frame.split('"symbol":"')[1:]}
        protocol = Kraken(None, sorted(symbols), 3)
        for frame in frames:
            message = json.loads(frame, parse_float=Decimal, parse_int=Decimal)
            channel = message.get("channel")
            events = protocol.decode(frame.encode(), NOW_US)
            if channel in ("book", "trade", "ohlc"):
                for row in message["data"]:
                    rows[channel, row["symbol"]] += 1
                expected = [_plain(row, channel) for row in message["data"]]
                # The published books are cut short: none has the checksum that it says, and each is lost.
                lost_before = channel == "book" and message["type"] == "update"
                assert _told(events) == ([] if lost_before else expected), (name, frame)
                counted.update(
                    (type(each), each.product_id) for each in events if isinstance(each, Trade | VenueCandle)
                )
                counted.update((Gap, each.product_id) for each in events if isinstance(each, Gap))
            elif channel in ("heartbeat", "status"):
                assert events == [Heartbeat()]
            elif channel == "ticker":
                assert kinds(events) == [Unknown]
    text = "".join(frame for _, frames in _recorded(recordings) for frame in frames)
    assert sum(rows.values()) == text.count('"trade_id":') + text.count('"checksum":') + text.count('"interval_begin"')
    names = {"trade": Trade, "ohlc": VenueCandle}
    assert {key: n for key, n in counted.items() if key[0] is not Gap} == {
        (names[channel], symbol): n for (channel, symbol), n in rows.items() if channel != "book"
    }
    assert counted[Gap, BTC] == text.count('"channel":"book","type":"snapshot"')


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


def _plain(row: dict[str, Any], channel: str) -> tuple[object, ...]:
    if channel == "trade":
        names = [str(row["trade_id"]), row["price"], row["qty"], row["side"]]
        return row["symbol"], *names, _us(row["timestamp"])
    if channel == "ohlc":
        names = [row[name] for name in ("open", "high", "low", "close", "volume", "trades")]
        return row["symbol"], _us(row["interval_begin"]), *names
    sides = [[(str(level["price"]), str(level["qty"])) for level in row[side]] for side in ("bids", "asks")]
    assert checksum(*sides) != row["checksum"]
    return (row["symbol"],)


def _told(events: Sequence[Event]) -> list[tuple[object, ...]]:
    told: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, Trade):
            told.append((*_row(event), event.exchange_time_us))
        elif isinstance(event, VenueCandle):
            prices = (event.open, event.high, event.low, event.close, event.volume)
            told.append((event.product_id, event.open_time_us, *prices, event.trades))
        elif isinstance(event, Gap):
            told.append((event.product_id,))
        else:
            assert isinstance(event, Reply)
    return told


def test_the_recorded_list_of_pairs(recordings: Path) -> None:
    """It has every pair of the bundled table, with the same steps, in the names of API v2; dark pools are no books."""
    with gzip.open(recordings / "instruments/kraken_rest_AssetPairs.txt.gz", "rt") as file:
        body = file.read().splitlines()[0].partition(": ")[2]
    listed = parse(body.encode())
    pairs = [pair for pair in json.loads(body)["result"].values() if "wsname" in pair]
    assert len(listed) == len(pairs) > 200
    products = {each.product.id: each.product for each in listed}
    table = [product for each in INSTRUMENTS for product in each.products if product.venue == "kraken"]
    assert table
    assert [products[product.id] for product in table] == table
    assert {each.base for each in listed} >= {"BTC", "DOGE"}
    assert not {"XBT", "XDG"} & {name for each in listed for name in (each.base, each.quote)}


def test_the_newer_list_has_tick_sizes(recordings: Path) -> None:
    """`tick_size` is the price step where it is sent, and only what is online trades."""
    body = (recordings / "instruments/kraken_rest_asset_pairs.json").read_bytes()
    pairs = [*json.loads(body)["result"].values()]
    for each, pair in zip(parse(body), pairs, strict=True):
        assert each.product.tick == Decimal(pair["tick_size"])
        assert each.product.min_size == Decimal(pair["ordermin"])
        assert each.product.id == pair["wsname"].replace("XBT", "BTC")
        assert each.trading is (pair["status"] == "online")
    coarser = body.replace(b'"tick_size": "0.1"', b'"tick_size": "0.5"').replace(b'"online"', b'"cancel_only"')
    assert next((each.product.tick, each.trading) for each in parse(coarser)) == (Decimal("0.5"), False)
