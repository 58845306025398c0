"""The tutorial design's worker: a task that does nothing, and one that is held by an order for as long as it waits.

`celery -A benchmarks.tutorial_worker worker`; `uvicorn benchmarks.tutorial_worker:api --factory` places the
orders. The broker comes from CROSSFILL_BROKER_URL. The order's price is judged by the latest one in Redis once a
second: a task that asks more often costs more and waits no better.
"""

import os
import time
from functools import cache

import redis
from celery import Celery
from fastapi import FastAPI

from benchmarks.tutorial import Accepted, LimitOrder
from models.bus.broker import celery_options

BROKER = os.environ.get("CROSSFILL_BROKER_URL", "redis://127.0.0.1:6379/0")
TIMEOUT_S = 30.0  # Crossfill's own default
POLL_S = 1.0
# Redis' keys: when the first and the last no-op ran, the bid, how many tasks wait, what was filled.
BEGAN, ENDED, BID, WAITING, FILLED = (
    "tutorial:began",
    "tutorial:ended",
    "tutorial:bid",
    "tutorial:waiting",
    "tutorial:filled",
)

app = Celery("tutorial_worker")
app.conf.update(celery_options(BROKER))


@cache
def _redis() -> redis.Redis:
    # A connection for each thread of the largest pool: with redis-py's own hundred most of its tasks fail.
    return redis.Redis.from_url(BROKER, decode_responses=True, max_connections=2_000, socket_timeout=TIMEOUT_S)


@app.task(name="tutorial.noop")
def noop(*, mark: str | None) -> None:
    """Do nothing; the first and the last of many tell when that was."""
    if mark is not None:
        _redis().set(mark, time.time())


@app.task(name="tutorial.wait")
def wait(*, order_id: str, price: float) -> None:
    """Sell when the bid reaches the price, or give up."""
    client, deadline = _redis(), time.monotonic() + TIMEOUT_S
    client.incr(WAITING)
    try:
        while float(client.get(BID) or 0) < price:
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_S)
        client.rpush(FILLED, f"{order_id} {time.time()}")
    finally:
        client.decr(WAITING)


def api() -> FastAPI:
    """Return the app that hands each order to a task."""
    application = FastAPI()

    @application.post("/order/limit", status_code=202)
    async def place(order: LimitOrder) -> Accepted:
        task = wait.delay(order_id=order.client_order_id, price=float(order.price))
        return Accepted(job_id=task.id)

    return application
