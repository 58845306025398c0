"""Rooms of market data: their names, and what each tells."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import orjson
from engineio.packet import MESSAGE, Packet

from models.bus.analysis import decode_candles, decode_vwaps
from models.bus.forms import candle_form, signal_form, vwap_form
from models.bus.latest import LatestPrice, decode_latest
from models.bus.names import latest_key, open_candles_key, vwap_key
from models.domain.candles import INTERVALS_S
from models.domain.decimals import plain
from models.domain.errors import CrossfillError
from models.domain.instruments import Instruments, UnknownSymbolError
from models.domain.quotes import Market
from models.domain.signals import Signal

ROOMS_MAX = 100  # a client
SHOWN_MAX = 80  # characters of a name that is wrong


class RoomKind(StrEnum):
    """What a room tells."""

    PRICE = "price"
    VWAP = "vwap"
    CANDLE = "candle"
    SIGNAL = "signal"


FORMS = "price:PAIR, vwap:PAIR, candle:PAIR:INTERVAL and signal:PAIR"
EVENTS = {kind: "signal.raised" if kind is RoomKind.SIGNAL else kind.value for kind in RoomKind}


class RoomError(CrossfillError):
    """What was asked for is no room, or one too many."""


@dataclass(frozen=True, slots=True)
class RoomName:
    """The canonical name of a room."""

    kind: RoomKind
    symbol: str
    interval: str | None = None

    def __str__(self) -> str:
        return ":".join(filter(None, (self.kind.value, self.symbol, self.interval)))


def rooms_of(given: object, instruments: Instruments) -> list[RoomName]:
    """Return the rooms that a client names: {"rooms": [...]}, or one text. Raises RoomError, which says what fits."""
    named = given.get("rooms") if isinstance(given, dict) else given
    named = [named] if isinstance(named, str) else named
    if not isinstance(named, list) or not named:
        raise RoomError('give {"rooms": ["price:BTC-USDT", ...]}; rooms are ' + FORMS)
    if len(named) > ROOMS_MAX:
        raise RoomError(f"{len(named)} rooms are more than the {ROOMS_MAX} that a client may be in")
    return list(dict.fromkeys(_room_of(name, instruments) for name in named))


def _room_of(name: object, instruments: Instruments) -> RoomName:
    shown = f"{str(name)[:SHOWN_MAX]!r}"
    if not isinstance(name, str):
        raise RoomError(f"{shown} is no text; rooms are {FORMS}")
    word, *rest = name.split(":")
    try:
        kind = RoomKind(word.strip().lower())
    except ValueError:
        raise RoomError(f"{shown} is no room; rooms are {FORMS}") from None
    if len(rest) != (2 if kind is RoomKind.CANDLE else 1):
        raise RoomError(f"{shown} is no room; a {kind} room is {kind}:PAIR{':INTERVAL' * (kind is RoomKind.CANDLE)}")
    try:
        symbol = instruments.resolve(rest[0][:SHOWN_MAX]).symbol
    except UnknownSymbolError as error:
        raise RoomError(f"{shown}: {error}") from error
    interval = rest[1].strip() if kind is RoomKind.CANDLE else None
    if interval is not None and interval not in INTERVALS_S:
        raise RoomError(f"{shown}: there is no interval {interval[:SHOWN_MAX]!r}; there are {', '.join(INTERVALS_S)}")
    return RoomName(kind, symbol, interval)


class Told:
    """A message to everybody in a room; each of its forms is made once."""

    def __init__(self, kind: RoomKind, message: Mapping[str, Any]) -> None:
        self.kind = kind
        self.text = orjson.dumps(message).decode()

    @cached_property
    def packet(self) -> Packet:
        """Socket.IO's form; the library keeps what it encodes."""
        return Packet(MESSAGE, data=f'2["{EVENTS[self.kind]}",{self.text}]')


class Room:
    """One room and what it tells now. `source` is the hash that it is read from, None for signals."""

    def __init__(self, name: RoomName, market: Market) -> None:
        self.name = name
        self.told: Told | None = None
        self._market = market.value
        self._head = {"room": str(name), "pair": name.symbol}
        self._read: dict[bytes, bytes] | None = None
        keys = {RoomKind.PRICE: latest_key, RoomKind.VWAP: vwap_key, RoomKind.CANDLE: open_candles_key}
        self.source = keys[name.kind](name.symbol) if name.kind in keys else None

    def tell(self, fields: dict[bytes, bytes]) -> bool:
        """Take in what the bus has now; return whether it is something else than before."""
        if self.name.interval is not None:
            end = f":{self.name.interval}".encode()
            fields = {name.removesuffix(end): text for name, text in fields.items() if name.endswith(end)}
        elif self.name.kind is RoomKind.VWAP:  # those of the last trades; `all:1m` is one of a time
            fields = {name: text for name, text in fields.items() if b":" not in name}
        if fields == self._read:
            return False
        self._read = fields
        self.told = Told(self.name.kind, self._head | self._body(fields))
        return True

    def signal(self, signal: Signal, *, snapshot: bool) -> Told:
        """Return a signal's message; a `snapshot` was raised before the member came."""
        return Told(self.name.kind, {"room": self._head["room"], "snapshot": snapshot, **signal_form(signal)})

    def _body(self, fields: dict[bytes, bytes]) -> dict[str, Any]:
        if self.name.kind is RoomKind.PRICE:
            return {"market": self._market, "prices": self._forms(decode_latest(fields), _price_form)}
        if self.name.kind is RoomKind.VWAP:
            return {"market": self._market, "vwaps": self._forms(decode_vwaps(fields), vwap_form)}
        candles = self._forms(decode_candles(fields), candle_form)
        return {"interval": self.name.interval, "market": self._market, "candles": candles}

    def _forms(self, by_venue: Mapping[str, Any], form: Callable[[Any], dict[str, Any]]) -> dict[str, dict[str, Any]]:
        # What another market left behind is not this one's.
        return {venue: form(told) for venue, told in sorted(by_venue.items()) if told.market == self._market}


def _price_form(told: LatestPrice) -> dict[str, Any]:
    names = ("bid", "bid_size", "ask", "ask_size", "last")
    values = {name: getattr(told, name) for name in names}
    texts = {name: None if value is None else plain(value) for name, value in values.items()}
    return {
        "product_id": told.product_id,
        **texts,
        "live": told.live,
        "time_us": told.quote_time_us,
        "last_time_us": told.last_time_us,
    }
