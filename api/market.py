"""The market as this process sees it: prices, collectors and switches, read from the bus when they are asked for.

What was read is kept for at most 50 ms. Times are kept, not ages: whoever shows an age takes it from
now, so a kept copy's own age counts in it.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import redis.asyncio
from fastapi.concurrency import run_in_threadpool
from redis import RedisError

from api.problems import unavailable
from models.bus.history import decode_chunks
from models.bus.latest import CollectorState, LatestPrice, decode_latest, decode_states
from models.bus.names import COLLECTORS, history_stream, latest_key
from models.domain.averages import TRADE_WINDOWS_S, Fill
from models.domain.instruments import Instrument
from models.domain.sources import Input
from models.store.database import Database, StoreUnavailableError
from models.store.venues import switches

KEPT_S = 0.05
PAIRS_MAX = 2_000  # whose prices are kept
TRADES_KEPT_S = 0.5
TRADED_PAIRS_MAX = 200  # whose trades are kept
WINDOW_S = max(TRADE_WINDOWS_S.values())

Value = TypeVar("Value")


@dataclass(frozen=True)
class Seen:
    """What is known of a pair now: latest prices and collectors by venue, and which venues are on."""

    latest: Mapping[str, LatestPrice]
    collectors: Mapping[str, CollectorState]
    enabled: Mapping[str, bool]
    now_us: int
    silence_us: int

    def connected(self, venue: str) -> bool:
        """Whether the venue's collector is connected and has just said so."""
        state = self.collectors.get(venue)
        return bool(state and state.connected_since_us and self.now_us - state.marked_us <= self.silence_us)

    def connection_age_us(self, venue: str) -> int | None:
        """How long the venue has been connected; None where it is not."""
        state = self.collectors.get(venue)
        since = state.connected_since_us if state is not None and self.connected(venue) else None
        return None if since is None else max(0, self.now_us - since)


class _Kept(Generic[Value]):
    """Values that are read anew when they are too old, by one reader however many ask."""

    def __init__(self, kept_s: float, kept_max: int, read: Callable[[str], Awaitable[Value]]) -> None:
        self._kept_s = kept_s
        self._kept_max = kept_max
        self._read = read
        self._values: OrderedDict[str, tuple[float, Value]] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Value]] = {}

    async def get(self, key: str) -> Value:
        kept = self._values.get(key)
        if kept is not None and time.monotonic() - kept[0] < self._kept_s:
            return kept[1]
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._fetch(key))
        return await asyncio.shield(reading)

    def forget(self) -> None:
        self._values.clear()

    async def _fetch(self, key: str) -> Value:
        asked = time.monotonic()
        try:
            value = await self._read(key)
            self._values[key] = (asked, value)
            self._values.move_to_end(key)
            while len(self._values) > self._kept_max:
                self._values.popitem(last=False)
            return value
        finally:
            del self._reading[key]


@dataclass
class _Trades:
    """A pair's trades of the longest window, read on from where the last reading ended."""

    last_id: bytes
    fills: dict[tuple[str, str, str], Fill] = field(default_factory=dict)


class Market:
    """Reads what is asked for. Where the database is away, venues stay as they were last seen."""

    def __init__(self, bus: redis.asyncio.Redis, database: Database, silence_us: int) -> None:
        self._bus = bus
        self._database = database
        self._silence_us = silence_us
        self._switched: Mapping[str, bool] = {}
        self._latest = _Kept(KEPT_S, PAIRS_MAX, self._read_latest)
        self._common = _Kept(KEPT_S, 1, self._read_common)
        self._fills = _Kept(TRADES_KEPT_S, TRADED_PAIRS_MAX, self._read_fills)
        self._trades: OrderedDict[str, _Trades] = OrderedDict()
        # Which sources deviated when a pair was last averaged: they come back later than they went.
        self.out: dict[tuple[str, Input], frozenset[tuple[str, str]]] = {}

    async def look(self, instrument: Instrument) -> Seen:
        """Return what is known of a pair. Raises ProblemError while prices cannot be read."""
        latest, (states, enabled) = await asyncio.gather(
            self._latest.get(instrument.symbol), self._common.get(COLLECTORS)
        )
        return Seen(latest, states, enabled, time.time_ns() // 1000, self._silence_us)

    async def venues(self) -> tuple[Mapping[str, CollectorState], Mapping[str, bool]]:
        """Return what collectors said last, and which venues are on. Raises ProblemError."""
        return await self._common.get(COLLECTORS)

    async def fills(self, instrument: Instrument) -> list[Fill]:
        """Return a pair's trades of the last hour, by time. Raises ProblemError."""
        return await self._fills.get(instrument.symbol)

    def switched(self) -> None:
        """A venue was switched in this process: look again."""
        self._common.forget()

    async def _read_latest(self, symbol: str) -> Mapping[str, LatestPrice]:
        try:
            return decode_latest(await self._bus.hgetall(latest_key(symbol)))
        except (RedisError, OSError) as error:
            raise unavailable(f"prices cannot be read: {error}") from error

    async def _read_common(self, key: str) -> tuple[Mapping[str, CollectorState], Mapping[str, bool]]:
        try:
            states = decode_states(await self._bus.hgetall(key))
        except (RedisError, OSError) as error:
            raise unavailable(f"prices cannot be read: {error}") from error

        def read() -> dict[str, bool]:
            with self._database.read() as connection:
                return switches(connection)

        try:
            self._switched = await run_in_threadpool(read)
        except StoreUnavailableError:
            if not self._switched:
                raise
        return states, self._switched

    async def _read_fills(self, symbol: str) -> list[Fill]:
        now_us = time.time_ns() // 1000
        earliest_us = now_us - WINDOW_S * 1_000_000
        trades = self._trades.get(symbol) or _Trades(str(earliest_us // 1000).encode())
        try:
            entries: Any = await self._bus.xrange(history_stream(symbol), min=b"(" + trades.last_id)
        except (RedisError, OSError) as error:
            raise unavailable(f"trades cannot be read: {error}") from error
        chunks = await run_in_threadpool(decode_chunks, entries)
        kept = {key: fill for key, fill in trades.fills.items() if fill.time_us >= earliest_us}
        for chunk in chunks:
            for made in chunk.prints:
                key = (chunk.venue, chunk.product_id, made.trade_id)
                kept.setdefault(key, Fill(chunk.venue, chunk.product_id, made.time_us, made.price, made.size))
        self._trades[symbol] = _Trades(entries[-1][0] if entries else trades.last_id, kept)
        self._trades.move_to_end(symbol)
        while len(self._trades) > TRADED_PAIRS_MAX:
            self._trades.popitem(last=False)
        return sorted(kept.values(), key=lambda fill: fill.time_us)
