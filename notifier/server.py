"""The Socket.IO server: who connects, which rooms, and what wakes the senders."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import socketio
import structlog
from prometheus_client import CollectorRegistry
from socketio.exceptions import ConnectionRefusedError as RefusedError
from starlette.routing import Router

from models.bus import hints
from models.bus.client import BusUnavailableError, connect_async
from models.domain.errors import CrossfillError
from models.settings import Settings
from models.store.database import Database, StoreUnavailableError
from models.store.events import newest_by_owner
from models.store.shards import beat, leave
from notifier.clients import Client
from notifier.doors import UNAVAILABLE, Doors
from notifier.legacy import Tickers
from notifier.metrics import NotifierMetrics, route
from notifier.prices import Prices
from notifier.rooms import RoomError, RoomName, rooms_of
from notifier.sending import Sender, TooSlowError
from notifier.telling import Teller

LOOK_S = 1.0
BEAT_S = 2.0
STOP_S = 2.0
KIND = "notifier"

log = structlog.get_logger()


class Notifier:
    """Socket.IO over WebSocket; rooms are chosen here and never by a client."""

    def __init__(self, settings: Settings, database: Database, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self._metrics = NotifierMetrics(registry)
        self._database = database
        self._doors = Doors(settings, database, self._metrics)
        self._teller = Teller(settings.bus, settings.market, self._metrics)
        self._tickers = Tickers(settings, self._doors)
        self._clients: dict[str, Client] = {}
        self._senders: dict[str, Sender] = {}
        self._metrics.clients.set_function(lambda: len(self._senders))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background: list[asyncio.Task[None]] = []
        self._name = f"{KIND}-{os.uname().nodename}-{os.getpid()}"
        self.io = socketio.AsyncServer(
            async_mode="asgi",
            transports=["websocket"],
            cors_allowed_origins="*",  # the token is in no cookie, so a foreign page has none
            ping_interval=10,
            ping_timeout=10,
            max_http_buffer_size=65_536,
            http_compression=False,
            logger=False,
            engineio_logger=False,
        )
        self.io.on("connect", self._connect)
        self.io.on("disconnect", self._disconnect)
        self.io.on("subscribe", self._subscribe)
        self.io.on("unsubscribe", self._unsubscribe)

    def app(self) -> socketio.ASGIApp:
        """Return the ASGI application."""
        routes = [Prices(self._doors, self._teller).route, self._tickers.route]
        beside = Router(routes, redirect_slashes=False, default=route(self._settings, self._registry))
        return socketio.ASGIApp(self.io, beside, on_startup=self.start, on_shutdown=self.stop)

    async def start(self) -> None:
        """Begin to listen for hints, to look once a second, to tell the market, and to say that this process lives."""
        runs = (self._listen, self._look, self._beat, self._teller.run)
        self._background = [asyncio.create_task(run()) for run in runs]

    async def stop(self) -> None:
        """End; clients reconnect with their cursors."""
        self._teller.close()
        tasks = [*self._background, *self._tasks.values()]
        for task in tasks:
            task.cancel()
        # Not for ever: redis-py may go on in spite of a cancellation where an answer came at the same time.
        await asyncio.wait(tasks, timeout=STOP_S)
        await self._tickers.close()
        try:
            await asyncio.to_thread(leave, self._database, self._name)
        except CrossfillError as error:
            log.warning("could not say good-bye", error=str(error))
        self._database.close()

    async def _connect(self, sid: str, _environ: dict[str, Any], auth: Any = None) -> None:  # noqa: ANN401 -- a client's JSON
        given = auth if isinstance(auth, dict) else {}
        token, last_seq = given.get("token"), given.get("last_seq")
        if not isinstance(token, str) or not token:
            self._metrics.refused.labels("no_token").inc()
            raise RefusedError("give auth: {token, last_seq}; with `make run` the token is in .crossfill/token")
        if last_seq is not None and (not isinstance(last_seq, int) or isinstance(last_seq, bool) or last_seq < 0):
            self._metrics.refused.labels("last_seq").inc()
            raise RefusedError("last_seq must be the number of the last event that you have, 0 for all, or left out")
        try:
            owner = await self._doors.owner_of(token)
        except StoreUnavailableError as error:
            raise RefusedError(UNAVAILABLE) from error
        if owner is None:
            raise RefusedError("the token is nobody's")
        await self.io.enter_room(sid, f"owner:{owner.id}")

        self._metrics.connections.inc()
        self._metrics.replays.inc(last_seq is not None)
        ready = False
        client = self._clients[sid] = Client(self.io, sid)

        async def emit(event: str, message: dict[str, Any]) -> None:
            nonlocal ready
            # The packet that the library's own emit sends, with a task for each: 150 us of CPU an event against 36.
            await self.io.eio.send(client.eio_sid, f'2["{event}",{orjson.dumps(message).decode()}]')
            ready = ready or event == "ready"
            self._metrics.resyncs.inc(event == "resync")
            if "seq" in message:
                self._metrics.sent.labels(event).inc()
                self._metrics.replayed.inc(not ready)

        sender = self._senders[sid] = Sender(self._database, owner.id, emit, client.unread)
        self._tasks[sid] = asyncio.create_task(self._serve(sid, sender, last_seq))

    async def _serve(self, sid: str, sender: Sender, last_seq: int | None) -> None:
        try:
            await sender.run(last_seq)
        except TooSlowError as error:
            self._metrics.cut_off.inc()
            log.warning("a client is cut off", reason=str(error))
            await self.io.disconnect(sid)
        except Exception as error:  # noqa: BLE001 -- one client's trouble is not the others'
            log.warning("a client's sender ended", error=repr(error))
            await self.io.disconnect(sid)

    async def _disconnect(self, sid: str, _reason: str | None = None) -> None:
        self._senders.pop(sid, None)
        client = self._clients.pop(sid, None)
        if client is not None:
            self._teller.leave(client)
        task = self._tasks.pop(sid, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _subscribe(self, sid: str, given: Any = None) -> dict[str, Any]:  # noqa: ANN401 -- a client's JSON
        return await self._move(sid, given, self._teller.join)

    async def _unsubscribe(self, sid: str, given: Any = None) -> dict[str, Any]:  # noqa: ANN401 -- likewise
        return await self._move(sid, given, self._teller.leave)

    async def _move(
        self, sid: str, given: object, move: Callable[[Client, Iterable[RoomName]], None]
    ) -> dict[str, Any]:
        """Let a client into rooms or out of them; answer with those that it is in then, or with what is wrong."""
        try:
            instruments = await self._doors.instruments()
        except StoreUnavailableError:
            return {"error": UNAVAILABLE}
        client = self._clients.get(sid)
        if client is None:
            return {"error": "the connection has ended"}
        try:
            move(client, rooms_of(given, instruments))
        except RoomError as error:
            return {"error": str(error)}
        return {"rooms": [str(name) for name in self._teller.of(client)]}

    async def _listen(self) -> None:
        """Wake the senders of whom a hint names."""
        while True:
            client = connect_async(self._settings.bus)
            try:
                async for owner_ids in hints.subscribe(client):
                    named = set(owner_ids)
                    for sender in self._senders.values():
                        if sender.owner_id in named:
                            sender.wake()
            except BusUnavailableError:
                await asyncio.sleep(LOOK_S)
            finally:
                await client.aclose()

    async def _look(self) -> None:
        """Find what hints missed, with one query for all owners."""
        while True:
            await asyncio.sleep(LOOK_S)
            senders = list(self._senders.values())
            if not senders:
                continue
            try:
                newest = await asyncio.to_thread(self._newest, {sender.owner_id for sender in senders})
            except CrossfillError as error:
                log.warning("events cannot be looked for", error=str(error))
                continue
            for sender in senders:
                if newest.get(sender.owner_id, 0) > sender.cursor:
                    sender.wake()

    def _newest(self, owner_ids: set[str]) -> dict[str, int]:
        with self._database.read() as connection:
            return newest_by_owner(connection, owner_ids)

    async def _beat(self) -> None:
        started_us = time.time_ns() // 1000
        while True:
            try:
                await asyncio.to_thread(beat, self._database, self._name, KIND, started_us)
            except CrossfillError as error:
                log.warning("the database does not answer", error=str(error))
            await asyncio.sleep(BEAT_S)
