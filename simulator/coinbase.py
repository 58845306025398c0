"""Coinbase Exchange's side of the wire: channels, their first messages, and its complaints."""

import json
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from simulator.market import Book, BookChanged, Market, Traded

PING_S: float | None = None
SUBSCRIBE_WITHIN_S: float | None = 5
HEARTBEAT_S: float | None = 1
CHANNELS = {"level2_batch": "level2_50", "ticker": "ticker", "matches": "matches", "heartbeat": "heartbeat"}
PRIVATE = {"level2", "level3", "full"}
RECORDED = {  # the type of a recorded frame -> the channel that brings it
    "ticker": "ticker",
    "match": "matches",
    "last_match": "matches",
    "snapshot": "level2_batch",
    "l2update": "level2_batch",
    "heartbeat": "heartbeat",
}
AUTHENTICATE = "level2, level3, and full channels now require authentication."


def _time(time_us: int) -> str:
    seconds, microseconds = divmod(time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{microseconds:06d}Z"


def _number(value: Decimal) -> str:
    return format(value, "f")


class Session:
    """One connection: the products it is subscribed to, by channel."""

    def __init__(self, path: str, market: Market | None) -> None:  # noqa: ARG002 -- one path only
        self._market = market
        self._channels: dict[str, dict[str, None]] = {}

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._channels)

    def answer(self, text: str) -> list[str]:
        """Return the answers to a frame from the client: the whole list, or a complaint, then first messages."""
        try:
            request = json.loads(text)
            kind = request["type"]
            asked = _asked(request)
        except (ValueError, TypeError, KeyError):
            return [_error("Malformed JSON")]
        if kind not in ("subscribe", "unsubscribe"):
            return [_error("Type has to be either subscribe or unsubscribe")]
        for channel, product_id in asked:
            problem = self._problem(channel, product_id)
            if problem:
                return [_error("Failed to subscribe", problem)]
        first: list[str] = []
        for channel, product_id in asked:
            products = self._channels.setdefault(channel, {})
            if kind == "unsubscribe":
                products.pop(product_id, None)
            elif product_id not in products:
                products[product_id] = None
                first += self._first(channel, product_id)
        self._channels = {channel: products for channel, products in self._channels.items() if products}
        return [self._subscriptions(), *first]

    def _problem(self, channel: str, product_id: str) -> str | None:
        if channel in PRIVATE:
            return AUTHENTICATE
        if channel not in CHANNELS:
            return f"{channel} is not a valid channel"
        if self._market is not None and product_id not in self._market.books:
            return f"{product_id} is not a valid product"
        return None

    def _subscriptions(self) -> str:
        channels = [
            {"name": CHANNELS[channel], "product_ids": list(products), "account_ids": None}
            for channel, products in self._channels.items()
        ]
        return _dump({"type": "subscriptions", "channels": channels})

    def _first(self, channel: str, product_id: str) -> list[str]:
        if self._market is None:
            return []
        if channel == "level2_batch":
            return [_snapshot(product_id, self._market.books[product_id])]
        last = self._market.last_trades.get(product_id)
        if channel == "matches" and last is not None:
            return [_match(last, "last_match")]
        return []

    def _wants(self, channel: str, product_id: str) -> bool:
        return product_id in self._channels.get(channel, ())

    def frames(self, event: BookChanged | Traded) -> list[str]:
        """Return the frames in which this connection hears of an event."""
        product_id = event.product.id
        if isinstance(event, BookChanged):
            return [_update(event)] if self._wants("level2_batch", product_id) else []
        frames = []
        if self._wants("matches", product_id):
            frames.append(_match(event, "match"))
        if self._wants("ticker", product_id):
            frames.append(_ticker(event))
        return frames

    def heartbeats(self, time_us: int) -> list[str]:
        """Return one heartbeat a product, with the id of its last trade."""
        trade_ids = self._market.trade_ids if self._market is not None else {}
        return [
            _dump(
                {
                    "type": "heartbeat",
                    "last_trade_id": trade_ids.get(product_id, 0),
                    "product_id": product_id,
                    "sequence": time_us,
                    "time": _time(time_us),
                },
            )
            for product_id in self._channels.get("heartbeat", ())
        ]

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, or None where it was not asked for."""
        message = json.loads(frame)
        channel = RECORDED.get(message.get("type"))
        if channel is None or not self._wants(channel, message.get("product_id", "")):
            return None
        return frame


def _asked(request: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the channels and products of a request, where each channel may name products of its own."""
    asked = []
    for channel in request["channels"]:
        named = isinstance(channel, dict)
        products = (channel.get("product_ids") if named else None) or request.get("product_ids", [])
        asked += [(channel["name"] if named else channel, product_id) for product_id in products]
    return asked


def _snapshot(product_id: str, book: Book) -> str:
    sides = {
        name: [[_number(level.price), _number(level.size)] for level in levels]
        for name, levels in (("bids", book.bids), ("asks", book.asks))
    }
    return _dump({"type": "snapshot", "product_id": product_id, **sides})


def _update(event: BookChanged) -> str:
    changes = []
    for side, before, after in (
        ("buy", event.before.bids, event.after.bids),
        ("sell", event.before.asks, event.after.asks),
    ):
        shown = {level.price: level.size for level in after}
        gone = [[side, _number(level.price), "0.00000000"] for level in before if level.price not in shown]
        changes += gone + [[side, _number(price), _number(size)] for price, size in shown.items()]
    head = {"type": "l2update", "product_id": event.product.id}
    return _dump({**head, "changes": changes, "time": _time(event.time_us)})


def _match(trade: Traded, kind: str) -> str:
    maker = "sell" if trade.taker_side == "buy" else "buy"
    orders = {
        name: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name}{trade.trade_id}"))
        for name in ("maker_order_id", "taker_order_id")
    }
    return _dump(
        {
            "type": kind,
            "trade_id": trade.trade_id,
            **orders,
            "side": maker,
            "size": _number(trade.size),
            "price": _number(trade.price),
            "product_id": trade.product.id,
            "sequence": trade.number,
            "time": _time(trade.time_us),
        },
    )


def _ticker(trade: Traded) -> str:
    bid, ask = trade.book.bids[0], trade.book.asks[0]
    day = {name: _number(trade.price) for name in ("open_24h", "low_24h", "high_24h")}
    return _dump(
        {
            "type": "ticker",
            "sequence": trade.number,
            "product_id": trade.product.id,
            "price": _number(trade.price),
            **day,
            "volume_24h": "1000.00000000",
            "volume_30d": "30000.00000000",
            "best_bid": _number(bid.price),
            "best_bid_size": _number(bid.size),
            "best_ask": _number(ask.price),
            "best_ask_size": _number(ask.size),
            "side": trade.taker_side,
            "time": _time(trade.time_us),
            "trade_id": trade.trade_id,
            "last_size": _number(trade.size),
        },
    )


def _error(message: str, reason: str | None = None) -> str:
    error = {"type": "error", "message": message}
    return _dump(error if reason is None else {**error, "reason": reason})


def _dump(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
