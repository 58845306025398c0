"""Kraken's frames (API v2), in its own field names. Numbers become Decimals untouched, to the last zero."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec

from exchanges.protocol import AwareTime

Kind = Literal["snapshot", "update"]
Count = Annotated[int, msgspec.Meta(ge=0)]
Checksum = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class Level(msgspec.Struct, frozen=True, gc=False):
    """A price and what is there now; 0 deletes it."""

    price: Decimal
    qty: Decimal


class BookData(msgspec.Struct, frozen=True, gc=False):
    """Levels of one product, and the checksum of its ten best a side with them."""

    symbol: str
    bids: list[Level]
    asks: list[Level]
    checksum: Checksum
    timestamp: AwareTime | None = None


class TradeData(msgspec.Struct, frozen=True, gc=False):
    """One trade. `side` is the taker's; `trade_id` rises by one."""

    symbol: str
    side: Literal["buy", "sell"]
    price: Decimal
    qty: Decimal
    trade_id: Count
    timestamp: AwareTime


class OhlcData(msgspec.Struct, frozen=True, gc=False):
    """A candle so far. `interval` is in minutes, `volume` in the base asset."""

    symbol: str
    interval: int
    interval_begin: AwareTime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: Count


class StatusData(msgspec.Struct, frozen=True, gc=False):
    """What the trading engine does. `connection_id`, which may exceed 2^63, is not read."""

    system: str


class Book(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="book"):
    """The whole book, or its changes."""

    type: Kind
    data: list[BookData]


class Trade(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="trade"):
    """Trades, several in one frame where one order made them."""

    type: Kind
    data: list[TradeData]


class Ohlc(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="ohlc"):
    """Candles."""

    type: Kind
    data: list[OhlcData]


class Status(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="status"):
    """Sent after connecting, and when the engine's state changes."""

    data: list[StatusData]


class Heartbeat(msgspec.Struct, frozen=True, gc=False, tag_field="channel", tag="heartbeat"):
    """About once a second, as long as anything is subscribed."""


class Result(msgspec.Struct, frozen=True):
    """The stream that a request was about."""

    channel: str
    symbol: str


class Named(msgspec.Struct, frozen=True):
    """Only the product, of data that are not as they should be."""

    symbol: str


class Other(msgspec.Struct, frozen=True):
    """Every other frame: the answer to a request, a complaint, or data that are not as they should be."""

    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"null")
    method: str | None = None
    success: bool = False
    result: Result | None = None
    error: str | None = None
    symbol: str | None = None
    req_id: int | None = None
    complaint: str | None = msgspec.field(default=None, name="Error")


Message = Book | Trade | Ohlc | Heartbeat | Status
