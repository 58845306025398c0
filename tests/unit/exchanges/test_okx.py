"""OKX's protocol: every rule by hand, the recordings frame by frame, and the simulator's market as it was told."""

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from exchanges.okx import products
from exchanges.okx.protocol import Okx, OkxBusiness
from exchanges.protocol import Acknowledged, Closing, Event, Gap, Heartbeat, Limits, Unknown, VenueError
from models.domain.candles import VenueCandle
from models.domain.instruments import INSTRUMENTS, Product
from models.domain.quotes import Quote, Trade
from simulator.market import MINUTE_US, TICK_US, BookChanged, Market, Traded
from simulator.okx import WIRE, Session

PAIR = "BTC-USDT"
CAPTURED = ("okx__captured_frames.jsonl", "okx__captured_frames_trimmed.jsonl", "okx__gocryptotrader_wsAllTrades.jsonl")
SESSION = "sessions/okx_2022-05-13.jsonl"
LEVEL = ["1.50", "2", "0", "4"]


@pytest.fixture
def protocol() -> Okx:
    return Okx(None, [PAIR, "ETH-USDT"], 7)


@pytest.fixture
def business() -> OkxBusiness:
    return OkxBusiness(None, [PAIR], 7)


def decode(protocol: Okx | OkxBusiness, message: object) -> list[Event]:
    frame = message if isinstance(message, bytes) else json.dumps(message, separators=(",", ":")).encode()
    return list(protocol.decode(frame, 1_000))


def data(channel: str, *items: object, pair: str = PAIR) -> dict[str, Any]:
    return {"arg": {"channel": channel, "instId": pair}, "data": items}


def bbo(sequence: int | None = None, pair: str = PAIR, **more: object) -> dict[str, Any]:
    told = {"asks": [["1.60", "3", "0", "5"]], "bids": [LEVEL], "ts": "5"} | more
    return data("bbo-tbt", told if sequence is None else told | {"seqId": sequence}, pair=pair)


def trade(trade_id: int, count: int | None = None, **more: object) -> dict[str, Any]:
    told = {"instId": PAIR, "tradeId": str(trade_id), "px": "1.50", "sz": "0.1", "side": "sell", "ts": "5"} | more
    return told if count is None else told | {"count": str(count)}


def trades(*told: dict[str, Any]) -> dict[str, Any]:
    return data("trades", *told)


def candle(*changed: tuple[int, object]) -> list[object]:
    told: list[object] = ["60000", "1.5", "1.7", "1.4", "1.6", "30", "45.1", "45.2", "0"]
    for place, value in changed:
        told[place] = value
    return told


def ack(channel: str, pair: str = PAIR) -> dict[str, Any]:
    return {"event": "subscribe", "arg": {"channel": channel, "instId": pair}, "connId": "c7f0ba8e"}


def test_the_limits() -> None:
    """The venue ends a connection after 30 s; it is asked each 2 s and given 5 s. Nothing ends for its age."""
    assert Okx.limits == OkxBusiness.limits == Limits(silence_s=5, first_message_s=60, ping_s=2, lifetime_s=None)


def test_one_request_for_all_streams_of_an_endpoint(protocol: Okx, business: OkxBusiness) -> None:
    """Quotes and trades are asked for at the public endpoint, candles at the business endpoint."""
    [frame] = protocol.subscribe_frames()
    assert json.loads(frame) == {
        "op": "subscribe",
        "args": [
            {"channel": channel, "instId": pair} for pair in (PAIR, "ETH-USDT") for channel in ("bbo-tbt", "trades")
        ],
    }
    [frame] = business.subscribe_frames()
    assert json.loads(frame) == {"op": "subscribe", "args": [{"channel": "candle1m", "instId": PAIR}]}


def test_the_address_is_the_endpoints(protocol: Okx, business: OkxBusiness) -> None:
    """An address of one's own replaces scheme and host; the path is the venue's."""
    assert protocol.url() == "wss://ws.okx.com:8443/ws/v5/public"
    assert business.url() == "wss://ws.okx.com:8443/ws/v5/business"
    assert Okx("ws://localhost:9", [PAIR], 1).url() == "ws://localhost:9/ws/v5/public"


def test_the_venues_ping_is_a_bare_word(protocol: Okx) -> None:
    """`ping` is answered with `pong`, neither of them JSON."""
    assert protocol.ping_frame(5) == "ping"
    assert decode(protocol, b"pong") == [Heartbeat()]


def test_a_best_bid_and_ask_is_a_live_quote(protocol: Okx) -> None:
    """With the venue's time in microseconds, and the Decimals of its text."""
    [quote] = decode(protocol, bbo(10))
    prices = (Decimal("1.50"), Decimal(2), Decimal("1.60"), Decimal(3))
    assert quote == Quote("okx", PAIR, 7, 0, *prices, live=True, exchange_time_us=5_000, received_time_us=1_000)
    assert isinstance(quote, Quote)
    assert str(quote.bid_price) == "1.50"


@pytest.mark.parametrize("empty", [[], [["1.5", "0", "0", "0"]]])
def test_an_empty_side_has_neither_price_nor_size(protocol: Okx, empty: list[object]) -> None:
    """A side without a level, or with nothing at it, is None and None."""
    [bid_less] = decode(protocol, bbo(1, bids=empty))
    [ask_less] = decode(protocol, bbo(2, asks=empty))
    assert isinstance(bid_less, Quote)
    assert isinstance(ask_less, Quote)
    assert (bid_less.bid_price, bid_less.bid_size, bid_less.ask_price) == (None, None, Decimal("1.6"))
    assert (ask_less.ask_price, ask_less.ask_size, ask_less.bid_price) == (None, None, Decimal("1.5"))


def test_a_quote_that_is_told_again_is_dropped(protocol: Okx) -> None:
    """By its sequence number, each product for itself; where there is none each quote is taken."""
    assert len(decode(protocol, bbo(10))) == 1
    assert decode(protocol, bbo(10)) == []
    assert decode(protocol, bbo(9)) == []
    assert len(decode(protocol, bbo(9, pair="ETH-USDT"))) == 1
    assert len(decode(protocol, bbo(11))) == 1
    assert len(decode(protocol, bbo())) == 1


def test_the_side_of_a_trade_is_the_takers(protocol: Okx) -> None:
    """Nothing is turned round, and the id is text."""
    assert decode(protocol, trades(trade(8))) == [
        Trade("okx", PAIR, 7, "8", Decimal("1.50"), Decimal("0.1"), "sell", 5_000, 1_000)
    ]
    [bought] = decode(protocol, trades(trade(9, side="buy")))
    assert isinstance(bought, Trade)
    assert bought.taker_side == "buy"


def ids(events: list[Event]) -> list[str | int]:
    """Return the ids of trades, and what gaps have missed."""
    return [
        event.trade_id if isinstance(event, Trade) else event.missed
        for event in events
        if isinstance(event, Trade | Gap)
    ]


def test_a_trade_id_is_the_last_of_its_count(protocol: Okx) -> None:
    """What lies between the id before and the first of the count was missed; late ones and twins are dropped."""
    assert ids(decode(protocol, trades(trade(10, 9)))) == ["10"]
    assert ids(decode(protocol, trades(trade(13, 3)))) == ["13"]
    assert decode(protocol, trades(trade(13, 3), trade(12))) == []
    first, gap = decode(protocol, trades(trade(20, 4)))
    assert isinstance(first, Trade)
    assert gap == Gap(PAIR, 3, resync=False)
    assert ids(decode(protocol, trades(trade(22, 5)))) == ["22"]  # two that were known, three that were not
    assert ids(decode(protocol, trades(trade(23), trade(25), trade(26)))) == ["23", "25", 1, "26"]


def test_the_trade_that_a_stream_repeats_first_was_before_it(protocol: Okx) -> None:
    """Its time is before the confirmation of its stream; only the first frame can be such a repetition."""
    confirmation = json.dumps(ack("trades")).encode()
    assert protocol.decode(confirmation, 6_000) == (Acknowledged(),)
    before, after = (decode(protocol, trades(trade(number)))[0] for number in (1, 2))
    assert isinstance(before, Trade)
    assert isinstance(after, Trade)
    assert (before.before, after.before) == (True, False)
    young = Okx(None, [PAIR], 7)
    young.decode(confirmation, 5_000)
    [first] = decode(young, trades(trade(1)))
    assert isinstance(first, Trade)
    assert not first.before


@pytest.mark.parametrize(("confirm", "closed"), [("0", False), ("1", True)])
def test_a_candle(business: OkxBusiness, confirm: str, closed: bool) -> None:
    """Volume is in the base currency and quote volume in the quote currency; how many trades is not said."""
    [told] = decode(business, data("candle1m", candle((8, confirm))))
    prices = {"open": Decimal("1.5"), "high": Decimal("1.7"), "low": Decimal("1.4"), "close": Decimal("1.6")}
    sums = {"volume": Decimal(30), "quote_volume": Decimal("45.2"), "trades": None}
    times = {"interval_s": 60, "open_time_us": 60_000_000, "received_time_us": 1_000}
    assert isinstance(told, VenueCandle)
    said = {"venue": "okx", "product_id": PAIR, "token": 7, "closed": closed}
    assert msgspec.structs.asdict(told) == said | prices | sums | times


def test_a_refused_stream_is_named(protocol: Okx, business: OkxBusiness) -> None:
    """Only the text of the complaint names it; the other streams work on."""
    text = "Wrong URL or channel:{},instId:{} doesn't exist. Please use the correct URL, channel and parameters."
    refusal = {"event": "error", "code": "60018", "msg": text.format("trades", PAIR), "connId": "0d0c61a5"}
    assert decode(protocol, refusal) == [VenueError(f"code 60018: {refusal['msg']}"), Acknowledged((f"trades:{PAIR}",))]
    foreign = refusal | {"msg": text.format("trades", "BTC-USDT-SWAP")}
    assert [type(event) for event in decode(protocol, foreign)] == [VenueError]
    candles = refusal | {"msg": text.format("candle1m", PAIR)}
    assert decode(business, candles)[1] == Acknowledged((f"candle1m:{PAIR}",))
    assert len(decode(protocol, bbo(1))) == 1


NOTICE = {"event": "notice", "code": "64008", "msg": "The connection will soon be closed", "connId": "a4d3ae55"}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (ack("bbo-tbt"), Acknowledged),
        ({"id": "1512"} | ack("trades"), Acknowledged),
        ({"event": "error", "msg": "Please log in", "code": "60011", "connId": "78d58071"}, VenueError),
        (NOTICE, Closing),
        (NOTICE | {"code": "64009"}, Unknown),
        (ack("tickers"), Unknown),
        (ack("trades", "DOGE-USDT"), Unknown),
        ({"event": "subscribe"}, Unknown),
        ({"event": "dance"}, Unknown),
        (data("tickers", {}), Unknown),
        (data("candle1m", candle()), Unknown),
        (bbo(1, pair="DOGE-USDT"), Unknown),
        (data("trades", pair="\ud800"), Unknown),
        (b"ping", Unknown),
        (b"po", Unknown),
        (b"", Unknown),
        (b"}", Unknown),
        (b"\xff\xfe", Unknown),
        ([], Unknown),
        ({}, Unknown),
        (None, Unknown),
    ],
)
def test_answers_notices_and_nonsense(protocol: Okx, message: object, kind: type) -> None:
    """Nothing that a venue may send raises, and each is one event."""
    [event] = decode(protocol, message)
    assert isinstance(event, kind)
    assert not isinstance(event, Unknown) or not event.resync


BAD_NUMBERS: tuple[object, ...] = ("NaN", "Infinity", "-1", "x", "", "1e99", None, True, [])
BAD_COUNTERS: tuple[object, ...] = ("-1", "1.5", "x", "", "99999999999999999999", None, True, [])
MISSING = object()
NO_DATA: tuple[object, ...] = (None, {}, "x", [None], 7)
NO_SIDES: tuple[object, ...] = (MISSING, None, "x", {}, [LEVEL[:1]])


def spoilt(message: dict[str, Any], **changed: object) -> dict[str, Any]:
    [told] = message["data"]
    return message | {"data": [{name: value for name, value in (told | changed).items() if value is not MISSING}]}


@pytest.mark.parametrize(
    "message",
    [
        *(spoilt(bbo(1), **{side: value}) for side in ("asks", "bids") for value in NO_SIDES),
        *(bbo(1, bids=[[price, "1", "0", "1"]]) for price in (*BAD_NUMBERS, "0")),
        *(bbo(1, asks=[["1", size, "0", "1"]]) for size in BAD_NUMBERS),
        *(spoilt(bbo(1), ts=value) for value in (MISSING, *BAD_COUNTERS)),
        *(bbo(seqId=value) for value in BAD_COUNTERS if value is not None),
        *(trades(trade(1), trade(2) | {"px": value}) for value in (*BAD_NUMBERS, "0")),
        *(trades(trade(1), trade(2) | {"sz": value}) for value in BAD_NUMBERS),
        *(trades(trade(1), trade(2) | {"tradeId": value}) for value in BAD_COUNTERS),
        *(trades(trade(1), trade(2) | {"count": value}) for value in (*BAD_COUNTERS, "0")),
        *(trades(trade(1), trade(2) | {"ts": value}) for value in BAD_COUNTERS),
        *(trades(trade(1), trade(2) | {"side": value}) for value in ("hold", "", None, 1)),
        *(spoilt(trades(trade(1)), **{name: MISSING}) for name in ("tradeId", "px", "sz", "side", "ts")),
        *(bbo(1) | {"data": value} for value in NO_DATA),
        {"arg": {"channel": "bbo-tbt", "instId": PAIR}},
        {"arg": {"channel": "bbo-tbt"}, "data": []},
        {"arg": None, "data": []},
    ],
)
def test_a_malformed_field_spoils_its_frame_only(protocol: Okx, message: dict[str, Any]) -> None:
    """It is Unknown, wholly; the next good frame is taken as if the bad one had not been."""
    [event] = decode(protocol, message)
    assert isinstance(event, Unknown)
    assert set(protocol.silent()) == set(Okx(None, [PAIR, "ETH-USDT"], 7).silent())
    assert [type(event) for event in decode(protocol, bbo(1)) + decode(protocol, trades(trade(1)))] == [Quote, Trade]


@pytest.mark.parametrize(
    "told",
    [
        *(candle((place, value)) for place in (1, 2, 3, 4) for value in (*BAD_NUMBERS, "0")),
        *(candle((place, value)) for place in (5, 7) for value in BAD_NUMBERS),
        *(candle((0, value)) for value in BAD_COUNTERS),
        *(candle((8, value)) for value in ("2", "", None, 1)),
        candle()[:-1],
        None,
        {},
    ],
)
def test_a_malformed_candle_is_unknown(business: OkxBusiness, told: object) -> None:
    """Missing, of another kind, negative or no number: each spoils the frame."""
    [event] = decode(business, data("candle1m", told))
    assert isinstance(event, Unknown)


def test_half_a_frame_is_unknown(protocol: Okx, business: OkxBusiness) -> None:
    """Wherever a frame is cut."""
    for each, message in ((protocol, bbo(1)), (protocol, trades(trade(1))), (business, data("candle1m", candle()))):
        frame = json.dumps(message, separators=(",", ":")).encode()
        for end in range(len(frame)):
            assert [type(event) for event in each.decode(frame[:end], 1)] == [Unknown]


def test_a_frame_may_be_written_otherwise(protocol: Okx) -> None:
    """Blanks, another order of the fields and new fields change nothing."""
    message = bbo(10)
    turned = {"new": {}, "data": message["data"], "arg": {"instId": PAIR, "uid": "1", "channel": "bbo-tbt"}}
    [event] = protocol.decode(json.dumps(turned).encode(), 1_000)
    assert [event] == decode(Okx(None, [PAIR], 7), message)


def test_a_stream_that_has_not_spoken_is_named(protocol: Okx) -> None:
    """A confirmation is no data; what is dropped as known is."""
    names = {f"{channel}:{pair}": pair for pair in (PAIR, "ETH-USDT") for channel in ("bbo-tbt", "trades")}
    decode(protocol, ack("trades"))
    assert protocol.silent() == names
    decode(protocol, bbo(1))
    decode(protocol, trades(trade(1)))
    assert protocol.silent() == {name: pair for name, pair in names.items() if pair == "ETH-USDT"}


def lines_of(recordings: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file, message) of everything recorded."""
    for name in (*(f"frames/{name}" for name in CAPTURED), SESSION):
        for line in (recordings / name).read_text().splitlines():
            yield name, json.loads(line, parse_float=Decimal, parse_int=int)


def read_plainly(message: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return what a frame of ours says, by its words alone."""
    channel, pair = message["arg"]["channel"], message["arg"]["instId"]
    if channel == "trades":
        return [
            (pair, each["tradeId"], Decimal(each["px"]), Decimal(each["sz"]), each["side"], int(each["ts"]) * 1000)
            for each in message["data"]
        ]
    return [
        (pair, *(Decimal(text) for side in ("bids", "asks") for text in each[side][0][:2]), int(each["ts"]) * 1000)
        for each in message["data"]
    ]


def as_read(event: Event) -> tuple[object, ...]:
    if isinstance(event, Trade):
        return (event.product_id, event.trade_id, event.price, event.size, event.taker_side, event.exchange_time_us)
    assert isinstance(event, Quote)
    return (event.product_id, event.bid_price, event.bid_size, event.ask_price, event.ask_size, event.exchange_time_us)


def test_the_recordings_decode_to_what_their_texts_say(recordings: Path) -> None:
    """Each file on its own connection: every quote and trade with its Decimals, in order, and no gap."""
    expected: dict[str, list[tuple[object, ...]]] = {}
    for name, message in lines_of(recordings):
        if "data" in message and message["arg"]["channel"] in ("bbo-tbt", "trades"):
            expected.setdefault(name, []).extend(read_plainly(message))
    for name, told in expected.items():
        protocol = Okx(None, list({str(each[0]) for each in told}), 1)
        events = [
            event for line in (recordings / name).read_text().splitlines() for event in decode_line(protocol, line)
        ]
        assert [as_read(event) for event in events] == told
    kinds = Counter(len(each) for told in expected.values() for each in told)
    assert len(expected) == 4
    assert kinds == {6: 4 + 1 + 2 + 74}


def decode_line(protocol: Okx, line: str) -> list[Event]:
    """Return the events of a recorded line of our channels; another channel's is Unknown, an answer is none of both."""
    events = list(protocol.decode(line.encode(), 1_652_459_225_504_000))
    message = json.loads(line)
    if "event" in message:
        assert not any(isinstance(event, Quote | Trade | Gap | Heartbeat) for event in events)
        return []
    if message["arg"]["channel"] in ("bbo-tbt", "trades"):
        return events
    assert [type(event) for event in events] == [Unknown]
    return []


def test_the_session_has_as_many_trades_as_its_text(recordings: Path) -> None:
    """74 trades, of which the first of each product was before the subscription."""
    raw = (recordings / SESSION).read_text()
    pairs = ("BTC-USD-220527", "UNI-USD-SWAP", PAIR)
    protocol = Okx(None, pairs, 1)
    events = [event for line in raw.splitlines() for event in decode_line(protocol, line)]
    counted = Counter(event.product_id for event in events if isinstance(event, Trade))
    assert counted == {pair: raw.count(f'"data":[{{"instId":"{pair}","tradeId":') for pair in pairs}
    assert counted.total() == len(events) == 74
    assert [event.product_id for event in events if isinstance(event, Trade) and event.before] == list(pairs)


def test_the_recorded_answers(recordings: Path) -> None:
    """Each complaint and each confirmation of ours is understood; the bare word too."""
    protocol = Okx(None, [PAIR], 1)
    lines = (recordings / "frames/okx__captured_frames.jsonl").read_bytes().splitlines()
    answers = [protocol.decode(line, 1)[0] for line in lines if b'"event"' in line]
    assert [type(answer) for answer in answers] == [Acknowledged, VenueError, VenueError, VenueError]
    assert protocol.decode((recordings / "frames/okx__text_frames.txt").read_bytes().strip(), 1) == (Heartbeat(),)


def test_the_recorded_list_of_instruments(recordings: Path) -> None:
    """Steps, minimum and state are those of the text, and the bundled table agrees."""
    body = (recordings / "instruments/okx_rest_instruments_spot.json").read_bytes()
    listed = products.parse(body)
    for each, said in zip(listed, json.loads(body)["data"], strict=True):
        tick, lot, least = (Decimal(said[name]) for name in ("tickSz", "lotSz", "minSz"))
        assert each.product == Product("okx", said["instId"], tick, lot, least)
        assert (each.base, each.quote, each.trading) == (said["baseCcy"], said["quoteCcy"], said["state"] == "live")
    assert len(listed) == 5
    ours = {product for instrument in INSTRUMENTS for product in instrument.products if product.venue == "okx"}
    assert {each.product for each in listed} <= ours


def instrument(**more: object) -> dict[str, object]:
    said = {"instType": "SPOT", "instId": "A-B", "baseCcy": "A", "quoteCcy": "B", "state": "live"}
    return said | {"tickSz": "0.1", "lotSz": "0.01", "minSz": "1"} | more


def answer(*instruments: dict[str, object], code: str = "0") -> bytes:
    return json.dumps({"code": code, "msg": "", "data": instruments}).encode()


def test_what_is_not_live_or_has_no_steps_is_not_traded() -> None:
    """An instrument that is not opened yet has empty steps; what is no spot is left out."""
    named = [{"state": "preopen"}, {"tickSz": ""}, {"lotSz": "0"}, {}]
    listed = products.parse(answer(*(instrument() | more for more in named), instrument(instType="SWAP")))
    assert [each.trading for each in listed] == [False, False, False, True]


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", answer(code="50011"), answer({"instId": "A-B"}), answer(instrument(tickSz="x"))]
)
def test_what_is_no_list_is_refused(body: bytes) -> None:
    """The venue's own complaint as well as nonsense."""
    with pytest.raises(msgspec.MsgspecError):
        products.parse(body)


@pytest.fixture
def market() -> Market:
    return Market(INSTRUMENTS, ["okx"], 7, 0)


def connected(market: Market, protocol: Okx | OkxBusiness) -> tuple[Session, list[Event]]:
    """Return a session that was asked by the protocol, and the events of its answers."""
    session = Session(protocol.url().removeprefix("wss://ws.okx.com:8443"), market.of_venue("okx"))
    answers = [frame for request in protocol.subscribe_frames() for frame in session.answer(request, 0)]
    return session, [event for frame in answers for event in protocol.decode(frame.encode(), 1)]


def test_the_simulators_market_arrives_as_it_happened(market: Market) -> None:
    """The same best bids and asks and the same trades in the same order, no gap and nothing unknown."""
    listings = market.of_venue("okx")
    protocol = Okx(None, list(listings), 1)
    session, first = connected(market, protocol)
    assert first[: 2 * len(listings)] == [Acknowledged()] * 2 * len(listings)
    assert protocol.silent() == {}
    assert Counter(type(event) for event in first[2 * len(listings) :]) == {Quote: len(listings), Trade: len(listings)}
    told: list[tuple[object, ...]] = []
    heard: list[Event] = []
    for tick in range(1, 500):
        for event in market.tick(tick * TICK_US):
            moment = event.time_us // 1000 * 1000
            if isinstance(event, BookChanged):
                top = event.top
                told.append((event.product.id, top.bid, top.bid_size, top.ask, top.ask_size, moment))
            elif isinstance(event, Traded):
                number = str(event.trade_id)
                told.append((event.product.id, number, event.price, event.size, event.taker_side, moment))
            heard += [each for frame in session.frames(event) for each in protocol.decode(frame.encode(), 1)]
    assert [as_read(event) for event in heard] == told
    assert Counter(type(event) for event in heard)[Trade] > 50


def test_the_simulators_candles_arrive_as_they_were_traded(market: Market) -> None:
    """After each trade the candle so far; a minute's first trade is told after the closed one before it."""
    listings = market.of_venue("okx")
    protocol = OkxBusiness(None, list(listings), 1)
    session, first = connected(market, protocol)
    assert Counter(type(event) for event in first) == {Acknowledged: len(listings), VenueCandle: len(listings)}
    told: list[tuple[object, ...]] = []
    heard: list[Event] = []
    for tick in range(1, 2 * MINUTE_US // TICK_US):
        for event in market.tick(tick * TICK_US):
            if isinstance(event, Traded):
                both = [(each, each is event.closed) for each in (event.closed, event.candle) if each]
                told += [
                    (event.product.id, c.start_us, c.open, c.high, c.low, c.close, c.volume, c.turnover, closed)
                    for c, closed in both
                ]
            heard += [each for frame in session.frames(event) for each in protocol.decode(frame.encode(), 1)]
    candles = [event for event in heard if isinstance(event, VenueCandle)]
    assert len(candles) == len(heard)
    assert [
        (c.product_id, c.open_time_us, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.closed)
        for c in candles
    ] == told
    assert sum(bool(c.closed) for c in candles) >= len(listings) - 1


@pytest.mark.parametrize("kind", [Okx, OkxBusiness])
def test_the_faults_words_are_unknown_or_the_end(market: Market, kind: type[Okx | OkxBusiness]) -> None:
    """A renamed field, a new channel and half a frame are Unknown; the notice is Closing."""
    protocol = kind(None, [PAIR], 1)
    session, _ = connected(market, protocol)
    frames = [frame for tick in range(1, 300) for event in market.tick(tick) for frame in session.frames(event)]
    assert len(frames) > 5
    for frame in frames:
        for spoilt_frame in (frame.replace(*WIRE.rename), frame[: len(frame) // 2]):
            assert [type(event) for event in protocol.decode(spoilt_frame.encode(), 1)] == [Unknown]
    assert [type(event) for event in protocol.decode(WIRE.novelty.encode(), 1)] == [Unknown]
    assert WIRE.notice is not None
    assert protocol.decode(WIRE.notice.encode(), 1) == (Closing(),)


def test_the_simulator_refuses_as_the_protocol_understands(market: Market) -> None:
    """A product that is not there is refused by name, and the others speak."""
    protocol = Okx(None, ["DOGE-USDT", PAIR], 1)
    _, events = connected(market, protocol)
    refused = [name for event in events if isinstance(event, Acknowledged) for name in event.refused]
    assert refused == ["bbo-tbt:DOGE-USDT", "trades:DOGE-USDT"]
    assert set(protocol.silent()) == set(refused)
