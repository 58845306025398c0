"""What Crossfill's accept is measured against: a bare no-op POST, and FastAPI + `task.delay()` as tutorials have it.

`uvicorn benchmarks.tutorial:noop` and, for the four forms of the tutorial design, `:async_backend`,
`:sync_backend`, `:async_plain`, `:sync_plain`. The broker comes from CROSSFILL_BROKER_URL.
"""

import os
from decimal import Decimal
from typing import Literal

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field


class LimitOrder(BaseModel):
    """The body of POST /order/limit."""

    model_config = ConfigDict(extra="forbid")

    symbol: str
    order_size: Decimal = Field(gt=0)
    price: Decimal = Field(gt=0)
    side: Literal["buy", "sell"] = "sell"
    venues: list[str] | None = None
    time_in_force: Literal["GTD", "GTC", "IOC", "FOK"] = "GTD"
    timeout_s: float | None = None
    client_order_id: str | None = None


class Accepted(BaseModel):
    """The answer."""

    job_id: str


def _celery(*, backend: bool) -> Celery:
    broker = os.environ.get("CROSSFILL_BROKER_URL", "redis://127.0.0.1:6379/0")
    return Celery("tutorial", broker=broker, backend=broker if backend else None)


def _form(*, asynchronous: bool, backend: bool) -> FastAPI:
    celery = _celery(backend=backend)

    @celery.task(name="tutorial.order")
    def fill(**_: str) -> None:
        """Do nothing: only the accept is measured."""

    app = FastAPI()

    def place(order: LimitOrder) -> Accepted:
        task = fill.delay(symbol=order.symbol, order_size=str(order.order_size), price=str(order.price))
        return Accepted(job_id=task.id)

    async def place_async(order: LimitOrder) -> Accepted:
        return place(order)

    app.post("/order/limit", status_code=202)(place_async if asynchronous else place)
    return app


def noop() -> FastAPI:
    """Return the app that validates the body and answers, and does nothing else."""
    app = FastAPI()

    @app.post("/order/limit", status_code=202)
    async def place(order: LimitOrder) -> Accepted:
        return Accepted(job_id=order.symbol)

    return app


def async_backend() -> FastAPI:
    """`async def`, with a result backend."""
    return _form(asynchronous=True, backend=True)


def sync_backend() -> FastAPI:
    """`def` (in the thread pool), with a result backend."""
    return _form(asynchronous=False, backend=True)


def async_plain() -> FastAPI:
    """`async def`, without a result backend."""
    return _form(asynchronous=True, backend=False)


def sync_plain() -> FastAPI:
    """`def` (in the thread pool), without a result backend."""
    return _form(asynchronous=False, backend=False)
