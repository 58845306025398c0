"""Errors as answers: problem+json (RFC 9457) for every one, with the field, what was wrong and what would be right."""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.domain.errors import CrossfillError

MEDIA_TYPE = "application/problem+json"


class ProblemError(CrossfillError):
    """An answer with a status of 4xx or 5xx. `fields` names what was wrong with the request."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        fields: list[dict[str, Any]] | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,  # noqa: ANN401 -- members of the answer
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.fields = fields
        self.headers = dict(headers or {})
        self.more = more


def bad_field(field: str, problem: str, **more: Any) -> ProblemError:  # noqa: ANN401 -- members of the answer
    """Return the problem of one field that cannot be taken as it is."""
    detail = f"{field}: {problem}"
    return ProblemError(
        422,
        "The request has a field that cannot be taken",
        detail,
        fields=[{"field": field, "problem": problem, **more}],
    )


def key_reused(error: CrossfillError) -> ProblemError:
    """Return the problem of a key that was used with another body."""
    return ProblemError(
        422,
        "The Idempotency-Key was used before",
        f"{error}; take a new key for a new request",
        fields=[{"field": "Idempotency-Key", "problem": "was used with another body"}],
    )


def not_found(what: str, name: str) -> ProblemError:
    """Return the problem of an id that is not there, or is somebody else's."""
    return ProblemError(404, "Not found", f"there is no {what} {name!r}")


def unavailable(detail: str, retry_after_s: int = 1) -> ProblemError:
    """Return the problem of something that may work again in a moment."""
    return ProblemError(503, "Not available now", detail, headers={"Retry-After": str(retry_after_s)})


def respond(problem: ProblemError) -> Response:
    """Return a problem as an answer."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    if problem.fields:
        body["errors"] = problem.fields
    return JSONResponse(body, problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


async def on_problem(_request: Request, error: Exception) -> Response:
    """Answer a ProblemError."""
    assert isinstance(error, ProblemError)
    return respond(error)


async def on_http(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is no {request.url.path}",
        405: f"{request.method} is not allowed at {request.url.path}",
    }.get(error.status_code, str(error.detail))
    return respond(ProblemError(error.status_code, str(error.detail), detail, headers=error.headers))


async def on_invalid(_request: Request, error: Exception) -> Response:
    """Answer a query or path parameter that does not fit its type."""
    details = error.errors()  # type: ignore[attr-defined] # FastAPI's RequestValidationError
    fields = [{"field": str(each["loc"][-1]), "problem": each["msg"]} for each in details]
    text = "; ".join(f"{field['field']}: {field['problem']}" for field in fields)
    return respond(ProblemError(422, "The request has a field that cannot be taken", text, fields=fields))


async def on_crash(_request: Request, _error: Exception) -> Response:
    """Answer what should not have happened; the log has the rest."""
    return respond(ProblemError(500, "An error on our side", "the request failed; the server's log says why"))


class Interrupted:
    """ASGI middleware: a request that the server's end cuts off is answered 503, not uvicorn's bare 500.

    What was asked for may have been done; the same Idempotency-Key finds out.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if begun:
                raise
            answer = respond(unavailable("the server is ending; repeat with the same Idempotency-Key", 2))
            await answer(scope, receive, send)
