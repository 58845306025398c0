"""OKX's side of the wire: channels of two endpoints, their first data, and its complaints (docs-v5)."""

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from simulator.market import MINUTE_US, BookChanged, Candle, Event, Listing, Traded
from simulator.pasts import Answer, ParameterError, asked
from simulator.wire import Close, Renumber, Timing, Wire

PUBLIC = ("bbo-tbt", "trades", "tickers", "books", "books5")
BUSINESS = ("candle1m",)
LOGIN = ("books-l2-tbt", "books50-l2-tbt")  # for customers of a higher tier
SILENCE_S_MAX = 30
BOOKS5_LEVELS = 5
_DATA = re.compile(r'\{"arg":\{"channel":"([^"]+)","instId":"([^"]+)"')
_TRADE_ID = re.compile(r'"tradeId":"(\d+)"')
_SEQUENCE = re.compile(r'"(seqId|prevSeqId)":(\d+)')
_MOMENT = re.compile(r'"ts":"(\d+)"')
_CANDLE = re.compile(r'\["(\d+)"')


class RequestError(ValueError):
    """What the venue refuses, with its code for that."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Session:
    """One connection to one endpoint: the (channel, product) pairs that it asked for."""

    def __init__(self, target: str, listings: Mapping[str, Listing] | None) -> None:
        self._channels = BUSINESS if target.partition("?")[0].endswith("/business") else PUBLIC
        self._listings = listings
        self._asked: dict[tuple[str, str], None] = {}
        self._books: dict[str, int] = {}  # the sequence number of what was last told of a product's book
        self._quiet_s = 0
        self._connection = uuid.uuid4().hex[:8]

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._asked)

    def answer(self, text: str, _now_us: int) -> list[str]:
        """Return the answer to each argument of a request, then first data; or the word for the word `ping`."""
        self._quiet_s = 0
        if text == "ping":
            return ["pong"]
        request = _parsed(text)
        number = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
        try:
            operation, args = _operation(request, text)
        except RequestError as error:
            return [self._complaint(error, number)]
        answers: list[str] = []
        first: list[str] = []
        for arg in args:
            try:
                first += self._take(operation, arg)
            except RequestError as error:
                answers.append(self._complaint(error, number))
            else:
                answers.append(_dump({**number, "event": operation, "arg": arg, "connId": self._connection}))
        return answers + first

    def _take(self, operation: str, arg: Mapping[str, Any]) -> list[str]:
        """Do what is asked of one stream, and return its first data. Raises RequestError."""
        channel, product_id = stream = str(arg["channel"]), str(arg["instId"])
        if operation == "unsubscribe":
            self._asked.pop(stream, None)
            return []
        if channel in LOGIN:
            raise RequestError(60011, "Please log in")
        if channel not in self._channels or (self._listings is not None and product_id not in self._listings):
            raise RequestError(
                60018,
                f"Wrong URL or channel:{channel},instId:{product_id} doesn't exist. "
                "Please use the correct URL, channel and parameters referring to API document.",
            )
        new = stream not in self._asked
        self._asked[stream] = None
        return self._first(channel, self._listings[product_id]) if new and self._listings is not None else []

    def _complaint(self, error: RequestError, number: Mapping[str, object]) -> str:
        said = {"msg": str(error), "code": str(error.code), "connId": self._connection}
        return _dump({**number, "event": "error", **said})

    def _first(self, channel: str, listing: Listing) -> list[str]:
        product_id = listing.product.id
        match channel:
            case "bbo-tbt":
                bids, asks = listing.levels("buy"), listing.levels("sell")
                return [_bbo(product_id, bids[0], asks[0], listing.time_us, listing.sequence)]
            case "books":
                self._books[product_id] = listing.sequence
                return [_books(product_id, "snapshot", _sides(listing), listing.time_us, -1, listing.sequence)]
            case "books5":
                return [_books5(listing, listing.time_us, listing.sequence)]
            case "tickers":
                return [_ticker(listing, listing.time_us)]
            case "candle1m":
                return [_candle(product_id, listing.last_trade.candle, closed=False)]
        return [_trade(listing.last_trade)]

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event."""
        product_id = event.product.id
        tell = self._of_trade if isinstance(event, Traded) else self._of_book
        channels = [channel for channel in self._channels if (channel, product_id) in self._asked]
        frames = [frame for channel in channels for frame in tell(channel, event)]
        self._quiet_s = 0 if frames else self._quiet_s
        return frames

    def _of_trade(self, channel: str, trade: Event) -> Iterator[str]:
        assert isinstance(trade, Traded)
        if channel == "trades":
            yield _trade(trade)
        elif channel == "candle1m":
            if trade.closed is not None:
                yield _candle(trade.product.id, trade.closed, closed=True)
            yield _candle(trade.product.id, trade.candle, closed=False)

    def _of_book(self, channel: str, event: Event) -> Iterator[str]:
        if not isinstance(event, BookChanged) or self._listings is None:
            return
        product_id, top, sequence = event.product.id, event.top, event.sequence
        if channel == "bbo-tbt":
            yield _bbo(product_id, (top.bid, top.bid_size), (top.ask, top.ask_size), event.time_us, sequence)
        elif channel == "books":
            asks, bids = ([level for side, *level in event.changes if side == name] for name in ("sell", "buy"))
            before, self._books[product_id] = self._books[product_id], sequence
            yield _books(product_id, "update", (asks, bids), event.time_us, before, sequence)
        elif channel == "books5":
            yield _books5(self._listings[product_id], event.time_us, sequence)
        elif channel == "tickers":
            yield _ticker(self._listings[product_id], event.time_us)

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, or None where it was not asked for."""
        data = _DATA.match(frame)
        if data is None or (data[1], data[2]) not in self._asked:
            return None
        self._quiet_s = 0
        return frame

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:  # noqa: ARG002 -- only the client's pings
        """Return nothing: it is the client that pings."""
        return []

    def overdue(self, now_us: int) -> Close | None:  # noqa: ARG002 -- the venue's time of day may be set; seconds count
        """Return the end of a connection on which nothing was said for 30 s; called once a second."""
        self._quiet_s += 1
        return Close(4004, f"No data received in {SILENCE_S_MAX}s.") if self._quiet_s > SILENCE_S_MAX else None


def _parsed(text: str) -> dict[str, Any]:
    """Return a request, or nothing where it is none."""
    try:
        request = json.loads(text)
    except ValueError:
        return {}
    return request if isinstance(request, dict) else {}


def _operation(request: Mapping[str, Any], text: str) -> tuple[str, list[dict[str, Any]]]:
    """Return operation and arguments of a request. Raises RequestError."""
    if request.get("op") not in ("subscribe", "unsubscribe"):
        raise RequestError(60012, f"Illegal request: {text}")
    args = request.get("args")
    if not isinstance(args, list) or not args or not all(map(_is_arg, args)):
        raise RequestError(60013, "Invalid args")
    return request["op"], args


def _is_arg(arg: object) -> bool:
    return isinstance(arg, dict) and all(isinstance(arg.get(name), str) for name in ("channel", "instId"))


def _number(value: Decimal) -> str:
    return format(value.normalize(), "f")


def _level(level: Sequence[Decimal]) -> list[str]:
    price, size = level
    return [_number(price), _number(size), "0", "1" if size else "0"]  # the last one is the number of orders


def _moment(time_us: int) -> str:
    return str(time_us // 1000)


Levels = Sequence[Sequence[Decimal]]


def _sides(listing: Listing) -> tuple[Levels, Levels]:
    return listing.levels("sell"), listing.levels("buy")


def _data(channel: str, product_id: str, *data: object, **more: str) -> str:
    return _dump({"arg": {"channel": channel, "instId": product_id}, **more, "data": data})


def _bbo(product_id: str, bid: Sequence[Decimal], ask: Sequence[Decimal], time_us: int, sequence: int) -> str:
    sides = {"asks": [_level(ask)], "bids": [_level(bid)]}
    return _data("bbo-tbt", product_id, {**sides, "ts": _moment(time_us), "seqId": sequence})


def _books(product_id: str, action: str, sides: tuple[Levels, Levels], time_us: int, before: int, sequence: int) -> str:
    asks, bids = ([_level(level) for level in side] for side in sides)
    # The checksum is 0 since 2026.
    numbers = {"ts": _moment(time_us), "checksum": 0, "prevSeqId": before, "seqId": sequence}
    return _data("books", product_id, {"asks": asks, "bids": bids, **numbers}, action=action)


def _books5(listing: Listing, time_us: int, sequence: int) -> str:
    asks, bids = ([_level(level) for level in side[:BOOKS5_LEVELS]] for side in _sides(listing))
    product_id = listing.product.id
    numbers = {"instId": product_id, "ts": _moment(time_us), "seqId": sequence}
    return _data("books5", product_id, {"asks": asks, "bids": bids, **numbers})


def _trade(trade: Traded) -> str:
    return _data(
        "trades",
        trade.product.id,
        {
            "instId": trade.product.id,
            "tradeId": str(trade.trade_id),
            "px": _number(trade.price),
            "sz": _number(trade.size),
            "side": trade.taker_side,
            "ts": _moment(trade.time_us),
            "count": "1",
            "source": "0",
            "seqId": trade.sequence,
        },
    )


def _ticker(listing: Listing, time_us: int) -> str:
    product_id, trade = listing.product.id, listing.last_trade
    (ask, *_), (bid, *_) = _sides(listing)
    said = {
        "last": trade.price,
        "lastSz": trade.size,
        "askPx": ask[0],
        "askSz": ask[1],
        "bidPx": bid[0],
        "bidSz": bid[1],
        "open24h": trade.open,
        "high24h": trade.high,
        "low24h": trade.low,
        "sodUtc0": trade.open,
        "sodUtc8": trade.open,
        "volCcy24h": trade.turnover,
        "vol24h": trade.volume,
    }
    numbers = {name: _number(value) for name, value in said.items()}
    return _data("tickers", product_id, {"instType": "SPOT", "instId": product_id, **numbers, "ts": _moment(time_us)})


def _candle(product_id: str, candle: Candle, *, closed: bool) -> str:
    # Of spot, both volumes in currency are in the quote currency.
    values = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.turnover, candle.turnover)
    return _data("candle1m", product_id, [_moment(candle.start_us), *map(_number, values), "1" if closed else "0"])


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


def is_trade(frame: str) -> bool:
    """Say whether a frame is a trade's."""
    return frame.startswith('{"arg":{"channel":"trades"')


def renumbered(frame: str, renumber: Renumber, later_us: int) -> str:
    """Return a recorded frame with other ids, and times that are so much later."""
    data = _DATA.match(frame)
    if data is None:
        return frame
    channel, product_id = data[1], data[2]
    if channel.startswith("candle"):
        # Candles stay at full minutes.
        later_ms = later_us // MINUTE_US * MINUTE_US // 1000
        return _CANDLE.sub(lambda m: f'["{int(m[1]) + later_ms}"', frame)
    frame = _TRADE_ID.sub(lambda m: f'"tradeId":"{renumber(f"{product_id} trade", int(m[1]))}"', frame)
    # A product's channels count the same changes of its book.
    frame = _SEQUENCE.sub(lambda m: f'"{m[1]}":{renumber(f"{product_id} sequence", int(m[2]))}', frame)
    return _MOMENT.sub(lambda m: f'"ts":"{int(m[1]) + later_us // 1000}"', frame)


BARS_MIN = {"1m": 1, "5m": 5, "15m": 15, "1H": 60, "4H": 240, "1Dutc": 1_440}
CANDLES_MAX = 100


def past(target: str, listings: Mapping[str, Listing], now_us: int) -> Answer | None:
    """Answer GET /api/v5/market/history-candles: 100, newest first, between `before` and `after`."""
    wanted = asked(target)
    if wanted.path != "/api/v5/market/history-candles":
        return None
    listing, minutes = listings.get(wanted.given.get("instId", "")), BARS_MIN.get(wanted.given.get("bar", ""))
    if listing is None:
        return Answer({"code": "51001", "msg": "Instrument ID doesn't exist.", "data": []})
    try:
        after_us = wanted.number("after", now_us // 1_000 + 1) * 1_000
        before_us = wanted.number("before", 0) * 1_000
        limit = min(CANDLES_MAX, wanted.number("limit", CANDLES_MAX))
    except ParameterError:
        minutes = None
    if minutes is None:
        return Answer({"code": "51000", "msg": "Parameter error", "data": []})
    length_us = minutes * MINUTE_US
    first_us = max(before_us + 1, min(after_us, now_us) - limit * length_us)
    made = listing.candles(length_us, first_us, after_us, now_us)
    rows = [_row(candle, closed=candle.start_us + length_us <= now_us) for candle in reversed(made)]
    return Answer({"code": "0", "msg": "", "data": rows})


def _row(candle: Candle, *, closed: bool) -> list[str]:
    told = (candle.open, candle.high, candle.low, candle.close, candle.volume, candle.turnover, candle.turnover)
    return [str(candle.start_us // 1_000), *(format(value, "f") for value in told), "1" if closed else "0"]


WIRE = Wire(
    "okx",
    Timing(messages_per_s_max=100),  # the venue counts 480 requests an hour, not those of a second
    session=Session,
    is_trade=is_trade,
    renumbered=renumbered,
    first_again=True,
    novelty='{"arg":{"channel":"novelty","instId":"BTC-USDT"},"data":[{"ts":"1788118931677"}]}',
    rename=('"data":', '"payload":'),
    notice='{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. '
    'Please reconnect.","connId":"a4d3ae55"}',
    past=past,
)
