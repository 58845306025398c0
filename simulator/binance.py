"""Binance spot's side of the wire: streams, requests and their answers (web-socket-streams.md)."""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

from simulator.market import BookChanged, Event, Listing
from simulator.wire import Renumber, Timing, Wire

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

    def answer(self, text: str) -> list[str]:
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
        """Return the frames in which this connection hears of an event."""
        channel = "bookTicker" if isinstance(event, BookChanged) else "trade"
        stream = f"{event.product.id.lower()}@{channel}"
        if stream not in self.streams:
            return []
        payload = self._payload(event)
        return [f'{{"stream":"{stream}","data":{payload}}}' if self.combined else payload]

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, raw or combined as this connection has it, or None if it was not asked for."""
        match = _STREAM.match(frame)
        if match is None or match[1] not in self.streams:
            return None
        return frame if self.combined else frame[match.end() : -1]

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:  # noqa: ARG002 -- the server pings instead
        """Return nothing: this venue pings with WebSocket frames."""
        return []

    def _payload(self, event: Event) -> str:
        product_id = event.product.id
        if isinstance(event, BookChanged):
            top = event.top
            return (
                f'{{"u":{event.sequence},"s":"{product_id}","b":"{_number(top.bid)}","B":"{_number(top.bid_size)}",'
                f'"a":"{_number(top.ask)}","A":"{_number(top.ask_size)}"}}'
            )
        moment = event.time_us if self._microseconds else event.time_us // 1000
        buyer_is_maker = "true" if event.taker_side == "sell" else "false"
        return (
            f'{{"e":"trade","E":{moment},"s":"{product_id}","t":{event.trade_id},"p":"{_number(event.price)}",'
            f'"q":"{_number(event.size)}","T":{moment},"m":{buyer_is_maker},"M":true}}'
        )


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


WIRE = Wire(
    "binance",
    Timing(messages_per_s_max=5, ping_s=20),
    session=Session,
    is_trade=is_trade,
    renumbered=renumbered,
    first_again=False,
)
