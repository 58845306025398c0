"""Binance spot's market streams (binance-spot-api-docs, web-socket-streams.md)."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import msgspec

from exchanges.binance import wire
from exchanges.protocol import (
    Acknowledged,
    Closing,
    Event,
    Gap,
    Limits,
    MalformedError,
    VenueError,
    level,
    numbers,
    unknown,
)
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade

VENUE = "binance"
OWN_URL = "wss://stream.binance.com:9443"
CHANNELS = ("bookTicker", "trade", "kline_1m")

_envelope = msgspec.json.Decoder(wire.Envelope)
_book_ticker = msgspec.json.Decoder(wire.BookTickerFrame)
_trade = msgspec.json.Decoder(wire.TradeFrame)
_kline = msgspec.json.Decoder(wire.KlineFrame)


class Binance:
    """One connection of combined streams.

    A quiet market brings only the server's ping each 20 s. So it is pinged each 2 s (far below its
    limit of five messages a second), and a connection without a word for 5 s is dead.
    """

    limits = Limits(silence_s=5, first_message_s=60, ping_s=2, lifetime_s=23.5 * 3600)

    def __init__(self, url: str | None, product_ids: Sequence[str], token: int) -> None:
        self._url = url or OWN_URL
        self._token = token
        self._streams = {f"{pid.lower()}@{channel}": pid for pid in product_ids for channel in CHANNELS}
        self._silent = dict(self._streams)
        # By how their frames begin, so that a frame's kind is known without decoding it first.
        self._readers = {b'{"stream":"' + stream.encode(): self._reader(stream) for stream in self._streams}
        self._updates: dict[str, int] = {}
        self._trades: dict[str, int] = {}

    def url(self) -> str:
        """Return the address of the combined form, which names the stream of each payload."""
        return f"{self._url}/stream"

    def subscribe_frames(self) -> Sequence[str]:
        """Return one request for all streams, which counts as one message against the limit of five a second."""
        request = {"method": "SUBSCRIBE", "params": list(self._streams), "id": 1}
        return [msgspec.json.encode(request).decode()]

    def ping_frame(self, now_us: int) -> str | None:  # noqa: ARG002 -- the WebSocket's own ping needs no words
        """Return nothing: the WebSocket's ping is answered."""
        return None

    def silent(self) -> Mapping[str, str]:
        """Return the streams without a payload yet: an unknown one is taken without a word and never speaks."""
        return self._silent

    def decode(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        """Return what a frame says."""
        try:
            read = self._readers.get(frame.partition(b'",')[0])
            if read is not None:
                return read(frame, received_time_us)
            envelope = _envelope.decode(frame)
            if envelope.stream in self._streams:  # written with other spaces
                return self._reader(envelope.stream)(frame, received_time_us)
            return self._control(envelope, frame)
        except MalformedError as error:
            return (unknown(str(error), frame),)

    def _reader(self, stream: str) -> Callable[[bytes, int], Sequence[Event]]:
        readers = {"bookTicker": self._quote, "trade": self._trade, "kline_1m": self._candle}
        return readers[stream.partition("@")[2]]

    def _heard(self, symbol: str, channel: str) -> None:
        self._silent.pop(f"{symbol.lower()}@{channel}", None)

    def _control(self, envelope: wire.Envelope, frame: bytes) -> Sequence[Event]:
        if envelope.e == "serverShutdown" or envelope.stream == "!serverShutdown":
            return (Closing(),)
        if envelope.stream is not None:
            return (unknown(f"stream {envelope.stream} was not asked for", frame),)
        if envelope.msg is not None:
            return (VenueError(f"code {envelope.code}: {envelope.msg}"),)
        if bytes(envelope.result) == b"null":
            return (Acknowledged(),)
        return (unknown("no stream, answer or notice", frame),)

    def _quote(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        ticker = _book_ticker.decode(frame).data
        symbol = ticker.s
        if self._silent:
            self._heard(symbol, "bookTicker")
        if ticker.u <= self._updates.get(symbol, -1):
            return ()
        bid: Decimal | None = numbers[ticker.b]
        ask: Decimal | None = numbers[ticker.a]
        bid_size: Decimal | None = numbers[ticker.B]
        ask_size: Decimal | None = numbers[ticker.A]
        if not (bid and bid_size and ask and ask_size):
            (bid, bid_size), (ask, ask_size) = _side(bid, bid_size), _side(ask, ask_size)
        self._updates[symbol] = ticker.u
        # Live: it comes tick by tick, with sizes.
        quote = Quote(VENUE, symbol, self._token, 0, bid, bid_size, ask, ask_size, True, None, received_time_us)  # noqa: FBT003 -- live
        return (quote,)

    def _trade(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        trade = _trade.decode(frame).data
        if self._silent:
            self._heard(trade.s, "trade")
        price, size = level(trade.p, trade.q)
        last = self._trades.get(trade.s)
        if last is not None and trade.t <= last:
            return ()
        self._trades[trade.s] = trade.t
        # `timeUnit` is left at milliseconds.
        made = Trade(
            VENUE,
            trade.s,
            self._token,
            str(trade.t),
            price,
            size,
            "sell" if trade.m else "buy",
            trade.T * 1000,
            received_time_us,
        )
        if last is not None and trade.t > last + 1:
            return (made, Gap(trade.s, trade.t - last - 1))
        return (made,)

    def _candle(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        kline = _kline.decode(frame).data.k
        if self._silent:
            self._heard(kline.s, "kline_1m")
        opened, high, low, close = (level(price, kline.v)[0] for price in (kline.o, kline.h, kline.l, kline.c))
        candle = VenueCandle(
            VENUE,
            kline.s,
            self._token,
            60,
            kline.t * 1000,
            opened,
            high,
            low,
            close,
            numbers[kline.v],
            numbers[kline.q],
            kline.n,
            kline.x,
            received_time_us,
        )
        return (candle,)


def _side(price: Decimal | None, size: Decimal | None) -> tuple[Decimal | None, Decimal | None]:
    """Return a side of the book, or nothing where it is empty (price and size are 0 then)."""
    if not size:
        return None, None
    if not price:
        raise ValueError(f"no level: {size} at {price}")
    return price, size
