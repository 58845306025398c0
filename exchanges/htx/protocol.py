"""HTX spot's market channels (huobiapi/docs, branch v1_en): each frame is one gzip member."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from operator import attrgetter

import msgspec
from msgspec import UNSET, UnsetType

from exchanges.htx import wire
from exchanges.protocol import (
    Acknowledged,
    Event,
    Heartbeat,
    Limits,
    MalformedError,
    Reply,
    VenueError,
    check_level,
    unknown,
)
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade

VENUE = "htx"
OWN_URL = "wss://api.huobi.pro/ws"
# What the frames of a channel begin with, up to the channel's name, which is found without decoding them.
HEAD = b'{"ch":"'
HEAD_BYTES = len(HEAD)
INFLATED_MAX = 4 << 20  # the largest frame seen is of some kB
HARMLESS_MAX = INFLATED_MAX // 1032  # deflate makes no byte more than 1,032 of them
GZIP = 31  # zlib's word for a gzip header, and a window of any size

Reader = Callable[[bytes, str, int], Sequence[Event]]

_bbo = msgspec.json.Decoder(wire.BboFrame)
_trades = msgspec.json.Decoder(wire.TradeFrame)
_kline = msgspec.json.Decoder(wire.KlineFrame)
_envelope = msgspec.json.Decoder(wire.Envelope)
_by_id = attrgetter("tradeId")


class Htx:
    """One connection.

    The venue pings each 5 s, whatever else it says: twelve of silence are two pings missed. It closes
    about 15.5 s after a ping that was not answered.
    """

    limits = Limits(silence_s=12, first_message_s=60)

    def __init__(self, url: str | None, product_ids: Sequence[str], token: int) -> None:
        self._url = url or OWN_URL
        self._token = token
        channels = {"bbo": self._quote, "trade.detail": self._traded, "kline.1min": self._candle}
        self._streams: dict[bytes, tuple[Reader, str, str]] = {
            f"market.{pid}.{channel}".encode(): (reader, pid, f"market.{pid}.{channel}")
            for pid in product_ids
            for channel, reader in channels.items()
        }
        self._topics = {topic: pid for _, pid, topic in self._streams.values()}
        self._silent = dict(self._topics)
        self._updates: dict[str, int] = {}
        self._trades: dict[str, int] = {}
        self._began: dict[str, int] = {}  # the venue's time of each subscription to trades, until the first of them

    def url(self) -> str:
        """Return the address."""
        return self._url

    def subscribe_frames(self) -> Sequence[str]:
        """Return one request a topic, with the topic for its id: a refusal names nothing else surely."""
        return [msgspec.json.encode({"sub": topic, "id": topic}).decode() for topic in self._topics]

    def ping_frame(self, now_us: int) -> str | None:  # noqa: ARG002 -- the venue pings
        """Return nothing: the WebSocket's ping is answered."""
        return None

    def silent(self) -> Mapping[str, str]:
        """Return the topics without a push yet."""
        return self._silent

    def decode(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        """Return what a frame says."""
        text = frame
        try:
            text = _inflated(frame)
            stream = None
            if text.startswith(HEAD):
                stream = self._streams.get(text[HEAD_BYTES : text.find(b'"', HEAD_BYTES)])
            if stream is None:  # no push, or one that is spelt otherwise than any seen
                envelope = _envelope.decode(text)
                if envelope.ch not in self._topics:
                    return self._control(envelope, text)
                stream = self._streams[envelope.ch.encode()]
            reader, product_id, topic = stream
            events = reader(text, product_id, received_time_us)
        except (*MalformedError, zlib.error, RecursionError) as error:  # the last: fields nested a thousand deep
            return (unknown(str(error), text),)
        if self._silent:
            self._silent.pop(topic, None)
        return events

    def _control(self, envelope: wire.Envelope, text: bytes) -> Sequence[Event]:
        if envelope.ping is not None:
            return (Reply(f'{{"pong":{envelope.ping}}}'), Heartbeat())
        if envelope.status == "error":
            error = VenueError(f"{envelope.err_code}: {envelope.err_msg}")
            topic = envelope.id
            return (error, Acknowledged((topic,))) if isinstance(topic, str) and topic in self._topics else (error,)
        if envelope.status == "ok" and envelope.subbed in self._topics:
            if envelope.subbed.endswith(".trade.detail") and envelope.ts is not None:
                self._began[self._topics[envelope.subbed]] = envelope.ts
            return (Acknowledged(),)
        if envelope.ch is not None:
            return (unknown(f"channel {envelope.ch} was not asked for", text),)
        return (unknown("no channel, ping or answer", text),)

    def _quote(self, text: bytes, product_id: str, received: int) -> Sequence[Event]:
        tick = _bbo.decode(text).tick
        number = tick.seqId
        if number is not UNSET and number <= self._updates.get(product_id, -1):
            return ()
        bid, ask = _side(tick.bid, tick.bidSize), _side(tick.ask, tick.askSize)
        if number is not UNSET:
            self._updates[product_id] = number
        moment = tick.quoteTime * 1000
        return (Quote(VENUE, product_id, self._token, 0, *bid, *ask, True, moment, received),)  # noqa: FBT003 -- live

    def _traded(self, text: bytes, product_id: str, received: int) -> Sequence[Event]:
        """Return the new trades by their ids, which rise; whether by one, the venue does not say, so no Gap."""
        trades = _trades.decode(text).tick.data
        if len(trades) > 1:
            trades.sort(key=_by_id)
        for trade in trades:
            check_level(trade.price, trade.amount)
        # The first push repeats the trades before the subscription (all ten of the recorded session do).
        began = self._began.pop(product_id, 0)
        last = self._trades.get(product_id, -1)
        events = []
        for trade in trades:
            if trade.tradeId > last:
                last = trade.tradeId
                events.append(
                    Trade(
                        VENUE,
                        product_id,
                        self._token,
                        str(last),
                        trade.price,
                        trade.amount,
                        trade.direction,
                        trade.ts * 1000,
                        received,
                        trade.ts < began,
                    )
                )
        self._trades[product_id] = last
        return events

    def _candle(self, text: bytes, product_id: str, received: int) -> Sequence[Event]:
        tick = _kline.decode(text).tick
        for price in (tick.open, tick.high, tick.low, tick.close):
            check_level(price, tick.amount)
        check_level(tick.open, tick.vol)
        return (
            VenueCandle(
                VENUE,
                product_id,
                self._token,
                60,
                tick.id * 1_000_000,
                tick.open,
                tick.high,
                tick.low,
                tick.close,
                tick.amount,
                tick.vol,
                tick.count,
                None,  # no flag: it is closed when the next one comes
                received,
            ),
        )


def _inflated(frame: bytes) -> bytes:
    """Return the text of a frame, its first gzip member. Raises zlib.error or ValueError for a cut or bad one."""
    if len(frame) < HARMLESS_MAX:
        return zlib.decompress(frame, GZIP)  # 0.4 us faster
    inflater = zlib.decompressobj(GZIP)
    text = inflater.decompress(frame, INFLATED_MAX)
    if not inflater.eof:
        raise ValueError("a gzip member that is cut or too large")
    return text


def _side(price: Decimal | UnsetType, size: Decimal | UnsetType) -> tuple[Decimal | None, Decimal | None]:
    """Return a side of the book, or nothing where it is empty (missing, or a size of 0)."""
    if price is UNSET and size is UNSET:
        return None, None
    if price is UNSET or size is UNSET:
        raise ValueError("half of a side is missing")
    if not size:
        return None, None
    check_level(price, size)
    return price, size
