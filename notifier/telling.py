"""Telling the market: everybody in a room is sent its newest, read from the bus once for all of them.

Averages, candles and prices are conflated: a member is sent the newest of a room a few times a second, only
if it changed, and only when it has taken what it was sent before. Signals are sent each, in order.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog
from redis.asyncio import Redis

from models.bus.analysis import decode_signal
from models.bus.client import BusUnavailableError, connect_async, failures
from models.bus.forms import INTERVAL_NAMES
from models.bus.names import SIGNALS
from models.bus.quotes import entries_of
from models.domain.quotes import Market
from models.domain.signals import Signal
from notifier.metrics import NotifierMetrics
from notifier.rooms import ROOMS_MAX, Room, RoomError, RoomKind, RoomName, Told

PERIOD_S = 0.25
SIGNALS_WAITING_MAX = 1_000  # for a member that does not take what it is sent
SIGNALS_READ_MAX = 100  # at once
BLOCK_MS = 1_000
RETRY_S = 1.0
TURN = 32  # members that are sent something before others have their turn

log = structlog.get_logger()


class Member(Protocol):
    """Somebody who may be in rooms."""

    def ready(self) -> bool:
        """Whether all that was sent was taken."""

    async def take(self, told: Sequence[Told]) -> None:
        """Send messages; return at once."""

    def cut_off(self, reason: str) -> None:
        """End the connection: what cannot be conflated waits for too long."""


class _Seat:
    """What one member is in, and what it has not been sent yet."""

    def __init__(self) -> None:
        self.rooms: dict[RoomName, Room] = {}
        self.behind: dict[Room, None] = {}
        self.signals: deque[Told] = deque()


class Teller:
    """All rooms of this process. With nobody in them nothing is read; while the bus is away they pause."""

    def __init__(self, bus_url: str, market: Market, metrics: NotifierMetrics, *, period_s: float = PERIOD_S) -> None:
        self._bus_url = bus_url
        self._market = market
        self._metrics = metrics
        self._period_s = period_s
        self._rooms: dict[RoomName, Room] = {}
        self._members: dict[Room, set[Member]] = {}
        self._seats: dict[Member, _Seat] = {}
        self._due: dict[Member, None] = {}
        self._polled, self._followed = asyncio.Event(), asyncio.Event()  # whether anybody is in such rooms
        self._joined, self._news = asyncio.Event(), asyncio.Event()
        self._latest: dict[str, Signal] | None = None  # signals by symbol, while somebody wants any
        self._away = False
        self._closed = False
        for kind in RoomKind:
            metrics.subscriptions.labels(kind.value).set_function(partial(self._count, kind))

    def join(self, member: Member, names: Iterable[RoomName]) -> None:
        """Put a member into rooms; it is sent what each has now. Raises RoomError where that are too many."""
        seat = self._seats.get(member) or _Seat()
        new = [name for name in names if name not in seat.rooms]
        if len(seat.rooms) + len(new) > ROOMS_MAX:
            are, more = len(seat.rooms), len(new)
            raise RoomError(f"a client may be in {ROOMS_MAX} rooms; it is in {are}, and {more} more are too many")
        self._seats[member] = seat
        for name in new:
            room = self._rooms.get(name)
            if room is None:
                room = self._rooms[name] = Room(name, self._market)
                self._members[room] = set()
                self._show_latest(room)
            self._members[room].add(member)
            seat.rooms[name] = room
            if room.told is not None:
                self._owe(room, [member])
        self._tend()
        self._joined.set()

    def leave(self, member: Member, names: Iterable[RoomName] | None = None) -> None:
        """Take a member out of these rooms, or of all."""
        seat = self._seats.get(member)
        if seat is None:
            return
        for name in list(seat.rooms if names is None else names):
            room = seat.rooms.pop(name, None)
            if room is None:
                continue
            seat.behind.pop(room, None)
            self._members[room].discard(member)
            if not self._members[room]:
                del self._rooms[name], self._members[room]
        if not seat.rooms:
            del self._seats[member]
            self._due.pop(member, None)
        self._tend()

    def of(self, member: Member) -> list[RoomName]:
        """Return the rooms that a member is in."""
        seat = self._seats.get(member)
        return list(seat.rooms) if seat is not None else []

    def close(self) -> None:
        """Let `run` end. To cancel it is not enough: redis-py may answer in spite of it where an answer just came."""
        self._closed = True

    async def run(self) -> None:
        """Read and send until it is closed and cancelled."""
        bus = connect_async(self._bus_url)
        try:
            await asyncio.gather(*(self._always(part, bus) for part in (self._poll, self._follow, self._send)))
        finally:
            await bus.aclose()

    async def _always(self, part: Callable[[Redis], Awaitable[None]], bus: Redis) -> None:
        while not self._closed:
            try:
                await part(bus)
            except Exception as error:  # noqa: BLE001 -- one message's trouble is not the end of all rooms
                log.warning("rooms begin anew", error=repr(error))
                await asyncio.sleep(RETRY_S)

    def _tend(self) -> None:
        """Note whether anything must be read."""
        for event, wanted in (
            (self._polled, any(room.source is not None for room in self._rooms.values())),
            (self._followed, any(room.source is None for room in self._rooms.values())),
        ):
            (event.set if wanted else event.clear)()

    def _count(self, kind: RoomKind) -> int:
        return sum(len(members) for room, members in self._members.items() if room.name.kind is kind)

    def _owe(self, room: Room, members: Iterable[Member]) -> None:
        """Note that these have not been sent the newest of a room."""
        for member in members:
            self._seats[member].behind[room] = None
            self._due[member] = None
        self._news.set()

    async def _poll(self, bus: Redis) -> None:
        clock = asyncio.get_running_loop().time
        next_at = 0.0
        while not self._closed:
            await self._polled.wait()
            self._joined.clear()
            rooms = {room: room.source for room in self._rooms.values() if room.source is not None}
            if clock() >= next_at:
                next_at = clock() + self._period_s
            else:  # somebody has joined in between: only what is not known yet is read
                rooms = {room: source for room, source in rooms.items() if room.told is None}
            try:
                if rooms:
                    await self._read(bus, rooms)
            except BusUnavailableError as error:
                await self._pause(error)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._joined.wait()

    async def _read(self, bus: Redis, rooms: Mapping[Room, str]) -> None:
        sources = list(dict.fromkeys(rooms.values()))
        pipeline = bus.pipeline(transaction=False)
        for source in sources:
            pipeline.hgetall(source)
        with failures():
            fields = dict(zip(sources, await pipeline.execute(), strict=True))
        self._back()
        for room, source in rooms.items():
            try:
                if room.tell(fields[source]):
                    self._owe(room, self._members.get(room, ()))
            except Exception as error:  # noqa: BLE001 -- one room's trouble is not the others'
                log.warning("a room cannot be told", room=str(room.name), error=repr(error))

    async def _follow(self, bus: Redis) -> None:
        """Read the stream of signals while somebody wants them; each is sent once."""
        last_id: bytes | None = None
        while not self._closed:
            if not self._followed.is_set():
                last_id = self._latest = None
                await self._followed.wait()
            try:
                with failures():
                    if last_id is None:
                        last_id = await self._catch_up(bus)
                        continue
                    stream: Any = {SIGNALS: last_id}
                    entries = entries_of(await bus.xread(stream, count=SIGNALS_READ_MAX, block=BLOCK_MS))
            except BusUnavailableError as error:
                await self._pause(error)
                continue
            self._back()
            for entry_id, fields in entries:
                last_id = entry_id
                if (signal := self._signal(fields)) is not None:
                    self._raise(signal)

    async def _catch_up(self, bus: Redis) -> bytes:
        """Learn the latest signal of each pair; return the place in the stream."""
        entries: Any = await bus.xrevrange(SIGNALS)
        self._latest = {}
        for _, fields in entries:
            if (signal := self._signal(fields)) is not None:
                self._latest.setdefault(signal.symbol, signal)
        for room in self._rooms.values():
            self._show_latest(room)
            if room.source is None and room.told is not None:
                self._owe(room, self._members.get(room, ()))
        return entries[0][0] if entries else b"0"

    def _signal(self, fields: Mapping[bytes, bytes]) -> Signal | None:
        """Return the signal of an entry; None where it is another market's, or cannot be read."""
        try:
            signal = decode_signal(fields)
        except (msgspec.MsgspecError, KeyError) as error:
            log.warning("a signal cannot be read", error=repr(error))
            return None
        return signal if signal.market == self._market.value and signal.interval_s in INTERVAL_NAMES else None

    def _show_latest(self, room: Room) -> None:
        signal = (self._latest or {}).get(room.name.symbol)
        if room.source is None and signal is not None:
            room.told = room.signal(signal, snapshot=True)

    def _raise(self, signal: Signal) -> None:
        assert self._latest is not None
        self._latest[signal.symbol] = signal
        room = self._rooms.get(RoomName(RoomKind.SIGNAL, signal.symbol))
        if room is None:
            return
        self._show_latest(room)
        told = room.signal(signal, snapshot=False)
        for member in list(self._members[room]):
            seat = self._seats[member]
            seat.behind.pop(room, None)  # it comes itself, so not as what was before
            seat.signals.append(told)
            self._due[member] = None
            if len(seat.signals) > SIGNALS_WAITING_MAX:
                self.leave(member)
                member.cut_off(f"it left {SIGNALS_WAITING_MAX} signals unread")
        self._news.set()

    async def _send(self, _bus: Redis) -> None:
        """Send everybody who is ready what it has not been sent yet; look at the others again a little later."""
        while not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period_s if self._due else None):
                    await self._news.wait()
            self._news.clear()
            for turn, member in enumerate(list(self._due), 1):
                seat = self._seats.get(member)
                if seat is None or not member.ready():
                    continue
                told = [*(room.told for room in seat.behind if room.told is not None), *seat.signals]
                seat.behind.clear()
                seat.signals.clear()
                self._due.pop(member, None)
                await member.take(told)
                for each in told:
                    self._metrics.told.labels(each.kind.value).inc()
                if turn % TURN == 0:
                    await asyncio.sleep(0)

    async def _pause(self, error: BusUnavailableError) -> None:
        if not self._away:
            log.warning("rooms pause", error=str(error))
        self._away = True
        await asyncio.sleep(RETRY_S)

    def _back(self) -> None:
        if self._away:
            log.info("rooms go on")
        self._away = False
