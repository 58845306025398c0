"""The fulfilment loop: the one owner of a shard, which steps its book and commits what the step did.

Whatever goes wrong, the loop ends and its book is dropped; whoever holds the shard next claims a new
epoch and starts from the database. Nothing is patched.
"""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO

import redis
import structlog
from prometheus_client import CollectorRegistry

from models.bus import hints
from models.bus.client import BusUnavailableError
from models.bus.quotes import QuoteReader
from models.domain.book import OUTCOMES_MAX, Book
from models.domain.errors import CrossfillError
from models.domain.instruments import Instruments
from models.domain.journal import entry, opening
from models.domain.orders import Order, Reason
from models.domain.outcomes import StepResult, VenueSwitch
from models.domain.quotes import BusItem, Mark, Market
from models.store import book as stored
from models.store.database import Database
from models.store.outcomes import commit_outcomes
from models.store.shards import Lease
from models.store.venues import switches
from workers.inbox import Inbox
from workers.marks import Marks
from workers.metrics import LoopMetrics

LOOK_S = 1.0  # rows are looked for so often even if no wake-up came
COUNT_S = 5.0  # and it is counted so often why orders wait
QUEUED_MAX = 2_000  # rows taken at once
LOADED_MAX = 5_000  # and of those that a new owner starts from
READ_BLOCK_MS = 500
READ_PAUSE_S = 0.005  # lets a few batches gather: a round trip costs more than a quote
HINT_PAUSE_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True)
class LoopSettings:
    """What a loop must know."""

    market: Market
    fee_bps: Decimal
    silence_us: int
    journal: Path | None


class StoodStillError(CrossfillError):
    """Between two steps was more time than a venue may be silent: what the book knows and what waits for it is old."""

    def __init__(self, lease: Lease, still_us: int) -> None:
        super().__init__(f"shard {lease.shard} stood still for {still_us / 1e6:.1f} s")


def clock_us() -> int:
    """Return the time in microseconds since the epoch."""
    return time.time_ns() // 1000


class FulfilmentLoop:
    """Owns the book of one shard for the life of one lease.

    `bus` reads quotes and may block for READ_BLOCK_MS; `hinter` publishes and must answer fast.
    """

    def __init__(
        self,
        lease: Lease,
        instruments: Instruments,
        database: Database,
        bus: redis.Redis,
        hinter: redis.Redis,
        settings: LoopSettings,
        metrics: LoopMetrics | None = None,
    ) -> None:
        self.lease = lease
        self.inbox = Inbox()
        self.waiting: Mapping[Reason, int] = {}  # open orders by why they wait
        self._instruments = instruments
        self._database = database
        self._bus = bus
        self._hinter = hinter
        self._settings = settings
        self._metrics = metrics or LoopMetrics(CollectorRegistry())
        self._stopping = threading.Event()
        self._number = 0
        self._stepped_us: int | None = None  # None: nothing was read yet that could be old
        self._hint_after = 0.0
        name = f"shard-{lease.shard}"
        self._threads = [
            threading.Thread(target=self._run, name=name, daemon=True),
            threading.Thread(target=self._read, name=f"{name}-quotes", daemon=True),
        ]

    def start(self) -> None:
        """Load the book and begin."""
        self._threads[0].start()

    def wake(self) -> None:
        """Look at the rows now."""
        self.inbox.wake()

    def halt(self) -> None:
        """Finish the step at hand, commit it and end; do not wait for that."""
        self._stopping.set()
        self.inbox.wake()

    def stop(self, limit_s: float = 10) -> None:
        """Halt, and wait for it."""
        self.halt()
        self._threads[0].join(limit_s)

    @property
    def alive(self) -> bool:
        """Whether the loop still owns its book."""
        return self._threads[0].is_alive()

    def _read(self) -> None:
        """Bring quotes to the inbox, for as long as the loop runs, whatever Redis does."""
        reader = QuoteReader(self._bus, self.lease.shard)
        marks = Marks(self._settings.silence_us / 2)
        pause_s = READ_PAUSE_S
        while not self._stopping.wait(pause_s):
            try:
                items, now_us = reader.read(READ_BLOCK_MS), clock_us()
                self.inbox.put([item for item in items if not isinstance(item, Mark) or marks.counts(item, now_us)])
                pause_s = READ_PAUSE_S
            except BusUnavailableError as error:
                if pause_s == READ_PAUSE_S:
                    log.warning("quotes cannot be read", shard=self.lease.shard, error=str(error))
                pause_s = min(2.0, max(0.1, pause_s * 2))

    def _run(self) -> None:
        try:
            with _journal(self._settings.journal, self.lease) as journal:
                self._work(journal)
        except Exception as error:  # noqa: BLE001 -- any doubt means: drop the book
            self._metrics.dropped.inc()
            log.warning("the book is dropped", shard=self.lease.shard, epoch=self.lease.epoch, error=repr(error))
        finally:
            self._stopping.set()

    def _work(self, journal: IO[str] | None) -> None:
        with self._database.read() as connection:
            loaded = stored.load(connection, self.lease.shard)
        book = Book(
            self._instruments,
            levels=loaded.levels,
            disabled=loaded.disabled,
            tokens=loaded.tokens,
            silence_us=self._settings.silence_us,
        )
        if journal is not None:
            began = (self._instruments, loaded.levels, loaded.disabled, self._settings.silence_us, loaded.tokens)
            journal.write(json.dumps(opening(clock_us(), *began)) + "\n")
        known = dict.fromkeys(loaded.disabled, False)
        more = self._load(book, journal)
        log.info(
            "shard owned",
            shard=self.lease.shard,
            epoch=self.lease.epoch,
            orders=len(book) + len(book.unplaced),
            market=self._settings.market.value,
        )
        # Not before: what came while a large book was loaded would be old.
        self._stepped_us = clock_us()
        self._threads[1].start()
        look_at = count_at = 0.0
        due = True
        while not self._stopping.is_set():
            if time.monotonic() >= count_at:
                count_at = time.monotonic() + COUNT_S
                self.waiting = book.waiting_counts()
            latest = time.monotonic() + self._settings.silence_us / 2e6
            # While the book has work left nothing is waited for: what has come joins the next step.
            until = 0.0 if more or due else min(look_at, latest, _monotonic(book.next_deadline_us))
            items, woken = self.inbox.wait(until)
            due = due or woken
            orders: list[Order] = []
            cancels: list[int] = []
            changed: list[VenueSwitch] = []
            if time.monotonic() >= look_at or (due and len(book.unplaced) < OUTCOMES_MAX):
                look_at = time.monotonic() + LOOK_S
                unplaced = set(book.unplaced)
                with self._database.read() as connection:
                    rows_max = QUEUED_MAX + len(unplaced)
                    rows = stored.queued(connection, self.lease.shard, rows_max, self._settings.market)
                    cancels = stored.cancels(connection, self.lease.shard, self._settings.market)
                    now_on = switches(connection)
                changed = [VenueSwitch(name, on) for name, on in now_on.items() if known.get(name, True) is not on]
                known = now_on
                due = len(rows) == rows_max
                orders = [order for order in rows if order.seq not in unplaced]
            more = self._step(book, journal, items=items, switches=changed, cancels=cancels, orders=orders)

    def _load(self, book: Book, journal: IO[str] | None) -> bool:
        """Give the book the orders that work, page by page: nobody else changes them while the lease holds."""
        more, page, seq = False, LOADED_MAX, 0
        while page == LOADED_MAX and not self._stopping.is_set():
            with self._database.read() as connection:
                orders = stored.working(connection, self.lease.shard, page, self._settings.market, after_seq=seq)
            more = self._step(book, journal, orders=orders)
            page, seq = len(orders), orders[-1].seq if orders else seq
        return more

    def _step(
        self,
        book: Book,
        journal: IO[str] | None,
        *,
        items: Sequence[BusItem] = (),
        switches: Sequence[VenueSwitch] = (),
        cancels: Sequence[int] = (),
        orders: Sequence[Order] = (),
    ) -> bool:
        """Step the book and commit what that did; return whether the book has work left."""
        now_us = self._now_us()
        if journal is not None:
            journal.write(json.dumps(entry(now_us, items, switches, cancels, orders)) + "\n")
            journal.flush()
        self._metrics.items.inc(len(items))
        with self._metrics.steps.time():
            result = book.step(now_us, items=items, switches=switches, cancels=cancels, orders=orders)
        self._commit(result)
        return result.more

    def _now_us(self) -> int:
        """Return the time for a step. Raises StoodStillError."""
        now_us, stepped_us = clock_us(), self._stepped_us
        if stepped_us is not None:
            if now_us - stepped_us >= self._settings.silence_us:
                raise StoodStillError(self.lease, now_us - stepped_us)
            self._stepped_us = now_us
        return now_us

    def _commit(self, result: StepResult) -> None:
        if not result.outcomes:
            return
        with self._metrics.commits.time():
            owners = commit_outcomes(
                self._database,
                self.lease,
                self._number,
                result.outcomes,
                result.levels,
                market=self._settings.market,
                fee_bps=self._settings.fee_bps,
            )
        self._metrics.committed(result.outcomes)
        self._number += len(result.outcomes)
        self._hint(owners)

    def _hint(self, owners: set[str]) -> None:
        if time.monotonic() < self._hint_after:
            return
        try:
            hints.publish(self._hinter, owners)
        except BusUnavailableError:
            self._hint_after = time.monotonic() + HINT_PAUSE_S


def _monotonic(time_us: int | None) -> float:
    if time_us is None:
        return float("inf")
    return time.monotonic() + max(0.0, (time_us - clock_us()) / 1e6)


@contextmanager
def _journal(folder: Path | None, lease: Lease) -> Iterator[IO[str] | None]:
    """Open a loop's journal, where one is asked for."""
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{lease.shard:03}-{lease.epoch:06}.jsonl").open("w") as file:
        yield file
