"""Housekeeping: what is done from time to time, by any worker, and may be done twice."""

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING

import structlog

from models.bus.client import BusUnavailableError, connect, failures
from models.bus.names import Queue, Task, orders_queue
from models.bus.wakeups import Wakeups, new_task_id
from models.settings import Settings
from models.store.audit import heads
from models.store.candles import prune_candles
from models.store.database import Database, StoreUnavailableError, now_us
from models.store.events import prune
from models.store.jobs import jobs_forgotten, shards_forgotten
from models.store.pasts import prune_told
from workers.celery import app, settings
from workers.listings import lists_of, refresh
from workers.pasts import fetch_due

if TYPE_CHECKING:
    import redis

WAITING_US = 2_000_000
# A worker that ends waits for what it is at, and the next turn comes soon.
PATIENCE_S = 2.0

log = structlog.get_logger()


@cache
def database() -> Database:
    """Return this process's database, made when it is first needed and so after any fork."""
    return Database.open(settings.database, pool_size=1, patience_s=PATIENCE_S)


@cache
def bus() -> "redis.Redis":
    """Return this process's connection to the bus, likewise made after any fork."""
    return connect(settings.bus)


@app.task(name=Task.ORDER_SWEEP.value, throws=(StoreUnavailableError,))
def sweep() -> int:
    """Wake who has due work although nothing is in the queue for it; return how many wake-ups were sent."""
    return sweep_due(database(), settings)


@app.task(name=Task.EVENT_PRUNE.value)
def prune_events() -> int:
    """Delete events, and candles, that are older than they are kept; return how many."""
    return prune_old(database(), settings)


@app.task(name=Task.DATABASE_CHECKPOINT.value, throws=(StoreUnavailableError,))
def checkpoint() -> None:
    """Move SQLite's write-ahead log into its file; no process does that by itself."""
    database().checkpoint()


@app.task(name=Task.LISTING_REFRESH.value)
def refresh_listings() -> dict[str, str]:
    """Fetch the venues' lists of instruments, where the market is live; return why one was not taken, by venue."""
    return refresh(database(), lists_of(settings))


@app.task(name=Task.CANDLES_FETCH.value, throws=(StoreUnavailableError, BusUnavailableError))
def fetch_candles() -> int:
    """Ask venues for what of their past the averages of strategies want, for a moment; return how many requests."""
    return fetch_due(database(), bus(), settings)


@app.task(name=Task.AUDIT_TELL.value, throws=(StoreUnavailableError,))
def tell_heads() -> list[str]:
    """Log the head of each audit chain, as `crossfill audit verify --head` takes it; return them."""
    with database().read() as connection:
        told = [str(head) for head in heads(connection)]
    log.info("audit heads", heads=told)
    return told


def prune_old(store: Database, configured: Settings) -> int:
    """Delete events and candles that are older than they are kept, in short transactions; return how many."""
    kept_us = timedelta(days=configured.events_kept_days) // timedelta(microseconds=1)
    with store.read() as connection:
        time_us = now_us(connection)
    return (
        prune(store, time_us - kept_us)
        + prune_candles(store, configured.candles_kept, time_us)
        + prune_told(store, configured.candles_kept, time_us)
    )


def sweep_due(store: Database, configured: Settings) -> int:
    """Publish one wake-up for each shard, and one for jobs, with rows due for two seconds, none claimed, none queued.

    A backlog is never read nor published again: one message wakes for all rows, and one that is worked
    needs none. Jobs with a due time to come have no message before; this is what wakes a worker for them.
    """
    with store.read() as connection:
        waiting = shards_forgotten(connection, now_us(connection) - WAITING_US, configured.market)
        due = jobs_forgotten(connection, WAITING_US)
    if not waiting and not due:
        return 0
    client: redis.Redis = connect(configured.broker)
    wakeups = Wakeups(configured.broker)
    try:
        with failures():
            lost = [shard for shard in waiting if not client.llen(orders_queue(shard))]
            unseen = due and not client.llen(Queue.JOBS.value)
        if lost or unseen:
            wakeups.publish({shard: new_task_id() for shard in lost}, new_task_id() if unseen else None)
        return len(lost) + unseen
    except BusUnavailableError:
        return 0
    finally:
        client.close()
        wakeups.close()
