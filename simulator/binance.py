"""Binance spot's side of the wire: streams, requests and their answers (web-socket-streams.md)."""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulator.market import MINUTE_US, BookChanged, Candle, Event, Listing, Traded
from simulator.pasts import Answer, ParameterError, asked
from simulator.wire import Close, Renumber, Timing, Wire

ID_MAX = 36  # characters
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY")
_STREAM = re.compile(r'\{"stream":"([^"]+)","data":')
_SYMBOL = re.compile(r'"s":"([^"]+)"')
_COUNTERS = re.compile(r'"([tuU])":(\d+)')
_TIMES = re.compile(r'"([ET])":(\d+)')


class RequestError(ValueError):
    """A request that the venue refuses, with its code for that."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Session:
    """One connection: the streams it asked for, and whether payloads come in the combined form."""

    def __init__(self, target: str, listings: Mapping[str, Listing] | None) -> None:
        self.streams: dict[str, None] = {}
        self._known = listings
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        self.combined = path.startswith("/stream")
        self._microseconds = query.get("timeUnit", ["MILLISECOND"])[0].upper() == "MICROSECOND"
        named = query.get("streams", [""])[0] if self.combined else path.removeprefix("/ws").removeprefix("/")
        self.streams.update(dict.fromkeys(name for name in named.split("/") if name))

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.streams)

    def answer(self, text: str, _now_us: int) -> list[str]:
        """Return the answer to a request."""
        number: object = None
        try:
            method, params, number = _request(text)
            result = self._answer(method, params, _end(text))
        except RequestError as error:
            shown = {} if error.code or number is None else {"id": number}
            return [_dump({"code": error.code, "msg": str(error), **shown})]
        return [_dump({"result": result, "id": number})]

    def _answer(self, method: str, params: list[Any], end: str) -> list[str] | None:
        """Do what is asked and return the result. Raises RequestError."""
        if method == "LIST_SUBSCRIPTIONS":
            return list(self.streams)
        if method == "SET_PROPERTY":
            if not params or params[0] != "combined":
                raise RequestError(0, "Unknown property")
            if len(params) != 2 or not isinstance(params[1], bool):  # noqa: PLR2004 -- a name and its value
                raise RequestError(1, "Invalid value type: expected Boolean")
            self.combined = params[1]
            return None
        if not params or not all(isinstance(name, str) for name in params):
            raise RequestError(2, f"Invalid request: expected a sequence of strings at {end}")
        # An unknown name is taken without a word, and never speaks.
        if method == "SUBSCRIBE":
            self.streams.update(dict.fromkeys(params))
        else:
            self.streams = {name: None for name in self.streams if name not in params}
        return None

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event; never of a product that is not listed."""
        frames: list[str] = []
        if self._known is not None and event.product.id not in self._known:
            return frames
        for channel, payload in self._payloads(event):
            stream = f"{event.product.id.lower()}@{channel}"
            if stream in self.streams:
                frames.append(f'{{"stream":"{stream}","data":{payload}}}' if self.combined else payload)
        return frames

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, raw or combined as this connection has it, or None if it was not asked for."""
        match = _STREAM.match(frame)
        if match is None or match[1] not in self.streams:
            return None
        return frame if self.combined else frame[match.end() : -1]

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:  # noqa: ARG002 -- the server pings instead
        """Return nothing: this venue pings with WebSocket frames."""
        return []

    def overdue(self, now_us: int) -> Close | None:  # noqa: ARG002 -- the server's pings tell
        """Return nothing: only unanswered pings end a connection."""
        return None

    def _payloads(self, event: Event) -> Iterator[tuple[str, str]]:
        """Yield what the channels of a product say of an event."""
        product_id = event.product.id
        if isinstance(event, BookChanged):
            top = event.top
            bid, ask = (f'"{_number(top.bid)}","B":"{_number(top.bid_size)}"', f'"{_number(top.ask)}"')
            head = f'"u":{event.sequence},"s":"{product_id}"'
            yield "bookTicker", f'{{{head},"b":{bid},"a":{ask},"A":"{_number(top.ask_size)}"}}'
        elif isinstance(event, Traded):
            at = self._moment(event.time_us)
            taken = f'"p":"{_number(event.price)}","q":"{_number(event.size)}"'
            side = f'"T":{at},"m":{"true" if event.taker_side == "sell" else "false"},"M":true'
            head, trade = f'"E":{at},"s":"{product_id}"', event.trade_id
            yield "trade", f'{{"e":"trade",{head},"t":{trade},{taken},{side}}}'
            yield "aggTrade", f'{{"e":"aggTrade",{head},"a":{trade},{taken},"f":{trade},"l":{trade},{side}}}'
            if event.closed is not None:
                yield "kline_1m", self._kline(head, product_id, event.closed, closed=True)
            yield "kline_1m", self._kline(head, product_id, event.candle, closed=False)

    def _kline(self, head: str, product_id: str, candle: Candle, *, closed: bool) -> str:
        times = f'"t":{self._moment(candle.start_us)},"T":{self._moment(candle.start_us + MINUTE_US - 1_000)}'
        prices = zip("ochl", (candle.open, candle.close, candle.high, candle.low), strict=True)
        told = ",".join(f'"{name}":"{_number(price)}"' for name, price in prices)
        return (
            f'{{"e":"kline",{head},"k":{{{times},"s":"{product_id}","i":"1m","f":{candle.first_trade_id},'
            f'"L":{candle.last_trade_id},{told},"v":"{_number(candle.volume)}","n":{candle.trades},'
            f'"x":{"true" if closed else "false"},"q":"{_number(candle.turnover)}","V":"{_number(candle.volume / 2)}",'
            f'"Q":"{_number(candle.turnover / 2)}","B":"0"}}}}'
        )

    def _moment(self, time_us: int) -> int:
        return time_us if self._microseconds else time_us // 1000


def _request(text: str) -> tuple[str, list[Any], object]:
    """Return method, parameters and id of a request. Raises RequestError."""
    try:
        request = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise RequestError(3, f"Invalid JSON: expected value at {place}") from error
    if not isinstance(request, dict) or "method" not in request:
        raise RequestError(2, f"Invalid request: missing field `method` at {_end(text)}")
    method, params, number = request["method"], request.get("params", []), request.get("id")
    if method not in METHODS:
        expected = ", ".join(f"`{name}`" for name in METHODS)
        raise RequestError(2, f"Invalid request: unknown variant `{method}`, expected one of {expected}")
    if not isinstance(params, list):
        raise RequestError(2, f"Invalid request: invalid type, expected a sequence at {_end(text)}")
    if not _is_id(number):
        raise RequestError(2, "Invalid request: request ID must be an unsigned integer")
    return method, params, number


def _number(value: Decimal) -> str:
    return f"{value:.8f}"


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return value.isalnum() and len(value) <= ID_MAX
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _end(text: str) -> str:
    lines = text.rstrip().split("\n")
    return f"line {len(lines)} column {len(lines[-1])}"


def _dump(message: dict[str, object]) -> str:
    return json.dumps(message, separators=(",", ":"))


def is_trade(frame: str) -> bool:
    """Say whether a frame is a trade's."""
    return '"e":"trade"' in frame


def renumbered(frame: str, renumber: Renumber, later_us: int) -> str:
    """Return a recorded frame with other ids, and times that are so much later."""
    symbol = _SYMBOL.search(frame)
    if symbol is None:
        return frame
    # `U` and `u` count the same updates of a symbol, `t` its trades.
    frame = _COUNTERS.sub(lambda m: f'"{m[1]}":{renumber(f"{symbol[1]} {m[1].lower()}", int(m[2]))}', frame)
    return _TIMES.sub(lambda m: f'"{m[1]}":{int(m[2]) + later_us // 1000}', frame)


INTERVALS_MIN = {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1_440}
KLINES_MAX = 1_000


def past(target: str, listings: Mapping[str, Listing], now_us: int) -> Answer | None:
    """Answer GET /api/v3/klines: oldest first, from a start time on (rest-api.md)."""
    wanted = asked(target)
    if wanted.path != "/api/v3/klines":
        return None
    listing, minutes = listings.get(wanted.given.get("symbol", "")), INTERVALS_MIN.get(wanted.given.get("interval", ""))
    if listing is None:
        return Answer({"code": -1121, "msg": "Invalid symbol."}, 400)
    if minutes is None:
        return Answer({"code": -1120, "msg": "Invalid interval."}, 400)
    try:
        start_us, end_us = wanted.number("startTime") * 1_000, wanted.number("endTime") * 1_000
        limit = min(KLINES_MAX, wanted.number("limit", 500))
    except ParameterError as error:
        return Answer({"code": -1100, "msg": f"Illegal characters found in a parameter: {error}"}, 400)
    length_us = minutes * MINUTE_US
    made = listing.candles(length_us, start_us, min(end_us + 1, start_us + limit * length_us), now_us)
    return Answer([_row(candle, length_us) for candle in made])


def _row(candle: Candle, length_us: int) -> list[object]:
    prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    close_time, halves = (candle.start_us + length_us) // 1_000 - 1, (candle.volume / 2, candle.turnover / 2)
    texts, taken = map(_number, prices), map(_number, halves)
    return [candle.start_us // 1_000, *texts, close_time, _number(candle.turnover), candle.trades, *taken, "0"]


WIRE = Wire(
    "binance",
    Timing(messages_per_s_max=5, ping_s=20),
    session=Session,
    is_trade=is_trade,
    renumbered=renumbered,
    first_again=False,
    novelty='{"stream":"btcusdt@novelty","data":{"e":"novelty","s":"BTCUSDT"}}',
    rename=('"s":', '"symbol":'),
    notice='{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
    past=past,
)
