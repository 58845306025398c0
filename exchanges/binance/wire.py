"""Binance's frames, in its own field names. Numbers are texts there, and become Decimals in the protocol."""

from typing import Annotated

import msgspec

Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**43)]  # until the year 2248


class BookTicker(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask. No event time is sent; `u` rises strictly but not by one."""

    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade. `m`: the buyer was the maker, so the taker sold. `t` rises by one."""

    s: str
    t: int
    p: str
    q: str
    T: Milliseconds
    m: bool


class Kline(msgspec.Struct, frozen=True, gc=False):
    """A candle. `t`: its open time; `v` and `q`: its volume in base and quote asset; `x`: closed."""

    t: Milliseconds
    s: str
    o: str
    h: str
    l: str  # noqa: E741 -- the venue's name
    c: str
    v: str
    q: str
    n: int
    x: bool


class KlineEvent(msgspec.Struct, frozen=True, gc=False):
    """What a kline stream tells."""

    k: Kline


class BookTickerFrame(msgspec.Struct, frozen=True, gc=False):
    """A best bid and ask in the combined form."""

    data: BookTicker


class TradeFrame(msgspec.Struct, frozen=True, gc=False):
    """A trade in the combined form."""

    data: Trade


class KlineFrame(msgspec.Struct, frozen=True, gc=False):
    """A candle in the combined form."""

    data: KlineEvent


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """Every other frame: the answer to a request, or a notice."""

    stream: str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    id: int | str | None = None
    code: int | None = None
    msg: str | None = None
    e: str | None = None
