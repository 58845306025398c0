"""Deribit's side: answers and refusals, heartbeats, credits, and the channels that clients of others ask for."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from models.domain.instruments import INSTRUMENTS
from simulator.deribit import WIRE, Session
from simulator.market import TICK_US, BookChanged, Event, IndexMoved, Market, Traded
from simulator.wire import Close

START_US = 1_783_465_157_897_123
SECOND_US = 1_000_000
HEARTBEAT = '{"params":{"type":"heartbeat"},"method":"heartbeat","jsonrpc":"2.0"}'
TEST_REQUEST = '{"params":{"type":"test_request"},"method":"heartbeat","jsonrpc":"2.0"}'
BTC_PACES = [f"{kind}.BTC_USDT.{pace}" for kind in ("ticker", "trades", "book") for pace in ("100ms", "agg2")]


@pytest.fixture
def market() -> Market:
    return Market(INSTRUMENTS, ["deribit"], 7, START_US)


@pytest.fixture
def session(market: Market) -> Session:
    return Session("/ws/api/v2", market.of_venue("deribit"))


def _answers(session: Session, request: object, now_us: int = 0) -> list[dict[str, Any]]:
    text = request if isinstance(request, str) else json.dumps(request)
    return [json.loads(frame, parse_float=Decimal) for frame in session.answer(text, now_us)]


def _call(session: Session, method: str, now_us: int = 0, **params: object) -> Any:
    answer = _answers(session, {"jsonrpc": "2.0", "id": 5, "method": method, "params": params}, now_us)[0]
    return answer["result"] if "result" in answer else answer["error"]


def _subscribe(session: Session, *channels: str) -> list[dict[str, Any]]:
    request = {"jsonrpc": "2.0", "id": 1, "method": "public/subscribe", "params": {"channels": channels}}
    return [answer["params"] for answer in _answers(session, request)[1:]]


def _events(market: Market, ticks: int = 400) -> list[Event]:
    return [event for tick in range(1, ticks) for event in market.tick(START_US + tick * TICK_US)]


def _told(session: Session, event: Event) -> dict[str, Any]:
    frames = [json.loads(frame, parse_float=Decimal) for frame in session.frames(event)]
    assert all((frame["jsonrpc"], frame["method"]) == ("2.0", "subscription") for frame in frames)
    return {frame["params"]["channel"]: frame["params"]["data"] for frame in frames}


def test_an_answer_has_its_id_and_times(session: Session) -> None:
    """The fields of a real answer, in their order; `usDiff` is what the request took."""
    request = {"jsonrpc": "2.0", "id": "a1", "method": "public/subscribe", "params": {"channels": []}}
    [answer] = _answers(session, request, START_US)
    assert list(answer) == ["jsonrpc", "id", "result", "usIn", "usOut", "usDiff", "testnet"]
    assert (answer["id"], answer["result"], answer["testnet"]) == ("a1", [], False)
    assert (answer["usIn"], answer["usOut"] - answer["usIn"]) == (START_US, answer["usDiff"])
    assert not session.subscribed


@pytest.mark.parametrize(
    "channel",
    [
        "quote.DOGE_USDC",
        "quote.btc_usd",
        "deribit_price_index.BTC_USDC",
        "deribit_price_index.doge_usd",
        "ticker.BTC_USDC",
        "ticker.BTC_USDC.1s",
        "chart.trades.BTC_USDC.5",
        "quote.BTC_USDC.100ms",
        "news",
        "",
    ],
)
def test_an_unknown_channel_is_left_out_without_a_word(session: Session, channel: str) -> None:
    """The result has what was taken, in the venue's own order and each once."""
    asked = ["trades.BTC_USDC.100ms", channel, "quote.BTC_USDC", "quote.BTC_USDC", "deribit_price_index.btc_usd"]
    result = _call(session, "public/subscribe", channels=asked)
    assert result == ["deribit_price_index.btc_usd", "quote.BTC_USDC", "trades.BTC_USDC.100ms"]
    assert session.subscribed
    fresh = Session("/", session._listings)
    assert _call(fresh, "public/subscribe", channels=[channel]) == []
    assert not fresh.subscribed


def test_one_raw_channel_refuses_the_whole_call(session: Session) -> None:
    """Code 13778, and nothing of the call is taken."""
    refused = {"code": 13778, "message": "raw_subscriptions_not_available_for_unauthorized"}
    assert _call(session, "public/subscribe", channels=["quote.BTC_USDC", "trades.BTC_USDC.raw"]) == refused
    assert not session.subscribed


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("public/dance", {}, -32601),
        (7, {}, -32601),
        (["public/test"], {}, -32601),
        ("public/subscribe", {}, -32602),
        ("public/subscribe", {"channels": "quote.BTC_USDC"}, -32602),
        ("public/subscribe", {"channels": [7]}, -32602),
        ("public/subscribe", {"channels": ["quote.BTC_USDC"] * 501}, -32602),
        ("public/subscribe", ["quote.BTC_USDC"], -32602),
        ("public/unsubscribe", {"channels": None}, -32602),
        *(("public/set_heartbeat", {"interval": value}, -32602) for value in (9, 9.99, True, "10", None)),
        ("public/set_heartbeat", {}, -32602),
    ],
)
def test_malformed_requests_are_refused(session: Session, method: object, params: object, code: int) -> None:
    """With the id of the request and a code; nothing is subscribed."""
    [answer] = _answers(session, {"jsonrpc": "2.0", "id": 9, "method": method, "params": params})
    assert (answer["id"], answer["error"]["code"], answer["testnet"]) == (9, code, False)
    assert not session.subscribed


@pytest.mark.parametrize("text", ["nonsense", "[]", "7", '{"id":1'])
def test_what_is_no_json_is_refused_without_an_id(session: Session, text: str) -> None:
    """Code 11050, in the venue's own words."""
    [answer] = _answers(session, text)
    assert answer["error"] == {"code": 11050, "data": "invalid json", "message": "bad_request"}
    assert "id" not in answer


def test_other_requests(market: Market, session: Session) -> None:
    """Test, hello and time are answered; what is given back is named and silent from then on."""
    assert set(_call(session, "public/test")) == set(_call(session, "public/hello")) == {"version"}
    assert _call(session, "public/get_time", START_US) == START_US // 1000
    _subscribe(session, "quote.BTC_USDC", "quote.ETH_USDC", "book.ETH_USDC.100ms")
    assert _call(session, "public/unsubscribe", channels=["quote.BTC_USDC", "quote.BTC_USDT"]) == ["quote.BTC_USDC"]
    assert session.subscribed
    assert _call(session, "public/unsubscribe_all") == "ok"
    assert not session.subscribed
    _subscribe(session, "book.BTC_USDC.100ms")
    assert _call(session, "public/unsubscribe", channels=["book.BTC_USDC.100ms"]) == ["book.BTC_USDC.100ms"]
    assert [frame for event in _events(market) for frame in session.frames(event)] == []
    assert [channel["channel"] for channel in _subscribe(session, "book.ETH_USDC.100ms")] == ["book.ETH_USDC.100ms"]


def test_a_subscription_begins_with_what_there_is_once(market: Market, session: Session) -> None:
    """Best prices, a book and an index do, trades and candles do not; asking again brings no second snapshot."""
    channels = ["quote.BTC_USDT", "chart.trades.BTC_USDT.1", "deribit_price_index.btc_usd", *BTC_PACES]
    first = {each["channel"]: each["data"] for each in _subscribe(session, *channels)}
    assert set(first) == {name for name in channels if "trades" not in name}
    listing = market.of_venue("deribit")["BTC_USDT"]
    (bid, bid_size), (ask, _) = listing.levels("buy")[0], listing.levels("sell")[0]
    for data in (first["quote.BTC_USDT"], first["ticker.BTC_USDT.agg2"]):
        assert (data["best_bid_price"], data["best_bid_amount"], data["best_ask_price"]) == (bid, bid_size, ask)
    assert first["ticker.BTC_USDT.100ms"]["last_price"] == listing.last_trade.price
    assert _subscribe(session, *channels) == []


def test_only_what_was_asked_for_is_told(market: Market, session: Session) -> None:
    """A product's channels hear of its book, its trades or its index, and others hear nothing."""
    channels = ["quote.BTC_USDT", "trades.ETH_USDC.100ms", "chart.trades.BTC_USDC.1", "deribit_price_index.eth_btc"]
    _subscribe(session, *channels)
    heard: set[str] = set()
    for event in _events(market):
        kind = {BookChanged: "quote.", Traded: "trades.", IndexMoved: "deribit_price_index."}[type(event)]
        told = _told(session, event)
        assert set(told) == {name for name in channels if kind in name and event.product.id in name.split(".")}
        heard.update(told)
    assert heard == set(channels)


def test_payloads_have_the_venues_fields_and_numbers(market: Market, session: Session) -> None:
    """Fields in the order of real frames; prices and sizes are numbers, with a point; times are milliseconds."""
    _subscribe(session, "quote.BTC_USDT", "deribit_price_index.btc_usd", "chart.trades.BTC_USDT.1", *BTC_PACES)
    told: dict[str, Any] = {}
    text = ""
    for event in _events(market):
        told |= _told(session, event)
        text += "".join(session.frames(event)) if isinstance(event, Traded) else ""
    best = ["best_ask_price", "best_bid_price", "best_ask_amount", "best_bid_amount"]
    assert list(told["quote.BTC_USDT"]) == ["timestamp", "instrument_name", *best]
    [trade] = told["trades.BTC_USDT.100ms"]
    assert list(trade) == [
        *("timestamp", "price", "direction", "index_price", "instrument_name", "trade_seq"),
        *("amount", "mark_price", "tick_direction", "trade_id"),
    ]
    assert isinstance(trade["trade_seq"], int)
    assert isinstance(trade["trade_id"], str)
    assert told["trades.BTC_USDT.agg2"] == [trade]
    assert list(told["chart.trades.BTC_USDT.1"]) == ["volume", "tick", "open", "low", "high", "cost", "close"]
    assert told["chart.trades.BTC_USDT.1"]["tick"] % 60_000 == 0
    assert list(told["deribit_price_index.btc_usd"]) == ["timestamp", "price", "index_name"]
    prices = [told["quote.BTC_USDT"][name] for name in best] + [trade["price"], trade["amount"]]
    assert all(isinstance(price, Decimal) for price in prices)
    assert len(str(trade["timestamp"])) == len(str(told["quote.BTC_USDT"]["timestamp"])) == 13
    assert '.0,"direction"' in text


def test_a_ticker_has_the_fields_of_a_recorded_one(recordings: Path, market: Market, session: Session) -> None:
    """Field by field, and those of its statistics: a spot book has no funding and no settlement."""
    lines = (recordings / "frames/deribit__captured_frames.jsonl").read_text().splitlines()
    [real] = [json.loads(line)["params"]["data"] for line in lines if '"ticker.BTC_USDT.100ms"' in line]
    [first] = _subscribe(session, "ticker.BTC_USDT.100ms")
    told = [each for event in _events(market) for each in _told(session, event).values()]
    assert len(told) > 50
    for ticker in (first["data"], *told):
        assert list(ticker) == list(real)
        assert list(ticker["stats"]) == list(real["stats"])


def test_trades_count_by_one_and_name_the_taker(market: Market, session: Session) -> None:
    """`trade_seq` rises by one from the last trade on, `trade_id` by more."""
    _subscribe(session, "trades.BTC_USDT.100ms")
    seq = market.of_venue("deribit")["BTC_USDT"].last_trade.trade_id
    trade_ids = []
    for event in _events(market):
        for [trade] in _told(session, event).values():
            assert isinstance(event, Traded)
            seq += 1
            assert (trade["trade_seq"], trade["direction"]) == (seq, event.taker_side)
            assert (trade["price"], trade["amount"]) == (event.price, event.size)
            assert trade["trade_id"] != str(seq)
            trade_ids.append(int(trade["trade_id"]))
    assert len(trade_ids) > 3
    assert sorted(set(trade_ids)) == trade_ids


def test_a_snapshot_with_every_change_is_the_book(market: Market, session: Session) -> None:
    """Each change names the one before it; a level is new, changed or deleted as it was known before."""
    [snapshot] = _subscribe(session, "book.BTC_USDT.100ms")
    data = snapshot["data"]
    assert list(data) == ["timestamp", "type", "change_id", "instrument_name", "bids", "asks"]
    assert {word for side in ("bids", "asks") for word, _, _ in data[side]} == {"new"}
    held = {side: {price: size for _, price, size in data[side]} for side in ("bids", "asks")}
    latest, words = data["change_id"], set()
    for event in _events(market):
        for change in _told(session, event).values():
            assert (change["type"], change["prev_change_id"]) == ("change", latest)
            assert change["change_id"] > latest
            latest = change["change_id"]
            for side in ("bids", "asks"):
                for word, price, size in change[side]:
                    words.add(word)
                    assert (price in held[side]) is (word != "new")
                    assert bool(size) is (word != "delete")
                    held[side][price] = size
                    if word == "delete":
                        del held[side][price]
    listing = market.of_venue("deribit")["BTC_USDT"]
    assert held == {"bids": dict(listing.levels("buy")), "asks": dict(listing.levels("sell"))}
    assert words == {"new", "change", "delete"}


def test_heartbeats_come_in_their_interval_with_test_requests(session: Session) -> None:
    """From when it was asked for; an answered test_request is followed by the next."""
    assert session.heartbeats(0, replaying=False) == []
    assert _call(session, "public/set_heartbeat", START_US, interval=10) == "ok"
    sent = []
    for second in range(1, 31):
        now_us = START_US + second * SECOND_US
        frames = session.heartbeats(now_us, replaying=second > 15)
        assert session.overdue(now_us) is None
        sent += [(second, frame) for frame in frames]
        if TEST_REQUEST in frames:
            _call(session, "public/test", now_us)
    assert sent == [(second, frame) for second in (10, 20, 30) for frame in (HEARTBEAT, TEST_REQUEST)]


def test_an_unanswered_test_request_closes(session: Session) -> None:
    """Ten seconds later, with the venue's own code; other requests are no answer, and subscriptions no excuse."""
    _subscribe(session, "quote.BTC_USDC")
    _call(session, "public/set_heartbeat", START_US, interval=30)
    asked_us = START_US + 30 * SECOND_US
    assert session.heartbeats(asked_us - 1, replaying=False) == []
    assert TEST_REQUEST in session.heartbeats(asked_us, replaying=False)
    _call(session, "public/get_time", asked_us)
    assert session.overdue(asked_us + 10 * SECOND_US - 1) is None
    assert session.overdue(asked_us + 10 * SECOND_US) == Close(4000, "heartbeat close")
    assert session.heartbeats(asked_us + 30 * SECOND_US, replaying=False) == [HEARTBEAT]
    assert _call(session, "public/disable_heartbeat", asked_us) == "ok"
    assert session.overdue(asked_us + 10 * SECOND_US) is None
    assert session.heartbeats(asked_us + 90 * SECOND_US, replaying=False) == []


def test_a_connection_that_does_nothing_is_closed(session: Session) -> None:
    """After 60.5 s without subscription, heartbeat or request."""
    assert session.overdue(START_US) is None
    assert session.overdue(START_US + 60_499_999) is None
    assert session.overdue(START_US + 60_500_000) == Close(1001, "")
    _call(session, "public/test", START_US + 60_000_000)
    assert session.overdue(START_US + 120_000_000) is None
    _subscribe(session, "quote.BTC_USDC")
    assert session.overdue(START_US + 900_000_000) is None
    _call(session, "public/unsubscribe_all", START_US + 900_000_000)
    assert session.overdue(START_US + 960_000_000) is None
    assert session.overdue(START_US + 961_000_000) == Close(1001, "")


@pytest.mark.parametrize(
    ("method", "burst", "wait_us"), [("public/subscribe", 10, 300_000), ("public/test", 100, 50_000)]
)
def test_credits_run_out_and_come_back(session: Session, method: str, burst: int, wait_us: int) -> None:
    """10 subscriptions or 100 other requests at once; one more in 0.3 s or 0.05 s; then 10028, and the end."""
    params = {"channels": ["quote.BTC_USDC"]}
    for _ in range(burst):
        assert "code" not in _call(session, method, START_US, **params)
    assert "code" not in _call(session, method, START_US + wait_us, **params)
    assert session.overdue(START_US + wait_us) is None
    assert _call(session, method, START_US + wait_us, **params) == {"code": 10028, "message": "too_many_requests"}
    assert session.overdue(START_US + wait_us) == Close(1008, "too_many_requests")


def test_credits_do_not_suffer_when_the_clock_goes_back(session: Session) -> None:
    """A clock that was ahead on demand and is right again takes nothing away."""
    for now_us in (START_US + 60 * SECOND_US, START_US):
        assert _call(session, "public/subscribe", now_us, channels=["quote.BTC_USDC"]) == ["quote.BTC_USDC"]
    assert session.overdue(START_US) is None


def _frame(channel: str, data: str = '{"timestamp":1}') -> str:
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}'


def test_recorded_frames_are_those_that_were_asked_for() -> None:
    """A replay takes every name; a frame comes at whatever pace it was recorded, under the name asked for."""
    session = Session("/", None)
    names = ["book.X-1.agg2", "chart.trades.X-1.1", "quote.X-1", "ticker.X-1.100ms", "trades.X-1.raw"]
    assert _call(session, "public/subscribe", channels=names) == names
    for name in names:
        assert session.recorded(_frame(name)) == _frame(name)
    assert session.recorded(_frame("ticker.X-1.raw")) == _frame("ticker.X-1.100ms")
    assert session.recorded(_frame("book.X-1.raw")) == _frame("book.X-1.agg2")
    for other in ("quote.X-2", "ticker.X-2.100ms", "deribit_price_index.x", "chart.trades.X-1.5.x", "news"):
        assert session.recorded(_frame(other)) is None
    assert session.recorded(TEST_REQUEST) is None
    assert session.recorded('{"jsonrpc":"2.0","id":0,"result":["quote.X-1"]}') is None


def test_the_recorded_session_is_played_to_whom_asks_for_it(recordings: Path) -> None:
    """Its .raw tickers and books, to a connection that asks for them at 100ms, and nothing of other products."""
    lines = (recordings / "sessions/deribit_2021-07-22.jsonl").read_text().splitlines()
    name = "ETH-30JUL21-2800-C"
    session = Session("/", None)
    _call(session, "public/subscribe", channels=[f"ticker.{name}.100ms", f"book.{name}.100ms"])
    played = [frame for frame in map(session.recorded, lines) if frame is not None]
    assert len(played) == sum(
        f'"channel":"ticker.{name}' in line or f'"channel":"book.{name}' in line for line in lines
    )
    assert {json.loads(frame)["params"]["channel"] for frame in played} == {
        f"ticker.{name}.100ms",
        f"book.{name}.100ms",
    }


def test_renumbering_reaches_ids_and_times_only() -> None:
    """Sequences, trade ids, change ids and times move, each instrument's on their own; prices do not."""

    def add(counter: str, value: int) -> int:
        return value + {"X seq": 10, "X trade": 100, "X change": 1_000}[counter]

    trades = '[{"timestamp":5,"price":7.0,"instrument_name":"X","trade_seq":7,"trade_id":"USDC-7","tick_direction":3}]'
    assert WIRE.renumbered(_frame("trades.X.100ms", trades), add, 2_000) == _frame(
        "trades.X.100ms",
        trades.replace('stamp":5', 'stamp":7').replace('seq":7', 'seq":17').replace('"USDC-7"', '"USDC-107"'),
    )
    book = '{"timestamp":5,"change_id":9,"instrument_name":"X","bids":[["new",9,5]],"prev_change_id":8}'
    assert WIRE.renumbered(_frame("book.X.100ms", book), add, 0) == _frame(
        "book.X.100ms", book.replace('"change_id":9', '"change_id":1009').replace('id":8', 'id":1008')
    )
    candle = '{"volume":1,"tick":60000,"open":60000}'
    assert WIRE.renumbered(_frame("chart.trades.X.1", candle), add, 119_000_000) == _frame(
        "chart.trades.X.1", candle.replace('"tick":60000', '"tick":120000')
    )
    assert WIRE.renumbered(HEARTBEAT, add, 2_000) == HEARTBEAT


def test_only_trades_are_trades() -> None:
    """A candle's channel has trades in its name and is none; the gap fault takes real ones away."""
    assert WIRE.is_trade(_frame("trades.X.100ms"))
    assert not WIRE.is_trade(_frame("chart.trades.X.1"))
    assert not WIRE.is_trade('{"id":1,"result":["trades.X.100ms"]}')
