"""One venue's server: its connections, what feeds them, and the faults that befall them."""

import asyncio
import contextlib
import http
import time
from types import ModuleType
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from simulator.faults import Faults
from simulator.market import Market, Traded
from simulator.replay import Replay

TICK_S = 0.04
QUEUE_MAX = 5_000  # frames that wait for a slow client before it is cut off
REPLAY_AHEAD = 500  # frames that a replay may run ahead of its client
AGAIN = 1012  # "service restart": a replay in a loop is over, and the next connection plays it again


class Client:
    """One connection with its session and the frames that wait for it."""

    def __init__(self, connection: ServerConnection, session: Any) -> None:  # noqa: ANN401 -- a venue's Session
        self.connection = connection
        self.session = session
        self.queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_MAX)

    def put(self, frame: str) -> None:
        """Queue a frame; a client that cannot follow is cut off."""
        try:
            self.queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.connection.transport.abort()


class Venue:
    """A server that speaks one venue's protocol, from a synthetic market or from a replay.

    `wire` is the venue's module (simulator.binance, say): its Session and its limits of time.
    """

    def __init__(self, name: str, wire: ModuleType, source: Market | Replay) -> None:
        self.name = name
        self.faults = Faults()
        self._wire = wire
        self._market = source if isinstance(source, Market) else None
        self._replay = source if isinstance(source, Replay) else None
        self._clients: set[Client] = set()
        self._drops = 0

    async def listen(self, port: int, host: str = "127.0.0.1") -> Server:
        """Listen, on loopback unless told otherwise; port 0 takes a free one."""
        return await serve(
            self._serve,
            host,
            port,
            process_request=self._admit,
            ping_interval=self._wire.PING_S,
            ping_timeout=None,
            compression=None,
            max_size=2**20,
        )

    def _admit(self, connection: ServerConnection, _request: Request) -> Response | None:
        if self.faults.refused:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "refused on demand\n")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        request = connection.request
        session = self._wire.Session(request.path if request else "/", self._market)
        client = Client(connection, session)
        self._clients.add(client)
        tasks = [asyncio.create_task(self._send(client)), asyncio.create_task(self._expect(client))]
        if self._replay is not None:
            tasks.append(asyncio.create_task(self._play(client, self._replay)))
        try:
            async for text in connection:
                for answer in session.answer(text if isinstance(text, str) else text.decode()):
                    client.put(answer)
        except ConnectionClosed:
            pass
        finally:
            self._clients.discard(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _expect(self, client: Client) -> None:
        """Close a connection that asks for nothing within the venue's time."""
        if self._wire.SUBSCRIBE_WITHIN_S is not None:
            await asyncio.sleep(self._wire.SUBSCRIBE_WITHIN_S)
            if not client.session.subscribed:
                await client.connection.close(1008, "no subscription")

    async def _send(self, client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                frame = await client.queue.get()
                if self.faults.delay:
                    await asyncio.sleep(self.faults.delay)
                while self.faults.stalled:  # noqa: ASYNC110 -- a time, and nobody's event
                    await asyncio.sleep(0.05)
                if self.faults.garbage:
                    self.faults.garbage -= 1
                    frame = frame[: len(frame) // 2]
                await client.connection.send(frame)

    async def _play(self, client: Client, replay: Replay) -> None:
        """Play the sessions to one client, from its first subscription on, with their own timing."""
        while not client.session.subscribed:  # noqa: ASYNC110 -- sessions are plain objects
            await asyncio.sleep(0.01)
        started = time.monotonic()
        for at_s, frame in replay.frames():
            wanted = client.session.recorded(frame)
            if wanted is None:
                continue
            wait_s = started + at_s - time.monotonic()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            while client.queue.qsize() > REPLAY_AHEAD:  # noqa: ASYNC110 -- a queue tells no one of its length
                await asyncio.sleep(0.001)
            client.put(wanted)
        if replay.loop:
            while not client.queue.empty():  # noqa: ASYNC110 -- likewise
                await asyncio.sleep(0.01)
            await client.connection.close(AGAIN, "the session begins again")

    def tick(self, time_us: int) -> None:
        """Let the synthetic market go one step on, and tell whoever listens."""
        if self._drops < self.faults.drops:
            self._drops = self.faults.drops
            for client in list(self._clients):
                client.connection.transport.abort()
        if self._market is None or not self._clients:
            return
        for event in self._market.tick(time_us):
            if isinstance(event, Traded) and self.faults.gaps:
                self.faults.gaps -= 1
                continue
            for client in self._clients:
                for frame in client.session.frames(event):
                    client.put(frame)

    def beat(self, time_us: int) -> None:
        """Send the venue's heartbeats."""
        for client in self._clients:
            for frame in client.session.heartbeats(time_us):
                client.put(frame)

    async def run(self) -> None:
        """Tick for ever."""
        beat_at = 0.0
        while True:
            await asyncio.sleep(TICK_S if self._clients else TICK_S * 5)
            self.tick(time.time_ns() // 1000)
            if self._wire.HEARTBEAT_S is not None and time.monotonic() >= beat_at:
                beat_at = time.monotonic() + self._wire.HEARTBEAT_S
                self.beat(time.time_ns() // 1000)
