"""Kraken's spot market feed (docs.kraken.com, spot-websocket-v2; the checksum: guides, book-checksum-v2)."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from zlib import crc32

import msgspec

from exchanges.kraken import wire
from exchanges.protocol import (
    Acknowledged,
    Closing,
    Event,
    Gap,
    Heartbeat,
    Limits,
    MalformedError,
    Reply,
    VenueError,
    check_level,
    time_us,
    unknown,
)
from models.domain.candles import VenueCandle
from models.domain.quotes import Quote, Trade

VENUE = "kraken"
OWN_URL = "wss://ws.kraken.com/v2"
DEPTH = 10  # levels a side: as many as the checksum covers
INTERVAL_MIN = 1  # of candles
# What is asked of each channel. An error names its product and its request, and so a request is one channel's.
CHANNELS: Mapping[str, Mapping[str, object]] = {
    "book": {"depth": DEPTH},
    "trade": {"snapshot": False},
    "ohlc": {"interval": INTERVAL_MIN},
}
REQUESTS = dict(enumerate(CHANNELS, 1))
BOOK_HEAD = b'{"channel":"book"'
# A book that stays wrong is not asked for more often than this: the venue's limit of messages is not known.
ASK_AGAIN_US = 5_000_000

Best = tuple[Decimal | None, Decimal | None, Decimal | None, Decimal | None]
NOTHING: Best = (None, None, None, None)

_message = msgspec.json.Decoder(wire.Message)
_other = msgspec.json.Decoder(wire.Other)
_named = msgspec.json.Decoder(list[wire.Named])


class BookLostError(ValueError):
    """The kept book is not the venue's: an update was lost."""


class Side:
    """A side's levels by rising price. `text` is what the checksum reads of it, the best level first."""

    __slots__ = ("_best_last", "_texts", "prices", "sizes", "text")

    def __init__(self, *, best_last: bool) -> None:
        self._best_last = best_last
        self._texts: list[str] = []
        self.prices: list[Decimal] = []
        self.sizes: list[Decimal] = []
        self.text = b""

    def change(self, levels: Sequence[wire.Level]) -> None:
        """Set what levels hold, and cut the side to its depth. Raises ValueError for a level that is none."""
        prices, sizes, texts = self.prices, self.sizes, self._texts
        for level in levels:
            price, size = level.price, level.qty
            check_level(price, size)
            at = bisect_left(prices, price)
            there = at < len(prices) and prices[at] == price
            if not size:
                if there:
                    del prices[at], sizes[at], texts[at]
            elif there:
                sizes[at], texts[at] = size, _digits(price, size)
            else:
                prices.insert(at, price)
                sizes.insert(at, size)
                texts.insert(at, _digits(price, size))
        if len(prices) > DEPTH:
            # Levels that fall out of the depth are not deleted by the venue.
            beyond = slice(None, -DEPTH) if self._best_last else slice(DEPTH, None)
            del prices[beyond], sizes[beyond], texts[beyond]
        self.text = "".join(texts[::-1] if self._best_last else texts).encode()


class Levels:
    """The book of one product: ten levels a side, proved by the venue's checksum after each change."""

    __slots__ = ("_asks", "_bids")

    def __init__(self) -> None:
        self._bids = Side(best_last=True)
        self._asks = Side(best_last=False)

    def change(self, data: wire.BookData) -> Best:
        """Set what levels hold and return the best bid, its size, the best ask and its size.

        Raises ValueError for a level that is none and BookLostError for a book that is not the venue's; it is
        of no use then.
        """
        bids, asks = self._bids, self._asks
        if data.bids:
            bids.change(data.bids)
        if data.asks:
            asks.change(data.asks)
        checksum = crc32(bids.text, crc32(asks.text))
        if checksum != data.checksum:
            raise BookLostError(f"{data.symbol}: checksum {checksum} is not {data.checksum}")
        if not bids.prices or not asks.prices:
            bid = (bids.prices[-1], bids.sizes[-1]) if bids.prices else (None, None)
            return (*bid, asks.prices[0], asks.sizes[0]) if asks.prices else (*bid, None, None)
        best_bid, best_ask = bids.prices[-1], asks.prices[0]
        if best_bid >= best_ask:
            raise BookLostError(f"{data.symbol}: bid {best_bid} is not below ask {best_ask}")
        return best_bid, bids.sizes[-1], best_ask, asks.sizes[0]


class Kraken:
    """One connection.

    The best bid and ask come from the `book` channel, because `ticker` does not repeat them when only a size
    changes. A book that fails its checksum is asked for again by itself; until its snapshot comes the product has
    an empty quote, for the one before it may not be true any more.
    """

    # A heartbeat comes each second; a ping tells of a venue that has nothing else to say.
    limits = Limits(silence_s=5, first_message_s=60, ping_s=2)

    def __init__(self, url: str | None, product_ids: Sequence[str], token: int) -> None:
        self._url = url or OWN_URL
        self._product_ids = dict.fromkeys(product_ids)
        self._token = token
        self._levels: dict[str, Levels] = {}
        self._shown: dict[str, Best] = {}
        self._asked_again_us: dict[str, int] = {}  # when each book was last asked for again
        self._trades: dict[str, int] = {}
        self._streams = {f"{channel}:{pid}": pid for channel in CHANNELS for pid in self._product_ids}
        self._silent = dict(self._streams)
        self._unanswered = set(self._streams)
        self._refused: list[str] = []
        self._readers: dict[type, Callable[[Any, str, int, list[Event]], None]] = {
            wire.Book: self._book,
            wire.Trade: self._trade,
            wire.Ohlc: self._candle,
        }

    def url(self) -> str:
        """Return the address."""
        return self._url

    def subscribe_frames(self) -> Sequence[str]:
        """Return one request a channel: each product of it is answered, and refused, by itself."""
        return [_request("subscribe", channel, list(self._product_ids)) for channel in CHANNELS]

    def ping_frame(self, now_us: int) -> str | None:  # noqa: ARG002 -- the venue's ping needs no time
        """Return the venue's own ping, which is answered without any subscription too."""
        return '{"method":"ping"}'

    def silent(self) -> Mapping[str, str]:
        """Return the streams that have not spoken yet."""
        return self._silent

    def decode(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        """Return what a frame says."""
        try:
            message = _message.decode(frame)
        except MalformedError as error:
            return self._otherwise(frame, str(error), received_time_us)
        if isinstance(message, wire.Heartbeat):
            return [Heartbeat(), *self._ask_again(received_time_us)]
        if isinstance(message, wire.Status):
            return [_status(each.system) for each in message.data]
        return self._read(message, frame, received_time_us)

    def _read(self, message: wire.Book | wire.Trade | wire.Ohlc, frame: bytes, received: int) -> Sequence[Event]:
        kind, reader = message.type, self._readers[type(message)]
        events: list[Event] = []
        for each in message.data:
            if each.symbol not in self._product_ids:
                events.append(unknown(f"{each.symbol} was not asked for", frame))
                continue
            try:
                reader(each, kind, received, events)
            except BookLostError:
                events += self._lost(each.symbol, received)
            except ValueError as error:
                events.append(unknown(str(error), frame))
                if isinstance(message, wire.Book):
                    events += self._lost(each.symbol, received)
        return events

    def _book(self, data: wire.BookData, kind: str, received: int, events: list[Event]) -> None:
        product_id = data.symbol
        levels = self._levels.get(product_id) if kind == "update" else Levels()
        if levels is None:
            return  # it was on its way before the snapshot
        best = levels.change(data)
        if kind == "snapshot":
            self._levels[product_id] = levels
            self._silent.pop(f"book:{product_id}", None)
        if best != self._shown.get(product_id):
            moment = None if data.timestamp is None else time_us(data.timestamp)
            events.append(self._quote(product_id, best, moment, received))

    def _quote(self, product_id: str, best: Best, moment: int | None, received: int) -> Quote:
        self._shown[product_id] = best
        return Quote(VENUE, product_id, self._token, 0, *best, True, moment, received)  # noqa: FBT003 -- live

    def _lost(self, product_id: str, received: int) -> Sequence[Event]:
        """Forget a book, say so, and ask for it again unless that was done just now."""
        self._levels.pop(product_id, None)
        events: list[Event] = [Gap(product_id, 0)]
        if self._shown.get(product_id, NOTHING) != NOTHING:
            events.insert(0, self._quote(product_id, NOTHING, None, received))
        self._asked_again_us.setdefault(product_id, received - ASK_AGAIN_US)
        return events + self._ask_again(received)

    def _ask_again(self, received: int) -> list[Event]:
        """Unsubscribe and subscribe lost books; with each heartbeat, so that one whose snapshot is late is too."""
        events: list[Event] = []
        for product_id, asked_us in self._asked_again_us.items():
            if product_id not in self._levels and received - asked_us >= ASK_AGAIN_US:
                self._asked_again_us[product_id] = received
                events += [Reply(_request(method, "book", [product_id])) for method in ("unsubscribe", "subscribe")]
        return events

    def _trade(self, data: wire.TradeData, kind: str, received: int, events: list[Event]) -> None:
        price, size, product_id, trade_id = data.price, data.qty, data.symbol, data.trade_id
        check_level(price, size)
        last = self._trades.get(product_id)
        if last is None:
            self._silent.pop(f"trade:{product_id}", None)
        elif trade_id <= last:
            return
        self._trades[product_id] = trade_id
        moment, before = time_us(data.timestamp), kind == "snapshot"
        events.append(
            Trade(VENUE, product_id, self._token, str(trade_id), price, size, data.side, moment, received, before)
        )
        if last is not None and trade_id > last + 1:
            events.append(Gap(product_id, trade_id - last - 1))

    def _candle(self, data: wire.OhlcData, _kind: str, received: int, events: list[Event]) -> None:
        if data.interval != INTERVAL_MIN:
            raise ValueError(f"candles of {data.interval} minutes were not asked for")
        for price in (data.open, data.high, data.low, data.close):
            check_level(price, data.volume)
        if self._silent:
            self._silent.pop(f"ohlc:{data.symbol}", None)
        # Nothing tells that a candle is closed but the next one.
        candle = VenueCandle(
            VENUE,
            data.symbol,
            self._token,
            data.interval * 60,
            time_us(data.interval_begin),
            data.open,
            data.high,
            data.low,
            data.close,
            data.volume,
            None,
            data.trades,
            None,
            received,
        )
        events.append(candle)

    def _otherwise(self, frame: bytes, problem: str, received: int) -> Sequence[Event]:
        """Return what an answer says, a complaint, or a frame that is not what it should be."""
        try:
            other = _other.decode(frame)
        except MalformedError:
            return [unknown(problem, frame, resync=frame.startswith(BOOK_HEAD))]
        if other.channel is not None:
            return self._malformed(other, frame, problem, received)
        if other.complaint is not None:
            return [VenueError(other.complaint)]
        if other.method == "pong":
            return [Heartbeat()]
        return self._answer(other, frame)

    def _malformed(self, other: wire.Other, frame: bytes, problem: str, received: int) -> Sequence[Event]:
        problem = f"channel {other.channel!r}: {problem}"
        if other.channel != "book":
            return [unknown(problem, frame)]
        try:
            product_ids = {each.symbol for each in _named.decode(other.data)} & self._product_ids.keys()
        except MalformedError:
            # Any book may miss a part now.
            return [unknown(problem, frame, resync=True)]
        lost = [event for product_id in sorted(product_ids) for event in self._lost(product_id, received)]
        return [unknown(problem, frame), *lost]

    def _answer(self, other: wire.Other, frame: bytes) -> Sequence[Event]:
        """Name what was refused once every stream has its answer, and at once where that is later."""
        if other.error is None and not (other.method and other.success and other.result):
            return [unknown("no channel, and no answer to a request", frame)]
        events: list[Event] = [] if other.error is None else [VenueError(other.error)]
        if other.method != "subscribe":
            return events
        if other.result is not None:
            stream = f"{other.result.channel}:{other.result.symbol}"
        else:
            stream = f"{REQUESTS.get(other.req_id or 0)}:{other.symbol}"
        if stream not in self._streams:
            return events or [unknown(f"{stream} was not asked for", frame)]
        answers = stream in self._unanswered
        self._unanswered.discard(stream)
        if other.error is not None:
            self._refused.append(stream)
            if stream.startswith("book:"):
                self._asked_again_us.pop(self._streams[stream], None)
        if self._unanswered or not (answers or self._refused):
            return events
        events.append(Acknowledged(tuple(self._refused)))
        self._refused.clear()
        return events


def _request(method: str, channel: str, product_ids: Sequence[str]) -> str:
    number = next(number for number, name in REQUESTS.items() if name == channel)
    params = {"channel": channel, "symbol": product_ids, **CHANNELS[channel]}
    return msgspec.json.encode({"method": method, "params": params, "req_id": number}).decode()


def _digits(price: Decimal, size: Decimal) -> str:
    """Return what the checksum reads of a level: the texts without point and leading zeros."""
    digits = str(price).replace(".", "").lstrip("0") + str(size).replace(".", "").lstrip("0")
    if "E" not in digits:
        return digits
    # Below 0.000001; "f" for every number would take more than twice as long (0.43 against 0.19 us).
    return f"{price:f}".replace(".", "").lstrip("0") + f"{size:f}".replace(".", "").lstrip("0")


def _status(system: str) -> Event:
    """Return what the trading engine's state means for prices: in maintenance there are none."""
    if system == "online":
        return Heartbeat()
    return Closing() if system == "maintenance" else VenueError(f"the venue is not online but {system}")
