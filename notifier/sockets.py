"""Raw WebSockets, for clients without Socket.IO: who may read, why one is closed, and pings."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from models.domain.errors import CrossfillError
from models.store.database import StoreUnavailableError
from notifier.doors import UNAVAILABLE, Doors

BAD_REQUEST = 4400  # what HTTP answers with 400 and 401; 4000 to 4999 are for applications (RFC 6455, section 7.4.2)
UNAUTHORIZED = 4401
TRY_AGAIN = 1013  # IANA's registry of close codes: try again later
REASON_BYTES_MAX = 123  # RFC 6455, section 5.5: 125 less the code
CLOSE_S = 10.0  # for so long a client that reads slowly may take to learn why it is closed
PING_S = 20.0


class Pinged(WebSocketsSansIOProtocol):
    """For uvicorn's `ws`: a client that answers no ping is ended at once, and so is one that does not take its end.

    uvicorn waits until what it has written is read, which for one that has stopped reading is for ever. engine.io
    pings too, but frees what it holds for a client only when the connection is gone.
    """

    def keepalive_timeout(self) -> None:
        """End the connection."""
        super().keepalive_timeout()
        self.transport.abort()

    async def run_asgi(self) -> None:
        """Serve the client to its end."""
        await super().run_asgi()
        self.loop.call_later(CLOSE_S, self.transport.abort)


class Closing(CrossfillError):  # noqa: N818 -- not every end is an error
    """Says that the connection is to be closed, with which code and why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


async def admit(socket: WebSocket, doors: Doors, *, open_to_all: bool = False) -> None:
    """Ask for a token: `Authorization: Bearer`, or `?token=` for browsers, which cannot set headers. Raises Closing."""
    scheme, _, token = socket.headers.get("authorization", "").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else socket.query_params.get("token", "")
    if not token:
        if open_to_all:
            return
        doors.metrics.refused.labels("no_token").inc()
        raise Closing(UNAUTHORIZED, "give a token: `Authorization: Bearer TOKEN`, or ?token=TOKEN in the address")
    owner = await doors.owner_of(token)
    if owner is None:
        raise Closing(UNAUTHORIZED, "the token is nobody's")


async def converse(socket: WebSocket, *ways: Coroutine[Any, Any, None]) -> None:
    """Run these until the first of them ends or the client goes; what the client says is thrown away.

    Raises what that one raised.
    """
    tasks = [asyncio.create_task(way) for way in (_gone(socket), *ways)]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        await task


async def conversation(socket: WebSocket, talk: Awaitable[None]) -> None:
    """Accept a client, talk, and say why it is closed where that is not its own doing.

    It is accepted first: a browser is told nothing of a handshake that was refused. A bad request is
    told as a message of JSON too, {"error": ...}.
    """
    await socket.accept()
    try:
        await talk
    except WebSocketDisconnect:
        return
    except StoreUnavailableError:
        await _close(socket, Closing(TRY_AGAIN, UNAVAILABLE))
    except Closing as closing:
        await _close(socket, closing)


async def _close(socket: WebSocket, closing: Closing) -> None:
    with suppress(TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(CLOSE_S):
            if closing.code == BAD_REQUEST:
                await socket.send_json({"error": str(closing)})
            reason = str(closing).encode()[:REASON_BYTES_MAX].decode(errors="ignore")
            await socket.close(closing.code, reason)


async def _gone(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
