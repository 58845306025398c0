"""Coinbase Exchange's side of the wire: channels, their first messages, and its complaints."""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from simulator.market import BookChanged, Candle, Event, Listing, Traded
from simulator.pasts import Answer, asked
from simulator.wire import Close, Renumber, Timing, Wire

# A channel -> the name under which the venue confirms it.
CHANNELS = {"level2_batch": "level2_50", "ticker": "ticker", "matches": "matches", "heartbeat": "heartbeat"}
PRIVATE = ("level2", "level3", "full")
AUTHENTICATE = (
    "level2, level3, and full channels now require authentication. "
    "https://docs.cloud.coinbase.com/exchange/docs/websocket-auth"
)
# The type of a recorded frame -> the channel that brings it.
RECORDED = {
    "ticker": "ticker",
    "match": "matches",
    "last_match": "matches",
    "snapshot": "level2_batch",
    "l2update": "level2_batch",
    "heartbeat": "heartbeat",
}
_TYPE = re.compile(r'"type": ?"([^"]+)"')
_CANDLES = re.compile(r"/products/([^/]+)/candles")
_PRODUCT = re.compile(r'"product_id": ?"([^"]+)"')
_TRADE_ID = re.compile(r'("(?:last_)?trade_id": ?)(\d+)')
_SEQUENCE = re.compile(r'("sequence": ?)(\d+)')
_MOMENT = re.compile(r'("time": ?)"([^"]+)"')


class RequestError(ValueError):
    """A request that the venue refuses: its message, and the reason where it gives one."""

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class Session:
    """One connection: the products it asked for, by channel."""

    def __init__(self, _target: str, listings: Mapping[str, Listing] | None) -> None:
        self._listings = listings
        self._channels: dict[str, dict[str, None]] = {}
        self._played: dict[str, int] = {}  # a replay's last trade ids, by product
        self._beats_recorded = False

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._channels)

    def answer(self, text: str, _now_us: int) -> list[str]:
        """Return the answer to a request: the full list of what is subscribed, then first messages, or an error."""
        try:
            subscribe, asked = _asked(text)
            first = self._subscribe(asked) if subscribe else self._unsubscribe(asked)
        except RequestError as error:
            reason = {} if error.reason is None else {"reason": error.reason}
            return [_dump({"type": "error", "message": error.message, **reason})]
        return [self._subscriptions(), *first]

    def _subscribe(self, asked: list[tuple[str, list[str]]]) -> list[str]:
        for channel, product_ids in asked:
            self._check(channel, product_ids)
        first: list[str] = []
        for channel, product_ids in asked:
            held = self._channels.setdefault(channel, {})
            for product_id in product_ids:
                if product_id not in held:
                    held[product_id] = None
                    first += self._first(channel, product_id)
        return first

    def _check(self, channel: str, product_ids: list[str]) -> None:
        """Raise RequestError for what the venue refuses; it then takes nothing of the request."""
        refused = "Failed to subscribe"
        if channel in PRIVATE:
            raise RequestError(refused, AUTHENTICATE)
        if channel not in CHANNELS:
            raise RequestError(refused, f"{channel} is not a valid channel")
        if not product_ids:
            raise RequestError(refused, f"{channel} needs product_ids")
        for product_id in product_ids:
            if self._listings is not None and product_id not in self._listings:
                raise RequestError(refused, f"{product_id} is not a valid product")

    def _unsubscribe(self, asked: list[tuple[str, list[str]]]) -> list[str]:
        for channel, product_ids in asked:
            held = self._channels.get(channel, {})
            for product_id in product_ids or list(held):
                held.pop(product_id, None)
        self._channels = {channel: held for channel, held in self._channels.items() if held}
        return []

    def _subscriptions(self) -> str:
        channels = [
            {"name": CHANNELS[channel], "product_ids": list(held), "account_ids": None}
            for channel, held in self._channels.items()
        ]
        return _dump({"type": "subscriptions", "channels": channels})

    def _first(self, channel: str, product_id: str) -> list[str]:
        if self._listings is None:
            return []
        listing = self._listings[product_id]
        if channel == "level2_batch":
            return [_snapshot(listing)]
        if channel == "matches":
            return [_match(listing.last_trade, "last_match")]
        return [_ticker(listing.last_trade)] if channel == "ticker" else []

    def _wants(self, channel: str, product_id: str) -> bool:
        return product_id in self._channels.get(channel, ())

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event."""
        product_id = event.product.id
        if isinstance(event, BookChanged):
            return [_update(event)] if self._wants("level2_batch", product_id) else []
        if not isinstance(event, Traded):
            return []
        frames = []
        if self._wants("matches", product_id):
            frames.append(_match(event, "match"))
        if self._wants("ticker", product_id):
            frames.append(_ticker(event))
        return frames

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, or None where it was not asked for."""
        kind, product = _TYPE.search(frame), _PRODUCT.search(frame)
        channel = RECORDED.get(kind[1]) if kind else None
        if kind is None or product is None or channel is None or not self._wants(channel, product[1]):
            return None
        trade_id = _TRADE_ID.search(frame) if channel == "matches" else None
        if trade_id:
            self._played[product[1]] = int(trade_id[2])
        self._beats_recorded |= channel == "heartbeat"
        return frame

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:
        """Return a heartbeat for each product. A recording that has its own keeps them while it plays."""
        if replaying and self._beats_recorded:
            return []
        return [
            _dump(
                {
                    "type": "heartbeat",
                    "last_trade_id": self._last_trade_id(product_id),
                    "product_id": product_id,
                    "sequence": 0 if self._listings is None else self._listings[product_id].sequence,
                    "time": _time(now_us),
                },
            )
            for product_id in self._channels.get("heartbeat", ())
        ]

    def overdue(self, now_us: int) -> Close | None:  # noqa: ARG002 -- the server waits for the subscription
        """Return nothing: only a missing subscription ends a connection."""
        return None

    def _last_trade_id(self, product_id: str) -> int:
        if self._listings is None:
            return self._played.get(product_id, 0)
        return self._listings[product_id].last_trade.trade_id


def _asked(text: str) -> tuple[bool, list[tuple[str, list[str]]]]:
    """Return whether to subscribe, and the products of each channel, which may name products of its own.

    Raises RequestError.
    """
    try:
        request = json.loads(text)
    except ValueError as error:
        raise RequestError("Malformed JSON") from error
    if not isinstance(request, dict) or request.get("type") not in ("subscribe", "unsubscribe"):
        raise RequestError("Type has to be either subscribe or unsubscribe")
    common = request.get("product_ids", [])
    asked: list[tuple[str, list[str]]] = []
    for each in request.get("channels") or []:
        channel: Any = each if isinstance(each, dict) else {"name": each}
        product_ids = channel.get("product_ids", common)
        if not isinstance(channel.get("name"), str) or not isinstance(product_ids, list):
            raise RequestError("Malformed JSON", "channels are names, or objects of name and product_ids")
        asked.append((channel["name"], [str(product_id) for product_id in product_ids]))
    if not asked:
        raise RequestError("Failed to subscribe", "channels must be given")
    return request["type"] == "subscribe", asked


def _time(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"


def _price(value: Decimal) -> str:
    return format(value, "f")


def _size(value: Decimal) -> str:
    return f"{value:.8f}"


def _snapshot(listing: Listing) -> str:
    sides = {
        name: [[_price(price), _size(size)] for price, size in listing.levels(side)]
        for name, side in (("asks", "sell"), ("bids", "buy"))
    }
    return _dump({"type": "snapshot", "product_id": listing.product.id, **sides, "time": _time(listing.time_us)})


def _update(event: BookChanged) -> str:
    changes = [[side, _price(price), _size(size)] for side, price, size in event.changes]
    return _dump(
        {"type": "l2update", "product_id": event.product.id, "changes": changes, "time": _time(event.time_us)},
    )


def _match(trade: Traded, kind: str) -> str:
    maker, taker = (
        str(uuid.uuid5(uuid.NAMESPACE_OID, f"{trade.product.id} {trade.trade_id} {role}"))
        for role in ("maker", "taker")
    )
    return _dump(
        {
            "type": kind,
            "trade_id": trade.trade_id,
            "maker_order_id": maker,
            "taker_order_id": taker,
            "side": "sell" if trade.taker_side == "buy" else "buy",  # the maker's
            "size": _size(trade.size),
            "price": _price(trade.price),
            "product_id": trade.product.id,
            "sequence": trade.sequence,
            "time": _time(trade.time_us),
        },
    )


def _ticker(trade: Traded) -> str:
    top = trade.top
    return _dump(
        {
            "type": "ticker",
            "sequence": trade.sequence,
            "product_id": trade.product.id,
            "price": _price(trade.price),
            "open_24h": _price(trade.open),
            "volume_24h": _size(trade.volume),
            "low_24h": _price(trade.low),
            "high_24h": _price(trade.high),
            "volume_30d": _size(trade.volume),
            "best_bid": _price(top.bid),
            "best_bid_size": _size(top.bid_size),
            "best_ask": _price(top.ask),
            "best_ask_size": _size(top.ask_size),
            "side": trade.taker_side,
            "time": _time(trade.time_us),
            "trade_id": trade.trade_id,
            "last_size": _size(trade.size),
        },
    )


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))


def is_trade(frame: str) -> bool:
    """Say whether a frame is a trade's."""
    return frame.startswith('{"type":"match"')


def renumbered(frame: str, renumber: Renumber, later_us: int) -> str:
    """Return a recorded frame with other ids, and times that are so much later."""
    product = _PRODUCT.search(frame)
    if product is None:
        return frame
    frame = _TRADE_ID.sub(lambda m: f"{m[1]}{renumber(f'{product[1]} trade', int(m[2]))}", frame)
    frame = _SEQUENCE.sub(lambda m: f"{m[1]}{renumber(f'{product[1]} sequence', int(m[2]))}", frame)
    return _MOMENT.sub(lambda m: f'{m[1]}"{_later(m[2], later_us)}"', frame) if later_us else frame


def _later(text: str, later_us: int) -> str:
    moment = datetime.fromisoformat(text) + timedelta(microseconds=later_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


GRANULARITIES_S = ("60", "300", "900", "3600", "21600", "86400")
CANDLES_MAX = 300


def past(target: str, listings: Mapping[str, Listing], now_us: int) -> Answer | None:
    """Answer GET /products/{id}/candles: newest first; quiet intervals are left out."""
    wanted = asked(target)
    match = _CANDLES.fullmatch(wanted.path)
    if match is None:
        return None
    if match[1] not in listings:
        return Answer({"message": "NotFound"}, 404)
    if wanted.given.get("granularity") not in GRANULARITIES_S:
        return Answer({"message": "Unsupported granularity"}, 400)
    length_us = int(wanted.given["granularity"]) * 1_000_000
    try:
        ends = (datetime.fromisoformat(wanted.given[name]) for name in ("start", "end"))
        start_us, end_us = (int(moment.timestamp()) * 1_000_000 for moment in ends)
    except (KeyError, ValueError):
        return Answer({"message": "Invalid start or end"}, 400)
    if (end_us - start_us) // length_us >= CANDLES_MAX:
        return Answer({"message": f"granularity too small: more than {CANDLES_MAX} candles"}, 400)
    made = listings[match[1]].candles(length_us, start_us, end_us + 1, now_us)
    # Numbers are no texts here.
    return Answer([_row(each) for each in reversed(made) if each.trades])


def _row(candle: Candle) -> list[float]:
    prices = map(float, (candle.low, candle.high, candle.open, candle.close, candle.volume))
    return [candle.start_us // 1_000_000, *prices]


WIRE = Wire(
    "coinbase",
    Timing(messages_per_s_max=100, subscribe_within_s=5),
    session=Session,
    is_trade=is_trade,
    renumbered=renumbered,
    first_again=True,
    novelty='{"type":"novelty","product_id":"BTC-USD"}',
    rename=('"product_id":', '"product":'),
    past=past,
)
