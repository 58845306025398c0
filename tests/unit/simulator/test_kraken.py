"""Kraken's side: answers for each product, books with checksums, tickers, candles, heartbeats and closings."""

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zlib import crc32

import pytest

from models.domain.instruments import INSTRUMENTS
from simulator.kraken import WIRE, Session
from simulator.market import TICK_US, BookChanged, Event, Listing, Market, Traded

START_US = 1_783_465_157_897_123
TIME = "2026-07-07T22:59:17.897123Z"
SECOND_US = 1_000_000
TIMES = {"time_in": TIME, "time_out": "2026-07-07T22:59:17.897165Z"}


@pytest.fixture
def market() -> Market:
    return Market(INSTRUMENTS, ["kraken"], 7, START_US)


@pytest.fixture
def session(market: Market) -> Session:
    session = Session("/v2", market.of_venue("kraken"))
    session.answer('{"method":"ping"}', START_US - SECOND_US)  # the status goes before it
    return session


def _request(channel: str, symbols: Sequence[str], method: str = "subscribe", **params: Any) -> dict[str, Any]:
    return {"method": method, "params": {"channel": channel, "symbol": symbols, **params}, "req_id": 3}


def _texts(session: Session, request: object) -> list[str]:
    return session.answer(request if isinstance(request, str) else json.dumps(request), START_US)


def _answers(session: Session, request: object) -> list[dict[str, Any]]:
    return [json.loads(text) for text in _texts(session, request)]


def _events(market: Market, ticks: int = 300) -> list[Event]:
    return [event for tick in range(1, ticks) for event in market.tick(START_US + tick * TICK_US)]


def _rows(session: Session, events: Sequence[Event], channel: str) -> list[dict[str, Any]]:
    """What a channel tells of events, with the numbers' own texts."""
    frames = [json.loads(frame, parse_float=str) for event in events for frame in session.frames(event)]
    assert {(frame["channel"], frame["type"], len(frame["data"])) for frame in frames} == {(channel, "update", 1)}
    return [frame["data"][0] for frame in frames]


def test_the_status_comes_first(market: Market) -> None:
    """Once a connection, before its first answer, with an id beyond 2^63."""
    session = Session("/v2", market.of_venue("kraken"))
    status, pong = _answers(session, {"method": "ping", "req_id": 7})
    assert status == {
        "channel": "status",
        "type": "update",
        "data": [{"version": "2.0.10", "system": "online", "api_version": "v2", "connection_id": 16389994220698793191}],
    }
    assert pong == {"method": "pong", "req_id": 7, **TIMES}
    assert _answers(session, '{"method":"ping"}') == [{"method": "pong", **TIMES}]


@pytest.mark.parametrize(
    ("channel", "params", "result"),
    [
        ("book", {"depth": 25}, {"depth": 25, "snapshot": True}),
        ("trade", {}, {"snapshot": False}),
        ("ohlc", {"snapshot": False}, {"interval": 1, "snapshot": False}),
        ("ticker", {"event_trigger": "bbo"}, {"event_trigger": "bbo", "snapshot": True}),
    ],
)
def test_each_product_is_answered_by_itself(
    session: Session,
    channel: str,
    params: dict[str, Any],
    result: dict[str, object],
) -> None:
    """An unknown one is refused alone, with its name; the options are repeated, with what nobody said."""
    answers = _answers(session, _request(channel, ["BTC/USD", "XBT/USD", "ETH/USD"], **params))
    head = {"method": "subscribe", "req_id": 3}
    assert [answer for answer in answers if "method" in answer] == [
        {**head, "result": {"channel": channel, **result, "symbol": "BTC/USD"}, "success": True, **TIMES},
        {
            "error": "Currency pair not supported XBT/USD",
            **head,
            "success": False,
            "symbol": "XBT/USD",
            **TIMES,
        },
        {**head, "result": {"channel": channel, **result, "symbol": "ETH/USD"}, "success": True, **TIMES},
    ]
    told = [(answer["type"], answer["data"][0]["symbol"]) for answer in answers if "method" not in answer]
    assert told == ([("snapshot", "BTC/USD"), ("snapshot", "ETH/USD")] if result["snapshot"] else [])
    assert session.subscribed


def test_unsubscribing(session: Session) -> None:
    """What is there is given back; what is not, and what is there already, is an error for that product."""
    _answers(session, _request("trade", ["BTC/USD"]))
    [again] = _answers(session, _request("trade", ["BTC/USD"]))
    assert (again["error"], again["symbol"]) == ("Already subscribed", "BTC/USD")
    gone, missing = _answers(session, _request("trade", ["BTC/USD", "ETH/USD"], "unsubscribe"))
    assert (gone["method"], gone["success"], gone["result"]["symbol"]) == ("unsubscribe", True, "BTC/USD")
    assert (missing["error"], missing["success"], missing["symbol"]) == ("Subscription Not Found", False, "ETH/USD")
    assert not session.subscribed
    assert _answers(session, _request("trade", ["BTC/USD"]))[0]["success"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ("nonsense", "Malformed request"),
        ("[]", "Malformed request"),
        ({}, "Unknown method"),
        ({"method": "dance"}, "Unknown method"),
        ({"method": "subscribe"}, "Unknown channel"),
        (_request("news", ["BTC/USD"]), "Unknown channel"),
        ({"method": "subscribe", "params": {"channel": ["book"]}}, "Unknown channel"),
        (_request("book", []), "Symbol(s) not given"),
        ({"method": "subscribe", "params": {"channel": "book", "symbol": "BTC/USD"}}, "Symbol(s) not given"),
        (_request("book", ["BTC/USD"], depth=7), "Unsupported field: depth"),
        (_request("ohlc", ["BTC/USD"], interval=2), "Unsupported field: interval"),
        (_request("ticker", ["BTC/USD"], event_trigger="all"), "Unsupported field: event_trigger"),
    ],
)
def test_complaints(session: Session, request_: object, error: str) -> None:
    """A request that cannot be read is refused as a whole, and nothing of it is taken."""
    [answer] = _answers(session, request_)
    assert (answer["error"], answer["success"]) == (error, False)
    assert "symbol" not in answer
    assert not session.subscribed


def test_too_many_messages(session: Session) -> None:
    """Fifty within a second are borne; what is above is not answered but complained of."""
    said = [_texts(session, '{"method":"ping"}') for _ in range(51)]
    assert '{"Error":"Exceeded msg rate"}' not in [text for texts in said[:50] for text in texts]
    assert said[50] == ['{"Error":"Exceeded msg rate"}']
    assert "pong" in session.answer('{"method":"ping"}', START_US + SECOND_US)[0]


def _checksum(book: dict[str, dict[str, str]]) -> int:
    asks = sorted(book["asks"].items(), key=lambda level: Decimal(level[0]))[:10]
    bids = sorted(book["bids"].items(), key=lambda level: -Decimal(level[0]))[:10]
    numbers = [number for level in asks + bids for number in level]
    return crc32("".join(number.replace(".", "").lstrip("0") for number in numbers).encode())


def _cut(book: dict[str, dict[str, str]], depth: int) -> None:
    for side, sign in (("bids", -1), ("asks", 1)):
        for price in sorted(book[side], key=lambda text: sign * Decimal(text))[depth:]:
            del book[side][price]


@pytest.mark.parametrize(("depth", "levels"), [(10, 10), (25, 12), (1000, 12)])
def test_books_have_checksums(market: Market, session: Session, depth: int, levels: int) -> None:
    """A book kept by the venue's rules, cut to its depth after each update, has every checksum that was sent."""
    text = _texts(session, _request("book", ["BTC/USD"], depth=depth))[1]
    [row] = json.loads(text, parse_float=str)["data"]
    book = {side: {level["price"]: level["qty"] for level in row[side]} for side in ("bids", "asks")}
    assert row["checksum"] == _checksum(book)
    assert [len(side) for side in book.values()] == [levels, levels]
    events = [event for event in _events(market) if not isinstance(event, Traded)]
    deleted = 0
    for row in _rows(session, events, "book"):
        assert list(row) == ["symbol", "bids", "asks", "checksum", "timestamp"]
        assert row["bids"] or row["asks"]
        for side in ("bids", "asks"):
            for level in row[side]:
                if level["qty"] == "0.00000000":
                    del book[side][level["price"]]
                    deleted += 1
                else:
                    book[side][level["price"]] = level["qty"]
        _cut(book, depth)
        assert row["checksum"] == _checksum(book)
    assert deleted > 5
    listing = market.of_venue("kraken")["BTC/USD"]
    for name, side in (("bids", "buy"), ("asks", "sell")):
        shown = {f"{price:.1f}": f"{size:.8f}" for price, size in listing.levels(side)[:depth]}
        assert book[name] == shown


def test_numbers_are_written_with_their_zeros(market: Market, session: Session) -> None:
    """Prices have the pair's decimals and sizes eight, and none is a text."""
    text = "".join(_texts(session, _request("book", ["ETH/BTC"])))
    text += "".join(_texts(session, _request("trade", ["ETH/BTC"], snapshot=True)))
    assert len(re.findall(r'"price":0\.\d{5}[,}]', text)) == text.count('"price":') == 21
    assert len(re.findall(r'"qty":\d+\.\d{8}[,}]', text)) == text.count('"qty":') == 21


def test_a_trade(market: Market, session: Session) -> None:
    """The row of a trade has the taker's side and an id that rises by one; a snapshot has the last one."""
    snapshot = _answers(session, _request("trade", ["BTC/USD"], snapshot=True))[1]
    events = _events(market)
    rows = _rows(session, events, "trade")
    trades = [event for event in events if isinstance(event, Traded) and event.product.id == "BTC/USD"]
    assert len(rows) == len(trades) > 2
    first = snapshot["data"][0]["trade_id"]
    assert [row["trade_id"] for row in rows] == list(range(first + 1, first + 1 + len(rows)))
    for row, told in zip(rows, trades, strict=True):
        assert list(row) == ["symbol", "side", "price", "qty", "ord_type", "trade_id", "timestamp"]
        assert (row["side"], row["price"], row["qty"]) == (told.taker_side, f"{told.price:.1f}", f"{told.size:.8f}")
    assert WIRE.is_trade(session.frames(trades[-1])[0])


TICKER = ["symbol", "bid", "bid_qty", "ask", "ask_qty", "last", "volume", "vwap", "low", "high"]
TICKER += ["change", "change_pct", "timestamp"]


def test_tickers_speak_of_trades_or_of_prices(market: Market, session: Session) -> None:
    """By default with each trade; with "bbo" when a best price moves, and not for a size alone."""
    trades = _answers(session, _request("ticker", ["BTC/USD"]))[1]["data"][0]
    other = Session("/v2", market.of_venue("kraken"))
    _answers(other, _request("ticker", ["BTC/USD"], event_trigger="bbo"))
    assert list(trades) == TICKER
    events = [event for event in _events(market) if event.product.id == "BTC/USD"]
    by_trade = _rows(session, events, "ticker")
    made = [event for event in events if isinstance(event, Traded)]
    assert [row["last"] for row in by_trade] == [f"{event.price:.1f}" for event in made]
    assert [(row["bid"], row["ask_qty"]) for row in by_trade] == [
        (f"{event.top.bid:.1f}", f"{event.top.ask_size:.8f}") for event in made
    ]
    moved = _rows(other, events, "ticker")
    tops = [(str(trades["bid"]), str(trades["ask"]))]
    tops += [(f"{each.top.bid:.1f}", f"{each.top.ask:.1f}") for each in events if isinstance(each, BookChanged)]
    expected = [top for before, top in pairwise(tops) if top != before]
    assert [(row["bid"], row["ask"]) for row in moved] == expected
    assert 5 < len(moved) < len(tops)
    assert all(list(row) == TICKER for row in by_trade + moved)


def test_candles(market: Market, session: Session) -> None:
    """One frame with each trade, of the running minute, and no word that one is closed; other intervals are quiet."""
    _answers(session, _request("ohlc", ["BTC/USD"]))
    _answers(session, _request("ohlc", ["ETH/USD"], interval=5))
    events = _events(market, 2_000)
    rows = _rows(session, events, "ohlc")
    made = [event for event in events if isinstance(event, Traded) and event.product.id == "BTC/USD"]
    assert [(row["close"], row["volume"], row["trades"]) for row in rows] == [
        (f"{event.candle.close:.1f}", f"{event.candle.volume:.8f}", event.candle.trades) for event in made
    ]
    assert list(dict.fromkeys(row["interval_begin"] for row in rows))[:2] == [
        "2026-07-07T22:59:00.000000000Z",
        "2026-07-07T23:00:00.000000000Z",
    ]
    assert (rows[0]["interval"], rows[0]["timestamp"]) == (1, "2026-07-07T23:00:00.000000Z")


def test_heartbeats_need_a_subscription(session: Session) -> None:
    """One a second for the whole connection; a recording that has its own keeps them while it plays."""
    assert session.heartbeats(START_US, replaying=False) == []
    _answers(session, _request("trade", ["BTC/USD", "ETH/USD"]))
    beat = '{"channel":"heartbeat"}'
    assert session.heartbeats(START_US, replaying=False) == [beat]
    assert session.heartbeats(START_US, replaying=True) == [beat]
    assert session.recorded(beat) == beat
    assert session.heartbeats(START_US, replaying=True) == []
    assert session.heartbeats(START_US, replaying=False) == [beat]


def test_an_idle_connection_is_closed(session: Session) -> None:
    """After a minute without a subscription, also where there was one before."""
    assert session.overdue(START_US) is None
    assert session.overdue(START_US + 59 * SECOND_US) is None
    assert session.overdue(START_US + 60 * SECOND_US) is not None
    _answers(session, _request("trade", ["BTC/USD"]))
    assert session.overdue(START_US + 300 * SECOND_US) is None
    _answers(session, _request("trade", ["BTC/USD"], "unsubscribe"))
    assert session.overdue(START_US + 301 * SECOND_US) is None
    assert session.overdue(START_US + 360 * SECOND_US) is None
    close = session.overdue(START_US + 361 * SECOND_US)
    assert close is not None
    assert (close.code, close.reason) == (1001, "no subscription")


TRADES = (
    '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":63501.6,"qty":0.02922270,'
    '"ord_type":"limit","trade_id":5,"timestamp":"2026-07-07T23:00:05.562702Z"},{"symbol":"ETH/USD","side":"buy",'
    '"price":1774.13,"qty":0.13466847,"ord_type":"limit","trade_id":9,"timestamp":"2026-07-07T23:00:05.637989Z"}]}'
)


def test_a_replay_takes_every_name_and_passes_on_what_was_asked_for() -> None:
    """Its snapshots are the recording's; answers, the status and what nobody asked for are not passed on."""
    session = Session("/v2", None)
    _, answer = _answers(session, _request("trade", ["BTC/USD"]))
    assert answer["success"]
    [answer] = _answers(session, _request("book", ["MINA/USD"]))
    assert answer["success"]
    assert session.recorded(TRADES) == TRADES
    book = '{"channel":"book","type":"snapshot","data":[{"symbol":"MINA/USD","bids":[],"asks":[],"checksum":0}]}'
    assert session.recorded(book) == book
    assert session.recorded(book.replace("MINA", "BTC")) is None
    assert session.recorded(TRADES.replace('"trade"', '"ticker"')) is None
    assert session.recorded('{"channel":"status","type":"update","data":[{"system":"online"}]}') is None
    ack = '{"method":"subscribe","result":{"channel":"trade","snapshot":false,"symbol":"BTC/USD"},"success":true}'
    assert session.recorded(ack) is None


def test_a_delisted_product_is_refused(market: Market) -> None:
    """What is no longer listed is no pair of this venue; the others are."""
    listings: dict[str, Listing] = market.of_venue("kraken")
    del listings["BTC/USD"]
    [_, refused, taken] = _answers(Session("/v2", listings), _request("trade", ["BTC/USD", "ETH/USD"]))
    assert refused["error"] == "Currency pair not supported BTC/USD"
    assert taken["success"]


def test_renumbering_reaches_ids_and_times() -> None:
    """Trade ids move, each product by its own measure, and times; what is left where it was stays as it is."""

    def add(counter: str, value: int) -> int:
        return value + {"BTC/USD trade": 10, "ETH/USD trade": 100}[counter]

    moved = TRADES.replace('"trade_id":5', '"trade_id":15').replace('"trade_id":9', '"trade_id":109')
    moved = moved.replace("23:00:05.562702Z", "23:01:05.562703Z").replace("23:00:05.637989Z", "23:01:05.637990Z")
    assert WIRE.renumbered(TRADES, add, 60_000_001) == moved
    assert WIRE.renumbered(TRADES, lambda _, value: value, 0) == TRADES
    assert WIRE.renumbered('{"channel":"heartbeat"}', add, 60_000_001) == '{"channel":"heartbeat"}'


def test_what_faults_need() -> None:
    """The notice says maintenance, the novelty is no channel of the venue, and data frames have the renamed field."""
    assert WIRE.name == "kraken"
    assert WIRE.notice is not None
    assert json.loads(WIRE.notice)["data"][0]["system"] == "maintenance"
    assert json.loads(WIRE.novelty)["channel"] == "novelty"
    assert TRADES.count(WIRE.rename[0]) == 2
    assert not WIRE.first_again
    assert WIRE.encode(TRADES) == TRADES
