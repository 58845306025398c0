"""A venue's server: its connections, what feeds them, and the faults that befall them. And what drives them all."""

import asyncio
import contextlib
import http
import json
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

from simulator.faults import Faults
from simulator.market import TICK_US, Event, Listing, Market
from simulator.pasts import Answer
from simulator.replay import Replay, SessionError
from simulator.wire import Session, Timing, Wire

QUEUE_MAX = 5_000  # frames that wait for a slow client before it is cut off
STUCK_S = 30.0  # a frame that takes so long to send is not going to arrive
REPLAY_AHEAD_MAX = 500  # frames that a replay may run ahead of its client
SETTLED_S = 0.25  # a replay begins so long after a client's last request: it may send one for each product
CLOSE_TIMEOUT_S = 1
IDLE_S = 0.2  # how often to look whether anybody has come

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Client:
    """One connection with its session and the frames that wait for it, each with when it is due."""

    connection: ServerConnection
    session: Session
    faults: Faults
    asked_at: float = 0.0
    playing: bool = False
    closing: asyncio.Task[None] | None = None
    queue: asyncio.Queue[tuple[float, str | bytes]] = field(default_factory=lambda: asyncio.Queue(QUEUE_MAX))

    def put(self, frames: Iterable[str]) -> None:
        """Queue frames; a client that cannot follow is cut off."""
        for frame in frames:
            delay_s = self.faults.delay_s
            due = time.monotonic() + delay_s if delay_s else 0.0
            for spoilt in self.faults.spoil(frame):
                try:
                    self.queue.put_nowait((due, spoilt))
                except asyncio.QueueFull:
                    self.connection.transport.abort()
                    return


class Venue:
    """A server that speaks one venue's protocol, from the synthetic market or from a replay.

    `source` is the venue's part of the market, whose events `tell` passes on, or what to replay.
    """

    def __init__(self, wire: Wire, source: Mapping[str, Listing] | Replay, timing: Timing | None = None) -> None:
        self.name = wire.name
        self.faults = Faults(wire)
        self._wire = wire
        self._timing = timing or wire.timing
        self._replay = source if isinstance(source, Replay) else None
        self._listings = None if isinstance(source, Replay) else source
        self._clients: set[Client] = set()

    @property
    def busy(self) -> bool:
        """Whether anybody is subscribed to anything."""
        return any(client.session.subscribed for client in self._clients)

    async def listen(self, port: int, host: str = "127.0.0.1") -> Server:
        """Listen; port 0 takes a free one."""
        return await serve(
            self._serve,
            host,
            port,
            process_request=self._admit,
            ping_interval=None,  # our own pings stop when the venue is to be silent
            close_timeout=CLOSE_TIMEOUT_S,
            compression=None,
        )

    def tell(self, events: Iterable[Event]) -> None:
        """Pass on what happened in the synthetic market to whoever asked for it."""
        ahead_us = self.faults.ahead_us
        for event in events:
            told = replace(event, time_us=event.time_us + ahead_us) if ahead_us else event
            for client in self._clients:
                client.put(client.session.frames(told))

    def beat(self, now_us: int) -> None:
        """Send the heartbeats of this second, and close the connections that break the venue's rules."""
        told_us = now_us + self.faults.ahead_us
        for client in self._clients:
            client.put(client.session.heartbeats(told_us, replaying=client.playing))
            close = client.session.overdue(told_us)
            if close is not None and client.closing is None:
                client.closing = asyncio.create_task(client.connection.close(*close))

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        await self.faults.flow()
        if self.faults.lasts_s("refuse"):
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "refused on demand\n")
        if "Upgrade" in request.headers:
            return None
        now_us = time.time_ns() // 1000 + self.faults.ahead_us
        answer = self._wire.past(request.path, self._listed() or {}, now_us)
        if answer is None:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "there is no such path\n")
        return _response(answer, self.faults)

    async def _serve(self, connection: ServerConnection) -> None:
        target = connection.request.path if connection.request else "/"
        client = Client(connection, self._wire.session(target, self._listed()), self.faults, time.monotonic())
        _mute_pongs(connection, self.faults)
        works = [self._send(client), self._ping(connection), self._expect(client)]
        if self._replay is not None:
            works.append(self._play(client, self._replay))
        tasks = [asyncio.create_task(work) for work in works]
        self._clients.add(client)
        self.faults.connections.add(connection)
        try:
            with contextlib.suppress(ConnectionClosed):
                await self._listen_to(client)
        finally:
            self._clients.discard(client)
            self.faults.connections.discard(connection)
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("%s: %r", self.name, outcome)

    def _listed(self) -> Mapping[str, Listing] | None:
        """Return the products that can be subscribed to now; None in a replay."""
        gone = self.faults.delisted
        if self._listings is None or gone is None:
            return self._listings
        return {product_id: listing for product_id, listing in self._listings.items() if product_id != gone}

    async def _listen_to(self, client: Client) -> None:
        """Answer requests, until the client goes or sends more of them than the venue bears."""
        recent: deque[float] = deque(maxlen=self._timing.messages_per_s_max)
        async for message in client.connection:
            now = time.monotonic()
            if len(recent) == recent.maxlen and now - recent[0] < 1:
                await client.connection.close(1008, "Too many requests")
                return
            recent.append(now)
            client.asked_at = now
            text = message if isinstance(message, str) else message.decode(errors="replace")
            if not self.faults.lasts_s("mute"):
                client.put(client.session.answer(text, time.time_ns() // 1000 + self.faults.ahead_us))

    async def _send(self, client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                due, frame = await client.queue.get()
                if due:
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self.faults.flow()
                try:
                    async with asyncio.timeout(STUCK_S):
                        await client.connection.send(frame)
                except TimeoutError:
                    client.connection.transport.abort()

    async def _ping(self, connection: ServerConnection) -> None:
        """Ping as often as the venue does, and close a connection that does not answer in its time."""
        ping_s, unanswered = self._timing.ping_s, deque[tuple[float, asyncio.Future[float]]]()
        with contextlib.suppress(ConnectionClosed):
            while ping_s is not None:
                await asyncio.sleep(ping_s)
                if self.faults.lasts_s("stall") or self.faults.lasts_s("mute"):
                    continue
                while unanswered and unanswered[0][1].done():
                    unanswered.popleft()
                now = time.monotonic()
                if unanswered and now - unanswered[0][0] >= self._timing.pong_within_s:
                    await connection.close(1008, "pong timeout")
                waiter = await connection.ping(str(time.time_ns() // 1_000_000))
                unanswered.append((now, asyncio.ensure_future(waiter)))

    async def _expect(self, client: Client) -> None:
        """Close a connection that asks for nothing within the venue's time."""
        within_s = self._timing.subscribe_within_s
        if within_s is not None:
            await asyncio.sleep(within_s)
            if not client.session.subscribed:
                await client.connection.close(1008, "no subscription")

    async def _play(self, client: Client, replay: Replay) -> None:
        """Play the sessions to one client, from its first subscription on, with their own timing."""
        while not client.session.subscribed or time.monotonic() - client.asked_at < SETTLED_S:  # noqa: ASYNC110 -- a time
            await asyncio.sleep(SETTLED_S / 10)
        client.playing = True
        started = time.monotonic()
        try:
            for at_s, frame in replay.frames(self._wire):
                wait_s = started + at_s - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                # A client that is slower than the replay's speed slows it down.
                while client.queue.qsize() > REPLAY_AHEAD_MAX:  # noqa: ASYNC110 -- a queue tells nobody its length
                    await asyncio.sleep(0.001)
                wanted = client.session.recorded(frame)
                if wanted is not None:
                    client.put((wanted,))
        except SessionError as error:
            log.error("%s: the replay ends: %s", self.name, error)  # noqa: TRY400 -- the sentence says it all
        client.playing = False


def _response(answer: Answer, faults: Faults) -> Response:
    status, body = http.HTTPStatus(answer.status), json.dumps(answer.body, separators=(",", ":")).encode()
    headers = Headers({"Content-Type": "application/json", "Connection": "close"})
    if left_s := faults.lasts_s("throttle"):
        status, body = http.HTTPStatus.TOO_MANY_REQUESTS, b"{}"
        headers["Retry-After"] = str(math.ceil(left_s))
    if faults.lasts_s("nonsense"):
        body = body[: len(body) // 2]
    headers["Content-Length"] = str(len(body))
    return Response(status, status.phrase, headers, body)


def _mute_pongs(connection: ServerConnection, faults: Faults) -> None:
    """Let no pong out while the venue is mute; the library sends them by itself."""
    send = connection.protocol.send_frame

    def unless_mute(frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG or not faults.lasts_s("mute"):
            send(frame)

    connection.protocol.send_frame = unless_mute  # type: ignore[method-assign] # there is no other seam


async def drive(market: Market, venues: Sequence[Venue]) -> None:
    """Let the market tick while anybody listens, and send heartbeats each full second."""
    tick_s = TICK_US / 1_000_000
    due = time.monotonic()
    second = 0
    while True:
        busy = any(venue.busy for venue in venues)
        # What was missed while the machine stood still is not made up for.
        due = max(due + (tick_s if busy else IDLE_S), time.monotonic())
        await asyncio.sleep(due - time.monotonic())
        now_us = time.time_ns() // 1000
        events = market.tick(now_us) if busy else []
        for venue in venues:
            venue.tell(event for event in events if event.product.venue == venue.name)
            if now_us // 1_000_000 > second:
                venue.beat(now_us)
        second = now_us // 1_000_000
