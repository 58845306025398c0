"""OKX's side: one answer an argument, two endpoints, first data, the book's chain, and the 30 seconds."""

import json
from typing import Any

import pytest

from models.domain.instruments import INSTRUMENTS
from simulator.market import TICK_US, BookChanged, Event, IndexMoved, Market, Traded
from simulator.okx import WIRE, Session
from simulator.wire import Close

START_US = 1_783_465_157_897_123
PAIR = "BTC-USDT"
PUBLIC, BUSINESS = "/ws/v5/public", "/ws/v5/business"


@pytest.fixture
def market() -> Market:
    return Market(INSTRUMENTS, ["okx"], 7, START_US)


@pytest.fixture
def session(market: Market) -> Session:
    return Session(PUBLIC, market.of_venue("okx"))


def _request(*streams: tuple[str, str], op: str = "subscribe", **more: object) -> dict[str, Any]:
    return {"op": op, "args": [{"channel": channel, "instId": pair} for channel, pair in streams], **more}


def _answers(session: Session, request: object) -> list[dict[str, Any]]:
    text = request if isinstance(request, str) else json.dumps(request)
    return [json.loads(frame) for frame in session.answer(text, START_US)]


def _told(market: Market, session: Session, ticks: int = 300) -> list[tuple[Event, list[dict[str, Any]]]]:
    return [
        (event, [json.loads(frame) for frame in session.frames(event)])
        for tick in range(1, ticks)
        for event in market.tick(START_US + tick * TICK_US)
    ]


def test_each_argument_has_its_answer(session: Session) -> None:
    """Confirmations come in the order asked, with the request's id, before any data; asking again changes nothing."""
    request = _request(("trades", PAIR), ("bbo-tbt", PAIR), id="1512")
    answers = _answers(session, request)
    number = answers[0]["connId"]
    assert answers[:2] == [
        {"id": "1512", "event": "subscribe", "arg": {"channel": channel, "instId": PAIR}, "connId": number}
        for channel in ("trades", "bbo-tbt")
    ]
    assert [each["arg"]["channel"] for each in answers[2:]] == ["trades", "bbo-tbt"]
    assert len(_answers(session, request)) == 2
    assert "id" not in _answers(session, _request(("trades", PAIR)))[0]
    assert _answers(session, _request(("trades", PAIR), op="unsubscribe"))[0]["event"] == "unsubscribe"
    assert session.subscribed
    _answers(session, _request(("bbo-tbt", PAIR), op="unsubscribe"))
    assert not session.subscribed


def test_a_refused_argument_leaves_the_others(session: Session) -> None:
    """Code 60018 names what does not exist, in the venue's words."""
    good, bad, *_ = _answers(session, _request(("tickers", PAIR), ("tickers", "NMR-USDT"), id="a"))
    assert good["event"] == "subscribe"
    assert bad == {
        "id": "a",
        "event": "error",
        "msg": "Wrong URL or channel:tickers,instId:NMR-USDT doesn't exist. "
        "Please use the correct URL, channel and parameters referring to API document.",
        "code": "60018",
        "connId": good["connId"],
    }
    assert session.subscribed


@pytest.mark.parametrize(
    ("path", "channel", "code"),
    [
        (PUBLIC, "candle1m", "60018"),
        (PUBLIC, "news", "60018"),
        (PUBLIC, "books-l2-tbt", "60011"),
        (BUSINESS, "trades", "60018"),
        (BUSINESS, "bbo-tbt", "60018"),
        (BUSINESS, "tickers", "60018"),
        (PUBLIC, "trades", None),
        (PUBLIC, "tickers", None),
        (PUBLIC, "books", None),
        (PUBLIC, "books5", None),
        (BUSINESS, "candle1m", None),
        (f"{BUSINESS}?brokerId=9", "candle1m", None),
    ],
)
def test_each_channel_is_at_one_endpoint(market: Market, path: str, channel: str, code: str | None) -> None:
    """Candles are at the business endpoint only, all else at the public one only; in a replay too."""
    for listings in (market.of_venue("okx"), None):
        session = Session(path, listings)
        assert _answers(session, _request((channel, PAIR)))[0].get("code") == code
        assert session.subscribed is (code is None)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        ('{"op":"subscribe",', "60012", 'Illegal request: {"op":"subscribe",'),
        ("[]", "60012", "Illegal request: []"),
        ("pong", "60012", "Illegal request: pong"),
        ({"op": "dance", "args": []}, "60012", 'Illegal request: {"op": "dance", "args": []}'),
        ({"op": "subscribe"}, "60013", "Invalid args"),
        ({"op": "subscribe", "args": []}, "60013", "Invalid args"),
        ({"op": "subscribe", "args": {"channel": "trades", "instId": PAIR}}, "60013", "Invalid args"),
        ({"op": "subscribe", "args": ["trades"]}, "60013", "Invalid args"),
        ({"op": "subscribe", "args": [{"channel": "trades"}]}, "60013", "Invalid args"),
        ({"op": "subscribe", "args": [{"channel": "trades", "instId": 7}]}, "60013", "Invalid args"),
    ],
)
def test_malformed_requests_are_refused(session: Session, request_: object, code: str, message: str) -> None:
    """One complaint, and nothing of the request is taken."""
    [answer] = _answers(session, request_)
    assert (answer["event"], answer["code"], answer["msg"]) == ("error", code, message)
    assert not session.subscribed


def test_a_malformed_request_keeps_its_id(session: Session) -> None:
    """Where it can be read."""
    assert _answers(session, {"op": "subscribe", "args": [], "id": "7"})[0]["id"] == "7"


def test_ping_is_answered_with_pong(session: Session) -> None:
    """Bare words, no JSON."""
    assert session.answer("ping", 0) == ["pong"]


def test_frames_have_the_venues_fields(market: Market, session: Session) -> None:
    """The fields of real frames in their order, numbers as texts without needless zeros, times in milliseconds."""
    channels = ("bbo-tbt", "trades", "tickers", "books5")
    first = _answers(session, _request(*((channel, PAIR) for channel in channels)))[len(channels) :]
    frames = first + [frame for _, told in _told(market, session) for frame in told]
    by_channel = {frame["arg"]["channel"]: frame for frame in frames}
    assert set(by_channel) == set(channels)
    for frame in by_channel.values():
        assert list(frame) == ["arg", "data"]
        assert frame["arg"]["instId"] == PAIR
        assert len(frame["data"][0]["ts"]) == 13
    quote, trade, ticker, five = (by_channel[channel]["data"][0] for channel in channels)
    assert list(quote) == ["asks", "bids", "ts", "seqId"]
    assert list(trade) == ["instId", "tradeId", "px", "sz", "side", "ts", "count", "source", "seqId"]
    assert " ".join(ticker) == (
        "instType instId last lastSz askPx askSz bidPx bidSz open24h high24h low24h sodUtc0 sodUtc8 volCcy24h vol24h ts"
    )
    assert (len(five["asks"]), len(five["bids"])) == (5, 5)
    assert len(quote["asks"]) == len(quote["bids"]) == 1
    assert quote["asks"][0][2:] == ["0", "1"]
    for text in (trade["px"], trade["sz"], ticker["vol24h"], *quote["asks"][0][:2]):
        assert isinstance(text, str)
        assert "E" not in text
        assert not ("." in text and text.endswith("0"))


def test_the_first_data_is_how_things_stand(market: Market, session: Session) -> None:
    """The best levels, and the last trade before the subscription."""
    listing = market.of_venue("okx")[PAIR]
    quote, trade = _answers(session, _request(("bbo-tbt", PAIR), ("trades", PAIR)))[2:]
    shown = [quote["data"][0][side][0][:2] for side in ("bids", "asks")]
    assert [list(map(float, level)) for level in shown] == [
        list(map(float, listing.levels(side)[0])) for side in ("buy", "sell")
    ]
    assert trade["data"][0]["tradeId"] == str(listing.last_trade.trade_id)


def test_only_what_was_asked_for_is_told(market: Market, session: Session) -> None:
    """A trade for `trades`, a change of the book for `bbo-tbt`, each of its product."""
    _answers(session, _request(("trades", PAIR), ("bbo-tbt", "ETH-USDT")))
    counts = {Traded: 0, BookChanged: 0}
    for event, frames in _told(market, session):
        wanted = (isinstance(event, Traded) and event.product.id == PAIR) or (
            isinstance(event, BookChanged) and event.product.id == "ETH-USDT"
        )
        assert len(frames) == wanted
        counts[Traded if isinstance(event, Traded) else BookChanged] += wanted
    assert min(counts.values()) > 5


def test_an_index_says_nothing(market: Market, session: Session) -> None:
    """The venue has no channel for it here."""
    _answers(session, _request(("bbo-tbt", PAIR)))
    product = market.of_venue("okx")[PAIR].product
    assert session.frames(IndexMoved(product, product.tick, START_US)) == []


def test_the_book_is_a_snapshot_and_a_chain_of_updates(market: Market, session: Session) -> None:
    """Each update names the one before it; sizes are absolute, and "0" deletes a level. The checksum is 0."""
    answers = _answers(session, _request(("books", PAIR)))
    snapshot = answers[1]
    assert snapshot["action"] == "snapshot"
    [book] = snapshot["data"]
    assert book["prevSeqId"] == -1
    held = {side: {price: size for price, size, *_ in book[side]} for side in ("asks", "bids")}
    before, updates = book["seqId"], 0
    for _, frames in _told(market, session):
        for frame in frames:
            assert frame["action"] == "update"
            [update] = frame["data"]
            assert (update["prevSeqId"], update["checksum"]) == (before, 0)
            assert update["seqId"] > before
            before, updates = update["seqId"], updates + 1
            for side, levels in held.items():
                for price, size, zero, orders in update[side]:
                    assert (zero, orders) == ("0", "0" if size == "0" else "1")
                    if size == "0":
                        del levels[price]
                    else:
                        levels[price] = size
    assert updates > 20
    listing = market.of_venue("okx")[PAIR]
    for side, name in (("asks", "sell"), ("bids", "buy")):
        shown = {float(price): float(size) for price, size in listing.levels(name)}
        assert {float(price): float(size) for price, size in held[side].items()} == shown


def test_a_ticker_agrees_with_quote_and_trade(market: Market, session: Session) -> None:
    """It comes with each change of the book and repeats the last trade."""
    _answers(session, _request(("tickers", PAIR), ("bbo-tbt", PAIR), ("trades", PAIR)))
    last, seen = None, 0
    for event, frames in _told(market, session):
        by_channel = {frame["arg"]["channel"]: frame["data"][0] for frame in frames}
        last = by_channel.get("trades", last)
        if not frames or isinstance(event, Traded):
            continue
        ticker, quote = by_channel["tickers"], by_channel["bbo-tbt"]
        assert [ticker["askPx"], ticker["askSz"]] == quote["asks"][0][:2]
        assert [ticker["bidPx"], ticker["bidSz"]] == quote["bids"][0][:2]
        assert last is None or (ticker["last"], ticker["lastSz"]) == (last["px"], last["sz"])
        seen += last is not None
    assert seen > 5


def test_a_candle_follows_each_trade(market: Market) -> None:
    """Nine texts; `confirm` is "1" once, when its minute is over."""
    session = Session(BUSINESS, market.of_venue("okx"))
    first = _answers(session, _request(("candle1m", PAIR)))[1]
    assert first["arg"] == {"channel": "candle1m", "instId": PAIR}
    closed = []
    for event, frames in _told(market, session, ticks=1_300):
        assert bool(frames) is (isinstance(event, Traded) and event.product.id == PAIR)
        for frame in frames:
            [candle] = frame["data"]
            assert len(candle) == 9
            assert int(candle[0]) % 60_000 == 0
            if candle[8] == "1":
                closed.append(candle[0])
    assert closed
    assert len(set(closed)) == len(closed)


def test_thirty_silent_seconds_are_the_end(market: Market, session: Session) -> None:
    """A word of the client or data begin the time anew; another session's clock does not."""
    _answers(session, _request(("bbo-tbt", PAIR)))
    assert [session.overdue(0) for _ in range(30)] == [None] * 30
    session.answer("ping", 0)
    assert [session.overdue(0) for _ in range(30)] == [None] * 30
    assert any(frames for _, frames in _told(market, session))
    assert [session.overdue(0) for _ in range(30)] == [None] * 30
    assert session.overdue(0) == Close(4004, "No data received in 30s.")
    assert session.heartbeats(0, replaying=False) == []


def test_recorded_frames_are_filtered() -> None:
    """A connection gets the recorded data of its streams, which count as data; recorded answers are not repeated."""
    session = Session(PUBLIC, None)
    assert len(_answers(session, _request(("trades", "SKL-USDT")))) == 1
    frame = '{"arg":{"channel":"trades","instId":"SKL-USDT"},"data":[{"tradeId":"5"}]}'
    for _ in range(31):
        session.overdue(0)
    assert session.recorded(frame) == frame
    assert session.overdue(0) is None
    assert session.recorded(frame.replace("trades", "tickers")) is None
    assert session.recorded(frame.replace("SKL", "BAND")) is None
    assert session.recorded('{"event":"subscribe","arg":{"channel":"trades","instId":"SKL-USDT"}}') is None
    assert session.recorded("pong") is None


def test_renumbering_reaches_ids_and_times_only() -> None:
    """Each product has its own counters; a candle stays at a full minute, and a snapshot has none before it."""

    def add(counter: str, value: int) -> int:
        return value + {"BTC-USDT trade": 10, "BTC-USDT sequence": 100}[counter]

    head = '{"arg":{"channel":"%s","instId":"BTC-USDT"},'
    trade = head % "trades" + '"data":[{"tradeId":"5","px":"5","sz":"7","ts":"9","count":"1","seqId":6}]}'
    assert WIRE.renumbered(trade, add, 2_000) == trade.replace('"tradeId":"5"', '"tradeId":"15"').replace(
        '"ts":"9"', '"ts":"11"'
    ).replace('"seqId":6', '"seqId":106')
    book = head % "books" + '"data":[{"asks":[["5","1","0","1"]],"ts":"9","prevSeqId":%d,"seqId":%d}]}'
    assert WIRE.renumbered(book % (-1, 6), add, 0) == book % (-1, 106)
    assert WIRE.renumbered(book % (6, 7), add, 0) == book % (106, 107)
    candle = head % "candle1m" + '"data":[["%d","5","6","4","5","1","2","3","0"]]}'
    assert WIRE.renumbered(candle % 60_000, add, 130_000_000) == candle % 180_000
    answer = '{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}'
    assert WIRE.renumbered(answer, add, 2_000) == answer


def test_a_trade_is_data_of_trades() -> None:
    """A confirmation of the channel is none, nor is a ticker."""
    assert WIRE.is_trade('{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[]}')
    assert not WIRE.is_trade('{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}')
    assert not WIRE.is_trade('{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[]}')
