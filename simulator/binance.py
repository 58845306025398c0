"""Binance spot's side of the wire: streams, requests and their answers (web-socket-streams.md)."""

import json
import re
from decimal import Decimal
from typing import Any

from simulator.market import BookChanged, Market, Traded

PING_S: float | None = 20
SUBSCRIBE_WITHIN_S: float | None = None
HEARTBEAT_S: float | None = None
_STREAM = re.compile(r'^\{"stream":"([^"]+)"')


def _number(value: Decimal) -> str:
    return f"{value:.8f}"


class Session:
    """One connection: what it is subscribed to, and whether payloads come in the combined form."""

    def __init__(self, path: str, _market: Market | None) -> None:
        self.streams: dict[str, None] = {}
        route, _, query = path.partition("?")
        self.combined = route.startswith("/stream")
        if self.combined and query.startswith("streams="):
            self.streams = dict.fromkeys(query.removeprefix("streams=").split("/"))
        elif route.startswith("/ws/"):
            self.streams = dict.fromkeys(route.removeprefix("/ws/").split("/"))

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.streams)

    def answer(self, text: str) -> list[str]:  # noqa: PLR0911 -- a list of refusals
        """Return the answer to a frame from the client."""
        try:
            request = json.loads(text)
        except ValueError:
            return [_error(3, "Invalid JSON: expected value at line 1 column 1")]
        if not isinstance(request, dict) or "method" not in request:
            return [_error(2, "Invalid request: missing field `method` at line 1 column 1")]
        number, method, params = request.get("id"), request["method"], request.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return [_result(list(self.streams), number)]
        if method == "SET_PROPERTY":
            return [self._set_property(params, number)]
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return [_error(2, f"Invalid request: unknown variant `{method}`", number)]
        if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
            return [_error(2, "Invalid request: invalid type, expected a sequence of strings", number)]
        # An unknown name is taken without a word, and never speaks.
        if method == "SUBSCRIBE":
            self.streams.update(dict.fromkeys(params))
        else:
            self.streams = {name: None for name in self.streams if name not in params}
        return [_result(None, number)]

    def _set_property(self, params: Any, number: Any) -> str:  # noqa: ANN401 -- a client's JSON
        if not isinstance(params, list) or not params or params[0] != "combined":
            return _error(0, "Unknown property", number)
        if len(params) != 2 or not isinstance(params[1], bool):  # noqa: PLR2004 -- name and value
            return _error(1, "Invalid value type: expected Boolean", number)
        self.combined = params[1]
        return _result(None, number)

    def frames(self, event: BookChanged | Traded) -> list[str]:
        """Return the frames in which this connection hears of an event."""
        channel, payload = _payload(event)
        stream = f"{event.product.id.lower()}@{channel}"
        return [self._wrap(stream, payload)] if stream in self.streams else []

    def heartbeats(self, time_us: int) -> list[str]:  # noqa: ARG002 -- every venue has one
        """Return nothing: this venue pings with WebSocket frames."""
        return []

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame in this connection's form, or None where it was not asked for."""
        match = _STREAM.match(frame)
        if match is None or match[1] not in self.streams:
            return None
        return frame if self.combined else frame[frame.index('"data":') + 7 : -1]

    def _wrap(self, stream: str, payload: str) -> str:
        return f'{{"stream":"{stream}","data":{payload}}}' if self.combined else payload


def _payload(event: BookChanged | Traded) -> tuple[str, str]:
    product = event.product
    if isinstance(event, BookChanged):
        bid, ask = event.after.bids[0], event.after.asks[0]
        return "bookTicker", (
            f'{{"u":{event.number},"s":"{product.id}","b":"{_number(bid.price)}","B":"{_number(bid.size)}",'
            f'"a":"{_number(ask.price)}","A":"{_number(ask.size)}"}}'
        )
    time_ms = event.time_us // 1000
    maker = "true" if event.taker_side == "sell" else "false"
    return "trade", (
        f'{{"e":"trade","E":{time_ms},"s":"{product.id}","t":{event.trade_id},"p":"{_number(event.price)}",'
        f'"q":"{_number(event.size)}","T":{time_ms},"m":{maker},"M":true}}'
    )


def _result(result: object, number: object) -> str:
    return json.dumps({"result": result, "id": number}, separators=(",", ":"))


def _error(code: int, message: str, number: object = None) -> str:
    error = {"code": code, "msg": message}
    return json.dumps(error if number is None else {**error, "id": number}, separators=(",", ":"))
