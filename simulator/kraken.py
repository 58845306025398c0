"""Kraken's side of the wire (API v2): one answer a product, snapshots, books with checksums, and heartbeats."""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zlib import crc32

from simulator.market import MINUTE_US, BookChanged, Candle, Event, Listing, Top, Traded
from simulator.pasts import Answer, ParameterError, asked
from simulator.wire import Close, Renumber, Timing, Wire

DEPTHS = (10, 25, 100, 500, 1000)
CHECKED = 10  # levels a side that the checksum covers, whatever the depth
INTERVALS_MIN = (1, 5, 15, 30, 60, 240, 1440, 10080, 21600)
# What a channel may be asked for: its options with what they are if nobody says, and what is allowed.
OPTIONS: Mapping[str, Mapping[str, tuple[Any, tuple[Any, ...]]]] = {
    "ticker": {"event_trigger": ("trades", ("trades", "bbo")), "snapshot": (True, (True, False))},
    "trade": {"snapshot": (False, (True, False))},
    "book": {"depth": (10, DEPTHS), "snapshot": (True, (True, False))},
    "ohlc": {"interval": (1, INTERVALS_MIN), "snapshot": (True, (True, False))},
}
IDLE_US_MAX = 60_000_000  # without any subscription
MESSAGES_PER_S_MAX = 50  # the venue's own limit is dynamic and not published
SECOND_US = 1_000_000
HEARTBEAT = '{"channel":"heartbeat"}'
CONNECTION_ID = 16389994220698793191  # one of those that exceed 2^63
_CHANNEL = re.compile(r'\{"channel": ?"(\w+)"')
_SYMBOL = re.compile(r'"symbol": ?"([^"]+)"')
_TRADE_ID = re.compile(r'("symbol": ?"([^"]+)"[^{}]*"trade_id": ?)(\d+)')
_MOMENT = re.compile(r'("(?:timestamp|interval_begin|time_in|time_out)": ?)"([^"]+)"')

Sides = dict[str, dict[Decimal, Decimal]]  # "buy" and "sell" -> price -> size


class RequestError(ValueError):
    """A request that the venue refuses as a whole."""


class Stream:
    """One product of one channel, with what was asked for and what was told so far."""

    def __init__(self, options: Mapping[str, Any], listing: Listing | None) -> None:
        self.options = options
        if listing is None:
            return
        self.decimals = _decimals(listing.product.tick)
        self.last = listing.last_trade
        self.levels: Sides = {side: dict(listing.levels(side)) for side in ("buy", "sell")}
        self.shown = self.view()

    def view(self) -> Sides:
        """Return the levels within the depth, best first."""
        depth = self.options.get("depth", 1)
        return {
            side: {price: self.levels[side][price] for price in sorted(held, reverse=side == "buy")[:depth]}
            for side, held in self.levels.items()
        }

    def change(self, event: BookChanged) -> Sides:
        """Take a change and return what the venue tells of it: nothing of levels that fall out of the depth."""
        for side, price, size in event.changes:
            if size:
                self.levels[side][price] = size
            else:
                self.levels[side].pop(price, None)
        before, self.shown = self.shown, self.view()
        told: Sides = {}
        for side, now in self.shown.items():
            gone = {price: Decimal(0) for price in before[side] if price not in self.levels[side]}
            told[side] = gone | {price: size for price, size in now.items() if before[side].get(price) != size}
        return told


class Session:
    """One connection: its streams by channel and product."""

    def __init__(self, _target: str, listings: Mapping[str, Listing] | None) -> None:
        self._listings = listings
        self._streams: dict[tuple[str, str], Stream] = {}
        self._greeted = False
        self._beats_recorded = False
        self._idle_since_us: int | None = None
        self._asked_us: deque[int] = deque(maxlen=MESSAGES_PER_S_MAX)

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._streams)

    def answer(self, text: str, now_us: int) -> list[str]:
        """Return the answers to a request, one a product, each with its snapshot; the status before the first."""
        greeting = [] if self._greeted else [_status("online")]
        self._greeted = True
        if len(self._asked_us) == MESSAGES_PER_S_MAX and now_us - self._asked_us[0] < SECOND_US:
            return [*greeting, '{"Error":"Exceeded msg rate"}']
        self._asked_us.append(now_us)
        times = {"time_in": _time(now_us), "time_out": _time(now_us + 42)}
        request: Any = None
        try:
            request = _parsed(text)
            answers = list(self._answers(request, times))
        except RequestError as error:
            echo = _echo(request) if isinstance(request, dict) else {}
            return [*greeting, _dump({"error": str(error), **echo, "success": False, **times})]
        return greeting + answers

    def _answers(self, request: dict[str, Any], times: dict[str, str]) -> Iterator[str]:
        """Yield the answers to a request. Raises RequestError, before anything is done."""
        echo = _echo(request)
        if request.get("method") == "ping":
            yield _dump({**echo, "method": "pong", **times})
            return
        channel, product_ids, options = _asked(request)
        subscribe = request["method"] == "subscribe"
        for product_id in product_ids:
            problem = self._problem(subscribe, channel, product_id)
            if problem:
                yield _dump({"error": problem, **echo, "success": False, "symbol": product_id, **times})
                continue
            key, result = (channel, product_id), {"channel": channel, **options, "symbol": product_id}
            yield _dump({**echo, "result": result, "success": True, **times})
            if not subscribe:
                del self._streams[key]
                continue
            listing = None if self._listings is None else self._listings[product_id]
            stream = self._streams[key] = Stream(options, listing)
            if listing is not None and options["snapshot"]:
                yield _snapshot(channel, stream, listing.time_us)

    def _problem(self, subscribe: bool, channel: str, product_id: str) -> str | None:  # noqa: FBT001 -- of the request
        there = (channel, product_id) in self._streams
        if not subscribe:
            return None if there else "Subscription Not Found"
        if self._listings is not None and product_id not in self._listings:
            return f"Currency pair not supported {product_id}"
        return "Already subscribed" if there else None

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event."""
        if isinstance(event, Traded):
            return [*self._of_trade(event)]
        return [*self._of_book(event)] if isinstance(event, BookChanged) else []

    def _of_trade(self, trade: Traded) -> Iterator[str]:
        product_id, at = trade.product.id, _time(trade.time_us)
        if stream := self._streams.get(("trade", product_id)):
            yield _frame("trade", "update", _trade(trade, stream.decimals))
        if stream := self._streams.get(("ticker", product_id)):
            stream.last = trade
            if stream.options["event_trigger"] == "trades":
                yield _frame("ticker", "update", _ticker(trade, trade.top, stream.decimals, at))
        stream = self._streams.get(("ohlc", product_id))
        if stream and stream.options["interval"] == 1:
            yield _frame("ohlc", "update", _candle(trade.product.id, trade.candle, stream.decimals))

    def _of_book(self, event: BookChanged) -> Iterator[str]:
        product_id, at = event.product.id, _time(event.time_us)
        if stream := self._streams.get(("book", product_id)):
            told = stream.change(event)
            if any(told.values()):
                yield _frame("book", "update", _book(product_id, told, stream, at))
        stream = self._streams.get(("ticker", product_id))
        if stream and stream.options["event_trigger"] == "bbo":
            before = [*map(list, stream.shown.values())]
            stream.change(event)
            if before != [*map(list, stream.shown.values())]:  # a change of size alone is not told
                yield _frame("ticker", "update", _ticker(stream.last, event.top, stream.decimals, at))

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, or None where it was not asked for."""
        channel, symbol = _CHANNEL.match(frame), _SYMBOL.search(frame)
        if channel is not None and channel[1] == "heartbeat":
            self._beats_recorded = True
            return frame
        asked = channel is not None and symbol is not None and (channel[1], symbol[1]) in self._streams
        return frame if asked else None

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:  # noqa: ARG002 -- it has no time
        """Return a heartbeat where anything is subscribed. A recording that has its own keeps them while it plays."""
        return [HEARTBEAT] if self._streams and not (replaying and self._beats_recorded) else []

    def overdue(self, now_us: int) -> Close | None:
        """Return why the connection is closed: a minute without a subscription."""
        if self._streams:
            self._idle_since_us = None
            return None
        self._idle_since_us = now_us if self._idle_since_us is None else self._idle_since_us
        return Close(1001, "no subscription") if now_us - self._idle_since_us >= IDLE_US_MAX else None


def _parsed(text: str) -> dict[str, Any]:
    """Return a request. Raises RequestError."""
    try:
        request = json.loads(text)
    except ValueError as error:
        raise RequestError("Malformed request") from error
    if not isinstance(request, dict):
        raise RequestError("Malformed request")
    return request


def _echo(request: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer repeats of its request."""
    return {key: request[key] for key in ("method", "req_id") if key in request}


def _asked(request: dict[str, Any]) -> tuple[str, list[str], dict[str, Any]]:
    """Return channel, products and options of a request. Raises RequestError."""
    if request.get("method") not in ("subscribe", "unsubscribe"):
        raise RequestError("Unknown method")
    params = request.get("params")
    if not isinstance(params, dict) or params.get("channel") not in [*OPTIONS]:
        raise RequestError("Unknown channel")
    product_ids = params.get("symbol")
    if not isinstance(product_ids, list) or not product_ids or not all(isinstance(each, str) for each in product_ids):
        raise RequestError("Symbol(s) not given")
    options = {}
    for name, (default, allowed) in OPTIONS[params["channel"]].items():
        options[name] = params.get(name, default)
        if options[name] not in allowed:
            raise RequestError(f"Unsupported field: {name}")
    return params["channel"], product_ids, options


def _snapshot(channel: str, stream: Stream, time_us: int) -> str:
    product_id, last = stream.last.product.id, stream.last
    match channel:
        case "book":
            data = _book(product_id, stream.shown, stream, _time(time_us))
        case "trade":
            data = _trade(last, stream.decimals)
        case "ohlc":
            data = _candle(product_id, last.candle, stream.decimals)
        case _:
            (bid, bid_size), (ask, ask_size) = (next(iter(held.items())) for held in stream.shown.values())
            data = _ticker(last, Top(bid, bid_size, ask, ask_size), stream.decimals, _time(time_us))
    return _frame(channel, "snapshot", data)


def _frame(channel: str, kind: str, data: str) -> str:
    return f'{{"channel":"{channel}","type":"{kind}","data":[{data}]}}'


def _book(product_id: str, told: Sides, stream: Stream, at: str) -> str:
    def levels(side: str) -> str:
        return ",".join(
            f'{{"price":{price:.{stream.decimals}f},"qty":{size:.8f}}}' for price, size in told[side].items()
        )

    checksum = _checksum(stream.shown, stream.decimals)
    return (
        f'{{"symbol":"{product_id}","bids":[{levels("buy")}],"asks":[{levels("sell")}],'
        f'"checksum":{checksum},"timestamp":"{at}"}}'
    )


def _checksum(shown: Sides, decimals: int) -> int:
    """Return the CRC32 of the best levels, asks first, without points and leading zeros (book-checksum-v2)."""
    numbers = (
        text
        for side in ("sell", "buy")
        for price, size in list(shown[side].items())[:CHECKED]
        for text in (f"{price:.{decimals}f}", f"{size:.8f}")
    )
    return crc32("".join(text.replace(".", "").lstrip("0") for text in numbers).encode())


def _trade(trade: Traded, decimals: int) -> str:
    return (
        f'{{"symbol":"{trade.product.id}","side":"{trade.taker_side}","price":{trade.price:.{decimals}f},'
        f'"qty":{trade.size:.8f},"ord_type":"limit","trade_id":{trade.trade_id},"timestamp":"{_time(trade.time_us)}"}}'
    )


def _ticker(last: Traded, top: Top, decimals: int, at: str) -> str:
    prices = {
        "vwap": last.turnover / last.volume,
        "low": last.low,
        "high": last.high,
        "change": last.price - last.open,
    }
    told = ",".join(f'"{name}":{price:.{decimals}f}' for name, price in prices.items())
    return (
        f'{{"symbol":"{last.product.id}","bid":{top.bid:.{decimals}f},"bid_qty":{top.bid_size:.8f},'
        f'"ask":{top.ask:.{decimals}f},"ask_qty":{top.ask_size:.8f},"last":{last.price:.{decimals}f},'
        f'"volume":{last.volume:.8f},{told},'
        f'"change_pct":{(last.price / last.open - 1) * 100:.2f},"timestamp":"{at}"}}'
    )


def _candle(product_id: str, candle: Candle, decimals: int) -> str:
    names = ("open", "high", "low", "close")
    prices = (candle.open, candle.high, candle.low, candle.close)
    told = ",".join(f'"{name}":{price:.{decimals}f}' for name, price in zip(names, prices, strict=True))
    begin = _time(candle.start_us).replace("Z", "000Z")
    return (
        f'{{"symbol":"{product_id}",{told},"trades":{candle.trades},"volume":{candle.volume:.8f},'
        f'"vwap":{candle.turnover / candle.volume:.{decimals}f},"interval_begin":"{begin}","interval":1,'
        f'"timestamp":"{_time(candle.start_us + MINUTE_US)}"}}'
    )


def _status(system: str) -> str:
    data = {"version": "2.0.10", "system": system, "api_version": "v2", "connection_id": CONNECTION_ID}
    return _dump({"channel": "status", "type": "update", "data": [data]})


def _decimals(step: Decimal) -> int:
    return -int(step.as_tuple().exponent)


def _time(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


def is_trade(frame: str) -> bool:
    """Say whether a frame is a trade's."""
    return frame.startswith('{"channel":"trade"')


def renumbered(frame: str, renumber: Renumber, later_us: int) -> str:
    """Return a recorded frame with other ids, and times that are so much later. Checksums cover neither."""
    frame = _TRADE_ID.sub(lambda m: f"{m[1]}{renumber(f'{m[2]} trade', int(m[3]))}", frame)
    return _MOMENT.sub(lambda m: f'{m[1]}"{_later(m[2], later_us)}"', frame) if later_us else frame


def _later(text: str, later_us: int) -> str:
    moment = datetime.fromisoformat(text) + timedelta(microseconds=later_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


OHLC_MAX = 720
OWN_NAMES = {"BTC": "XBT", "DOGE": "XDG"}  # REST has those of API v1


def past(target: str, listings: Mapping[str, Listing], now_us: int) -> Answer | None:
    """Answer GET /0/public/OHLC: the newest 720, the last one still made, under a name that nobody asked for."""
    wanted = asked(target)
    if wanted.path != "/0/public/OHLC":
        return None
    names = {}
    for product_id, listing in listings.items():
        assets = [OWN_NAMES.get(asset, asset) for asset in product_id.split("/")]
        names["".join(assets)] = listing, "X{}Z{}".format(*assets)
    try:
        minutes, since_us = wanted.number("interval", 1), wanted.number("since", 0) * SECOND_US
        listing, name = names[wanted.given.get("pair", "")]
    except ParameterError:
        return Answer({"error": ["EGeneral:Invalid arguments"]})
    except KeyError:
        return Answer({"error": ["EQuery:Unknown asset pair"]})
    if minutes not in INTERVALS_MIN:
        return Answer({"error": ["EGeneral:Invalid arguments"]})
    length_us = minutes * MINUTE_US
    first_us = max(since_us + 1, now_us - OHLC_MAX * length_us)
    rows = [_row(candle) for candle in listing.candles(length_us, first_us, now_us + 1, now_us)]
    return Answer({"error": [], "result": {name: rows, "last": rows[-2][0] if rows[1:] else 0}})


def _row(candle: Candle) -> list[object]:
    vwap = (candle.open + candle.close) / 2
    prices = [format(price, "f") for price in (candle.open, candle.high, candle.low, candle.close, vwap)]
    return [candle.start_us // SECOND_US, *prices, f"{candle.volume:.8f}", candle.trades]


WIRE = Wire(
    "kraken",
    Timing(messages_per_s_max=4 * MESSAGES_PER_S_MAX),  # it complains long before
    session=Session,
    is_trade=is_trade,
    renumbered=renumbered,
    first_again=False,
    novelty='{"channel":"novelty","type":"update","data":[{"symbol":"BTC/USD"}]}',
    rename=('"symbol":', '"pair":'),
    notice=_status("maintenance"),
    past=past,
)
