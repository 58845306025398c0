"""What workers count and tell. docs/metrics.md says what each is good for."""

import mmap
import time
from collections import Counter as Tallied
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from models.bus.latest import CollectorState
from models.domain.orders import OrderState
from models.domain.outcomes import Outcome
from models.metrics import SECONDS, SIZES

if TYPE_CHECKING:
    from models.bus.kafka import KafkaTopics
    from workers.analyst import Analysed
    from workers.fulfilment import FulfilmentLoop
    from workers.keeper import KeeperProcess


class LoopMetrics:
    """What the loops of one worker count, all of its shards together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.steps = Histogram(
            "crossfill_step_seconds", "Time that a step of the book took.", buckets=SECONDS, registry=registry
        )
        self.commits = Histogram(
            "crossfill_outcomes_commit_seconds",
            "Time that a transaction of outcomes took.",
            buckets=SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "crossfill_outcomes_batch_size",
            "Outcomes in one transaction; the sum is all that were committed.",
            buckets=SIZES,
            registry=registry,
        )
        self._placed = Counter("crossfill_orders_placed", "Orders that came into a book.", registry=registry)
        self._ended = Counter("crossfill_orders_ended", "Orders that ended.", ["state", "reason"], registry=registry)
        self._splits = Counter("crossfill_splits", "Splits committed.", ["venue"], registry=registry)
        self.dropped = Counter(
            "crossfill_books_dropped", "Books dropped by a doubt; the next owner loads them anew.", registry=registry
        )
        self.items = Counter("crossfill_quotes_taken", "Quotes and marks that books were given.", registry=registry)

    def committed(self, outcomes: Sequence[Outcome]) -> None:
        """Count what a transaction made true."""
        self._batches.observe(len(outcomes))
        self._placed.inc(sum(each.order.state is OrderState.QUEUED for each in outcomes))
        ended = Tallied((each.state.value, each.reason or "") for each in outcomes if each.state.ended)
        for (state, reason), count in ended.items():
            self._ended.labels(state, str(reason)).inc(count)
        for venue, count in Tallied(split.venue for each in outcomes for split in each.splits).items():
            self._splits.labels(venue).inc(count)


def of_shards(loops: Iterable["FulfilmentLoop"]) -> Iterator[Metric]:
    """Yield what the shards are like that this worker holds now."""
    epochs = GaugeMetricFamily("crossfill_lease_epoch", "The epoch under which this worker holds it.", labels=["shard"])
    resting = GaugeMetricFamily(
        "crossfill_orders_open",
        "Open orders by why they wait, as the book has it; at most some seconds old.",
        labels=["state", "reason"],
    )
    items = GaugeMetricFamily("crossfill_inbox_items", "Quotes and marks that wait for the book.", labels=["shard"])
    ages = GaugeMetricFamily(
        "crossfill_inbox_oldest_age_seconds", "How long the oldest of them has waited.", labels=["shard"]
    )
    conflated = CounterMetricFamily(
        "crossfill_inbox_conflated",
        "Quotes left out because newer ones came before the book could take them.",
        labels=["shard"],
    )
    reasons: Tallied[str] = Tallied()
    for loop in loops:
        shard = str(loop.lease.shard)
        epochs.add_metric([shard], loop.lease.epoch)
        reasons.update({reason.value: count for reason, count in loop.waiting.items()})
        items.add_metric([shard], len(loop.inbox))
        ages.add_metric([shard], loop.inbox.oldest_age_s())
        conflated.add_metric([shard], loop.inbox.conflated)
    for reason, count in reasons.items():
        resting.add_metric([OrderState.WORKING.value, reason], count)
    yield from (epochs, resting, items, ages, conflated)


class Account:
    """What a collector last said of itself, and when its newest quote came; for the collector to write."""

    state: CollectorState | None = None
    quoted_us: int = 0


_TOLD = {
    "messages": "Frames read.",
    "reconnects": "Connections that were lost and made again.",
    "gaps": "Places where the venue's numbering shows that something was missed.",
    "conflated": "Quotes left out because newer ones came before they could be sent.",
    "trades_lost": "Trades that were read and could not be written.",
}


def of_venues(accounts: Mapping[str, Account]) -> Iterator[Metric]:
    """Yield how the venues are read that this process has a collector for; a stand-by tells nothing but that."""
    now_us = time.time_ns() // 1000
    known = {venue: account for venue, account in accounts.items() if account.state is not None}
    connected = GaugeMetricFamily(
        "crossfill_venue_connected", "Whether this collector is connected to the venue.", labels=["venue"]
    )
    for venue, account in accounts.items():
        connected.add_metric([venue], bool(account.state and account.state.connected_since_us))
    yield connected
    for name, told in _TOLD.items():
        counted = CounterMetricFamily(f"crossfill_venue_{name}", told, labels=["venue"])
        for venue, account in known.items():
            counted.add_metric([venue], getattr(account.state, name))
        yield counted
    ages = GaugeMetricFamily("crossfill_quote_age_seconds", "Age of the venue's newest quote.", labels=["venue"])
    for venue, account in known.items():
        if account.quoted_us:
            ages.add_metric([venue], max(0, now_us - account.quoted_us) / 1e6)
    yield ages


_ANALYSED = {
    "trades": "Trades that were told.",
    "quotes_conflated": "Quotes that were not told because newer ones came before they could be.",
    "candles_closed": "Candles that were closed, and revisions of them.",
    "duplicates": "Trades that came again.",
    "late": "Trades that came after newer ones had filled their window: again, or late and then in candles alone.",
    "out_of_order": "Trades that came after newer ones and took their places in their window.",
    "refused": "Trades of which a number had hundreds of digits.",
    "gaps": "Times that batches were lost before they could be read.",
    "overtaken": "Times that another analyst was found to have gone on.",
}


def of_analyst(account: "Analysed", kafka: Sequence["KafkaTopics | KeeperProcess"] = ()) -> Iterator[Metric]:
    """Yield what the analyst did; a stand-by tells nothing but zeros. `kafka`: its producers, if any."""
    told = {f"crossfill_analysis_{name}": (sentence, getattr(account, name)) for name, sentence in _ANALYSED.items()}
    if kafka:
        told["crossfill_kafka_sent"] = ("Records that Kafka has taken.", sum(each.sent for each in kafka))
        told["crossfill_kafka_lost"] = ("Records that did not reach it: the gap.", sum(each.lost for each in kafka))
    for name, (sentence, value) in told.items():
        counted = CounterMetricFamily(name, sentence)
        counted.add_metric([], value)
        yield counted


class Tally:
    """Counts attempts at jobs by kind and end, in memory that the worker shares with the child that works them.

    Only one process may count at a time: the pool has one child.
    """

    ENDS = ("done", "continued", "put_back", "failed", "overtaken")

    def __init__(self, kinds: Collection[str]) -> None:
        self._cells = {cell: place for place, cell in enumerate((kind, end) for kind in kinds for end in self.ENDS)}
        self._counts = memoryview(mmap.mmap(-1, max(1, len(self._cells)) * 8)).cast("Q")

    def add(self, kind: str, end: str) -> None:
        """Count one."""
        self._counts[self._cells[kind, end]] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the counts."""
        ended = CounterMetricFamily("crossfill_job_attempts", "Attempts at jobs that ended.", labels=["kind", "end"])
        for cell, place in self._cells.items():
            ended.add_metric(list(cell), self._counts[place])
        yield ended
