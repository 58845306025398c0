"""Records as lines for people."""

from decimal import Decimal

import msgspec

from cli.consume import line
from models.bus.records import (
    candle_records,
    quote_record,
    signal_record,
    ticker_record,
    trade_records,
    vwap_records,
)
from models.domain.candles import EVERY_VENUE, Candle
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Quote, Trade
from models.domain.signals import Cross, Signal
from models.domain.vwap import Vwap

D = Decimal
QUOTE = Quote("okx", "ETH-USDT", 7, 1, D("2.5"), D("3"), D("2.6"), None, True, 5, 6)
VWAP = Vwap(EVERY_VENUE, "ETH-USD", 200, 2, D(2), D("4691.34"), 5, 6, "simulated")
CANDLE = Candle("okx", "ETH-USD", 60, 1_795_276_800_000_000, D(1), D(3), D(1), D(2), D(7), D(9), D(1), 4, "simulated")
SIGNAL = Signal("crosses", 1, "a", "okx", "ETH-USD", 3_600, 0, Cross.DEATH, D(1), D(2), D(3), 6, "simulated")


def test_an_average_is_its_number() -> None:
    """That of every venue names none."""
    assert line(vwap_records(VWAP)[0]) == "[ETH-USD] 2345.67"
    assert line(vwap_records(msgspec.structs.replace(VWAP, venue="okx"))[0]) == "[ETH-USD okx] 2345.67"
    empty = msgspec.structs.replace(VWAP, size=D(0), quote_volume=D(0), points=0)
    assert line(vwap_records(empty)[0]) == "[ETH-USD] nothing traded"


def test_every_other_kind_is_named() -> None:
    """With what matters of it."""
    trade = Trade("okx", "ETH-USDT", 7, "9", D("2.5"), D("1E-8"), "buy", None, 6)
    assert line(trade_records(trade, "ETH-USDT", "live")[0]) == "[ETH-USDT okx] trade buy 0.00000001 at 2.5"
    assert line(quote_record(QUOTE, "ETH-USDT", "live")) == "[ETH-USDT okx] quote 3 at 2.5 | ? at 2.6"
    one_sided = msgspec.structs.replace(QUOTE, bid_price=None, bid_size=None, live=False)
    assert line(quote_record(one_sided, "ETH-USDT", "live")) == "[ETH-USDT okx] quote - | ? at 2.6, not live"
    instrument = INSTRUMENTS.resolve("ETHUSDT")
    assert line(ticker_record(QUOTE, instrument, None)) == "[ETH-USDT okx] ticker 3 at 2.5 | ? at 2.6, last -"
    opened = "[ETH-USD okx] candle 1m 2026-11-21T16:00:00Z 1 3 1 2, volume 7"
    assert line(candle_records(CANDLE)[0]) == opened
    doubtful = msgspec.structs.replace(CANDLE, closed=False, incomplete=True, revision=2)
    assert line(candle_records(doubtful)[0]) == f"{opened}, so far, incomplete, revision 2"
    told = "[ETH-USD okx] signal death_cross 1h by crosses/a, close 1, fast 2, slow 3"
    assert line(signal_record(SIGNAL)) == told
