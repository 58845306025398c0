"""The application: where the server's parts meet."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api import (
    archive,
    audit,
    averages,
    candles,
    health,
    instruments,
    jobs,
    metrics,
    orders,
    prices,
    problems,
    signals,
    strategies,
    venues,
    vwap,
)
from api.announcing import Announcer
from api.committing import WRITER, Committer
from api.figures import Counters, Probe
from api.market import Market
from api.services import Services, services
from api.tokens import Tokens
from api.waiting import Waiters
from api.writer import Setup
from models.bus.client import connect_async
from models.metrics import new_registry
from models.settings import Settings
from models.store.database import Database, StoreUnavailableError
from models.store.listings import instruments_at
from models.store.schema import check
from models.store.shards import shards_count


def bootstrap(settings: Settings, writer: Sequence[str] = WRITER) -> Services:
    """Make the server's parts. Raises what the store says of a database that is not of this version.

    Tests of what a kill leaves behind hand in the command of another writer.
    """
    database = Database.open(settings.database, pool_size=20)
    check(database)
    with database.read() as connection:
        shards = shards_count(connection)
    bus = connect_async(settings.bus, timeout_s=2)
    registry = new_registry("api", settings)
    counters = Counters(registry)
    setup = Setup(settings.database, settings.broker, settings.bus, settings.log_level)
    committer = Committer(setup, settings.accept_queue_max, counters, writer)
    waiters = Waiters(database, settings.bus, settings.waiters_max)
    counters.queue.set_function(lambda: len(committer))
    counters.waiters.set_function(lambda: len(waiters))
    return Services(
        settings=settings,
        instruments=instruments_at(database, settings.market),
        database=database,
        shards=shards,
        bus=bus,
        announcer=Announcer(settings.broker, settings.bus),
        committer=committer,
        waiters=waiters,
        market=Market(bus, database, int(settings.silence_s * 1e6)),
        registry=registry,
        counters=counters,
        probe=Probe(database, connect_async(settings.broker, timeout_s=2), bus, shards, settings.market),
        tokens=Tokens(database),
    )


async def _on_problem(request: Request, error: Exception) -> Response:
    if request.url.path == orders.PLACE and isinstance(error, problems.ProblemError):
        services(request).counters.refused(error)
    return await problems.on_problem(request, error)


async def _on_store(request: Request, error: Exception) -> Response:
    return await _on_problem(request, problems.unavailable(str(error), 2))


def create_app(settings: Settings, make: Callable[[Settings], Services] = bootstrap) -> FastAPI:
    """Return the application; its parts are made when it starts and closed when it ends."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        made = make(settings)
        app.state.services = made
        made.waiters.start()
        made.committer.start()
        yield
        await made.waiters.close()
        await made.probe.close()
        await made.committer.close()
        made.announcer.close()
        await made.bus.aclose()
        made.database.close()

    app = FastAPI(title="Crossfill", version="0.1.0", lifespan=lifespan, redoc_url=None)
    for room in (
        orders,
        jobs,
        averages,
        archive,
        prices,
        vwap,
        candles,
        signals,
        strategies,
        instruments,
        venues,
        audit,
        health,
        metrics,
    ):
        app.include_router(room.router)
    # Before the described one: it is taken thousands of times a second.
    app.router.routes.insert(0, Route("/order/limit", orders.place_directly, methods=["POST"], include_in_schema=False))
    app.add_middleware(problems.Interrupted)
    app.add_exception_handler(problems.ProblemError, _on_problem)
    app.add_exception_handler(StoreUnavailableError, _on_store)
    app.add_exception_handler(HTTPException, problems.on_http)
    app.add_exception_handler(RequestValidationError, problems.on_invalid)
    app.add_exception_handler(Exception, problems.on_crash)
    return app
