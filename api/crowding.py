"""Refusing orders while as many wait as may, before anything is made for a request: a crowd must cost little."""

from typing import ClassVar

from fastapi import FastAPI
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.problems import respond, unavailable
from api.services import Services

DETAIL = "more orders are coming than can be stored; repeat with the same Idempotency-Key"
DEAF_S = 0.25  # less than the Retry-After: who heeds it does not notice


class Crowded(HttpToolsProtocol):
    """uvicorn's protocol, which answers an order 503 at once where there is no room for it.

    To start a task for a request, to read and check it and then to refuse it takes several times the processor
    time, which those that were let in wait for.
    """

    app_: ClassVar[FastAPI]
    path: ClassVar[str]
    problem = unavailable(DETAIL)
    _answer = respond(problem)
    _head = b"".join(
        (b"HTTP/1.1 503 Service Unavailable\r\n", *(b"%s: %s\r\n" % header for header in _answer.raw_headers))
    )
    _body = bytes(_answer.body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override] # uvicorn has its own name for this type
        if cycle.scope["path"] == self.path and cycle.scope["method"] == "POST":
            made: Services = self.app_.state.services
            if not made.committer.let_in():
                made.counters.refused(self.problem)
                self._refuse(cycle)
                return
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type] # likewise

    def _refuse(self, cycle: RequestResponseCycle) -> None:
        more = [b"%s: %s\r\n" % header for header in cycle.default_headers]
        if not cycle.keep_alive:
            more.append(b"connection: close\r\n")
        cycle.transport.write(b"".join((self._head, *more, b"\r\n", self._body)))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        # Whoever asks again at once is read again only then: thousands who do would take all of the event loop.
        cycle.flow.pause_reading()
        self.loop.call_later(DEAF_S, self._listen_again)

    def _listen_again(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()


def crowded(app: FastAPI, path: str) -> type[HttpToolsProtocol]:
    """Return the protocol that serves this application, and refuses POSTs to this path."""
    return type("Crowded", (Crowded,), {"app_": app, "path": path})
