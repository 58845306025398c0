"""What the notifier counts, and GET /metrics beside Socket.IO."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from models.metrics import PATH, exposition, refusal
from models.settings import Settings

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class NotifierMetrics:
    """Clients, and what they are sent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.clients = Gauge("crossfill_clients", "Clients connected and signed in.", registry=registry)
        self.connections = Counter("crossfill_client_connections", "Clients that signed in.", registry=registry)
        self.refused = Counter("crossfill_clients_refused", "Clients that were refused.", ["reason"], registry=registry)
        self.cut_off = Counter(
            "crossfill_clients_cut_off", "Clients cut off for not taking what they were sent.", registry=registry
        )
        self.sent = Counter("crossfill_events_sent", "Events sent, to each client.", ["type"], registry=registry)
        self.replays = Counter("crossfill_replays", "Clients that came with a cursor.", registry=registry)
        self.replayed = Counter(
            "crossfill_events_replayed", "Events sent to a client before it was up to date.", registry=registry
        )
        self.resyncs = Counter(
            "crossfill_resyncs", "Clients whose cursor was too old, or newer than anything.", registry=registry
        )
        self.subscriptions = Gauge(
            "crossfill_subscriptions",
            "Rooms and streams that clients are in, each counted.",
            ["kind"],
            registry=registry,
        )
        self.told = Counter(
            "crossfill_market_messages_sent", "Market data sent, to each client.", ["kind"], registry=registry
        )


def route(settings: Settings, registry: CollectorRegistry) -> Callable[[Message, Any, Send], Awaitable[None]]:
    """Return the ASGI application of every path that is not Socket.IO's."""

    async def answer(scope: Message, _receive: object, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        refused = refusal(settings, headers.get(b"authorization"))
        status, text, content_type = 200, b"", "text/plain; charset=utf-8"
        if scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            status, text = 404, b"there is Socket.IO here, and GET /metrics\n"
        elif refused:
            status, text = refused[0], f"{refused[1]}\n".encode()
        else:
            text, content_type = await asyncio.to_thread(exposition, registry, headers.get(b"accept"))
        given = [(b"content-type", content_type.encode()), (b"content-length", str(len(text)).encode())]
        if status == 401:  # noqa: PLR2004 -- RFC 9110, section 15.5.2: it names the scheme
            given.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": status, "headers": given})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else text})

    return answer
