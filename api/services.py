"""What the routes work with, made once when the server starts, and who is asking."""

import time
from dataclasses import dataclass, field

import redis.asyncio
from fastapi.concurrency import run_in_threadpool
from starlette.requests import Request

from api.committing import Announcer, Committer
from api.problems import ProblemError, unavailable
from api.waiting import Waiters
from models.domain.instruments import Instruments
from models.settings import Settings
from models.store.database import Database, StoreUnavailableError
from models.store.owners import Owner, owner_of_token

TOKEN_KEPT_S = 5.0
TOKENS_MAX = 10_000


@dataclass
class Services:
    """The server's parts."""

    settings: Settings
    instruments: Instruments
    database: Database
    shards: int
    bus: redis.asyncio.Redis
    announcer: Announcer
    committer: Committer
    waiters: Waiters
    _tokens: dict[str, tuple[float, Owner]] = field(default_factory=dict)

    async def owner_of(self, token: str) -> Owner | None:
        """Return whose token this is; what the database said is kept for some seconds."""
        kept = self._tokens.get(token)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        owner = await run_in_threadpool(self._look_up, token)
        if owner is not None:
            if len(self._tokens) >= TOKENS_MAX:
                self._tokens.clear()
            self._tokens[token] = (time.monotonic() + TOKEN_KEPT_S, owner)
        return owner

    def _look_up(self, token: str) -> Owner | None:
        with self.database.read() as connection:
            return owner_of_token(connection, token)


def services(request: Request) -> Services:
    """Return the server's parts."""
    made: Services = request.app.state.services
    return made


async def signed_in(request: Request) -> Owner:
    """Return who asks. Raises ProblemError with 401 without a token that somebody has."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        try:
            owner = await services(request).owner_of(token.strip())
        except StoreUnavailableError as error:
            raise unavailable(str(error)) from error
        if owner is not None:
            return owner
        detail = "the token is nobody's; with `make run` the right one is in .crossfill/token"
    else:
        detail = "give a token: `Authorization: Bearer TOKEN`; with `make run` it is in .crossfill/token"
    raise ProblemError(401, "Who is asking?", detail, headers={"WWW-Authenticate": "Bearer"})
