"""The task of jobs: a wake-up that works whatever is due, claimed in the database."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

import redis
import structlog
from kombu.exceptions import OperationalError

from models.bus.client import connect
from models.bus.names import Task
from models.domain.errors import CrossfillError
from models.domain.orders import JobState
from models.settings import Settings
from models.store.database import Database
from models.store.jobs import (
    AVERAGE_KIND,
    CANDLES_KIND,
    VWAP_KIND,
    ClaimedJob,
    ClaimLostError,
    claim_due,
    fail,
    finish,
    put_back,
    report,
)
from models.store.listings import instruments_at
from models.store.venues import switches
from workers.celery import app, settings
from workers.metrics import Tally

LEASE_US = 30_000_000  # renewed with each part
TURN_S = 60.0  # far below the task's time limit; whoever is free takes the next turn
WORKER = socket.gethostname()

log = structlog.get_logger()

# What the worker's main process tells of its child's work; it is there before the child is forked.
tally: Tally | None = None

# A job's result, and what its owner is told of it; None: how far a long job is, which goes on in another turn.
Worked = tuple[dict[str, Any], dict[str, Any] | None]
Work = Callable[[Database, redis.Redis, Settings, ClaimedJob], Worked]


@cache
def database() -> Database:
    """Return this process's database, likewise made after any fork."""
    return Database.open(settings.database, pool_size=1)


@cache
def bus() -> redis.Redis:
    """Return this process's connection to the bus, made when it is first needed and so after any fork."""
    return connect(settings.bus)


@app.task(name=Task.JOB_RUN.value)
def run() -> int:
    """Work the jobs that are due; return how many ended."""
    return run_due(database(), bus(), settings, _again, tally)


def _again() -> None:
    # Where the broker is away, the sweeper finds what is left.
    with suppress(OperationalError):
        run.apply_async(retry=False)


def run_due(
    store: Database,
    client: redis.Redis,
    configured: Settings,
    again: Callable[[], None] = lambda: None,
    counts: Tally | None = None,
) -> int:
    """Claim and work jobs until none is due; return how many were worked to their end.

    A job that fails is put back, and fails for good after its last attempt. A turn ends after TURN_S;
    `again` is called then, for what is left.
    """
    ended, until = 0, time.monotonic() + TURN_S
    while time.monotonic() < until:
        claimed = claim_due(store, tuple(WORKS), WORKER, LEASE_US)
        if claimed is None:
            break
        end = _work(store, client, configured, claimed)
        ended += end == "done"
        if counts is not None:
            counts.add(claimed.kind, end)
    else:
        again()
    return ended


def _work(store: Database, client: redis.Redis, configured: Settings, claimed: ClaimedJob) -> str:
    """Work one job and return how the attempt ended, in the words of Tally."""
    try:
        try:
            result, told = WORKS[claimed.kind](store, client, configured, claimed)
            if told is None:
                put_back(store, claimed, result)
                return "continued"
            finish(store, claimed, result, told)
        except ClaimLostError:
            raise
        except Exception as error:  # noqa: BLE001 -- whatever one job holds, the others never wait for it
            expected = isinstance(error, CrossfillError)
            log.warning("a job failed", job=claimed.id, attempt=claimed.attempt, error=repr(error))
            state = fail(store, claimed, str(error) if expected else f"it could not be computed: {error!r}")
            return "failed" if state is JobState.FAILED else "put_back"
    except ClaimLostError as lost:
        log.warning("a job was overtaken", job=claimed.id, error=str(lost))
        return "overtaken"
    return "done"


# DuckDB and pyarrow are imported where they are used: fulfilment workers know these tasks too, and never work them.


def _average(store: Database, client: redis.Redis, configured: Settings, claimed: ClaimedJob) -> Worked:
    from models.archive.files import Archive  # noqa: PLC0415 -- see above
    from workers.averages import compute, told_of, wanted_of  # noqa: PLC0415 -- likewise

    with store.read() as connection:
        enabled = switches(connection)

    def progress(done: int, parts: int) -> None:
        report(store, claimed, {"done": done, "parts": parts}, LEASE_US)

    wanted = wanted_of(claimed.payload)
    known = instruments_at(store, configured.market)
    archive = Archive(configured.archive, configured.market.value)
    result = compute(wanted, known, client, archive, enabled, progress)
    return result, told_of(result)


def _over_archive(store: Database, client: redis.Redis, configured: Settings, claimed: ClaimedJob) -> Worked:
    from workers.archive import worked  # noqa: PLC0415 -- likewise

    known = instruments_at(store, configured.market)
    told = partial(report, store, claimed, lease_us=LEASE_US)
    return worked(claimed, store, client, configured, known, told)


WORKS: dict[str, Work] = {AVERAGE_KIND: _average, VWAP_KIND: _over_archive, CANDLES_KIND: _over_archive}
