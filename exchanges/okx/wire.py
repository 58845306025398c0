"""OKX's frames, in its own field names. Its numbers are texts; counters and times become integers here."""

from typing import Annotated, Literal

import msgspec

Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**43)]  # until the year 2248
Counter = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Arg(msgspec.Struct, frozen=True, gc=False):
    """The stream that a frame belongs to."""

    channel: str
    instId: str  # noqa: N815 -- the venue's name


class Level(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The beginning of `[price, size, "0", orders]`."""

    px: str
    sz: str


class Bbo(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask; an empty side has no level. `seqId` rises, and is not in old recordings."""

    asks: list[Level]
    bids: list[Level]
    ts: Milliseconds
    seqId: Counter | None = None  # noqa: N815 -- the venue's name


class Trade(msgspec.Struct, frozen=True, gc=False):
    """What one taker traded at one price. `side` is the taker's; `tradeId` is the last of `count` ids."""

    tradeId: Counter  # noqa: N815 -- the venue's name
    px: str
    sz: str
    side: Literal["buy", "sell"]
    ts: Milliseconds
    count: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 1  # not in old recordings, which tell each trade alone


class VenueCandle(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A candle. `ts`: its open time; `vol` is in the base currency and `volCcyQuote` in the quote currency."""

    ts: Milliseconds
    o: str
    h: str
    l: str  # noqa: E741 -- the venue's name
    c: str
    vol: str
    volCcy: msgspec.Raw  # noqa: N815 -- the venue's name
    volCcyQuote: str  # noqa: N815 -- likewise
    confirm: Literal["0", "1"]


class BboFrame(msgspec.Struct, frozen=True, gc=False):
    """Channel `bbo-tbt`, whose stream is known by then."""

    data: list[Bbo]


class TradesFrame(msgspec.Struct, frozen=True, gc=False):
    """Channel `trades`, likewise."""

    data: list[Trade]


class CandleFrame(msgspec.Struct, frozen=True, gc=False):
    """Channel `candle1m`, likewise."""

    data: list[VenueCandle]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """Every other frame: an answer, a complaint, a notice, or data of another channel."""

    event: str | None = None
    arg: Arg | None = None
    code: str | None = None
    msg: str = ""
