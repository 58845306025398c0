"""`/ws/prices?pairs=BTC-USDT,ETH-USDT`: the rooms price:PAIR as plain JSON over a raw WebSocket."""

import asyncio
from collections.abc import Sequence

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from notifier.doors import Doors
from notifier.rooms import RoomError, RoomKind, Told, rooms_of
from notifier.sockets import BAD_REQUEST, TRY_AGAIN, Closing, admit, conversation, converse
from notifier.telling import Teller


class Reader:
    """One raw client, as a member of rooms: it is told more when it has taken what it was told."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._told: Sequence[Told] = ()
        self._news = asyncio.Event()
        self._reason: str | None = None

    def ready(self) -> bool:
        """Whether all that was sent was taken."""
        return not self._news.is_set()

    async def take(self, told: Sequence[Told]) -> None:
        """Send messages, in the client's own time."""
        self._told = told
        self._news.set()

    def cut_off(self, reason: str) -> None:
        """End the connection."""
        self._reason = reason
        self._news.set()

    async def send(self) -> None:
        """Send what comes. Raises Closing, WebSocketDisconnect."""
        while True:
            await self._news.wait()
            if self._reason is not None:
                raise Closing(TRY_AGAIN, self._reason)
            for told in self._told:
                await self._socket.send_text(told.text)
            self._news.clear()


class Prices:
    """Serves the route."""

    def __init__(self, doors: Doors, teller: Teller) -> None:
        self._doors = doors
        self._teller = teller
        self.route = WebSocketRoute("/ws/prices", self._serve)

    async def _serve(self, socket: WebSocket) -> None:
        await conversation(socket, self._talk(socket))

    async def _talk(self, socket: WebSocket) -> None:
        await admit(socket, self._doors)
        pairs = [pair.strip() for pair in socket.query_params.get("pairs", "").split(",") if pair.strip()]
        if not pairs:
            raise Closing(BAD_REQUEST, "name the pairs: /ws/prices?pairs=BTC-USDT,ETH-USDT")
        instruments = await self._doors.instruments()
        reader = Reader(socket)
        try:
            self._teller.join(reader, rooms_of([f"{RoomKind.PRICE}:{pair}" for pair in pairs], instruments))
        except RoomError as error:
            raise Closing(BAD_REQUEST, str(error)) from error
        try:
            await converse(socket, reader.send())
        finally:
            self._teller.leave(reader)
