"""Binance's protocol: every rule by hand, and the recorded session frame by frame."""

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from exchanges.binance.products import parse
from exchanges.binance.protocol import Binance
from exchanges.protocol import Acknowledged, Closing, Event, Gap, LastPrice, Unknown, VenueError
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade

RECORDING = "sessions/binance_spot_btcusdt_2024-08-08.raw.gz"


@pytest.fixture
def protocol() -> Binance:
    return Binance(None, ["BTCUSDT"], 7)


def decode(protocol: Binance, message: object) -> list[Event]:
    frame = message if isinstance(message, bytes) else json.dumps(message, separators=(",", ":")).encode()
    return [event for event in protocol.decode(frame, 1_000) if not isinstance(event, LastPrice)]


def ticker(u: int, **more: str) -> dict[str, object]:
    data = {"u": u, "s": "BTCUSDT", "b": "1.50000000", "B": "2.00000000", "a": "1.60000000", "A": "3.00000000"} | more
    return {"stream": "btcusdt@bookTicker", "data": data}


def trade(t: int, *, m: bool = True) -> dict[str, object]:
    data = {"e": "trade", "E": 5, "s": "BTCUSDT", "t": t, "p": "1.5", "q": "0.1", "T": 5, "m": m, "M": True}
    return {"stream": "btcusdt@trade", "data": data}


def test_it_asks_for_all_streams_at_once(protocol: Binance) -> None:
    """One request in the combined form: five messages a second are all that a client may send."""
    [frame] = protocol.subscribe_frames()
    assert json.loads(frame)["params"] == ["btcusdt@bookTicker", "btcusdt@trade", "btcusdt@kline_1m"]
    assert protocol.url() == "wss://stream.binance.com:9443/stream"


def test_a_book_ticker_is_a_live_quote(protocol: Binance) -> None:
    """Without an event time, because the venue sends none; older update ids are dropped."""
    [quote] = decode(protocol, ticker(10))
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.bid_size, quote.ask_price, quote.ask_size) == tuple(
        map(Decimal, ("1.5", "2", "1.6", "3"))
    )
    assert (quote.live, quote.token, quote.exchange_time_us, quote.received_time_us) == (True, 7, None, 1_000)
    assert decode(protocol, ticker(10)) == []
    assert decode(protocol, ticker(9)) == []


def test_an_empty_side_is_none(protocol: Binance) -> None:
    """A size of 0 means that nothing is there."""
    [quote] = decode(protocol, ticker(10, b="0.00000000", B="0.00000000"))
    assert isinstance(quote, Quote)
    assert (quote.bid_price, quote.bid_size) == (None, None)


def test_the_taker_of_a_trade(protocol: Binance) -> None:
    """`m` says that the buyer was the maker, so the taker sold; times are microseconds."""
    [sold] = decode(protocol, trade(1))
    [bought] = decode(protocol, trade(2, m=False))
    assert isinstance(sold, Trade)
    assert isinstance(bought, Trade)
    assert (sold.taker_side, bought.taker_side, sold.exchange_time_us) == ("sell", "buy", 5_000)


def test_a_jump_of_trade_ids_is_a_gap(protocol: Binance) -> None:
    """Trade ids rise by one; what is missing is counted, what is late is dropped."""
    decode(protocol, trade(1))
    _, gap = decode(protocol, trade(5))
    assert isinstance(gap, Gap)
    assert (gap.product_id, gap.missed) == ("BTCUSDT", 3)
    assert decode(protocol, trade(3)) == []


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ({"result": None, "id": 1}, Acknowledged),
        ({"code": 2, "msg": "Invalid request", "id": 1}, VenueError),
        ({"e": "serverShutdown", "E": 1}, Closing),
        ({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1}}, Closing),
        (b'{"stream":"btcusdt@bookTicker","data":{"u":1', Unknown),
        ({"stream": "btcusdt@bookTicker", "data": {"u": 1, "s": "BTCUSDT", "bid": "1"}}, Unknown),
        ({"stream": "btcusdt@depth", "data": {}}, Unknown),
        (b"\xff\xfe", Unknown),
        ([], Unknown),
        ({}, Unknown),
    ],
)
def test_notices_answers_and_nonsense(protocol: Binance, message: object, kind: type) -> None:
    """Nothing that a venue may send raises."""
    [event] = decode(protocol, message)
    assert isinstance(event, kind)


def test_a_stream_that_never_speaks_is_named(protocol: Binance) -> None:
    """An unknown stream is taken without a word, so its silence is all there is to see."""
    assert set(protocol.silent()) == {"btcusdt@bookTicker", "btcusdt@trade", "btcusdt@kline_1m"}
    decode(protocol, ticker(1))
    assert set(protocol.silent()) == {"btcusdt@trade", "btcusdt@kline_1m"}


def test_the_recording_decodes_to_what_its_text_says(recordings: Path) -> None:
    """Every quote and trade of the session, with the Decimals of its text, and no gap."""
    protocol = Binance(None, ["BTCUSDT"], 1)
    count = 0
    with gzip.open(recordings / RECORDING, "rb") as lines:
        for line in lines:
            frame = line.partition(b" ")[2]
            if b"@depth" in frame[:40] or b'"stream"' not in frame[:40]:
                continue
            data = json.loads(frame)["data"]
            events = [event for event in protocol.decode(frame, 1) if not isinstance(event, LastPrice)]
            [event] = events
            if isinstance(event, Quote):
                got = (event.bid_price, event.bid_size, event.ask_price, event.ask_size)
                assert got == tuple(Decimal(data[key]) for key in "bBaA")
            else:
                assert isinstance(event, Trade)
                assert (event.price, event.size, event.trade_id) == (
                    Decimal(data["p"]),
                    Decimal(data["q"]),
                    str(data["t"]),
                )
            count += 1
    assert count == 28_040 + 9_757


def test_a_kline_is_a_candle(protocol: Binance) -> None:
    """With both volumes, its number of trades, and whether it is closed; a frame without a field is unknown."""
    kline = {"t": 60_000, "T": 119_999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 2, "B": "0", "V": "0", "Q": "0"}
    kline |= {"o": "1", "c": "2", "h": "3", "l": "0.5", "v": "10", "n": 2, "x": True, "q": "15"}
    frame = {"stream": "btcusdt@kline_1m", "data": {"e": "kline", "E": 5, "s": "BTCUSDT", "k": kline}}
    prices = (Decimal(1), Decimal(3), Decimal("0.5"), Decimal(2))
    expected = VenueCandle("binance", "BTCUSDT", 7, 60, 60_000_000, *prices, Decimal(10), Decimal(15), 2, True, 1_000)
    assert decode(protocol, frame) == [expected]
    del kline["q"]
    [event] = decode(protocol, frame)
    assert isinstance(event, Unknown)


def test_the_list_of_instruments_is_read(recordings: Path) -> None:
    """Names, steps and least sizes of a recorded list are those of its text; a symbol that is halted does not trade."""
    line = gzip.decompress((recordings / "instruments/binance_rest_exchangeInfo.txt.gz").read_bytes()).split(b"\n")[0]
    body = line.partition(b": ")[2]
    listed = {each.product.id: each for each in parse(body)}
    raw = {symbol["symbol"]: symbol for symbol in json.loads(body)["symbols"]}
    assert listed.keys() == raw.keys()
    filters = {each["filterType"]: each for each in raw["LTCBTC"]["filters"]}
    assert listed["LTCBTC"].product.tick == Decimal(filters["PRICE_FILTER"]["tickSize"])
    assert listed["LTCBTC"].product.lot == Decimal(filters["LOT_SIZE"]["stepSize"])
    assert listed["LTCBTC"].product.min_size == Decimal(filters["LOT_SIZE"]["minQty"])
    assert (listed["LTCBTC"].base, listed["LTCBTC"].quote) == ("LTC", "BTC")
    assert {name for name, each in listed.items() if each.trading} == {
        name for name, symbol in raw.items() if symbol["status"] == "TRADING"
    }


def test_endless_nesting_is_unknown(protocol: Binance) -> None:
    """A frame that no parser follows to its end is one that is not understood."""
    [event] = protocol.decode(b'{"a":' * 100_000, 1_000)
    assert isinstance(event, Unknown)
