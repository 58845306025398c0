"""HTX's protocol: every rule by hand, the recorded frames and session against a plain reading, and the simulator."""

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchanges.htx.products import URL, parse
from exchanges.htx.protocol import INFLATED_MAX, Htx
from exchanges.protocol import Acknowledged, Event, Gap, Heartbeat, Limits, Reply, Unknown, VenueError
from models.domain.candles import VenueCandle
from models.domain.instruments import INSTRUMENTS, Listed, Product
from models.domain.quotes import Quote, Trade
from simulator.htx import WIRE
from simulator.market import TICK_US, BookChanged, Market, Traded

TOPICS = ("market.btcusdt.bbo", "market.btcusdt.trade.detail", "market.btcusdt.kline.1min")
BBO = {
    "seqId": 5,
    "ask": 1.6,
    "askSize": 3,
    "bid": 1.5,
    "bidSize": 2,
    "quoteTime": 1_654_031_600_064,
    "symbol": "btcusdt",
}
TRADE = {"id": 10**27, "ts": 1_000, "tradeId": 7, "amount": 0.1, "price": 1.5, "direction": "sell"}
KLINE = {"id": 60, "open": 2, "close": 3, "low": 1, "high": 4, "amount": 0.5, "vol": 1.25, "count": 8}
FRAMES = ("htx__captured_frames.jsonl", "htx__captured_frames_trimmed.jsonl", "htx__gocryptotrader_wsAllTrades.jsonl")
SESSION = "sessions/htx_2021-04-17.gzip_frames.b64.txt"


@pytest.fixture
def protocol() -> Htx:
    return Htx(None, ["btcusdt"], 7)


def decode(protocol: Htx, message: object) -> list[Event]:
    text = message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))
    return [*protocol.decode(gzip.compress(text.encode()), 1_000)]


def push(channel: str, tick: object, product_id: str = "btcusdt") -> dict[str, Any]:
    return {"ch": f"market.{product_id}.{channel}", "ts": 1_788_335_110_454, "tick": tick}


def bbo(**more: object) -> dict[str, Any]:
    return push("bbo", BBO | more)


def trades(*ids: int, **more: object) -> dict[str, Any]:
    data = [TRADE | {"tradeId": each} | more for each in ids]
    return push("trade.detail", {"id": 1, "ts": 1_000, "data": data})


def kline(**more: object) -> dict[str, Any]:
    return push("kline.1min", KLINE | more)


def best(events: list[Event]) -> tuple[str, ...]:
    [quote] = events
    assert isinstance(quote, Quote)
    return tuple(str(value) for value in (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size))


def made(events: list[Event]) -> list[tuple[str, bool]]:
    assert all(isinstance(event, Trade) for event in events)
    return [(event.trade_id, event.before) for event in events if isinstance(event, Trade)]


def test_one_request_a_topic(protocol: Htx) -> None:
    """The venue takes one topic a message; the request's id is the topic, by which a refusal is known."""
    assert [json.loads(frame) for frame in protocol.subscribe_frames()] == [
        {"sub": each, "id": each} for each in TOPICS
    ]
    assert protocol.url() == "wss://api.huobi.pro/ws"
    assert Htx("ws://127.0.0.1:1/x", ["btcusdt"], 7).url() == "ws://127.0.0.1:1/x"
    assert protocol.ping_frame(1) is None
    assert protocol.limits == Limits(silence_s=12, first_message_s=60, ping_s=None, lifetime_s=None)


def test_a_bbo_is_a_live_quote(protocol: Htx) -> None:
    """Its time is `quoteTime`, in milliseconds."""
    [quote] = decode(protocol, bbo())
    assert quote == Quote(
        "htx",
        "btcusdt",
        7,
        0,
        Decimal("1.5"),
        Decimal(2),
        Decimal("1.6"),
        Decimal(3),
        live=True,
        exchange_time_us=1_654_031_600_064_000,
        received_time_us=1_000,
    )


def test_numbers_in_javas_notation_are_exact(protocol: Htx) -> None:
    """The token's own digits, more than a double holds, and powers of ten."""
    frame = json.dumps(bbo(bidSize=77)).replace("1.5", "1.8E-4").replace("77", "1.3640736E7")
    frame = frame.replace("1.6", "0.12345678901234567891")
    assert best(decode(protocol, frame)) == ("0.00018", "13640736", "0.12345678901234567891", "3")


def test_late_quotes_are_dropped(protocol: Htx) -> None:
    """`seqId` rises, not by one; a frame without it is taken."""
    assert len(decode(protocol, bbo(seqId=5))) == 1
    assert decode(protocol, bbo(seqId=5)) == []
    assert decode(protocol, bbo(seqId=4)) == []
    trimmed = {name: value for name, value in BBO.items() if name != "seqId"}
    assert len(decode(protocol, push("bbo", trimmed))) == 1
    assert decode(protocol, bbo(seqId=5)) == []
    assert len(decode(protocol, bbo(seqId=90))) == 1


def test_an_empty_side_is_none(protocol: Htx) -> None:
    """A side that is missing, or has a size of 0."""
    sold_out = {name: value for name, value in BBO.items() if not name.startswith("ask")}
    assert best(decode(protocol, push("bbo", sold_out))) == ("1.5", "2", "None", "None")
    assert best(decode(protocol, bbo(seqId=6, bid=0, bidSize=0))) == ("None", "None", "1.6", "3")
    assert best(decode(protocol, bbo(seqId=7, askSize=0))) == ("1.5", "2", "None", "None")


def test_a_trade_has_its_trade_id_and_the_takers_side(protocol: Htx) -> None:
    """`tradeId`, not the `id` of 28 digits; `direction` is the taker's."""
    [trade] = decode(protocol, trades(7))
    assert trade == Trade(
        "htx",
        "btcusdt",
        7,
        "7",
        Decimal("1.5"),
        Decimal("0.1"),
        "sell",
        exchange_time_us=1_000_000,
        received_time_us=1_000,
    )


def test_trades_come_once_and_in_order(protocol: Htx) -> None:
    """Those of one frame are sorted; late ones are dropped; a jump of ids is no gap, for no rule says +1."""
    assert made(decode(protocol, trades(9, 7, 8, 8))) == [("7", False), ("8", False), ("9", False)]
    assert made(decode(protocol, trades(12, 9, 6))) == [("12", False)]
    assert decode(protocol, trades(12)) == []
    assert decode(protocol, trades()) == []


def test_the_first_push_has_trades_from_before_the_subscription(protocol: Htx) -> None:
    """Before the acknowledgement by the venue's own clock; only the first push looks back."""
    ack = {"id": TOPICS[1], "status": "ok", "subbed": TOPICS[1], "ts": 2_000}
    assert decode(protocol, ack) == [Acknowledged()]
    assert made(decode(protocol, trades(7))) == [("7", True)]
    assert made(decode(protocol, trades(8))) == [("8", False)]
    decode(protocol, ack)
    assert made(decode(protocol, trades(9, ts=2_000))) == [("9", False)]


def test_a_malformed_trade_takes_its_frame_with_it_but_not_the_next(protocol: Htx) -> None:
    """Nothing of the frame counts as seen."""
    frame = trades(7, 8)
    frame["tick"]["data"][1]["price"] = -1
    assert [type(event) for event in decode(protocol, frame)] == [Unknown]
    assert made(decode(protocol, trades(7, 8))) == [("7", False), ("8", False)]


def test_a_kline_is_a_candle(protocol: Htx) -> None:
    """`id` is the open time in seconds; `amount` is in the base asset; nothing says whether it is closed."""
    assert decode(protocol, kline()) == [
        VenueCandle(
            "htx",
            "btcusdt",
            7,
            60,
            60_000_000,
            Decimal(2),
            Decimal(4),
            Decimal(1),
            Decimal(3),
            Decimal("0.5"),
            Decimal("1.25"),
            8,
            None,
            1_000,
        )
    ]


def test_a_ping_is_answered_with_its_value(protocol: Htx) -> None:
    """And it says that the venue lives."""
    assert decode(protocol, {"ping": 1_788_335_119_660}) == [Reply('{"pong":1788335119660}'), Heartbeat()]


def test_a_refusal_names_its_stream(protocol: Htx) -> None:
    """By the id of the request; the other streams go on."""
    refusal = {"status": "error", "ts": 1, "id": TOPICS[0], "err-code": "bad-request", "err-msg": "invalid symbol x"}
    assert decode(protocol, refusal) == [
        VenueError("bad-request: invalid symbol x"),
        Acknowledged((TOPICS[0],)),
    ]
    assert decode(protocol, refusal | {"id": "other"}) == [VenueError("bad-request: invalid symbol x")]
    assert len(decode(protocol, trades(7))) == 1


def test_a_stream_that_never_speaks_is_named(protocol: Htx) -> None:
    """A malformed push is no word."""
    assert protocol.silent() == dict.fromkeys(TOPICS, "btcusdt")
    decode(protocol, bbo(bid=-1))
    assert set(protocol.silent()) == set(TOPICS)
    for frame in (bbo(), trades(7), kline()):
        decode(protocol, frame)
    assert protocol.silent() == {}


def test_a_push_may_be_spelt_otherwise(protocol: Htx) -> None:
    """The channel is usually found at a push's beginning, and by decoding where it is not there."""
    spaced, other = json.dumps(bbo()), dict(reversed(bbo(seqId=6).items()))
    assert [type(event) for event in decode(protocol, spaced)] == [Quote]
    assert [type(event) for event in decode(protocol, other)] == [Quote]
    assert TOPICS[0] not in protocol.silent()


def _spoilt() -> Iterator[tuple[str, str]]:
    """Yield frames in which one field is missing or is what it must not be."""
    tokens = ('"x"', "-1", '"NaN"', "NaN", '"Infinity"', "1E400", "null", "true", "[]", "{}")
    for channel, tick in (("bbo", BBO), ("trade.detail", TRADE), ("kline.1min", KLINE)):
        needless = {"symbol", "seqId"} | ({"id"} if channel == "trade.detail" else set())
        for name in (name for name in tick if name not in needless):
            without = json.dumps({key: value for key, value in tick.items() if key != name})
            for told in (without, *(f'{without[:-1]},"{name}":{token}}}' for token in tokens)):
                inner = f'{{"data":[{told}]}}' if channel == "trade.detail" else told
                yield f"{channel} {name}", f'{{"ch":"market.btcusdt.{channel}","ts":1,"tick":{inner}}}'


@pytest.mark.parametrize(("field", "frame"), [*_spoilt()])
def test_malformed_fields(protocol: Htx, field: str, frame: str) -> None:
    """A missing or wrong field makes a frame Unknown, with its beginning, and changes nothing."""
    [event] = decode(protocol, frame)
    assert isinstance(event, Unknown)
    assert event.frame == frame[:200]
    assert set(protocol.silent()) == set(TOPICS)


@pytest.mark.parametrize(
    "message",
    [
        {},
        [],
        "null",
        "nonsense",
        "",
        {"ping": "soon"},
        {"ping": -1},
        {"status": "ok", "id": 1, "rep": "market.btcusdt.trade.detail", "data": []},
        {"status": "ok", "id": 1, "subbed": "market.btcusdt.depth.step0", "ts": 1},
        push("bbo", BBO, "ethusdt"),
        push("depth.step0", {"bids": [], "asks": []}),
        push("bbo", None),
        push("trade.detail", {"data": None}),
        '{"ch":"market.btcusdt.bbo',
        '{"x":' + "[" * 100_000,
        '{"ch":"market.btcusdt.bbo","x":' + "[" * 100_000,
    ],
)
def test_nonsense_is_unknown(protocol: Htx, message: object) -> None:
    """What was not asked for, and what is no frame at all."""
    assert [type(event) for event in decode(protocol, message)] == [Unknown]


def test_broken_gzip_is_unknown(protocol: Htx) -> None:
    """Cut, spoilt, not compressed at all, or of more than 4 MB."""
    whole = gzip.compress(json.dumps(bbo()).encode())
    large = gzip.compress(json.dumps(bbo(more=" " * 3_000_000)).encode())
    bomb = gzip.compress(b'{"ping":1' + b" " * INFLATED_MAX + b"}")
    spoilt = whole[:30] + bytes([whole[30] ^ 255]) + whole[31:]
    cut = gzip.compress(Random(1).randbytes(20_000))[:-1]
    for frame in (b"", cut, whole[:1], whole[:-1], whole[: len(whole) // 2], spoilt, json.dumps(bbo()).encode(), bomb):
        assert [type(event) for event in protocol.decode(frame, 1)] == [Unknown]
    assert [type(event) for event in protocol.decode(large, 1)] == [Quote]


@given(st.binary(max_size=300), st.integers(0, 250), st.sampled_from([bbo, kline, lambda: trades(1, 2)]))
def test_no_bytes_raise(noise: bytes, place: int, valid: Any) -> None:
    """Neither noise, nor noise that was compressed, nor a true frame with noise in it."""
    protocol = Htx(None, ["btcusdt"], 7)
    text = json.dumps(valid(), separators=(",", ":")).encode()
    for frame in (noise, gzip.compress(noise), gzip.compress(text[:place] + noise[:9] + text[place + 3 :])):
        for event in protocol.decode(frame, 1):
            assert isinstance(event, Event)


def _plain(text: str) -> list[tuple[Any, ...]]:
    """Return what a recorded push says, read plainly."""
    message = json.loads(text, parse_float=Decimal, parse_int=Decimal)
    channel, tick = message["ch"].split(".", 2)[2], message["tick"]
    if channel == "bbo":
        return [(tick["bid"], tick["bidSize"], tick["ask"], tick["askSize"], tick["quoteTime"] * 1_000)]
    if channel == "kline.1min":
        return [tuple(tick[key] for key in ("open", "high", "low", "close", "amount", "vol", "count", "id"))]
    return sorted(
        (each["tradeId"], each["price"], each["amount"], each["direction"], each["ts"] * 1_000) for each in tick["data"]
    )


def _values(event: Event) -> tuple[Any, ...]:
    if isinstance(event, Quote):
        return (event.bid_price, event.bid_size, event.ask_price, event.ask_size, event.exchange_time_us)
    if isinstance(event, VenueCandle):
        prices = (event.open, event.high, event.low, event.close, event.volume, event.quote_volume)
        return (*prices, event.trades, event.open_time_us // 1_000_000)
    assert isinstance(event, Trade)
    return (int(event.trade_id), event.price, event.size, event.taker_side, event.exchange_time_us)


def test_the_recorded_frames_say_what_their_text_says(recordings: Path) -> None:
    """Every frame, each on a connection of its own, because they are of different years."""
    seen: Counter[str] = Counter()
    texts = [line for name in FRAMES for line in (recordings / "frames" / name).read_text().splitlines()]
    for text in texts:
        events = decode(Htx(None, ["btcusdt", "xrpusdt"], 1), text)
        seen.update(type(event).__name__ for event in events)
        if '"ch"' in text:
            assert [_values(event) for event in events] == _plain(text)
    assert seen == {
        "Quote": sum(text.count('"quoteTime"') for text in texts),
        "Trade": sum(text.count('"tradeId"') for text in texts),
        "VenueCandle": sum(text.count(".kline.1min") for text in texts),
        "Reply": 1,
        "Heartbeat": 1,
        "Acknowledged": 1,
    }
    assert (seen["Quote"], seen["Trade"], seen["VenueCandle"]) == (2, 4, 1)


@pytest.mark.parametrize("name", ["htx__gocryptotrader_wsOrderbook.jsonl", "htx__gocryptotrader_wsTicker.jsonl"])
def test_recorded_frames_of_other_channels_are_unknown(recordings: Path, name: str) -> None:
    """A depth or a day's ticker is not what we asked for."""
    [event] = decode(Htx(None, ["btcusdt"], 1), (recordings / "frames" / name).read_text().strip())
    assert isinstance(event, Unknown)


def test_the_recorded_session_says_what_its_text_says(recordings: Path) -> None:
    """Its own gzip frames: every trade once, as its text has it, those before the subscription known as such."""
    frames = [base64.b64decode(line) for line in (recordings / SESSION).read_text().split()]
    texts = [gzip.decompress(frame).decode() for frame in frames]
    ours = [(f, t) for f, t in zip(frames, texts, strict=True) if "depth.step0" not in t[:100]]
    product_ids = {text.split(".")[1] for _, text in ours if "trade.detail" in text}
    protocol = Htx(None, sorted(product_ids), 1)
    first: Counter[str] = Counter()
    events: list[Event] = []
    for frame, text in ours:
        said = protocol.decode(frame, 1)
        events += said
        if '"ch"' in text[:20]:
            assert [_values(event) for event in said] == _plain(text)
            product_id = text.split(".")[1]
            before = {event.before for event in said if isinstance(event, Trade)}
            assert before == {first[product_id] == 0}
            first[product_id] += 1
    counted = Counter(event.product_id for event in events if isinstance(event, Trade))
    told: Counter[str] = Counter()
    for _, text in ours:
        told[text.split(".")[1] if "." in text else ""] += text.count('"tradeId"')
    assert counted == +told
    kinds = Counter(type(event) for event in events)
    pings = sum("ping" in text for _, text in ours)
    assert kinds == {Trade: sum(told.values()), Acknowledged: 10, Reply: pings, Heartbeat: pings}
    assert (len(product_ids), pings) == (10, 6)


def test_the_list_of_symbols(recordings: Path) -> None:
    """It parses to what a plain reading says, and our table's rows are in it."""
    with gzip.open(recordings / "instruments/htx_rest_symbols.txt.gz", "rt") as lines:
        url, _, rest = next(lines).partition(" -> ")
    body = rest.partition(": ")[2]
    assert url == URL
    listed = parse(body.encode())
    plain = json.loads(body, parse_float=Decimal)["data"]
    assert len(listed) == len(plain) == body.count('"symbol":')
    for one, row in zip(listed, plain, strict=True):
        assert one == Listed(
            row["base-currency"].upper(),
            row["quote-currency"].upper(),
            Product(
                "htx",
                row["symbol"],
                Decimal(f"1E-{row['price-precision']}"),
                Decimal(f"1E-{row['amount-precision']}"),
                Decimal(row["min-order-amt"]),
            ),
            row["state"] == "online",
        )
    known = {each.product.id: each for each in listed if each.trading}
    ours = [(instrument, product) for instrument in INSTRUMENTS for product in instrument.products]
    mine = [(instrument, product) for instrument, product in ours if product.venue == "htx"]
    assert len(mine) > 30
    for instrument, product in mine:
        row = known[product.id]
        assert (row.base, row.quote, row.product) == (instrument.base, instrument.quote, product)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"status":"error"}', b'{"data":[{"symbol":"btcusdt"}]}'])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    """With msgspec's own error."""
    with pytest.raises(msgspec.MsgspecError):
        parse(body)


def test_the_simulator_is_understood_to_the_last_event() -> None:
    """Best bid and ask, trades and candles are the market's own; only the first push is from before."""
    market = Market(INSTRUMENTS, ["htx"], 7, 0)
    listings = market.of_venue("htx")
    session = WIRE.session("/ws", listings)
    protocol = Htx(None, list(listings), 3)

    def heard(texts: list[str]) -> list[Event]:
        frames = [WIRE.encode(text) for text in texts]
        assert all(isinstance(frame, bytes) for frame in frames)
        return [event for frame in frames if isinstance(frame, bytes) for event in protocol.decode(frame, 9)]

    first = [event for frame in protocol.subscribe_frames() for event in heard(session.answer(frame, 1_000_000))]
    counts = Counter(type(event) for event in first)
    count = len(listings)
    assert counts == {Acknowledged: 3 * count, Quote: count, Trade: count, VenueCandle: count}
    assert all(event.before for event in first if isinstance(event, Trade))
    assert not any(event.refused for event in first if isinstance(event, Acknowledged))
    assert protocol.silent() == {}
    seen: Counter[type] = Counter()
    for tick in range(1, 600):
        now_us = 1_000_000 + tick * TICK_US
        for event in market.tick(now_us):
            product_id, told_us = event.product.id, now_us
            events = heard(session.frames(event))
            seen.update(type(each) for each in events)
            if isinstance(event, BookChanged):
                top = event.top
                assert events == [
                    Quote(
                        "htx",
                        product_id,
                        3,
                        0,
                        top.bid,
                        top.bid_size,
                        top.ask,
                        top.ask_size,
                        live=True,
                        exchange_time_us=told_us,
                        received_time_us=9,
                    )
                ]
            elif isinstance(event, Traded):
                taken = (str(event.trade_id), event.price, event.size, event.taker_side, told_us, 9)
                c = event.candle
                prices = (c.open, c.high, c.low, c.close)
                assert events == [
                    Trade("htx", product_id, 3, *taken),
                    VenueCandle("htx", product_id, 3, 60, c.start_us, *prices, c.volume, c.turnover, c.trades, None, 9),
                ]
        beats = heard(session.heartbeats(now_us, replaying=False))
        assert Gap not in {type(event) for event in beats}
        for reply in beats:
            if isinstance(reply, Reply):
                assert session.answer(reply.frame, now_us) == []
        assert session.overdue(now_us) is None
    assert seen[Quote] > 500
    assert seen[Trade] == seen[VenueCandle] > 100


def test_faults_of_the_wire_are_unknown_and_nothing_else(protocol: Htx) -> None:
    """A renamed field, a channel that nobody asked for, and half a frame; there is no word for an end."""
    assert WIRE.notice is None
    for frame in (bbo(), trades(7), kline()):
        text = json.dumps(frame, separators=(",", ":"))
        whole = WIRE.encode(text)
        assert isinstance(whole, bytes)
        for spoilt in (text.replace(*WIRE.rename), WIRE.novelty):
            assert spoilt != text
            assert [type(event) for event in decode(protocol, spoilt)] == [Unknown]
        assert [type(event) for event in protocol.decode(whole[: len(whole) // 2], 1)] == [Unknown]
        assert [type(event) for event in protocol.decode(whole, 1)] in ([Quote], [Trade], [VenueCandle])
