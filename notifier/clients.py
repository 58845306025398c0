"""Clients of Socket.IO, as members of rooms."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import socketio
import structlog
from engineio.exceptions import SocketIsClosedError

from notifier.rooms import Told

log = structlog.get_logger()


class Client:
    """One client, by its id."""

    def __init__(self, io: socketio.AsyncServer, sid: str) -> None:
        self.sid = sid
        self.eio_sid = io.manager.eio_sid_from_sid(sid, "/")
        self._io = io
        self._ending: asyncio.Task[None] | None = None

    def unread(self) -> int:
        """Return how many packets the library holds for the client."""
        socket = self._io.eio.sockets.get(self.eio_sid)
        return socket.queue.qsize() if socket is not None else 0

    def ready(self) -> bool:
        """Whether the client has taken what it was sent, its own events too."""
        return self.unread() == 0

    async def take(self, told: Sequence[Told]) -> None:
        """Send what rooms tell; a client that has gone is sent nothing."""
        for each in told:
            with suppress(SocketIsClosedError):
                await self._io.eio.send_packet(self.eio_sid, each.packet)

    def cut_off(self, reason: str) -> None:
        """End the connection."""
        log.warning("a client is cut off", reason=reason)
        self._ending = asyncio.create_task(self._io.disconnect(self.sid))
