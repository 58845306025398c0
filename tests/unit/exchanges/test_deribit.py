"""Deribit's protocol: every rule by hand, every recorded frame, and the simulated venue from end to end."""

import gzip
import json
import re
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from exchanges.deribit import products
from exchanges.deribit.protocol import Deribit
from exchanges.protocol import (
    Acknowledged,
    Event,
    Gap,
    Heartbeat,
    LastPrice,
    Limits,
    Reply,
    Unknown,
    VenueError,
)
from models.domain.candles import VenueCandle
from models.domain.instruments import INSTRUMENTS, Product
from models.domain.quotes import Quote, Trade
from simulator import market as simulated
from simulator.deribit import WIRE
from simulator.faults import Faults

BOOK = ["quote.BTC_USDC", "trades.BTC_USDC.100ms", "chart.trades.BTC_USDC.1"]
STREAMS = [*BOOK, "deribit_price_index.btc_usd"]
SECOND_US = 1_000_000


@pytest.fixture
def protocol() -> Deribit:
    return Deribit(None, ["BTC_USDC", "btc_usd"], 7)


def decode(protocol: Deribit, message: object, received_us: int = 1_000) -> Sequence[Event]:
    frame = message if isinstance(message, bytes) else json.dumps(message, separators=(",", ":")).encode()
    return protocol.decode(frame, received_us)


def told(channel: str, data: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}}


def quote(**more: object) -> dict[str, object]:
    best = {"best_ask_price": 11.5, "best_bid_price": 10.0, "best_ask_amount": 3.0, "best_bid_amount": 2.0}
    return told("quote.BTC_USDC", {"timestamp": 5, "instrument_name": "BTC_USDC"} | best | more)


def trade(seq: int, **more: object) -> dict[str, object]:
    data = {"timestamp": 5, "price": 10.5, "direction": "buy", "instrument_name": "BTC_USDC", "trade_seq": seq}
    return data | {"amount": 0.25, "trade_id": "900", "mark_price": 1.0, "tick_direction": 3} | more


def trades(*each: dict[str, object]) -> dict[str, object]:
    return told("trades.BTC_USDC.100ms", each)


def index(**more: object) -> dict[str, object]:
    data = {"timestamp": 5, "price": 97_000.5, "index_name": "btc_usd"} | more
    return told("deribit_price_index.btc_usd", data)


def candle(**more: object) -> dict[str, object]:
    prices = {"open": 10.5, "low": 10.0, "high": 11.5, "close": 11.0}
    return told("chart.trades.BTC_USDC.1", {"volume": 0.5, "tick": 60_000, "cost": 5.25} | prices | more)


def refusal(number: int | None, code: int = 13778, **more: object) -> dict[str, object]:
    shown = {} if number is None else {"id": number}
    return {"jsonrpc": "2.0", **shown, "error": {"code": code, "message": "no", **more}, "testnet": False}


def ids(protocol: Deribit) -> list[int]:
    return [json.loads(frame)["id"] for frame in protocol.subscribe_frames()]


def test_it_asks_for_a_heartbeat_and_for_all_channels_at_once(protocol: Deribit) -> None:
    """A book has three channels and an index one; a call of public/subscribe is dear, so there is one."""
    heartbeat, subscribe = map(json.loads, protocol.subscribe_frames())
    assert (heartbeat["method"], heartbeat["params"]) == ("public/set_heartbeat", {"interval": 10})
    assert (subscribe["method"], subscribe["params"]) == ("public/subscribe", {"channels": STREAMS})
    assert heartbeat["id"] != subscribe["id"]
    assert protocol.limits == Limits(silence_s=5, first_message_s=60, ping_s=2, lifetime_s=None)


def test_a_call_has_500_channels_at_most() -> None:
    """What is more goes into another call, and only the last answer completes the acknowledgement."""
    protocol = Deribit(None, [f"index_{number}" for number in range(501)], 7)
    calls = [json.loads(frame) for frame in protocol.subscribe_frames()[1:]]
    assert [len(call["params"]["channels"]) for call in calls] == [500, 1]
    assert len({call["id"] for call in calls}) == 2
    assert decode(protocol, {"id": calls[1]["id"], "result": calls[1]["params"]["channels"]}) == ()
    assert decode(protocol, {"id": calls[0]["id"], "result": calls[0]["params"]["channels"]}) == (Acknowledged(),)


def test_the_address() -> None:
    """The path belongs to the venue: it follows whatever address is given."""
    assert Deribit(None, [], 1).url() == "wss://www.deribit.com/ws/api/v2"
    assert Deribit("ws://127.0.0.1:9", [], 1).url() == "ws://127.0.0.1:9/ws/api/v2"


def test_a_quote_is_live(protocol: Deribit) -> None:
    """With sizes, and the venue's own time in microseconds."""
    ten, two, ask, three = Decimal(10), Decimal(2), Decimal("11.5"), Decimal(3)
    assert decode(protocol, quote()) == (Quote("deribit", "BTC_USDC", 7, 0, ten, two, ask, three, True, 5_000, 1_000),)


@pytest.mark.parametrize(("price", "size"), [(0.0, 0.0), (0, 0), (None, None), (None, 0.0), (10.0, 0.0)])
def test_an_empty_side_is_none(protocol: Deribit, price: float | None, size: float | None) -> None:
    """A price of 0.0 or null means that nobody bids; a size of 0 as well."""
    [event] = decode(protocol, quote(best_bid_price=price, best_bid_amount=size))
    assert isinstance(event, Quote)
    assert (event.bid_price, event.bid_size, event.ask_price) == (None, None, Decimal("11.5"))


def test_numbers_are_those_of_the_text(protocol: Deribit) -> None:
    """Exponents and digits beyond a float's are kept: no number is a float on its way."""
    frame = (
        json.dumps(quote(), separators=(",", ":")).replace("10.0", "1.423e-4").replace("11.5", "0.30000000000000001")
    )
    [event] = decode(protocol, frame.encode())
    assert isinstance(event, Quote)
    assert (event.bid_price, event.ask_price) == (Decimal("0.0001423"), Decimal("0.30000000000000001"))


def test_the_order_of_fields_does_not_matter(protocol: Deribit) -> None:
    """A frame whose channel does not stand at its beginning says the same."""
    shuffled = {"params": {"data": quote()["params"]["data"], "channel": "quote.BTC_USDC"}}  # type: ignore[index] # a plain frame
    events = decode(protocol, shuffled | {"method": "subscription", "jsonrpc": "2.0"})
    assert "quote.BTC_USDC" not in protocol.silent()
    assert events == decode(protocol, quote())


def test_a_trade(protocol: Deribit) -> None:
    """`direction` is the taker's, and the id is `trade_seq`, which counts; `trade_id` is the whole venue's."""
    made = Trade("deribit", "BTC_USDC", 7, "41", Decimal("10.5"), Decimal("0.25"), "sell", 5_000, 1_000)
    assert decode(protocol, trades(trade(41, direction="sell"))) == [made]


def test_a_jump_of_trade_seq_is_a_gap(protocol: Deribit) -> None:
    """`trade_seq` rises by one for each instrument; what is missing is counted, what is late or known is dropped."""
    decode(protocol, trades(trade(1)))
    made, gap = decode(protocol, trades(trade(5)))
    assert isinstance(made, Trade)
    assert gap == Gap("BTC_USDC", 3)
    assert decode(protocol, trades(trade(5))) == []
    assert decode(protocol, trades(trade(3))) == []
    assert [type(event) for event in decode(protocol, trades(trade(6)))] == [Trade]
    assert decode(protocol, trades(trade(8)))[1:] == [Gap("BTC_USDC", 1)]


def test_the_trades_of_a_frame_are_told_in_their_order(protocol: Deribit) -> None:
    """Several trades of one frame in any order make no gap; a known one among them is dropped."""
    decode(protocol, trades(trade(1)))
    events = decode(protocol, trades(trade(3), trade(2), trade(1), trade(6)))
    assert [event.trade_id for event in events if isinstance(event, Trade)] == ["2", "3", "6"]
    assert [event for event in events if isinstance(event, Gap)] == [Gap("BTC_USDC", 2)]
    assert decode(protocol, trades()) == []


def test_a_frame_of_trades_is_believed_as_a_whole(protocol: Deribit) -> None:
    """One bad trade makes its frame unknown, and what it had is seen as a gap by the next one."""
    decode(protocol, trades(trade(1)))
    assert [type(event) for event in decode(protocol, trades(trade(2), trade(3, price=-1)))] == [Unknown]
    assert decode(protocol, trades(trade(4)))[1] == Gap("BTC_USDC", 2)


def test_each_instrument_counts_its_own_trades() -> None:
    """One book's trades are no gap of another's; agg2 brings the same trades as 100ms."""
    protocol = Deribit(None, ["BTC_USDC", "ETH_USDC"], 7)
    decode(protocol, trades(trade(1)))
    assert len(decode(protocol, told("trades.ETH_USDC.100ms", [trade(90, instrument_name="ETH_USDC")]))) == 1
    assert len(decode(protocol, told("trades.BTC_USDC.agg2", [trade(2)]))) == 1
    assert decode(protocol, trades(trade(2))) == []


def test_an_index_is_a_last_price(protocol: Deribit) -> None:
    """It has a price, as of when it was received, and neither book nor trades."""
    assert decode(protocol, index()) == (LastPrice("deribit", "btc_usd", Decimal("97000.5"), 1_000),)


def test_a_candle(protocol: Deribit) -> None:
    """`tick` is its open time and `cost` its volume in the quote asset; the venue never says that it is closed."""
    prices = (Decimal("10.5"), Decimal("11.5"), Decimal(10), Decimal(11))
    assert decode(protocol, candle()) == (
        VenueCandle(
            "deribit",
            "BTC_USDC",
            7,
            60,
            60_000_000,
            *prices,
            volume=Decimal("0.5"),
            quote_volume=Decimal("5.25"),
            trades=None,
            closed=None,
            received_time_us=1_000,
        ),
    )
    [quiet] = decode(protocol, candle(volume=0.0, cost=0.0))
    assert isinstance(quiet, VenueCandle)


def test_an_acknowledgement_is_compared_with_what_was_asked(protocol: Deribit) -> None:
    """The order is the venue's own; an unknown channel is left out without a word."""
    number = ids(protocol)[1]
    assert decode(protocol, {"id": number, "result": STREAMS[::-1]}) == (Acknowledged(),)
    other = Deribit(None, ["BTC_USDC", "btc_usd"], 7)
    assert decode(other, {"id": number, "result": STREAMS[1:]}) == (Acknowledged(("quote.BTC_USDC",)),)
    none = Deribit(None, ["BTC_USDC", "btc_usd"], 7)
    assert decode(none, {"id": number, "result": []}) == (Acknowledged(tuple(STREAMS)),)


@pytest.mark.parametrize("code", [13778, -32602])
def test_one_refused_channel_does_not_stop_the_others(protocol: Deribit, code: int) -> None:
    """A call that is refused as a whole is made again channel by channel, no faster than the venue's credits."""
    now_us, asked, events = SECOND_US, [], decode(protocol, refusal(ids(protocol)[1], code), SECOND_US)
    assert events[0] == VenueError(f"code {code}: no")
    while isinstance(events[-1], Reply):
        call = json.loads(events[-1].frame)
        asked.append((call["id"], *call["params"]["channels"]))
        [name] = call["params"]["channels"]
        # An answer that comes at once does not bring the next request forward.
        answer = refusal(call["id"], code) if name == "quote.BTC_USDC" else {"id": call["id"], "result": [name]}
        events = decode(protocol, answer, now_us + 1)
        if len(asked) < len(STREAMS):
            assert not any(isinstance(event, Reply | Acknowledged) for event in events)
            assert decode(protocol, index(), now_us + 300_000) == decode(protocol, index(), now_us + 300_000)
            now_us += 310_000
            events = decode(protocol, index(), now_us)
    assert [name for _, name in asked] == STREAMS
    assert len({number for number, _ in asked} | set(ids(protocol))) == len(STREAMS) + 2
    assert events == (Acknowledged(("quote.BTC_USDC",)),)


def test_after_too_many_requests_it_asks_for_nothing(protocol: Deribit) -> None:
    """The venue closes the connection then, and the streams stay silent until it does."""
    assert decode(protocol, refusal(ids(protocol)[1], 10028)) == (VenueError("code 10028: no"),)
    assert list(protocol.silent()) == STREAMS


def test_a_complaint_says_what_the_venue_says(protocol: Deribit) -> None:
    """With its data; an error without an id, or for another request, refuses no channel."""
    assert decode(protocol, refusal(None, 11050, data="invalid json")) == (
        VenueError('code 11050: no ("invalid json")'),
    )
    assert decode(protocol, refusal(ids(protocol)[0], -32602)) == (VenueError("code -32602: no"),)
    assert decode(protocol, refusal(99)) == (VenueError("code 13778: no"),)


def test_a_test_request_is_answered(protocol: Deribit) -> None:
    """With public/test, whose own answer is a sign of life as well, as it is when we ask first."""
    reply, beat = decode(protocol, {"params": {"type": "test_request"}, "method": "heartbeat", "jsonrpc": "2.0"})
    assert isinstance(reply, Reply)
    assert beat == Heartbeat()
    assert json.loads(reply.frame)["method"] == "public/test"
    assert protocol.ping_frame(0) == reply.frame
    assert decode(protocol, {"id": json.loads(reply.frame)["id"], "result": {"version": "1"}}) == (Heartbeat(),)
    assert decode(protocol, {"id": ids(protocol)[0], "result": "ok"}) == (Heartbeat(),)
    assert decode(protocol, {"params": {"type": "heartbeat"}, "method": "heartbeat"}) == (Heartbeat(),)


@pytest.mark.parametrize(
    "message",
    [
        *(
            quote(**{name: value})
            for name in ("best_bid_price", "best_ask_amount")
            for value in (-1.0, "NaN", "x", True)
        ),
        *(quote(**{name: None}) for name in ("timestamp", "instrument_name", "best_bid_amount")),
        *(quote(timestamp=value) for value in (-1, 1.5, 2**60, "5", True)),
        *(quote(best_bid_price=value) for value in ("Infinity", "sNaN", 1e-31, 1e18)),
        quote(instrument_name="ETH_USDC"),
        *(trades(trade(1, price=value)) for value in (0.0, -1.0, "NaN", None, True)),
        *(trades(trade(1, amount=value)) for value in (-1.0, "NaN", None)),
        *(trades(trade(1, direction=value)) for value in ("", "BUY", None, 1)),
        *(trades(trade(value)) for value in (-1, 1.5, None, "1")),  # type: ignore[arg-type] # malformed on purpose
        trades(trade(1, instrument_name="ETH_USDC")),
        told("trades.BTC_USDC.100ms", trade(1)),
        *(index(price=value) for value in (0.0, -1.0, "NaN", None)),
        index(index_name="eth_usd"),
        index(timestamp=None),
        *(candle(**{name: value}) for name in ("open", "high", "low", "close") for value in (0.0, -1.0, "NaN", None)),
        *(candle(**{name: value}) for name in ("volume", "cost") for value in (-1.0, "NaN", None)),
        candle(tick=-1),
    ],
)
def test_a_malformed_field_is_unknown(protocol: Deribit, message: dict[str, object]) -> None:
    """A number that is none, negative, null or of another kind gives no event, and the stream has not spoken."""
    [event] = decode(protocol, message)
    assert isinstance(event, Unknown)
    assert not event.resync
    assert list(protocol.silent()) == STREAMS


@pytest.mark.parametrize("message", [quote(), trades(trade(1)), index(), candle()])
def test_a_missing_field_is_unknown(message: dict[str, Any]) -> None:
    """Every field that is read is needed, and NaN is no JSON."""
    data = message["params"]["data"]
    row = data[0] if isinstance(data, tuple) else data
    used = [name for name in row if name not in ("trade_id", "mark_price", "tick_direction")]
    for name in used:
        for changed in ({key: row[key] for key in row if key != name}, row | {name: float("nan")}):
            spoilt = told(message["params"]["channel"], [changed] if isinstance(data, tuple) else changed)
            [event] = decode(Deribit(None, ["BTC_USDC", "btc_usd"], 7), spoilt)
            assert isinstance(event, Unknown), (name, changed)
    assert len(used) >= 3


@pytest.mark.parametrize(
    "message",
    [
        told("ticker.BTC_USDC.100ms", {}),
        told("quote.ETH_USDC", {}),
        told("trades.BTC_USDC.raw", []),
        told("novelty", 1),
        {"method": "subscription"},
        {"method": "subscription", "params": {"channel": "quote.BTC_USDC"}},
        {"method": "subscription", "params": {"channel": 5, "data": {}}},
        {"method": "heartbeat", "params": {"type": "dance"}},
        {"method": "heartbeat"},
        {"method": "dance", "id": 3, "result": STREAMS},
        {"id": 99, "result": STREAMS},
        {"id": "3", "result": STREAMS},
        {"id": 3, "result": "ok"},
        *({"id": number} for number in (1, 2, 3)),
        {"method": "dance", "error": {"code": 1, "message": "no"}},
        {"id": 3, "error": {"code": "x"}},
        {},
        [],
        7,
        b"",
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.BTC_USDC"',
        b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.BTC',
        b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"\xff","data":{}}}',
        b'{"x":' + b"[" * 100_000,
        b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.BTC_USDC","x":' + b"[" * 100_000,
    ],
)
def test_nonsense_is_unknown(protocol: Deribit, message: object) -> None:
    """Nothing that a venue may send raises, and no channel counts that was not asked for."""
    assert [type(event) for event in decode(protocol, message)] == [Unknown]
    assert list(protocol.silent()) == STREAMS
    assert decode(protocol, {"id": ids(protocol)[1], "result": STREAMS}) == (Acknowledged(),)


def test_a_stream_that_has_spoken_is_not_silent(protocol: Deribit) -> None:
    """Each stream is named with its product until its first payload, which agg2 brings as well."""
    assert protocol.silent() == dict.fromkeys(BOOK, "BTC_USDC") | {STREAMS[3]: "btc_usd"}
    for message in (quote(), told("trades.BTC_USDC.agg2", [trade(1)]), index()):
        decode(protocol, message)
    assert protocol.silent() == {"chart.trades.BTC_USDC.1": "BTC_USDC"}
    decode(protocol, candle())
    assert protocol.silent() == {}


def lines_of(recordings: Path, pattern: str) -> list[str]:
    return [line for file in sorted(recordings.glob(pattern)) for line in file.read_text().splitlines() if line]


def plain(line: str) -> list[tuple[object, ...]]:
    """What a frame of quotes or trades says, read by another reader."""
    data = json.loads(line, parse_float=Decimal)["params"]["data"]
    if isinstance(data, dict):
        best = [Decimal(data[f"best_{name}"]) for name in ("bid_price", "bid_amount", "ask_price", "ask_amount")]
        return [(data["instrument_name"], *best, data["timestamp"] * 1000)]
    return [
        (
            *(row["instrument_name"], str(row["trade_seq"]), Decimal(row["price"]), Decimal(row["amount"])),
            *(row["direction"], row["timestamp"] * 1000),
        )
        for row in data
    ]


def fields(event: Event) -> tuple[object, ...]:
    if isinstance(event, Quote):
        best = (event.bid_price, event.bid_size, event.ask_price, event.ask_size)
        return (event.product_id, *best, event.exchange_time_us)
    assert isinstance(event, Trade)
    return (event.product_id, event.trade_id, event.price, event.size, event.taker_side, event.exchange_time_us)


def test_the_recorded_frames_decode_to_what_their_text_says(recordings: Path) -> None:
    """Every quote and trade, each counted in the raw text; other channels are unknown, refusals and beats are not."""
    told_of: Counter[tuple[type, str]] = Counter()
    written: Counter[tuple[type, str]] = Counter()
    other: Counter[type] = Counter()
    for line in lines_of(recordings, "frames/deribit__*.jsonl"):
        ours = re.search(r'"channel":"(quote|trades)\.([^."]+)', line)
        # Frames of different days and authors: each is a connection of its own.
        events = Deribit(None, [ours[2] if ours else "BTC_USDC"], 1).decode(line.encode(), 1)
        if ours is None:
            other.update(type(event) for event in events)
            continue
        kind = Quote if ours[1] == "quote" else Trade
        written[kind, ours[2]] += 1 if kind is Quote else line.count('"trade_seq":')
        told_of.update((type(event), fields(event)[0]) for event in events)  # type: ignore[misc] # its name
        assert [fields(event) for event in events] == plain(line)
    assert told_of == written
    assert told_of == {(Quote, "BTC-PERPETUAL"): 1, (Trade, "BTC-PERPETUAL"): 5}
    # Four tickers, a book and an answer to a request of another client; a test_request; two refusals.
    assert other == {Unknown: 6, Reply: 1, Heartbeat: 1, VenueError: 2}


def test_the_recorded_session_has_nothing_of_ours(recordings: Path) -> None:
    """Its tickers and books are channels that we do not ask for, and each of them says so."""
    lines = lines_of(recordings, "sessions/deribit_*.jsonl")
    kinds = Counter(re.findall(r'"channel":"([a-z_.]+)\.', "\n".join(lines)))
    assert kinds == {"ticker": 89, "book": 46}
    names = sorted(set(re.findall(r'"instrument_name":"([^"]+)"', "\n".join(lines))))
    protocol = Deribit(None, names, 1)
    events = [event for line in lines for event in protocol.decode(line.encode(), 1)]
    assert [type(event) for event in events] == [Unknown] * (89 + 46 + 1)  # and the answer to its own request
    assert len(protocol.silent()) == 3 * len(names)


def test_the_recorded_lists_of_instruments_have_no_spot_book(recordings: Path) -> None:
    """All of 2021's options and futures are read, and none of them is listed."""
    text = gzip.decompress((recordings / "instruments/deribit_rest_instruments.txt.gz").read_bytes()).decode()
    bodies = re.findall(r"^https://\S+ -> [\d.]+: (.*)$", text, re.MULTILINE)
    assert len(bodies) == 4
    assert sum(len(json.loads(body)["result"]) for body in bodies) == 1_017
    assert [listed for body in bodies for listed in products.parse(body.encode())] == []
    spot = "".join(bodies).count('"kind":"spot"')
    first = re.sub(r'"kind":"\w+"', '"kind":"spot"', bodies[0])
    assert spot == 0
    assert len(products.parse(first.encode())) == len(json.loads(bodies[0])["result"])


def test_a_spot_row_is_a_book() -> None:
    """The lot is the contract's size, or else the smallest order; a book without steps does not trade."""
    row = {"instrument_name": "BTC_USDC", "kind": "spot", "base_currency": "BTC", "quote_currency": "USDC"}
    row |= {"tick_size": 1.0, "min_trade_amount": 0.001, "contract_size": 0.0001, "is_active": True}  # type: ignore[dict-item] # JSON
    rows = [row, row | {"is_active": False}, row | {"tick_size": 0.0}, row | {"kind": "future"}]
    rows.append({name: value for name, value in row.items() if name != "contract_size"})
    first, *more = products.parse(json.dumps({"result": rows}).encode())
    assert (first.base, first.quote, first.trading) == ("BTC", "USDC", True)
    assert first.product == Product("deribit", "BTC_USDC", Decimal(1), Decimal("0.0001"), Decimal("0.001"))
    assert [(each.trading, each.product.lot) for each in more] == [
        (False, Decimal("0.0001")),
        (False, Decimal("0.0001")),
        (True, Decimal("0.001")),
    ]


def expected(event: simulated.Event) -> list[Event]:
    """What our side is to make of an event of the simulated market."""
    pid, moment = event.product.id, event.time_us // 1000 * 1000
    if isinstance(event, simulated.IndexMoved):
        return [LastPrice("deribit", pid, event.price, 1_000)]
    top = event.top
    if isinstance(event, simulated.BookChanged):
        return [Quote("deribit", pid, 7, 0, top.bid, top.bid_size, top.ask, top.ask_size, True, moment, 1_000)]
    so_far, number = event.candle, str(event.trade_id)
    prices = (so_far.open, so_far.high, so_far.low, so_far.close, so_far.volume, so_far.turnover)
    return [
        Trade("deribit", pid, 7, number, event.price, event.size, event.taker_side, moment, 1_000),
        VenueCandle("deribit", pid, 7, 60, so_far.start_us, *prices, trades=None, closed=None, received_time_us=1_000),
    ]


def connected(market: simulated.Market) -> tuple[Deribit, Any, list[Event]]:
    """A protocol on a simulated connection, and what it heard until all channels were taken."""
    listings = market.of_venue("deribit")
    protocol, session = Deribit(None, list(listings), 7), WIRE.session("/ws/api/v2", listings)
    answers = [answer for request in protocol.subscribe_frames() for answer in session.answer(request, 0)]
    return protocol, session, [event for answer in answers for event in protocol.decode(answer.encode(), 1_000)]


def test_the_simulated_venue_is_understood() -> None:
    """All that the market tells arrives, with its values and in its order, and nothing else."""
    market = simulated.Market(INSTRUMENTS, ["deribit"], 7, 0)
    listings = market.of_venue("deribit")
    protocol, session, [beat, acknowledged, *first] = connected(market)
    assert (beat, acknowledged) == (Heartbeat(), Acknowledged())
    books = {event.product_id: (event.bid_price, event.ask_size) for event in first if isinstance(event, Quote)}
    indexes = {event.product_id: event.price for event in first if isinstance(event, LastPrice)}
    assert books == {
        name: (listing.levels("buy")[0][0], listing.levels("sell")[0][1])
        for name, listing in listings.items()
        if not listing.product.price_only
    }
    assert indexes == {name: listing.index for name, listing in listings.items() if listing.product.price_only}
    assert len(first) == len(listings) == 7
    kinds: Counter[type] = Counter()
    for tick in range(1, 1_500):
        for event in market.tick(tick * simulated.TICK_US):
            heard = [each for frame in session.frames(event) for each in protocol.decode(frame.encode(), 1_000)]
            assert heard == expected(event)
            kinds.update(map(type, heard))
    assert protocol.silent() == {}
    assert kinds[Trade] == kinds[VenueCandle] > 50
    assert min(kinds[Quote], kinds[LastPrice]) > 500


def test_a_delisted_product_is_refused_alone() -> None:
    """The simulated venue leaves its channels out of the answer, and the others speak."""
    market = simulated.Market(INSTRUMENTS, ["deribit"], 7, 0)
    listings = market.of_venue("deribit")
    protocol = Deribit(None, list(listings), 7)
    session = WIRE.session("/", {name: each for name, each in listings.items() if name != "BTC_USDC"})
    answers = [answer for request in protocol.subscribe_frames() for answer in session.answer(request, 0)]
    events = [event for answer in answers for event in protocol.decode(answer.encode(), 1_000)]
    assert Acknowledged(tuple(BOOK)) in events
    told_of = [event for tick in range(1, 100) for event in market.tick(tick * simulated.TICK_US)]
    frames = [(event.product.id, session.frames(event)) for event in told_of]
    assert {name for name, each in frames if not each} == {"BTC_USDC"}
    assert {name for name, each in frames if each} == set(listings) - {"BTC_USDC"}


@pytest.mark.parametrize("fault", ["rename", "garbage"])
def test_a_spoilt_frame_is_unknown(fault: str) -> None:
    """A field of another name and half a frame give nothing else, on every channel, and do no lasting harm."""
    market = simulated.Market(INSTRUMENTS, ["deribit"], 7, 0)
    protocol, session, _ = connected(market)
    faults = Faults(WIRE)
    spoilt: set[str] = set()
    for tick in range(1, 400):
        for event in market.tick(tick * simulated.TICK_US):
            for frame in session.frames(event):
                channel = json.loads(frame)["params"]["channel"]
                if channel not in spoilt:
                    spoilt.add(channel)
                    faults.inject(fault)
                    [sent] = faults.spoil(frame)
                    assert isinstance(sent, str)
                    assert [type(each) for each in protocol.decode(sent.encode(), 1)] == [Unknown]
                [sent] = faults.spoil(frame)
                assert sent == frame
                assert protocol.decode(frame.encode(), 1)
                assert not any(isinstance(each, Unknown | Gap) for each in protocol.decode(frame.encode(), 1))
    assert len(spoilt) == 3 * 3 + 4


def test_a_novelty_is_unknown_and_there_is_no_notice(protocol: Deribit) -> None:
    """A channel that nobody asked for is unknown; the venue has no word for closing."""
    assert [type(event) for event in protocol.decode(WIRE.novelty.encode(), 1)] == [Unknown]
    assert WIRE.notice is None
