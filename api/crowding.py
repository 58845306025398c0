"""Refusing orders while as many wait as may: before the request is looked at, because a crowd must cost little."""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import respond, unavailable
from api.services import Services

DETAIL = "more orders are coming than can be stored; repeat with the same Idempotency-Key"


class Crowded:
    """ASGI middleware: while the committer holds as many orders as it may, the next one is answered 503 at once.

    To read, check and then refuse a request takes about twice the processor time, which those that were
    accepted wait for. The room must not be too small either: in one turn of the event loop no more are
    accepted than fit in.
    """

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path
        self._problem = unavailable(DETAIL)
        answer = respond(self._problem)
        self._start = {"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
        self._body = {"type": "http.response.body", "body": answer.body}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST":
            made: Services = scope["app"].state.services
            if len(made.committer) >= made.settings.accept_queue_max:
                made.counters.refused(self._problem)
                await send(self._start)
                await send(self._body)
                return
        await self._app(scope, receive, send)
