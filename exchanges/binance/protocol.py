"""Binance spot's market streams (binance-spot-api-docs, web-socket-streams.md)."""

from collections.abc import Mapping, Sequence
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
    check_level,
    unknown,
)
from models.domain.candles import Candle
from models.domain.quotes import Quote, Trade

VENUE = "binance"
OWN_URL = "wss://stream.binance.com:9443"
CHANNELS = ("bookTicker", "trade", "kline_1m")

# Frames begin with the name of their stream, so its channel is found without decoding it first.
HEAD_BYTES = 64

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
        head = frame[:HEAD_BYTES]
        try:
            if b'@bookTicker"' in head:
                ticker = _book_ticker.decode(frame)
                if ticker.stream in self._streams:
                    return self._heard(ticker.stream, self._quote(ticker.data, received_time_us))
            elif b'@trade"' in head:
                trade = _trade.decode(frame)
                if trade.stream in self._streams:
                    return self._heard(trade.stream, self._trade(trade.data, received_time_us))
            elif b"@kline_" in head:
                kline = _kline.decode(frame)
                if kline.stream in self._streams:
                    return self._heard(kline.stream, (self._candle(kline.data.k, received_time_us),))
            return self._control(_envelope.decode(frame), frame)
        except MalformedError as error:
            return (unknown(str(error), frame),)

    def _heard(self, stream: str, events: Sequence[Event]) -> Sequence[Event]:
        if self._silent:
            self._silent.pop(stream, None)
        return events

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

    def _quote(self, ticker: wire.BookTicker, received_time_us: int) -> Sequence[Event]:
        if ticker.u <= self._updates.get(ticker.s, -1):
            return ()
        bid, ask = _side(ticker.b, ticker.B), _side(ticker.a, ticker.A)
        self._updates[ticker.s] = ticker.u
        # Live: it comes tick by tick, with sizes.
        return (Quote(VENUE, ticker.s, self._token, 0, *bid, *ask, True, None, received_time_us),)  # noqa: FBT003 -- live

    def _trade(self, trade: wire.Trade, received_time_us: int) -> Sequence[Event]:
        check_level(trade.p, trade.q)
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
            trade.p,
            trade.q,
            "sell" if trade.m else "buy",
            trade.T * 1000,
            received_time_us,
        )
        if last is not None and trade.t > last + 1:
            return (made, Gap(trade.s, trade.t - last - 1))
        return (made,)

    def _candle(self, kline: wire.Kline, received_time_us: int) -> Candle:
        check_level(kline.o, kline.v)
        return Candle(
            VENUE,
            kline.s,
            self._token,
            60,
            kline.t * 1000,
            kline.o,
            kline.h,
            kline.l,
            kline.c,
            kline.v,
            kline.q,
            kline.n,
            kline.x,
            received_time_us,
        )


def _side(price: Decimal, size: Decimal) -> tuple[Decimal | None, Decimal | None]:
    """Return a side of the book, or nothing where it is empty (price and size are 0 then)."""
    if not size:
        return None, None
    check_level(price, size)
    return price, size
