"""Requests that wait for their order's end: woken by hints, and looked after once a second, with one query for all."""

import asyncio
import contextlib

import structlog
from fastapi.concurrency import run_in_threadpool

from models.bus import hints
from models.bus.client import BusUnavailableError, connect_async
from models.domain.errors import CrossfillError
from models.store.database import Database
from models.store.orders import orders_by_ids
from models.store.rows import OrderRow

LOOK_S = 1.0

log = structlog.get_logger()


class Waiters:
    """A bounded number of requests, each waiting for one order."""

    def __init__(self, database: Database, bus_url: str, waiters_max: int) -> None:
        self._database = database
        self._bus_url = bus_url
        self._waiters_max = waiters_max
        self._futures: dict[str, asyncio.Future[OrderRow]] = {}
        self._hinted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen for hints."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._look())]

    async def close(self) -> None:
        """Stop; whoever waits is answered that the order is still open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._futures)

    @property
    def full(self) -> bool:
        """Whether no further request may wait."""
        return len(self._futures) >= self._waiters_max

    async def ended(self, order_id: str, wait_s: float) -> OrderRow | None:
        """Return the order when it has ended, or None after a time, or at once where too many wait."""
        if self.full:
            return None
        future = self._futures.setdefault(order_id, asyncio.get_running_loop().create_future())
        self._hinted.set()
        try:
            return await asyncio.wait_for(asyncio.shield(future), wait_s)
        except TimeoutError:
            return None
        finally:
            self._futures.pop(order_id, None)

    async def _listen(self) -> None:
        while True:
            client = connect_async(self._bus_url)
            try:
                async for _ in hints.subscribe(client):
                    if self._futures:
                        self._hinted.set()
            except BusUnavailableError:
                await asyncio.sleep(LOOK_S)
            finally:
                await client.aclose()

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hinted.wait(), LOOK_S)
            self._hinted.clear()
            if not self._futures:
                continue
            try:
                rows = await run_in_threadpool(self._read, list(self._futures))
            except CrossfillError as error:
                log.warning("waiting orders could not be read", error=str(error))
                continue
            for order_id, row in rows.items():
                future = self._futures.get(order_id)
                if future is not None and not future.done() and row.state.ended:
                    future.set_result(row)

    def _read(self, order_ids: list[str]) -> dict[str, OrderRow]:
        with self._database.read() as connection:
            return orders_by_ids(connection, order_ids)
