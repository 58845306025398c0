"""What the routes work with, made once when the server starts, and who is asking."""

import time
from dataclasses import dataclass

import redis.asyncio
from prometheus_client import CollectorRegistry
from starlette.requests import Request

from api.announcing import Announcer
from api.committing import Committer
from api.figures import Counters, Probe
from api.market import Market
from api.problems import ProblemError, bad_field, unavailable
from api.tokens import Tokens
from api.waiting import Waiters
from models.domain.instruments import Instruments
from models.settings import Settings
from models.store.database import Database, StoreUnavailableError
from models.store.owners import Owner

ADMIN = "admin"  # the role
KEY_MAX = 255


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
    market: Market
    registry: CollectorRegistry
    counters: Counters
    probe: Probe
    tokens: Tokens

    @property
    def silence_us(self) -> int:
        """For how long a collector is believed after its last mark."""
        return int(self.settings.silence_s * 1e6)

    @staticmethod
    def now_us() -> int:
        """Return the time in microseconds since the epoch."""
        return time.time_ns() // 1000


def services(request: Request) -> Services:
    """Return the server's parts."""
    made: Services = request.app.state.services
    return made


async def signed_in(request: Request) -> Owner:
    """Return who asks. Raises ProblemError with 401 without a token that somebody has."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        try:
            owner = await services(request).tokens.owner_of(token.strip())
        except StoreUnavailableError as error:
            raise unavailable(str(error)) from error
        if owner is not None:
            return owner
        detail = "the token is nobody's; with `make run` the right one is in .crossfill/token"
    else:
        detail = "give a token: `Authorization: Bearer TOKEN`; with `make run` it is in .crossfill/token"
    raise ProblemError(401, "Who is asking?", detail, headers={"WWW-Authenticate": "Bearer"})


async def admin(request: Request) -> Owner:
    """Return who asks, where that is an admin. Raises ProblemError with 401 or 403."""
    owner = await signed_in(request)
    if owner.role != ADMIN:
        raise ProblemError(403, "Not allowed", "only an admin may do this")
    return owner


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key, quoted or bare, which are the same key."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    key = key.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':  # noqa: PLR2004 -- a pair of quotes
        key = key[1:-1]
    if not 1 <= len(key) <= KEY_MAX or not key.isprintable():
        raise bad_field("Idempotency-Key", f"must have 1 to {KEY_MAX} printable characters")
    return key


def flower_url(made: Services) -> str:
    """Return where Flower is; `crossfill up` has it on the loopback address, whatever the API's is."""
    return made.settings.flower_url or f"http://127.0.0.1:{made.settings.flower_port}"
