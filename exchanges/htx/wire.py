"""HTX's frames, in its own field names. Numbers are JSON's there; they become Decimals from their text."""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

Natural = Annotated[int, msgspec.Meta(ge=0)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**43)]  # until the year 2248
Seconds = Annotated[int, msgspec.Meta(ge=0, lt=2**33)]  # until the year 2242


class Bbo(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask, tick by tick. `seqId` rises, not by one; an empty side may be missing."""

    quoteTime: Milliseconds  # noqa: N815 -- the venue's name
    seqId: Natural | UnsetType = UNSET  # noqa: N815 -- likewise
    bid: Decimal | UnsetType = UNSET
    bidSize: Decimal | UnsetType = UNSET  # noqa: N815 -- likewise
    ask: Decimal | UnsetType = UNSET
    askSize: Decimal | UnsetType = UNSET  # noqa: N815 -- likewise


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade. `direction` is the taker's. `id`, of 28 digits, is left alone: the venue says to use `tradeId`."""

    ts: Milliseconds
    tradeId: Natural  # noqa: N815 -- the venue's name
    amount: Decimal
    price: Decimal
    direction: Literal["buy", "sell"]


class Trades(msgspec.Struct, frozen=True, gc=False):
    """Trades of one moment, the later ones often first."""

    data: list[Trade]


class Kline(msgspec.Struct, frozen=True, gc=False):
    """A candle so far. `id`: its open time; `amount` and `vol`: its volume in base and quote asset."""

    id: Seconds
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    amount: Decimal
    vol: Decimal
    count: Natural


class BboFrame(msgspec.Struct, frozen=True, gc=False):
    """What the bbo channel pushes."""

    tick: Bbo


class TradeFrame(msgspec.Struct, frozen=True, gc=False):
    """What the trade.detail channel pushes."""

    tick: Trades


class KlineFrame(msgspec.Struct, frozen=True, gc=False):
    """What a kline channel pushes."""

    tick: Kline


class Envelope(msgspec.Struct, frozen=True, gc=False, rename={"err_code": "err-code", "err_msg": "err-msg"}):
    """Every other frame: a ping, or the answer to a request, with the request's id."""

    ping: Milliseconds | None = None
    ch: str | None = None
    status: str | None = None
    subbed: str | None = None
    id: str | int | None = None
    ts: Milliseconds | None = None
    err_code: str | None = None
    err_msg: str | None = None
