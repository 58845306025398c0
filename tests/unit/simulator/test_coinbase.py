"""Coinbase's side: the list of what is subscribed, complaints, first messages, and the maker's side."""

import json
from typing import Any

import pytest

from models.domain.instruments import INSTRUMENTS
from simulator.coinbase import WIRE, Session
from simulator.market import TICK_US, Event, Market, Traded

CHANNELS = ["level2_batch", "ticker", "matches", "heartbeat"]


@pytest.fixture
def market() -> Market:
    return Market(INSTRUMENTS, ["coinbase"], 7, 1_783_465_157_897_123)


@pytest.fixture
def session(market: Market) -> Session:
    return Session("/", market.of_venue("coinbase"))


def _answers(session: Session, request: object) -> list[dict[str, Any]]:
    text = request if isinstance(request, str) else json.dumps(request)
    return [json.loads(frame) for frame in session.answer(text, 0)]


def _subscribe(product_ids: list[str], channels: list[Any], kind: str = "subscribe") -> dict[str, Any]:
    return {"type": kind, "product_ids": product_ids, "channels": channels}


def _events(market: Market, ticks: int = 300) -> list[Event]:
    return [event for tick in range(1, ticks) for event in market.tick(tick * TICK_US)]


def test_the_answer_lists_all_that_is_subscribed(session: Session) -> None:
    """Each answer has the full list; level2_batch is called level2_50 in it."""
    first = _answers(session, _subscribe(["BTC-USD"], ["level2_batch"]))[0]
    assert first == {
        "type": "subscriptions",
        "channels": [{"name": "level2_50", "product_ids": ["BTC-USD"], "account_ids": None}],
    }
    second = _answers(session, _subscribe([], ["matches", {"name": "ticker", "product_ids": ["ETH-USD"]}]))
    assert second[0]["type"] == "error"  # matches of no product
    third = _answers(session, _subscribe(["BTC-USD"], ["matches", {"name": "ticker", "product_ids": ["ETH-USD"]}]))[0]
    assert [(channel["name"], channel["product_ids"]) for channel in third["channels"]] == [
        ("level2_50", ["BTC-USD"]),
        ("matches", ["BTC-USD"]),
        ("ticker", ["ETH-USD"]),
    ]
    left = _answers(session, _subscribe(["BTC-USD"], ["matches", "level2_batch"], "unsubscribe"))
    assert [channel["name"] for channel in left[0]["channels"]] == ["ticker"]
    assert len(left) == 1
    assert session.subscribed
    _answers(session, _subscribe([], ["ticker"], "unsubscribe"))
    assert not session.subscribed


@pytest.mark.parametrize(
    ("request_", "message", "reason"),
    [
        (_subscribe(["DOGE-EUR"], ["ticker"]), "Failed to subscribe", "DOGE-EUR is not a valid product"),
        (_subscribe(["BTC-USD"], ["news"]), "Failed to subscribe", "news is not a valid channel"),
        (_subscribe(["BTC-USD"], ["level2"]), "Failed to subscribe", "level2, level3, and full channels now require"),
        (_subscribe(["BTC-USD"], []), "Failed to subscribe", "channels"),
        ({"type": "dance"}, "Type has to be either subscribe or unsubscribe", ""),
        (_subscribe(["BTC-USD"], [7]), "Malformed JSON", ""),
        ("nonsense", "Malformed JSON", ""),
    ],
)
def test_complaints(session: Session, request_: object, message: str, reason: str) -> None:
    """A bad request is answered with an error, and nothing of it is taken."""
    [answer] = _answers(session, request_)
    assert answer["type"] == "error"
    assert answer["message"] == message
    assert reason in answer.get("reason", "")
    assert not session.subscribed


def test_one_bad_product_spoils_its_request(session: Session) -> None:
    """Nothing of a request with an unknown product is taken."""
    assert _answers(session, _subscribe(["BTC-USD", "DOGE-EUR"], ["matches"]))[0]["type"] == "error"
    assert not session.subscribed


def test_first_messages(market: Market, session: Session) -> None:
    """A subscription begins with the snapshot and the last trade, once."""
    request = _subscribe(["LTC-BTC"], CHANNELS)
    answers = _answers(session, request)
    assert [each["type"] for each in answers] == ["subscriptions", "snapshot", "ticker", "last_match"]
    snapshot, last = answers[1], answers[3]
    assert float(snapshot["bids"][0][0]) < float(snapshot["asks"][0][0])
    assert snapshot["bids"] == sorted(snapshot["bids"], key=lambda level: -float(level[0]))
    assert last["trade_id"] == market.of_venue("coinbase")["LTC-BTC"].last_trade.trade_id
    assert [each["type"] for each in _answers(session, request)] == ["subscriptions"]


def test_updates_have_absolute_sizes(market: Market, session: Session) -> None:
    """A snapshot with every l2update applied is the book; a size of 0.00000000 deletes its level."""
    snapshot = _answers(session, _subscribe(["BTC-USD"], ["level2_batch"]))[1]
    levels = {("buy", price): size for price, size in snapshot["bids"]}
    levels.update({("sell", price): size for price, size in snapshot["asks"]})
    for event in _events(market):
        for frame in session.frames(event):
            update = json.loads(frame)
            assert list(update) == ["type", "product_id", "changes", "time"]
            for side, price, size in update["changes"]:
                if size == "0.00000000":
                    del levels[side, price]
                else:
                    levels[side, price] = size
    listing = market.of_venue("coinbase")["BTC-USD"]
    for side in ("buy", "sell"):
        shown = {format(price, "f"): f"{size:.8f}" for price, size in listing.levels(side)}
        assert shown == {price: size for (name, price), size in levels.items() if name == side}


def test_a_trade_is_a_match_with_the_makers_side_and_a_ticker_with_the_takers(market: Market, session: Session) -> None:
    """The same trade is "buy" in one and "sell" in the other; the ticker speaks on trades only."""
    _answers(session, _subscribe(["BTC-USD"], ["matches", "ticker"]))
    seen = 0
    for event in _events(market, 600):
        frames = [json.loads(frame) for frame in session.frames(event)]
        if not isinstance(event, Traded) or event.product.id != "BTC-USD":
            assert frames == []
            continue
        seen += 1
        match, ticker = frames
        assert (match["type"], ticker["type"]) == ("match", "ticker")
        assert {match["side"], ticker["side"]} == {"buy", "sell"}
        assert ticker["side"] == event.taker_side
        assert match["trade_id"] == ticker["trade_id"] == event.trade_id
        assert (match["price"], match["size"]) == (ticker["price"], ticker["last_size"])
        assert ticker["best_bid_size"]
    assert seen > 5


def test_heartbeats_name_the_last_trade(market: Market, session: Session) -> None:
    """One heartbeat a product, with the id of the last trade that was sent."""
    _answers(session, _subscribe(["BTC-USD", "LTC-BTC"], ["heartbeat"]))
    last = {event.product.id: event.trade_id for event in _events(market) if isinstance(event, Traded)}
    beats = [json.loads(frame) for frame in session.heartbeats(1_783_465_158_000_000, replaying=False)]
    assert {beat["product_id"]: beat["last_trade_id"] for beat in beats} == {
        product_id: last[product_id] for product_id in ("BTC-USD", "LTC-BTC")
    }
    assert beats[0]["time"] == "2026-07-07T22:59:18.000000Z"


def test_a_replay_beats_for_itself_where_the_recording_does_not() -> None:
    """Without recorded heartbeats the session sends its own, with the last trade id played; with them, none."""
    session = Session("/", None)
    session.answer(json.dumps(_subscribe(["SKL-USD"], CHANNELS)), 0)
    match = '{"type":"match","trade_id":12,"side":"buy","size":"1","price":"2","product_id":"SKL-USD"}'
    assert session.recorded(match) == match
    [beat] = [json.loads(frame) for frame in session.heartbeats(0, replaying=True)]
    assert beat["last_trade_id"] == 12
    recorded = '{"type":"heartbeat","last_trade_id":12,"product_id":"SKL-USD"}'
    assert session.recorded(recorded) == recorded
    assert session.heartbeats(0, replaying=True) == []
    assert len(session.heartbeats(0, replaying=False)) == 1
    assert session.recorded(match.replace("SKL-USD", "SKL-BTC")) is None
    assert session.recorded('{"type":"subscriptions","channels":[]}') is None


def test_renumbering_reaches_ids_and_times() -> None:
    """Trade ids, sequences and times move, each product by its own measure."""

    def add(counter: str, value: int) -> int:
        return value + {"BTC-USD trade": 10, "BTC-USD sequence": 100}[counter]

    frame = (
        '{"type":"match","trade_id":5,"size":"0.9","price":"7","product_id":"BTC-USD","sequence":6,'
        '"time":"2026-09-02T07:44:10.104422Z"}'
    )
    assert WIRE.renumbered(frame, add, 60_000_001) == (
        '{"type":"match","trade_id":15,"size":"0.9","price":"7","product_id":"BTC-USD","sequence":106,'
        '"time":"2026-09-02T07:45:10.104423Z"}'
    )
    assert WIRE.renumbered(frame, lambda _, value: value, 0) == frame
