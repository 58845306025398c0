"""Figures: what this process counts, and what it asks the database and Redis when it is asked itself."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence

import redis.asyncio
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from redis import RedisError

from api.placing import FIELDS
from api.problems import ProblemError
from models.bus.names import Queue, orders_queue, quotes_stream
from models.domain.errors import CrossfillError
from models.domain.quotes import Market
from models.metrics import SECONDS, SIZES
from models.store.backlog import Backlog, backlog
from models.store.database import Database

PROBE_S = 1.5  # what has not answered by then is told of as down
REASONS = {401: "unauthorized", 413: "too_large", 422: "invalid", 503: "unavailable"}


class Counters:
    """What happens in this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = Counter(
            "crossfill_orders_accepted", "Orders accepted: stored, and answered with 202.", ["side"], registry=registry
        )
        self.repeated = Counter(
            "crossfill_orders_repeated",
            "Requests answered with the order that their Idempotency-Key had made before.",
            registry=registry,
        )
        self._refused = Counter(
            "crossfill_orders_refused", "Orders refused, by field or reason.", ["reason"], registry=registry
        )
        self.batches = Histogram(
            "crossfill_accept_batch_size", "Orders stored in one transaction.", buckets=SIZES, registry=registry
        )
        self.commits = Histogram(
            "crossfill_accept_commit_seconds",
            "Time that a transaction of accepted orders took.",
            buckets=SECONDS,
            registry=registry,
        )
        self.failures = Counter(
            "crossfill_accept_failures",
            "Transactions of orders that failed; each request was answered with 503.",
            registry=registry,
        )
        self.queue = Gauge("crossfill_accept_queue_size", "Orders that wait for their transaction.", registry=registry)
        self.waiters = Gauge(
            "crossfill_waiting_requests", "Requests that wait for their order's end.", registry=registry
        )

    def refused(self, problem: ProblemError) -> None:
        """Count a refusal, by a label of which there are few, whatever a client sends."""
        reason = REASONS.get(problem.status, "other")
        if problem.fields:
            field = problem.fields[0]["field"]
            reason = field if field in FIELDS else "idempotency_key" if field == "Idempotency-Key" else reason
        self._refused.labels(reason).inc()


# What is asked for at a scrape: what it says, and its labels.
PROBED: dict[str, tuple[str, tuple[str, ...]]] = {
    "crossfill_up": ("Whether a part answers this process.", ("part",)),
    "crossfill_orders_open": ("Orders accepted and in no book yet; 10,000 are counted.", ("state", "reason")),
    "crossfill_orders_oldest_unplaced_age_seconds": ("Age of the oldest of them; 0 where there is none.", ()),
    "crossfill_jobs_open": ("Jobs that are not orders, not ended; 10,000 are counted.", ("kind", "state")),
    "crossfill_jobs_oldest_due_age_seconds": ("For how long a job has been due and not claimed.", ()),
    "crossfill_shards": ("Shards, by whether a worker holds them.", ("state",)),
    "crossfill_queue_messages": ("Celery messages that wait.", ("queue",)),
    "crossfill_stream_entries": ("Batches kept in a stream of quotes; it is cut at about 5,000.", ("stream",)),
}  # fmt: skip

Sample = tuple[str, tuple[str, ...], float]


class Probe:
    """Asks the database and Redis. A part that does not answer is not asked again before it has."""

    def __init__(
        self,
        database: Database,
        broker: redis.asyncio.Redis,
        bus: redis.asyncio.Redis,
        shards: int,
        market: Market,
    ) -> None:
        self._database = database
        self._market = market
        self._broker = broker
        self._bus = bus
        self._shards = shards
        self._asking: dict[str, asyncio.Task[Sequence[Sample]]] = {}

    async def look(self) -> list[Metric]:
        """Return what is so now, within PROBE_S; of a part that does not answer only that."""
        parts = {"database": self._stored, "redis": self._passing}
        answers = await asyncio.gather(*(self._ask(part, ask) for part, ask in parts.items()))
        samples: list[Sample] = []
        for part, answer in zip(parts, answers, strict=True):
            samples += [("crossfill_up", (part,), float(answer is not None)), *(answer or ())]
        return list(_families(samples))

    async def close(self) -> None:
        """Give up what has not answered."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._broker.aclose()

    async def _ask(self, part: str, ask: Callable[[], Awaitable[Sequence[Sample]]]) -> Sequence[Sample] | None:
        task = self._asking.get(part)
        if task is None or task.done():
            task = self._asking[part] = asyncio.ensure_future(ask())
        await asyncio.wait({task}, timeout=PROBE_S)
        with contextlib.suppress(CrossfillError, RedisError, OSError, asyncio.InvalidStateError):
            return task.result()
        return None

    async def _stored(self) -> Sequence[Sample]:
        found = await run_in_threadpool(self._read)
        return [
            ("crossfill_orders_open", ("queued", "queued"), found.queued),
            ("crossfill_orders_oldest_unplaced_age_seconds", (), (found.queued_age_us or 0) / 1e6),
            *(("crossfill_jobs_open", cell, count) for cell, count in found.jobs.items()),
            ("crossfill_jobs_oldest_due_age_seconds", (), (found.due_age_us or 0) / 1e6),
            ("crossfill_shards", ("owned",), found.shards_owned),
            ("crossfill_shards", ("free",), found.shards - found.shards_owned),
        ]

    def _read(self) -> Backlog:
        with self._database.read() as connection:
            return backlog(connection, self._market, int(PROBE_S * 1000))

    async def _passing(self) -> Sequence[Sample]:
        queues = [*map(str, Queue), *(orders_queue(shard) for shard in range(self._shards))]
        streams = [quotes_stream(shard) for shard in range(self._shards)]
        lengths, entries = self._broker.pipeline(transaction=False), self._bus.pipeline(transaction=False)
        for queue in queues:
            lengths.llen(queue)
        for stream in streams:
            entries.xlen(stream)
        waiting, kept = await asyncio.gather(lengths.execute(), entries.execute())
        return [
            *(("crossfill_queue_messages", (name,), size) for name, size in zip(queues, waiting, strict=True)),
            *(("crossfill_stream_entries", (name,), size) for name, size in zip(streams, kept, strict=True)),
        ]


def _families(samples: Iterable[Sample]) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for name, labels, value in samples:
        if name not in families:
            told, label_names = PROBED[name]
            families[name] = GaugeMetricFamily(name, told, labels=label_names)
        families[name].add_metric(labels, value)
    return families.values()
