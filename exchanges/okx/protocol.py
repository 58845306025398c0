"""OKX's market data over WebSocket (www.okx.com/docs-v5, v5), on its public and its business endpoint."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec

from exchanges.okx import wire
from exchanges.protocol import (
    Acknowledged,
    Closing,
    Event,
    Gap,
    Heartbeat,
    Limits,
    MalformedError,
    VenueError,
    level,
    numbers,
    unknown,
)
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade

VENUE = "okx"
OWN_URL = "wss://ws.okx.com:8443"
PING, PONG = "ping", b"pong"
UPGRADE = "64008"  # the code of the notice that the connection will be closed

# Not strict: the venue's integers are texts.
_bbo = msgspec.json.Decoder(wire.BboFrame, strict=False)
_trades = msgspec.json.Decoder(wire.TradesFrame, strict=False)
_candle = msgspec.json.Decoder(wire.CandleFrame, strict=False)
_envelope = msgspec.json.Decoder(wire.Envelope)
_NAME = re.compile(r"[\w-]+")


class _Stream(ABC):
    """One channel of one product. `heard` once it has spoken; `taken_us` is when the venue confirmed it."""

    def __init__(self, product_id: str, token: int) -> None:
        self.heard = False
        self.taken_us = 0
        self._product_id = product_id
        self._token = token
        self._last = -1  # the latest sequence number or trade id

    @abstractmethod
    def read(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        """Return what a frame of this stream says. Raises MalformedError."""


class _Quotes(_Stream):
    def read(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        events = []
        for bbo in _bbo.decode(frame).data:
            bid_price = bid_size = ask_price = ask_size = None
            if bbo.bids:
                price, size = level(bbo.bids[0].px, bbo.bids[0].sz)
                if size:
                    bid_price, bid_size = price, size
            if bbo.asks:
                price, size = level(bbo.asks[0].px, bbo.asks[0].sz)
                if size:
                    ask_price, ask_size = price, size
            # On a quiet book the same one comes again about each minute.
            if bbo.seqId is not None:
                if bbo.seqId <= self._last:
                    continue
                self._last = bbo.seqId
            events.append(
                Quote(
                    VENUE,
                    self._product_id,
                    self._token,
                    0,
                    bid_price,
                    bid_size,
                    ask_price,
                    ask_size,
                    True,  # noqa: FBT003 -- live: it comes tick by tick, with sizes
                    bbo.ts * 1000,
                    received_time_us,
                )
            )
        self.heard = True
        return events


class _Trades(_Stream):
    def read(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        trades = _trades.decode(frame).data
        levels = [level(trade.px, trade.sz) for trade in trades]  # all of them or none
        # A stream begins by repeating the last trade before it, however old (measured on a recording of 2022).
        taken_us = 0 if self.heard else self.taken_us
        events: list[Event] = []
        for trade, (price, size) in zip(trades, levels, strict=True):
            trade_id, last = trade.tradeId, self._last
            if trade_id <= last:
                continue
            self._last = trade_id
            time_us = trade.ts * 1000
            events.append(
                Trade(
                    VENUE,
                    self._product_id,
                    self._token,
                    str(trade_id),
                    price,
                    size,
                    trade.side,
                    time_us,
                    received_time_us,
                    time_us < taken_us,
                )
            )
            if 0 <= last < trade_id - trade.count:
                events.append(Gap(self._product_id, trade_id - trade.count - last))
        self.heard = True
        return events


class _Candles(_Stream):
    def read(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        candles = _candle.decode(frame).data
        made = [_made(candle, self._product_id, self._token, received_time_us) for candle in candles]
        self.heard = True
        return made


def _made(candle: wire.VenueCandle, product_id: str, token: int, received_time_us: int) -> VenueCandle:
    opened, high, low, close = (level(price, candle.vol)[0] for price in (candle.o, candle.h, candle.l, candle.c))
    return VenueCandle(
        VENUE,
        product_id,
        token,
        60,
        candle.ts * 1000,
        opened,
        high,
        low,
        close,
        numbers[candle.vol],
        numbers[candle.volCcyQuote],
        None,
        candle.confirm == "1",
        received_time_us,
    )


class _Endpoint:
    """One connection to one endpoint. `_path` is the endpoint's, `_channels` are those asked for there.

    The venue closes a connection after 30 s without data. So it is asked for a sign of life each 2 s
    (the answer takes 0.12 s), and a connection without a word for 5 s is dead.
    """

    limits = Limits(silence_s=5, first_message_s=60, ping_s=2)
    _path: ClassVar[str]
    _channels: ClassVar[Mapping[str, type[_Stream]]]

    def __init__(self, url: str | None, product_ids: Sequence[str], token: int) -> None:
        self._url = url or OWN_URL
        self._args = [(channel, pid) for pid in product_ids for channel in self._channels]
        # By how their frames begin, so that a frame's kind and product are found without decoding it first.
        self._streams = {_head(channel, pid): self._channels[channel](pid, token) for channel, pid in self._args}

    def url(self) -> str:
        """Return the address of the endpoint."""
        return f"{self._url}{self._path}"

    def subscribe_frames(self) -> Sequence[str]:
        """Return one request for all streams: it counts once against the limit of 480 an hour."""
        args = [{"channel": channel, "instId": pid} for channel, pid in self._args]
        return [msgspec.json.encode({"op": "subscribe", "args": args}).decode()]

    def ping_frame(self, now_us: int) -> str | None:  # noqa: ARG002 -- the word is always the same
        """Return the venue's own ping, a bare word and no JSON; it is answered with another one."""
        return PING

    def silent(self) -> Mapping[str, str]:
        """Return the streams without data yet."""
        return {f"{channel}:{pid}": pid for channel, pid in self._args if not self._streams[_head(channel, pid)].heard}

    def decode(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        """Return what a frame says."""
        try:
            stream = self._streams.get(frame.partition(b"}")[0])
            if stream is not None:
                return stream.read(frame, received_time_us)
            if frame == PONG:
                return (Heartbeat(),)
            return self._control(_envelope.decode(frame), frame, received_time_us)
        except MalformedError as error:
            return (unknown(str(error), frame),)

    def _control(self, envelope: wire.Envelope, frame: bytes, received_time_us: int) -> Sequence[Event]:
        arg = envelope.arg
        stream = self._streams.get(_head(arg.channel, arg.instId)) if arg else None
        match envelope.event:
            case None if stream:  # written otherwise than usual
                return stream.read(frame, received_time_us)
            case "subscribe" if stream:
                stream.taken_us = stream.taken_us or received_time_us
                return (Acknowledged(),)
            case "error":
                error = VenueError(f"code {envelope.code}: {envelope.msg}")
                refused = self._named(envelope.msg)
                return (error, Acknowledged(refused)) if refused else (error,)
            case "notice" if envelope.code == UPGRADE:
                return (Closing(),)
        return (unknown(f"no word for event {envelope.event!r} of {arg and f'{arg.channel}:{arg.instId}'}", frame),)

    def _named(self, complaint: str) -> tuple[str, ...]:
        """Return the streams that a complaint speaks of: only its text names them."""
        said = set(_NAME.findall(complaint))
        return tuple(f"{channel}:{pid}" for channel, pid in self._args if {channel, pid} <= said)


class Okx(_Endpoint):
    """One connection to the public endpoint: best bid and ask, and trades."""

    _path = "/ws/v5/public"
    _channels = {"bbo-tbt": _Quotes, "trades": _Trades}  # noqa: RUF012 -- it is a ClassVar, above


class OkxBusiness(_Endpoint):
    """One connection to the business endpoint, where the candles are since 2023."""

    _path = "/ws/v5/business"
    _channels = {"candle1m": _Candles}  # noqa: RUF012 -- likewise


def _head(channel: str, product_id: str) -> bytes:
    """Return how the frames of a stream begin, up to the first brace that closes."""
    return f'{{"arg":{{"channel":"{channel}","instId":"{product_id}"'.encode()
