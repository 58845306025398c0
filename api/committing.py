"""Group commit: orders of many requests in one transaction, by one thread, answered when it is durable."""

import asyncio
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.figures import Counters
from api.problems import unavailable
from models.bus import hints
from models.bus.client import BusUnavailableError, connect
from models.bus.wakeups import Wakeups, new_task_id
from models.domain.errors import CrossfillError
from models.store.database import Database
from models.store.orders import Accepted, NewOrder, accept

BATCH_MAX = 256
QUIET_S = 1.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    order: NewOrder
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Accepted]"


class Committer:
    """Takes orders from the event loop and stores them in batches, as many as have gathered.

    The queue in front is bounded: beyond it an order is refused at once, because one that waits long
    helps nobody.
    """

    def __init__(self, database: Database, after: "Announcer", waiting_max: int, counters: Counters) -> None:
        self._database = database
        self._counters = counters
        self._after = after
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(waiting_max)
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return self._queue.qsize()

    async def store(self, order: NewOrder) -> Accepted:
        """Store an order, with the id of the task that will wake its shard, and return when it is durable.

        Raises ProblemError with 503 where it cannot be stored now, and what the store says of the row.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(order, loop, loop.create_future())
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise unavailable(
                "more orders are coming than can be stored; repeat with the same Idempotency-Key"
            ) from None
        return await waiting.future

    def close(self) -> None:
        """Store what waits and end."""
        self._queue.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                return
            batch = [first]
            while len(batch) < BATCH_MAX:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            self._commit(batch)

    def _commit(self, batch: list[_Waiting]) -> None:
        tasks = {shard: new_task_id() for shard in {waiting.order.shard for waiting in batch}}
        rows = [replace(waiting.order, task_id=tasks[waiting.order.shard]) for waiting in batch]
        try:
            with self._counters.commits.time():
                answers = accept(self._database, rows)
        except (CrossfillError, SQLAlchemyError) as error:
            self._counters.failures.inc()
            log.warning("orders could not be stored", orders=len(batch), error=str(error))
            problem = unavailable("the database is not available; repeat with the same Idempotency-Key", 2)
            _resolve(batch, [problem] * len(batch))
            return
        _resolve(batch, answers)
        self._count(rows, answers)
        fresh = [row for row, answer in zip(rows, answers, strict=True) if isinstance(answer, Accepted)]
        if fresh:
            shards = {row.shard for row in fresh}
            owners = {row.owner_id for row in fresh}
            self._after.announce({shard: task for shard, task in tasks.items() if shard in shards}, owners)

    def _count(self, rows: list[NewOrder], answers: "Sequence[Accepted | CrossfillError]") -> None:
        self._counters.batches.observe(len(rows))
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, Accepted) and answer.existing:
                self._counters.repeated.inc()
            elif isinstance(answer, Accepted):
                self._counters.accepted.labels(row.side.value).inc()


def _resolve(batch: list[_Waiting], answers: "Sequence[Accepted | CrossfillError]") -> None:
    """Answer every request of a batch with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Accepted], Accepted | CrossfillError]]] = {}
    for waiting, answer in zip(batch, answers, strict=True):
        by_loop.setdefault(waiting.loop, []).append((waiting.future, answer))
    for loop, resolved in by_loop.items():
        loop.call_soon_threadsafe(_set_results, resolved)


def _set_results(resolved: "list[tuple[asyncio.Future[Accepted], Accepted | CrossfillError]]") -> None:
    for future, answer in resolved:
        if future.done():
            continue
        if isinstance(answer, Accepted):
            future.set_result(answer)
        else:
            future.set_exception(answer)


class Announcer:
    """Publishes wake-ups and hints after commits, on its own thread, what gathers meanwhile at once.

    Redis may be down: the rows say what is due, and everyone looks once a second.
    """

    def __init__(self, broker_url: str, bus_url: str) -> None:
        self._wakeups = Wakeups(broker_url)
        self._bus = connect(bus_url, timeout_s=1)
        self._tasks: dict[int, str] = {}
        self._owners: set[str] = set()
        self._job_task_id: str | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._hint_after = 0.0
        self._thread = threading.Thread(target=self._run, name="announce", daemon=True)
        self._thread.start()

    def announce(self, tasks: dict[int, str], owners: set[str], job_task_id: str | None = None) -> None:
        """Wake shards (or a worker for jobs) and hint owners soon."""
        with self._changed:
            self._tasks.update(tasks)
            self._owners |= owners
            self._job_task_id = job_task_id or self._job_task_id
            self._changed.notify()

    def close(self) -> None:
        """Publish what waits and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(5)
        self._wakeups.close()
        self._bus.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._tasks and not self._owners and not self._job_task_id and not self._closing:
                    self._changed.wait()
                tasks, owners, job_task_id = self._tasks, self._owners, self._job_task_id
                self._tasks, self._owners, self._job_task_id = {}, set(), None
                if self._closing and not tasks and not owners and not job_task_id:
                    return
            if tasks or job_task_id:
                self._wakeups.publish(tasks, job_task_id)
            if owners and time.monotonic() >= self._hint_after:
                try:
                    hints.publish(self._bus, owners)
                except BusUnavailableError:
                    self._hint_after = time.monotonic() + QUIET_S
