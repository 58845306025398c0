"""Coinbase Exchange's market feed (docs.cdp.coinbase.com, exchange/websocket-feed)."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from exchanges.coinbase import wire
from exchanges.coinbase.levels import CrossedError, Levels
from exchanges.protocol import (
    Acknowledged,
    Event,
    Gap,
    Heartbeat,
    LastPrice,
    Limits,
    MalformedError,
    VenueError,
    level,
    numbers,
    time_us,
    unknown,
)
from models.domain.quotes import Quote, Trade

VENUE = "coinbase"
OWN_URL = "wss://ws-feed.exchange.coinbase.com"
CHANNELS = ("level2_batch", "ticker", "matches", "heartbeat")
# The venue answers for `level2_batch` with the name of the channel behind it.
ECHOES = {"level2_50": "level2_batch", "level2": "level2_batch"}
SPEAKS: dict[type, str] = {
    wire.Snapshot: "level2_batch",
    wire.Ticker: "ticker",
    wire.LastMatch: "matches",
    wire.Match: "matches",
    wire.Heartbeat: "heartbeat",
}
# Types whose loss makes the book wrong.
BOOK_TYPES = frozenset({"snapshot", "l2update"})

_message = msgspec.json.Decoder(wire.Message)
_other = msgspec.json.Decoder(wire.Other)


class Coinbase:
    """One connection.

    `ticker` speaks only on a trade: it gives a quote that is not live. The live one comes from
    `level2_batch` (every 50 ms), whose book is kept here. Who needs less than that names the channels.
    """

    # A heartbeat comes each second for each product, so five of silence are plenty.
    limits = Limits(silence_s=5, first_message_s=60)

    def __init__(
        self, url: str | None, product_ids: Sequence[str], token: int, channels: Sequence[str] = CHANNELS
    ) -> None:
        self._url = url or OWN_URL
        self._channels = channels
        self._product_ids = list(product_ids)
        self._token = token
        self._levels: dict[str, Levels] = {}
        self._trades: dict[str, int] = {}
        self._beats: dict[str, int] = {}  # the trade id of each product's heartbeat before
        self._answers = 0
        self._there: set[tuple[str, str]] = set()
        self._silent = {f"{channel}:{pid}": pid for pid in product_ids for channel in channels}
        self._readers: dict[type, Callable[[Any, int], Sequence[Event]]] = {
            wire.L2Update: self._update,
            wire.Match: self._match,
            wire.Ticker: self._ticker,
            wire.Heartbeat: self._heartbeat,
            wire.Snapshot: self._snapshot,
            wire.LastMatch: self._last_match,
            wire.Subscriptions: self._subscriptions,
            wire.Error: self._error,
        }

    def url(self) -> str:
        """Return the address."""
        return self._url

    def subscribe_frames(self) -> Sequence[str]:
        """Return one request a product, due within five seconds: one bad product spoils the request that it is in."""
        return [
            msgspec.json.encode({"type": "subscribe", "product_ids": [pid], "channels": self._channels}).decode()
            for pid in self._product_ids
        ]

    def ping_frame(self, now_us: int) -> str | None:  # noqa: ARG002 -- the WebSocket's own ping needs no words
        """Return nothing: the WebSocket's ping is answered."""
        return None

    def silent(self) -> Mapping[str, str]:
        """Return the streams that have not spoken yet."""
        return self._silent

    def decode(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        """Return what a frame says."""
        try:
            message = _message.decode(frame)
            kind = type(message)
            events = self._readers[kind](message, received_time_us)
        except CrossedError as error:
            return [unknown(str(error), frame, resync=True)]
        except MalformedError as error:
            return [_malformed(str(error), frame)]
        if self._silent and kind in SPEAKS:
            self._silent.pop(f"{SPEAKS[kind]}:{message.product_id}", None)
        return events

    def _subscriptions(self, message: wire.Subscriptions, _received: int) -> Sequence[Event]:
        self._there = {(ECHOES.get(each.name, each.name), pid) for each in message.channels for pid in each.product_ids}
        return self._answered()

    def _error(self, message: wire.Error, _received: int) -> Sequence[Event]:
        error = VenueError(f"{message.message}: {message.reason}" if message.reason else message.message)
        return [error, *self._answered()]

    def _answered(self) -> Sequence[Event]:
        """Compare what is there with what was asked, once every request has its answer.

        A request is answered by the whole list of what is subscribed by then, or by an error.
        """
        self._answers += 1
        if self._answers < len(self._product_ids):
            return ()
        asked = [(channel, pid) for pid in self._product_ids for channel in self._channels]
        return (Acknowledged(tuple(f"{channel}:{pid}" for channel, pid in asked if (channel, pid) not in self._there)),)

    def _snapshot(self, message: wire.Snapshot, received: int) -> Sequence[Event]:
        self._levels[message.product_id] = Levels(message.bids, message.asks)
        return self._best(message, received)

    def _update(self, message: wire.L2Update, received: int) -> Sequence[Event]:
        levels = self._levels.get(message.product_id)
        if levels is None:
            return ()
        levels.change(message.changes)
        return self._best(message, received) if levels.changed else ()

    def _best(self, message: wire.Snapshot | wire.L2Update, received: int) -> Sequence[Event]:
        best = self._levels[message.product_id].news()
        if best is None:
            return ()
        moment = None if message.time is None else time_us(message.time)
        return (Quote(VENUE, message.product_id, self._token, 0, *best, True, moment, received),)  # noqa: FBT003 -- live

    def _ticker(self, message: wire.Ticker, received: int) -> Sequence[Event]:
        price = level(message.price, "1")[0]
        product_id = message.product_id
        moment = None if message.time is None else time_us(message.time)
        # The first of a connection repeats a trade that may be hours old.
        first = f"ticker:{product_id}" in self._silent
        last = LastPrice(VENUE, product_id, price, moment if first and moment is not None else received)
        if product_id in self._levels:
            return (last,)  # the live quote is the better one
        bid = _side(message.best_bid, message.best_bid_size)
        ask = _side(message.best_ask, message.best_ask_size)
        return (last, Quote(VENUE, product_id, self._token, 0, *bid, *ask, False, moment, received))  # noqa: FBT003 -- live

    def _last_match(self, message: wire.LastMatch, received: int) -> Sequence[Event]:
        trade = self._trade(message, received, before=True)
        self._trades[message.product_id] = message.trade_id
        return (trade,)

    def _match(self, message: wire.Match, received: int) -> Sequence[Event]:
        trade = self._trade(message, received, before=False)
        last = self._trades.get(message.product_id)
        if last is not None and message.trade_id <= last:
            return ()  # late; the venue's documentation says to ignore it
        self._trades[message.product_id] = message.trade_id
        if last is not None and message.trade_id > last + 1:
            return (trade, Gap(message.product_id, message.trade_id - last - 1, resync=True))
        return (trade,)

    def _trade(self, message: wire.Match, received: int, *, before: bool) -> Trade:
        price, size = level(message.price, message.size)
        return Trade(
            VENUE,
            message.product_id,
            self._token,
            str(message.trade_id),
            price,
            size,
            "sell" if message.side == "buy" else "buy",
            time_us(message.time),
            received,
            before,
        )

    def _heartbeat(self, message: wire.Heartbeat, _received: int) -> Sequence[Event]:
        """Trades that the heartbeat before this one knew of, and that have not come since, are lost."""
        product_id = message.product_id
        known = self._beats.get(product_id, 0)
        self._beats[product_id] = message.last_trade_id
        last = self._trades.get(product_id)
        if last is None or known <= last:
            return (Heartbeat(),)
        self._trades[product_id] = known
        return (Heartbeat(), Gap(product_id, known - last, resync=True))


def _side(price: str, size: str | None) -> tuple[Decimal | None, Decimal | None]:
    """Return a side of a ticker, or nothing where it is empty (price 0)."""
    found = numbers[price]
    return (found, None if size is None else numbers[size]) if found else (None, None)


def _malformed(problem: str, frame: bytes) -> Event:
    """Return what to make of a frame that cannot be read: it may have been a part of the book."""
    try:
        kind = _other.decode(frame).type
    except MalformedError:
        return unknown(problem, frame, resync=True)
    return unknown(f"type {kind!r}: {problem}", frame, resync=kind in BOOK_TYPES)
