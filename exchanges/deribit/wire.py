"""Deribit's frames, in its own field names. Numbers are JSON numbers there; they become Decimals untouched."""

from decimal import Decimal
from typing import Annotated, Generic, Literal, TypeVar

import msgspec

Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**43)]  # until the year 2248
Data = TypeVar("Data")


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask. A side that is empty has the price 0.0 or null."""

    timestamp: Milliseconds
    instrument_name: str
    best_bid_price: Decimal | None
    best_bid_amount: Decimal | None
    best_ask_price: Decimal | None
    best_ask_amount: Decimal | None


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade. `direction` is the taker's; `trade_seq` rises by one for each instrument, `trade_id` does not."""

    timestamp: Milliseconds
    instrument_name: str
    trade_seq: Annotated[int, msgspec.Meta(ge=0)]
    price: Decimal
    amount: Decimal
    direction: Literal["buy", "sell"]


class Index(msgspec.Struct, frozen=True, gc=False):
    """The value of an index."""

    timestamp: Milliseconds
    index_name: str
    price: Decimal


class VenueCandle(msgspec.Struct, frozen=True, gc=False):
    """A candle. `tick`: its open time; `volume` and `cost`: its volume in base and quote asset."""

    tick: Milliseconds
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    cost: Decimal


class Told(msgspec.Struct, Generic[Data], frozen=True, gc=False):
    """What a channel tells; its name is read before, from the frame's beginning."""

    data: Data


class Notification(msgspec.Struct, Generic[Data], frozen=True, gc=False):
    """A frame of a channel."""

    params: Told[Data]


class Params(msgspec.Struct, frozen=True, gc=False):
    """The name of a channel, or the type of a heartbeat."""

    channel: str | None = None
    type: str | None = None


class Error(msgspec.Struct, frozen=True, gc=False):
    """Why a request is refused; `data` says more where the venue does, in a form of each error's own."""

    code: int
    message: str
    data: msgspec.Raw = msgspec.Raw(b"")


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """Every frame's outer part: an answer, a heartbeat, or a channel's name."""

    id: int | str | None = None
    method: str | None = None
    params: Params | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    error: Error | None = None
