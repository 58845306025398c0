"""Collectors: each reads one exchange and writes what it says to the bus. `python -m workers.collector VENUE...`.

A connection's threads read and decode into its outbox; the collector's own thread here sends batches
and marks. Under pressure the outbox keeps each product's newest quote instead of a backlog.

Of several collectors for a venue one reads and the others stand by; a connection that will end is
replaced by one that was opened before.
"""

import gc
import math
import os
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import uuid4

import structlog
import websocket

from exchanges.registry import COMPANIONS, PROTOCOLS
from models.bus.client import BusUnavailableError, connect
from models.bus.history import CHUNK_S, HistoryWriter, parts_of
from models.bus.latest import CollectorState, LatestPrice
from models.bus.leases import BusLease
from models.bus.names import venue_lease_key
from models.bus.quotes import QuoteWriter
from models.domain.candles import VenueCandle
from models.domain.errors import CrossfillError
from models.domain.history import Chunk, Span
from models.domain.quotes import EVERY_PRODUCT, BusItem, Mark, Quote, Trade
from models.domain.shards import shard_of
from models.logs import configure_logs
from models.metrics import Families, Listener, new_registry
from models.settings import Settings
from models.store.database import Database, StoreUnavailableError
from models.store.listings import instruments_at
from models.store.shards import shards_count
from models.store.venues import ensure_venues, next_token
from workers.backoff import full_jitter
from workers.connection import Connection, clock_us, steady_s
from workers.links import CollectorSettings, Companion, Link, Opening, Rate
from workers.metrics import Account, of_venues
from workers.outbox import Outbox, Pace

MARK_S = 0.5
LATEST_S = 2.0  # all latest prices are written again so often, for a bus that was emptied
BATCH_S = 0.004  # lets a burst become one message; far below what anybody waits for
SWITCH_S = 0.0005  # of a thread's turn: with Python's 5 ms, what is to be sent under load waits for its turns too long
BUS_PAUSE_S = 0.2  # after a failed write
STANDBY_S = 0.3  # how often a stand-by looks whether it is needed
HISTORY_S = 0.02  # of writing history, and what has come is sent first
HISTORY_S_MAX = 4.0  # later, readers of the history would not find it (models.bus.history.LATE_S)
LOST_S = 10.0  # lost trades are told of no more often
CLOSED_S = 5.0  # a connection that has ended waits no longer for its successor

log = structlog.get_logger()

Part = tuple[Mapping[str, Chunk], Mapping[str, Sequence[VenueCandle]], Span | None]
Item = TypeVar("Item", Quote, Trade, Quote | Trade)
Value = TypeVar("Value")


class Lease(Protocol):
    """The claim to be the one collector that reads a venue (models.bus.leases)."""

    def hold(self) -> bool:
        """Take or renew it; return whether it is ours. Raises BusUnavailableError."""

    def release(self) -> None:
        """Give it back. Raises BusUnavailableError."""


@dataclass(frozen=True)
class Ports:
    """What a collector reaches the rest of the system by. `token` and `shards` ask the database."""

    quotes: QuoteWriter
    history: HistoryWriter
    lease: Lease
    token: Callable[[], int]
    shards: Callable[[], int]


class Collector:
    """Keeps one connection to a venue and sends what it brings to the bus.

    Where the venue, the bus or the database is away, it tries again.
    """

    def __init__(self, settings: CollectorSettings, ports: Ports) -> None:
        self._settings = settings
        self._ports = ports
        self._shard_of: dict[str, int] = {}  # by product; asked for with each connection
        self._stopping = threading.Event()
        self._reconnects = 0
        self._gaps = 0
        self._messages = 0
        self._rate = Rate()
        self._bus_down = False
        self._forgotten = False  # a write was lost, and no newer one of every quote was written since
        self._overtaken = False  # another collector has taken the lease
        self._pace = Pace()
        self._unwritten: deque[Part] = deque()  # of the history
        self._remembered_at = 0.0
        self._lost_told = self._lost_marked = 0  # of the trades that were lost on the way
        self._lost_at = -LOST_S
        self.account = Account()
        self._last: Outbox | None = None  # that of the connection before, for its last prices
        self._log = log.bind(venue=settings.venue, market=settings.market)

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stopping.set()

    def run(self) -> None:
        """Connect, and connect again, until stopped; stand by while another collector reads the venue."""
        failures, standing_by = 0, False
        while not self._stopping.is_set():
            if not self._ours(unknown=False):
                if not standing_by:
                    self._log.info("standing by: another collector reads the venue, or the bus does not answer")
                standing_by = True
                self._stopping.wait(STANDBY_S)
                continue
            standing_by, started, announced = False, steady_s(), False
            try:
                announced = self._session()
            except (websocket.WebSocketException, OSError, CrossfillError) as error:
                self._log.warning("no connection", error=str(error) or repr(error))
            if self._stopping.is_set():
                break
            if steady_s() - started >= self._settings.healthy_s:
                failures = 0
            wait_s = full_jitter(failures, self._settings.backoff_base_s, self._settings.backoff_cap_s)
            if announced and failures == 0:
                wait_s = 0
            failures += 1
            self._reconnects += 1
            self._log.info("connecting again", wait_s=round(wait_s, 1))
            # The lease may run out meanwhile: a stand-by may be luckier.
            self._stopping.wait(wait_s)
        try:
            self._ports.lease.release()
        except BusUnavailableError:
            self._log.info("the lease runs out by itself: the bus does not answer")

    def _ours(self, *, unknown: bool) -> bool:
        """Say whether this collector is the one to read the venue; `unknown` where nobody can tell."""
        try:
            return self._ports.lease.hold()
        except BusUnavailableError:
            return unknown

    def _open(self) -> Link:
        shards, products = self._ports.shards(), self._settings.instruments.products_of(self._settings.venue)
        if not shards:
            raise CrossfillError("the database has no shards yet: run `python -m cli.migrate` first")
        self._shard_of = {pid: shard_of(instrument.symbol, shards) for pid, instrument in products.items()}
        token = self._ports.token()
        link = Link(self._settings, token, self._log)
        self._log.info("connected", token=token)
        return link

    def _session(self) -> bool:
        """Run one connection, and those that replace it; return whether its end was announced."""
        self._overtaken = False
        link = self._open()
        companion = self._settings.companion and Companion(self._settings.companion, link.outbox, self._log)
        opening: Opening | None = None
        if self._last is not None:
            link.outbox.inherit(self._last)
        try:
            while True:
                opening, successor = self._pump(link, opening)
                if successor is None:
                    return link.connection.announced
                self._log.info("the next connection takes over", token=successor.token)
                self._end(link)
                successor.outbox.inherit(link.outbox)
                link, opening = successor, None
                if companion is not None:
                    companion.outbox = link.outbox
        finally:
            for each in (opening, companion):
                if each is not None:
                    each.close()
            self._end(link)
            link.outbox.forget()
            self._flush(link, None if self._overtaken else self._state(None, link), last=True)

    def _end(self, link: Link) -> None:
        connection = link.connection
        connection.close()
        self._messages += connection.messages
        self._gaps += connection.gaps
        self._flush(link, last=True)
        self._remember(link)
        self._write_history()
        self._last = link.outbox

    def _pump(self, link: Link, opening: Opening | None) -> tuple[Opening | None, Link | None]:
        """Send what a connection brings until it ends; return the one that takes over, where there is one."""
        connection, due = link.connection, _Due(chunk_at=steady_s() + CHUNK_S)
        while not self._stopping.is_set():
            link.outbox.wait(MARK_S / 2)
            if connection.stood_still():
                break
            self._flush(link)
            now = steady_s()
            opening = self._opening(connection, opening, due, now)
            successor = None if opening is None else opening.link
            if successor is not None and (successor.connection.warm or connection.closing.is_set()):
                return None, successor
            if connection.closing.is_set():
                if opening is None or now >= connection.read_at + CLOSED_S:
                    break
            elif not self._tend(link, due, now):
                break
            time.sleep(BATCH_S)
        return opening, None

    def _opening(self, connection: Connection, opening: Opening | None, due: "_Due", now: float) -> Opening | None:
        """Open the next connection where this one must be replaced, and once more where that failed."""
        if opening is not None and opening.ended:
            self._log.warning("the next connection failed", error=repr(opening.failed))
            opening.close()
            opening = None
        if opening is None and now >= due.open_at and _must_be_replaced(connection, now):
            due.open_at = now + self._settings.backoff_base_s
            opening = Opening(self._open)
        return opening

    def _tend(self, link: Link, due: "_Due", now: float) -> bool:
        """Ping, mark and remember where that is due; return whether the connection is to be read on."""
        connection, limits = link.connection, link.connection.protocol.limits
        silent_s = now - connection.read_at
        if silent_s > limits.silence_s:
            self._log.warning("the venue is silent", seconds=round(silent_s, 1))
            return False
        if limits.ping_s is not None and silent_s >= limits.ping_s and now >= due.ping_at:
            due.ping_at = now + limits.ping_s
            connection.ping()
        if connection.unanswered:
            self._log.warning("the venue has not answered the subscription")
            return False
        late = now - connection.connected_at > limits.first_message_s
        if now >= due.mark_at or (self._forgotten and not self._bus_down):
            due.mark_at = now + MARK_S
            if not self._ours(unknown=True):
                self._log.warning("another collector reads the venue now")
                self._overtaken = True
                return False
            everything = self._pace.slow or now >= due.latest_at
            if everything:
                due.latest_at = now + LATEST_S
            self._mark(link, late=late, everything=everything)
        if now >= due.chunk_at and not self._unwritten:
            due.chunk_at = now + CHUNK_S
            self._remember(link)
        self._write_history(HISTORY_S)
        if late and not due.warned and connection.protocol.silent():
            due.warned = True
            self._log.warning("streams that never spoke", streams=sorted(connection.protocol.silent()))
        return True

    def _flush(self, link: Link, state: CollectorState | None = None, *, last: bool = False) -> None:
        """Send what has come, at last all that waits. What a failed write held is not sent again; quotes are.

        A slow bus is spared the latest prices: they are written with its marks. Where another collector reads
        the venue now, its latest prices and its state count, and not the last word of this one.
        """
        outbox = link.outbox
        items, latest = outbox.take(slow=self._pace.slow)
        link.history.take(items, latest, clock_us())
        batch, late = self._pace.batch(items, clock_us(), all_of_it=last)
        outbox.lost(late)
        told = {} if self._overtaken or (self._pace.slow and not last) else latest
        if batch or told or state is not None:
            started = steady_s()
            if not self._send(self._by_shard(batch), self._by_symbol(told), state):
                outbox.lost(batch)
            self._pace.wrote(batch, steady_s() - started)
        now, lost = steady_s(), outbox.trades_lost - self._lost_told
        if lost and (last or now - self._lost_at >= LOST_S):
            self._lost_told, self._lost_at = outbox.trades_lost, now
            self._log.warning("trades were lost on the way to the bus", trades=lost)

    def _remember(self, link: Link) -> None:
        """Take the history of the last seconds apart, for writes that are short on a slow bus too."""
        connection = link.connection
        missed, connection.missed = connection.missed, set()
        chunks, span = link.history.flush(clock_us(), connection.read_us(), missed)
        candles: dict[str, list[VenueCandle]] = defaultdict(list)
        for candle in link.outbox.take_candles():
            instrument = self._settings.instruments.of_product(candle.venue, candle.product_id)
            if instrument is not None:
                candles[instrument.symbol].append(candle)
        self._remembered_at = steady_s()
        self._unwritten.extend((part, {}, None) for part in parts_of(self._by_symbol(chunks)))
        self._unwritten.extend(({}, {symbol: told}, None) for symbol, told in candles.items())
        # The span is the last: what it covers must be there.
        self._unwritten.append(({}, {}, span))

    def _write_history(self, limit_s: float = math.inf) -> None:
        """Write what waits, for some time. Where it cannot be written, those seconds are not covered."""
        until = steady_s() + limit_s
        while self._unwritten and (now := steady_s()) < until:
            if now - self._remembered_at > HISTORY_S_MAX:
                self._unwritten.clear()
                self._log.warning("the history has a hole: the bus is too slow")
                break
            try:
                self._ports.history.write(*self._unwritten.popleft(), clock_us())
            except BusUnavailableError as error:
                self._unwritten.clear()
                self._log.warning("the history has a hole: the bus does not answer", error=str(error))

    def _mark(self, link: Link, *, late: bool, everything: bool) -> None:
        if self._bus_down:
            self._send({}, {}, self._state(link.connection, link, late=late))  # says whether it answers again
        if self._forgotten and not self._bus_down:
            # Every quote goes before the next mark: an owner that began with what an older Redis knew must not be
            # told that it counts.
            self._forgotten = False
            link.outbox.current_again()
            self._flush(link)
        if self._forgotten:
            return
        missed = self._take_missed(link)
        mark = Mark(self._settings.venue, link.token, clock_us(), tuple(sorted(missed)))
        quotes, latest = link.outbox.current()
        self.account.quoted_us = max((quote.received_time_us for quote in quotes), default=self.account.quoted_us)
        sent = self._send(
            {shard: [mark] for shard in set(self._shard_of.values())},
            self._by_symbol(latest) if everything else {},
            self._state(link.connection, link, late=late),
            self._by_shard(quotes),
        )
        if not sent:
            link.connection.unmarked |= missed

    def _take_missed(self, link: Link) -> set[str]:
        """Return of which products trades were missed since the last mark; of which ones were lost, nobody knows."""
        connection = link.connection
        missed, connection.unmarked = connection.unmarked, set()
        if link.outbox.trades_lost > self._lost_marked:
            missed.add(EVERY_PRODUCT)
        self._lost_marked = link.outbox.trades_lost
        return missed

    def _by_shard(self, items: Iterable[Item]) -> dict[int, list[Item]]:
        by_shard: dict[int, list[Item]] = defaultdict(list)
        for item in items:
            shard = self._shard_of.get(item.product_id)
            if shard is not None:
                by_shard[shard].append(item)
        return by_shard

    def _by_symbol(self, by_product: Mapping[str, Value]) -> dict[str, Value]:
        venue, known = self._settings.venue, self._settings.instruments
        found = ((known.of_product(venue, pid), value) for pid, value in by_product.items())
        return {instrument.symbol: value for instrument, value in found if instrument is not None}

    def _state(self, connection: Connection | None, link: Link, *, late: bool = False) -> CollectorState:
        messages = self._messages + (connection.messages if connection else 0)
        self.account.state = CollectorState(
            venue=self._settings.venue,
            token=link.token,
            connected_since_us=connection.connected_us if connection else None,
            marked_us=clock_us(),
            market=self._settings.market,
            messages=messages,
            messages_per_s=self._rate.of(messages),
            reconnects=self._reconnects,
            gaps=self._gaps + (connection.gaps if connection else 0),
            conflated=link.outbox.conflated,
            trades_lost=link.outbox.trades_lost,
            silent_streams=sorted(connection.protocol.silent()) if connection and late else [],
        )
        return self.account.state

    def _send(
        self,
        by_shard: Mapping[int, Sequence[BusItem]],
        latest: Mapping[str, LatestPrice],
        state: CollectorState | None,
        current: Mapping[int, Sequence[Quote]] | None = None,
    ) -> bool:
        """Write to the bus; return whether it could be."""
        try:
            self._ports.quotes.write(by_shard, latest, state, current)
        except BusUnavailableError as error:
            if not self._bus_down:
                self._log.warning("the bus does not answer", error=str(error))
            self._bus_down = self._forgotten = True
            self._stopping.wait(BUS_PAUSE_S)
            return False
        if self._bus_down:
            self._bus_down = False
            self._log.info("the bus answers again")
        return True


@dataclass
class _Due:
    """When what is done for a connection from time to time is due again."""

    chunk_at: float
    mark_at: float = 0.0
    latest_at: float = 0.0
    ping_at: float = 0.0
    open_at: float = 0.0
    warned: bool = False


def _must_be_replaced(connection: Connection, now: float) -> bool:
    """Say whether the venue will end a connection: it said so, or the time that it gives one is nearly over."""
    lifetime_s = connection.protocol.limits.lifetime_s
    return connection.announced or (lifetime_s is not None and now - connection.connected_at > lifetime_s)


def collector_of(venue: str, settings: Settings, database: Database) -> Collector:
    """Build the collector of a venue from the settings; it connects to venue and bus when it runs.

    Raises StoreUnavailableError where the market is live and its pairs cannot be read.
    """
    address = settings.venue_urls.get(venue)
    known = instruments_at(database, settings.market)
    products = [name for name, instrument in known.products_of(venue).items() if settings.reads(instrument.symbol)]
    protocol, companion = PROTOCOLS[venue], COMPANIONS.get(venue)

    def shards() -> int:
        with database.read() as connection:
            return shards_count(connection)

    def token() -> int:
        ensure_venues(database, [venue])
        return next_token(database, venue)

    client = connect(settings.bus, timeout_s=2)
    return Collector(
        CollectorSettings(
            venue=venue,
            market=settings.market.value,
            make=lambda number: protocol(address, products, number),
            companion=None if companion is None else lambda number: companion(address, products, number),
            instruments=known,
        ),
        Ports(
            QuoteWriter(client),
            HistoryWriter(client),
            BusLease(client, venue_lease_key(venue), f"{os.getpid()}-{uuid4().hex}"),
            token,
            shards,
        ),
    )


def main(arguments: list[str]) -> None:
    """Run the collectors of the venues that are named, each in a thread, until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings.log_level)
    if not arguments or not PROTOCOLS.keys() >= set(arguments):
        sys.exit(f"usage: python -m workers.collector VENUE...; the venues are {', '.join(PROTOCOLS)}")
    database = Database.open(settings.database, pool_size=1)
    for venue in arguments:
        if settings.pairs and venue not in settings.venue_names:
            sys.exit(f"{venue} lists none of {settings.pairs} (CROSSFILL_PAIRS), or is not among CROSSFILL_VENUES")
    try:
        by_venue = {venue: collector_of(venue, settings, database) for venue in dict.fromkeys(arguments)}
    except StoreUnavailableError as error:
        sys.exit(str(error))
    sys.setswitchinterval(SWITCH_S)
    collectors, ended = list(by_venue.values()), threading.Event()
    registry = new_registry("collectors", settings)
    registry.register(Families(lambda: of_venues({venue: each.account for venue, each in by_venue.items()})))
    listener = Listener(settings, registry)
    listener.start()

    def run(collector: Collector) -> None:
        try:
            collector.run()
        finally:
            ended.set()

    threads = [threading.Thread(target=run, args=(collector,), name="collector") for collector in collectors]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    gc.freeze()  # what the imports made stays: to look it through again and again takes 50 ms at a time
    for thread in threads:
        thread.start()
    # One that ends unasked has failed: the process ends with it, and whoever started it starts it again.
    ended.wait()
    for collector in collectors:
        collector.stop()
    for thread in threads:
        thread.join()
    listener.stop()
    database.close()


if __name__ == "__main__":
    main(sys.argv[1:])
