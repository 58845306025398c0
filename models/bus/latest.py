"""Latest prices, one hash a symbol, and what each collector says of itself."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import redis

from models.bus.client import failures
from models.bus.names import COLLECTORS, latest_key


class LatestPrice(msgspec.Struct, frozen=True):
    """The newest prices of one product. `live`: its best bid and ask are as of now, with sizes."""

    venue: str
    product_id: str
    last: Decimal | None
    last_time_us: int | None
    bid: Decimal | None
    bid_size: Decimal | None
    ask: Decimal | None
    ask_size: Decimal | None
    live: bool
    quote_time_us: int | None
    market: str


class CollectorState(msgspec.Struct, frozen=True):
    """A collector's own account, written with each mark. `silent_streams` have not spoken within their deadline."""

    venue: str
    token: int
    connected_since_us: int | None
    marked_us: int
    market: str
    messages: int = 0
    messages_per_s: float = 0.0
    reconnects: int = 0
    gaps: int = 0
    conflated: int = 0  # quotes left out because newer ones came before they could be sent
    trades_lost: int = 0
    silent_streams: list[str] = []


_latest_decoder = msgspec.json.Decoder(LatestPrice)
_state_decoder = msgspec.json.Decoder(CollectorState)


def decode_latest(fields: Mapping[Any, Any]) -> dict[str, LatestPrice]:
    """Return latest prices by venue from a hash as Redis gives it."""
    return {venue.decode(): _latest_decoder.decode(text) for venue, text in fields.items()}


def decode_states(fields: Mapping[Any, Any]) -> dict[str, CollectorState]:
    """Return collectors' states by venue from a hash as Redis gives it."""
    return {venue.decode(): _state_decoder.decode(text) for venue, text in fields.items()}


def read_latest(client: redis.Redis, symbol: str) -> dict[str, LatestPrice]:
    """Return a symbol's latest prices by venue. Raises BusUnavailableError."""
    with failures():
        return decode_latest(client.hgetall(latest_key(symbol)))


def read_collectors(client: redis.Redis) -> dict[str, CollectorState]:
    """Return what collectors said last, by venue. Raises BusUnavailableError."""
    with failures():
        return decode_states(client.hgetall(COLLECTORS))
