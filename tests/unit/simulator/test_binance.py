"""Binance's side: requests and answers, raw and combined payloads."""

import json
from typing import Any

import pytest

from models.domain.instruments import INSTRUMENTS
from simulator.binance import WIRE, Session
from simulator.market import TICK_US, BookChanged, Event, Market, Traded


def _answer(session: Session, request: object) -> dict[str, Any]:
    [text] = session.answer(request if isinstance(request, str) else json.dumps(request), 0)
    answer: dict[str, Any] = json.loads(text)
    return answer


def _events() -> list[Event]:
    market = Market(INSTRUMENTS, ["binance"], 7, 0)
    start_us = 1_783_465_157_897_123
    return [event for tick in range(200) for event in market.tick(start_us + tick * TICK_US)]


@pytest.mark.parametrize(
    ("target", "streams", "combined"),
    [
        ("/ws", [], False),
        ("/stream", [], True),
        ("/ws/btcusdt@trade", ["btcusdt@trade"], False),
        ("/stream?streams=btcusdt@trade/ltcbtc@bookTicker", ["btcusdt@trade", "ltcbtc@bookTicker"], True),
    ],
)
def test_the_path_subscribes(target: str, streams: list[str], combined: bool) -> None:
    """Streams may be named in the path, raw below /ws and combined below /stream."""
    session = Session(target, None)
    assert list(session.streams) == streams
    assert session.combined is combined
    assert session.subscribed is bool(streams)


def test_subscriptions_are_taken_listed_and_given_back() -> None:
    """Each request is answered with its id; an unknown stream is taken without a word."""
    session = Session("/ws", None)
    asked = {"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "nosuch@trade"], "id": 1}
    assert _answer(session, asked) == {"result": None, "id": 1}
    listed = _answer(session, {"method": "LIST_SUBSCRIPTIONS", "id": "a1"})
    assert listed == {"result": ["btcusdt@bookTicker", "nosuch@trade"], "id": "a1"}
    assert _answer(session, {"method": "UNSUBSCRIBE", "params": ["nosuch@trade"], "id": 2})["result"] is None
    assert _answer(session, {"method": "LIST_SUBSCRIPTIONS", "id": 3})["result"] == ["btcusdt@bookTicker"]
    assert _answer(session, {"method": "SET_PROPERTY", "params": ["combined", True], "id": 5}) == {
        "result": None,
        "id": 5,
    }
    assert session.combined


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"method": "SET_PROPERTY", "params": ["x", 1], "id": 9}, {"code": 0, "msg": "Unknown property", "id": 9}),
        (
            {"method": "SET_PROPERTY", "params": ["combined", "yes"], "id": 9},
            {"code": 1, "msg": "Invalid value type: expected Boolean"},
        ),
        ('{"id":1}', {"code": 2, "msg": "Invalid request: missing field `method` at line 1 column 8"}),
        ("nonsense", {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}),
    ],
)
def test_refusals_have_their_codes(request_: object, answer: dict[str, Any]) -> None:
    """The venue's four codes, in its own words."""
    assert _answer(Session("/ws", None), request_) == answer


@pytest.mark.parametrize(
    "request_",
    [
        [],
        {"method": "DANCE", "id": 1},
        {"method": [], "id": 1},
        {"method": "SUBSCRIBE", "id": 1},
        {"method": "SUBSCRIBE", "params": "btcusdt@trade", "id": 1},
        {"method": "SUBSCRIBE", "params": [7], "id": 1},
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 1.5},
        {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": "x" * 37},
    ],
)
def test_malformed_requests_are_refused(request_: object) -> None:
    """Code 2, and nothing is subscribed."""
    session = Session("/ws", None)
    assert _answer(session, request_)["code"] == 2
    assert not session.subscribed


def test_payloads_have_the_venues_fields() -> None:
    """The fields of a bookTicker and of a trade are those of real frames, in their order."""
    session = Session("/stream?streams=btcusdt@bookTicker/btcusdt@trade", None)
    frames = {type(event): frame for event in _events() for frame in session.frames(event)}
    quote, trade = (json.loads(frames[kind]) for kind in (BookChanged, Traded))
    assert quote["stream"] == "btcusdt@bookTicker"
    assert list(quote["data"]) == ["u", "s", "b", "B", "a", "A"]
    assert trade["stream"] == "btcusdt@trade"
    assert list(trade["data"]) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
    numbers = [quote["data"][key] for key in "bBaA"] + [trade["data"][key] for key in "pq"]
    assert all(len(text.split(".")[1]) == 8 for text in numbers)
    assert len(str(trade["data"]["T"])) == 13


def test_only_what_was_asked_for_is_sent_raw_or_combined() -> None:
    """The raw form is the combined form's data; other streams are silent."""
    raw, combined = Session("/ws/btcusdt@trade", None), Session("/stream?streams=btcusdt@trade", None)
    for event in _events():
        wanted = event.product.id == "BTCUSDT" and isinstance(event, Traded)
        assert len(raw.frames(event)) == wanted
        for one, other in zip(raw.frames(event), combined.frames(event), strict=True):
            assert json.loads(one) == json.loads(other)["data"]


def test_microseconds_on_request() -> None:
    """`timeUnit=MICROSECOND` makes every time sixteen digits long."""
    session = Session("/stream?streams=btcusdt@trade&timeUnit=MICROSECOND", None)
    trades = [json.loads(frame)["data"] for event in _events() for frame in session.frames(event)]
    assert trades
    assert {len(str(trade["T"])) for trade in trades} == {16}


def test_m_says_that_the_buyer_was_the_maker() -> None:
    """`m` is true where the taker sold."""
    session = Session("/ws/btcusdt@trade", None)
    sides = {event.taker_side: session.frames(event) for event in _events() if isinstance(event, Traded)}
    for event in _events():
        if isinstance(event, Traded):
            for frame in session.frames(event):
                assert json.loads(frame)["m"] is (event.taker_side == "sell")
    assert set(sides) == {"buy", "sell"}


def test_recorded_frames_are_filtered_and_unwrapped() -> None:
    """A connection gets the recorded frames of its streams, in its own form."""
    frame = '{"stream":"btcusdt@trade","data":{"e":"trade","s":"BTCUSDT","t":5}}'
    assert Session("/stream?streams=btcusdt@trade", None).recorded(frame) == frame
    assert Session("/ws/btcusdt@trade", None).recorded(frame) == '{"e":"trade","s":"BTCUSDT","t":5}'
    assert Session("/ws/btcusdt@bookTicker", None).recorded(frame) is None
    assert Session("/ws/btcusdt@trade", None).recorded('{"result":null,"id":1}') is None


def test_renumbering_reaches_ids_and_times_only() -> None:
    """Update ids, trade ids and times move; prices, sizes and price texts that look like ids do not."""

    def add(counter: str, value: int) -> int:
        return value + {"BTCUSDT u": 10, "BTCUSDT t": 100}[counter]

    quote = '{"stream":"btcusdt@bookTicker","data":{"u":5,"s":"BTCUSDT","b":"6.0","B":"3.7","a":"6.1","A":"1.5"}}'
    trade = '{"stream":"btcusdt@trade","data":{"e":"trade","E":9,"s":"BTCUSDT","t":7,"p":"6.0","T":8,"m":true}}'
    assert WIRE.renumbered(quote, add, 2_000) == quote.replace('"u":5', '"u":15')
    assert WIRE.renumbered(trade, add, 2_000) == trade.replace('"t":7', '"t":107').replace('"E":9', '"E":11').replace(
        '"T":8', '"T":10'
    )
