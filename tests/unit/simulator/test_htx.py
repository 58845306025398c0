"""HTX's side: topics and their answers, its own pings, first pushes, and Java's numbers."""

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest

from models.domain.instruments import INSTRUMENTS
from simulator.htx import CHANNELS, WIRE, Session, _number
from simulator.market import TICK_US, BookChanged, Event, Market, Traded
from simulator.wire import Close

NOW_US = 1_783_465_157_897_123
NOW_MS = NOW_US // 1000


@pytest.fixture
def market() -> Market:
    return Market(INSTRUMENTS, ["htx"], 7, NOW_US)


@pytest.fixture
def session(market: Market) -> Session:
    return Session("/ws", market.of_venue("htx"))


def _answers(session: Session, request: object, now_us: int = NOW_US) -> list[dict[str, Any]]:
    text = request if isinstance(request, str) else json.dumps(request)
    return [json.loads(frame, parse_float=Decimal) for frame in session.answer(text, now_us)]


def _events(market: Market, ticks: int = 300) -> list[Event]:
    return [event for tick in range(1, ticks) for event in market.tick(NOW_US + tick * TICK_US)]


def _refused(message: str, **more: object) -> dict[str, Any]:
    return {"status": "error", "ts": NOW_MS, **more, "err-code": "bad-request", "err-msg": message}


def test_topics_are_taken_and_given_back(session: Session) -> None:
    """Each request is answered with its id; the second of a topic is only acknowledged."""
    topic = "market.btcusdt.bbo"
    acknowledged = {"id": "id1", "status": "ok", "subbed": topic, "ts": NOW_MS}
    assert not session.subscribed
    answers = _answers(session, {"sub": topic, "id": "id1"})
    assert answers[0] == acknowledged
    assert [answer.get("ch") for answer in answers] == [None, topic]
    assert session.subscribed
    assert _answers(session, {"sub": topic, "id": 2}) == [acknowledged | {"id": 2}]
    unsubbed = {"id": "id4", "status": "ok", "unsubbed": topic, "ts": NOW_MS}
    assert _answers(session, {"unsub": topic, "id": "id4"}) == [unsubbed]
    assert not session.subscribed
    refused = _refused("unsub with not subbed topic", id="id4")
    assert _answers(session, {"unsub": topic, "id": "id4"}) == [refused]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"sub": "market.nope.bbo"}, "invalid symbol nope"),
        ({"req": "market.nope.kline.1min"}, "invalid symbol nope"),
        ({"sub": "market.btcusdt.nope"}, "invalid topic market.btcusdt.nope"),
        ({"sub": "market.btcusdt"}, "invalid topic market.btcusdt"),
        ({"sub": "accounts.btcusdt.bbo"}, "invalid topic accounts.btcusdt.bbo"),
        ({"sub": 7}, "invalid topic 7"),
        ({"req": "market.btcusdt.bbo"}, "invalid topic market.btcusdt.bbo"),
        ({"dance": 1}, "invalid topic"),
        ([], "invalid topic"),
        ("nonsense", "not json, is not json string"),
    ],
)
def test_refusals(session: Session, request_: object, message: str) -> None:
    """In the venue's own words, and nothing is subscribed; the id is the request's."""
    assert _answers(session, request_) == [_refused(message)]
    assert not session.subscribed
    if isinstance(request_, dict) and "dance" not in request_:
        assert _answers(session, {**request_, "id": "a"}) == [_refused(message, id="a")]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_subscription_begins_with_how_its_topic_stands(market: Market, session: Session, channel: str) -> None:
    """One push after the acknowledgement, as the recorded session has it for trades."""
    topic = f"market.ltcbtc.{channel}"
    _, push = _answers(session, {"sub": topic, "id": 1})
    listing = market.of_venue("htx")["ltcbtc"]
    assert (push["ch"], push["ts"]) == (topic, NOW_MS)
    tick, last = push["tick"], listing.last_trade
    (bid, _), (ask, ask_size) = listing.levels("buy")[0], listing.levels("sell")[0]
    match channel:
        case "bbo":
            assert (tick["bid"], tick["askSize"]) == (bid, ask_size)
        case "trade.detail":
            assert [(each["tradeId"], each["price"]) for each in tick["data"]] == [(last.trade_id, last.price)]
        case "kline.1min":
            assert (tick["id"], tick["close"]) == (NOW_US // 60_000_000 * 60, last.price)
        case "depth.step0":
            assert (len(tick["bids"]), tick["asks"][0]) == (12, [ask, ask_size])
        case "detail":
            assert (tick["count"], tick["close"]) == (1, last.price)
        case "ticker":
            assert (tick["ask"], tick["lastPrice"]) == (ask, last.price)
        case _:
            pytest.fail("a channel without an expectation")


def test_frames_have_the_venues_fields(market: Market, session: Session) -> None:
    """The fields of the recorded frames, in their order; a trade's `id` has 28 digits."""
    for channel in CHANNELS:
        session.answer(json.dumps({"sub": f"market.btcusdt.{channel}"}), NOW_US)
    texts = [text for event in _events(market) for text in session.frames(event)]
    texts += session.heartbeats(NOW_US, replaying=False)
    frames = {frame["ch"].split(".", 2)[2]: frame for frame in map(json.loads, texts) if "ch" in frame}
    assert all(list(frame) == ["ch", "ts", "tick"] for frame in frames.values())
    ticks = {channel: frame["tick"] for channel, frame in frames.items()}
    assert {channel: " ".join(tick) for channel, tick in ticks.items()} == {
        "bbo": "seqId ask askSize bid bidSize quoteTime symbol",
        "trade.detail": "id ts data",
        "kline.1min": "id open close low high amount vol count",
        "detail": "id low high open close vol amount count version",
        "ticker": "low high open close vol amount count bid bidSize ask askSize lastPrice lastSize",
        "depth.step0": "bids asks version ts",
    }
    [trade] = ticks["trade.detail"]["data"]
    assert " ".join(trade) == "id ts tradeId amount price direction isRpiTrade"
    assert len(str(trade["id"])) == 28
    assert len(str(ticks["bbo"]["quoteTime"])) == 13
    assert all(isinstance(ticks["bbo"][name], float) for name in ("ask", "askSize", "bid", "bidSize"))


def test_only_what_was_asked_for_is_sent(market: Market, session: Session) -> None:
    """A topic is one channel of one product; `direction` is the taker's side."""
    session.answer('{"sub":"market.btcusdt.trade.detail"}', NOW_US)
    sides = set()
    for event in _events(market, 1_000):
        wanted = event.product.id == "btcusdt" and isinstance(event, Traded)
        frames = session.frames(event)
        assert len(frames) == wanted
        for frame in frames:
            assert isinstance(event, Traded)
            assert WIRE.is_trade(frame)
            [trade] = json.loads(frame)["tick"]["data"]
            assert (trade["direction"], trade["tradeId"]) == (event.taker_side, event.trade_id)
            sides.add(trade["direction"])
    assert sides == {"buy", "sell"}


def test_the_book_comes_once_a_second(market: Market, session: Session) -> None:
    """Whole, best levels first, whatever has changed."""
    session.answer('{"sub":"market.btcusdt.depth.step0"}', NOW_US)
    assert not [frame for event in _events(market) for frame in session.frames(event)]
    book, ping = [json.loads(frame, parse_float=Decimal) for frame in session.heartbeats(NOW_US, replaying=False)]
    listing = market.of_venue("htx")["btcusdt"]
    assert [tuple(level) for level in book["tick"]["bids"]] == listing.levels("buy")
    assert [tuple(level) for level in book["tick"]["asks"]] == listing.levels("sell")
    assert ping == {"ping": NOW_MS}
    assert session.heartbeats(NOW_US + 1, replaying=True) == []


def test_what_was_may_be_asked_for(market: Market, session: Session) -> None:
    """The last trade and the present candle; a second request within 100 ms is refused."""
    last = market.of_venue("htx")["btcusdt"].last_trade
    topic = "market.btcusdt.trade.detail"
    [answer] = _answers(session, {"req": topic, "id": "id2"})
    assert list(answer) == ["id", "status", "ts", "rep", "data"]
    assert (answer["rep"], answer["data"][0]["tradeId"], answer["data"][0]["amount"]) == (
        topic,
        last.trade_id,
        last.size,
    )
    [refused] = _answers(session, {"req": topic}, NOW_US + 50_000)
    assert refused["err-msg"] == f"429 too many request topic is {topic}"
    [answer] = _answers(session, {"req": "market.btcusdt.kline.1min", "id": 3}, NOW_US + 160_000)
    assert (answer["id"], answer["data"][0]["amount"]) == (3, last.candle.volume)
    assert not session.subscribed


def _beats(session: Session, seconds: int, pong_until: int) -> tuple[list[int], int | None]:
    """Return the seconds of pings, and that of the close; pings are answered up to a second."""
    pinged = []
    for second in range(seconds):
        now_us = NOW_US + second * 1_000_000
        for text in session.heartbeats(now_us, replaying=True):
            pinged.append(second)
            assert json.loads(text) == {"ping": now_us // 1000}
            if second <= pong_until:
                assert session.answer(text.replace("ping", "pong"), now_us) == []
        if close := session.overdue(now_us):
            assert close == Close(1003, "ping check expired")
            return pinged, second
    return pinged, None


def test_answered_pings_come_each_five_seconds(session: Session) -> None:
    """Also in a replay, and whatever is subscribed; the connection lives."""
    assert _beats(session, 60, 60) == (list(range(0, 60, 5)), None)


def test_an_unanswered_ping_ends_the_connection(session: Session) -> None:
    """After the first unanswered one they come each second, until 15.5 s later it is closed."""
    assert _beats(session, 60, 10) == ([0, 5, 10, 15, *range(20, 32)], 31)


def test_only_the_value_of_a_ping_answers_it(session: Session) -> None:
    """Any of those that are open will do."""
    session.heartbeats(NOW_US, replaying=False)
    session.heartbeats(NOW_US + 5_000_000, replaying=False)
    session.answer('{"pong":1}', NOW_US)
    assert session.overdue(NOW_US + 15_500_000)
    assert session.overdue(NOW_US + 15_400_000) is None
    session.answer(f'{{"pong":{NOW_MS}}}', NOW_US)
    assert session.overdue(NOW_US + 60_000_000) is None


def test_a_clock_that_goes_back_stops_no_pings(session: Session) -> None:
    """A venue's clock that was ahead for a while pings at once when it is right again."""
    assert session.heartbeats(NOW_US + 60_000_000, replaying=False) == [f'{{"ping":{NOW_MS + 60_000}}}']
    assert session.heartbeats(NOW_US, replaying=False) == [f'{{"ping":{NOW_MS}}}']


def test_a_client_may_ping(session: Session) -> None:
    """And is answered with its value."""
    assert _answers(session, {"ping": 5}) == [{"pong": 5}]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.00018", "1.8E-4"),
        ("0.001", "0.001"),
        ("0.000999", "9.99E-4"),
        ("13640736", "1.3640736E7"),
        ("40000000", "4.0E7"),
        ("9999999.9", "9999999.9"),
        ("10000000.10", "1.00000001E7"),
        ("188358", "188358.0"),
        ("31764.0900", "31764.09"),
        ("1E+3", "1000.0"),
        ("1E-10", "1.0E-10"),
        ("0.00", "0.0"),
    ],
)
def test_numbers_are_written_as_java_does(value: str, text: str) -> None:
    """With a power of ten below 1e-3 and from 1e7 on, and exact; the recorded session has such."""
    assert _number(Decimal(value)) == text
    assert Decimal(text) == Decimal(value)


def test_frames_are_gzip_members() -> None:
    """Each by itself, the same for the same text."""
    encoded = WIRE.encode('{"ping":5}')
    assert isinstance(encoded, bytes)
    assert encoded[:2] == b"\x1f\x8b"
    assert gzip.decompress(encoded) == b'{"ping":5}'
    assert WIRE.encode('{"ping":5}') == encoded


def test_a_replay_takes_every_name_and_plays_what_was_asked_for() -> None:
    """Recorded pings and answers are not passed on, for the session has its own."""
    session = Session("/ws", None)
    asked = {"sub": "market.fil3susdt.trade.detail", "id": 1}
    [answer] = _answers(session, asked)
    assert answer["subbed"] == asked["sub"]
    frame = '{"ch":"market.fil3susdt.trade.detail","ts":1,"tick":{"id":1,"ts":1,"data":[]}}'
    assert session.recorded(frame) == frame
    for other in (
        frame.replace("trade.detail", "depth.step0"),
        frame.replace("fil3s", "fil3l"),
        '{"ping":1}',
        '{"id":1,"status":"ok","subbed":"market.fil3susdt.trade.detail","ts":1}',
    ):
        assert session.recorded(other) is None
    assert _answers(session, {"req": asked["sub"]})[0]["data"] == []
    assert session.heartbeats(NOW_US, replaying=True) == [f'{{"ping":{NOW_MS}}}']


def test_events_of_other_kinds_and_products_are_silent(market: Market) -> None:
    """A session whose listings lack a product (it was delisted) tells no ticker of it."""
    listings = market.of_venue("htx")
    session = Session("/ws", listings)
    session.answer('{"sub":"market.btcusdt.ticker"}', NOW_US)
    event = next(each for each in _events(market) if isinstance(each, BookChanged) and each.product.id == "btcusdt")
    assert len(session.frames(event)) == 1
    del listings["btcusdt"]
    assert session.frames(event) == []


def test_renumbering_reaches_ids_and_times_only() -> None:
    """Trade ids, sequence numbers and versions move, and times; prices do not, nor the id that nobody may use."""

    def add(counter: str, value: int) -> int:
        return value + {"btcusdt tradeId": 10, "btcusdt seqId": 100, "btcusdt version": 1_000}[counter]

    data = '[{"id":99,"ts":7000,"tradeId":3,"price":3}]'
    trade = f'{{"ch":"market.btcusdt.trade.detail","ts":5000,"tick":{{"id":9,"ts":6000,"data":{data}}}}}'
    assert WIRE.renumbered(trade, add, 60_001_000) == trade.replace("5000", "65001").replace("6000,", "66001,").replace(
        "7000", "67001"
    ).replace('"tradeId":3', '"tradeId":13')
    quote = '{"ch":"market.btcusdt.bbo","ts":5000,"tick":{"seqId":7,"ask":7,"quoteTime":5000}}'
    assert WIRE.renumbered(quote, add, 1_000) == quote.replace('"seqId":7', '"seqId":107').replace("5000", "5001")
    candle = '{"ch":"market.btcusdt.kline.1min","ts":5000,"tick":{"id":1200,"open":5000}}'
    assert WIRE.renumbered(candle, add, 125_000_000) == candle.replace("1200", "1320").replace(
        '"ts":5000', '"ts":130000'
    )
    depth = '{"ch":"market.btcusdt.depth.step0","ts":5,"tick":{"bids":[[5,5]],"version":5,"ts":5}}'
    assert WIRE.renumbered(depth, add, 0) == depth.replace('"version":5', '"version":1005')
    assert WIRE.renumbered(trade, lambda _, value: value, 0) == trade
    assert WIRE.renumbered('{"ping":5000}', add, 1_000_000) == '{"ping":5000}'


def test_the_words_for_faults_say_something_else() -> None:
    """The field that is renamed is in every push; the novelty is of no channel that there is; no end is announced."""
    assert WIRE.notice is None
    assert WIRE.rename[0] in WIRE.novelty
    assert json.loads(WIRE.novelty)["ch"].split(".", 2)[2] not in CHANNELS
    assert not WIRE.is_trade(WIRE.novelty)
    assert not WIRE.is_trade('{"id":1,"status":"ok","subbed":"market.btcusdt.trade.detail","ts":1}')
