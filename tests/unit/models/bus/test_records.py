"""What stands in the records of topics."""

import json
from decimal import Decimal
from typing import Any

from models.bus.records import (
    candle_records,
    quote_record,
    signal_record,
    ticker_record,
    trade_records,
    vwap_records,
)
from models.bus.topics import Record
from models.domain.candles import EVERY_VENUE, Candle
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Quote, Trade
from models.domain.signals import Cross, Signal
from models.domain.vwap import Vwap

TINY = Decimal("1E-8")
TRADE = Trade("okx", "ETH-BTC", 7, "9", TINY, Decimal("2.50"), "buy", None, 6)
QUOTE = Quote("okx", "ETH-BTC", 7, 1, TINY, Decimal("2.50"), None, None, True, 5, 6)
VWAP = Vwap("okx", "ETH-BTC", 200, 2, Decimal(3), Decimal(2), 5, 6, "simulated")
ONE = Decimal(1)
CANDLE = Candle("okx", "ETH-BTC", 60, 0, ONE, ONE, ONE, ONE, ONE, ONE, ONE, 1, "simulated")
SIGNAL = Signal("crosses", 1, "a", EVERY_VENUE, "ETH-BTC", 3_600, 0, Cross.GOLDEN, ONE, ONE, ONE, 6, "simulated")


def told(record: Record) -> Any:
    return json.loads(record.value)


def placed(records: list[Record]) -> list[tuple[str, str]]:
    return [(record.topic, record.kind.value) for record in records]


def test_a_trade_goes_to_its_venue_and_its_pair() -> None:
    """Decimals are plain text; a venue that sends no time lends that of the arrival."""
    records = trade_records(TRADE, "ETH-BTC", "simulated")
    assert placed(records) == [("okx", "trade"), ("ETH-BTC", "trade")]
    assert {record.key for record in records} == {"ETH-BTC"}
    assert told(records[0]) == told(records[1])
    assert list(told(records[0]).items()) == [
        ("type", "trade"),
        ("venue", "okx"),
        ("pair", "ETH-BTC"),
        ("product_id", "ETH-BTC"),
        ("trade_id", "9"),
        ("price", "0.00000001"),
        ("size", "2.5"),
        ("taker_side", "buy"),
        ("time_us", 6),
        ("received_us", 6),
        ("market", "simulated"),
    ]


def test_a_quote_is_its_pairs_and_a_ticker_its_venues() -> None:
    """The ticker has seven keys, in order, with every digit that the exchange sent."""
    record = quote_record(QUOTE, "ETH-BTC", "simulated")
    assert placed([record]) == [("ETH-BTC", "quote")]
    assert told(record)["bid_price"] == "0.00000001"
    assert told(record)["ask_price"] is None
    assert told(record)["time_us"] == 5
    ticker = ticker_record(QUOTE, INSTRUMENTS.resolve("ETHBTC"), Decimal("0.0450"))
    assert placed([ticker]) == [("okx", "ticker")]
    assert list(told(ticker).items()) == [
        ("exchange", "okx"),
        ("ticker", "ETH"),
        ("best_bid_quantity", "2.50"),
        ("best_bid_price", "0.00000001"),
        ("last_price", "0.0450"),
        ("best_offer_quantity", None),
        ("best_offer_price", None),
    ]


def test_averages_and_candles_of_every_venue_are_the_pairs_alone() -> None:
    """There is no venue that their records could be told of."""
    assert placed(vwap_records(VWAP)) == [("okx", "vwap"), ("ETH-BTC", "vwap")]
    every = Vwap(EVERY_VENUE, "ETH-BTC", 200, 0, Decimal(0), Decimal(0), None, None, "simulated")
    assert placed(vwap_records(every)) == [("ETH-BTC", "vwap")]
    assert told(vwap_records(every)[0])["vwap"] is None
    assert told(vwap_records(VWAP)[0])["vwap"] == "0.6666666666666666666666666667"
    assert placed(candle_records(CANDLE)) == [("okx", "candle"), ("ETH-BTC", "candle")]
    assert told(candle_records(CANDLE)[0]) | {"interval": "1m", "vwap": "1"} == told(candle_records(CANDLE)[0])


def test_a_signal_is_its_pairs() -> None:
    """Under its interval's name."""
    assert placed([signal_record(SIGNAL)]) == [("ETH-BTC", "signal")]
    assert told(signal_record(SIGNAL))["interval"] == "1h"
    assert told(signal_record(SIGNAL))["cross"] == "golden_cross"
