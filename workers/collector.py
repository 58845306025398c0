"""A collector: reads one exchange and writes what it says to the bus. `python -m workers.collector VENUE`.

The connection's threads read and decode into the outbox; the main thread here sends batches and
marks. Under pressure the outbox keeps each product's newest quote instead of a backlog.
"""

import logging
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
import websocket

from exchanges.protocol import VenueProtocol
from exchanges.registry import PROTOCOLS
from models.bus.client import BusUnavailableError, connect
from models.bus.latest import CollectorState, LatestPrice
from models.bus.quotes import QuoteWriter
from models.domain.errors import CrossfillError
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import BusItem, Mark, Quote, Trade
from models.domain.shards import shard_of
from models.settings import Settings
from models.store.database import Database
from models.store.shards import shards_count
from models.store.venues import ensure_venues, next_token
from workers.backoff import full_jitter
from workers.connection import Connection, clock_us, steady_s
from workers.outbox import Outbox

MARK_S = 0.5
BATCH_S = 0.004  # lets a burst become one message; far below what anybody waits for
BUS_PAUSE_S = 0.2  # after a failed write

log = structlog.get_logger()

Item = TypeVar("Item", Quote, Trade, Quote | Trade)


@dataclass(frozen=True)
class CollectorSettings:
    """What a collector must know. `make` builds the protocol of a new connection from its token."""

    venue: str
    market: str
    make: Callable[[int], VenueProtocol]
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 60.0
    healthy_s: float = 60.0  # a connection that lived so long resets the backoff


class Collector:
    """Keeps one connection to a venue and sends what it brings to the bus.

    `token` and `shards` ask the database; where that is away, connecting is tried again.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        writer: QuoteWriter,
        token: Callable[[], int],
        shards: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._next_token = token
        self._ask_shards = shards
        self._shards = 1  # asked for with each connection
        self._outbox = Outbox(settings.market)
        self._stopping = threading.Event()
        self._reconnects = 0
        self._gaps = 0
        self._messages = 0
        self._bus_down = False
        self._log = log.bind(venue=settings.venue, market=settings.market)

    def stop(self) -> None:
        """End after the batch at hand."""
        self._stopping.set()

    def run(self) -> None:
        """Connect, and connect again, until stopped."""
        failures = 0
        while True:
            started, announced = steady_s(), False
            try:
                announced = self._session()
            except (websocket.WebSocketException, OSError, CrossfillError) as error:
                self._log.warning("no connection", error=str(error) or repr(error))
            if self._stopping.is_set():
                return
            if steady_s() - started >= self._settings.healthy_s:
                failures = 0
            wait_s = full_jitter(failures, self._settings.backoff_base_s, self._settings.backoff_cap_s)
            if announced and failures == 0:
                wait_s = 0
            failures += 1
            self._reconnects += 1
            self._log.info("connecting again", wait_s=round(wait_s, 1))
            if self._stopping.wait(wait_s):
                return

    def _session(self) -> bool:
        """Run one connection; return whether its end was announced, or due."""
        self._shards = self._ask_shards()
        token = self._next_token()
        self._outbox.forget()
        connection = Connection(self._settings.make(token), self._outbox, self._log)
        self._log.info("connected", token=token)
        try:
            self._pump(connection, token)
        finally:
            connection.close()
            self._messages += connection.messages
            self._gaps += connection.gaps
            self._outbox.forget()
            self._flush(self._state(None, token))
        return connection.announced

    def _pump(self, connection: Connection, token: int) -> None:
        limits = connection.protocol.limits
        mark_at = ping_at = 0.0
        warned = False
        while not connection.closing.is_set() and not self._stopping.is_set():
            self._outbox.wait(MARK_S / 2)
            if connection.stood_still():
                return
            self._flush()
            now = steady_s()
            if now - connection.read_at > limits.silence_s:
                self._log.warning("the venue is silent", seconds=round(now - connection.read_at, 1))
                return
            if limits.lifetime_s is not None and now - connection.connected_at > limits.lifetime_s:
                connection.announced = True
                return
            if limits.ping_s is not None and now >= ping_at:
                ping_at = now + limits.ping_s
                connection.ping()
            late = now - connection.connected_at > limits.first_message_s
            if now >= mark_at and not connection.closing.is_set():
                mark_at = now + MARK_S
                self._mark(connection, token, late=late)
            if late and not warned and connection.protocol.silent():
                warned = True
                self._log.warning("streams that never spoke", streams=sorted(connection.protocol.silent()))
            self._stopping.wait(BATCH_S)

    def _flush(self, state: CollectorState | None = None) -> None:
        """Send what has come. What a failed write held is not sent again; the current quotes are."""
        lost_before = self._outbox.trades_lost
        items, latest = self._outbox.take()
        if not items and not latest and state is None:
            return
        if not self._send(self._by_shard(items), self._by_symbol(latest), state):
            self._outbox.lost(items)
        if self._outbox.trades_lost > lost_before:
            self._log.warning("trades were lost on the way to the bus", trades=self._outbox.trades_lost - lost_before)

    def _mark(self, connection: Connection, token: int, *, late: bool) -> None:
        mark = Mark(self._settings.venue, token, clock_us())
        products = INSTRUMENTS.products_of(self._settings.venue).values()
        shards = {shard_of(instrument.symbol, self._shards) for instrument in products}
        quotes, latest = self._outbox.current()
        self._send(
            {shard: [mark] for shard in shards},
            self._by_symbol(latest),
            self._state(connection, token, late=late),
            self._by_shard(quotes),
        )

    def _by_shard(self, items: Iterable[Item]) -> dict[int, list[Item]]:
        by_shard: dict[int, list[Item]] = defaultdict(list)
        for item in items:
            instrument = INSTRUMENTS.of_product(item.venue, item.product_id)
            if instrument is not None:
                by_shard[shard_of(instrument.symbol, self._shards)].append(item)
        return by_shard

    def _by_symbol(self, latest: Mapping[str, LatestPrice]) -> dict[str, LatestPrice]:
        found = {pid: INSTRUMENTS.of_product(self._settings.venue, pid) for pid in latest}
        return {instrument.symbol: latest[pid] for pid, instrument in found.items() if instrument is not None}

    def _state(self, connection: Connection | None, token: int, *, late: bool = False) -> CollectorState:
        return CollectorState(
            venue=self._settings.venue,
            token=token,
            connected_since_us=connection.connected_us if connection else None,
            marked_us=clock_us(),
            market=self._settings.market,
            messages=self._messages + (connection.messages if connection else 0),
            reconnects=self._reconnects,
            gaps=self._gaps + (connection.gaps if connection else 0),
            conflated=self._outbox.conflated,
            trades_lost=self._outbox.trades_lost,
            silent_streams=sorted(connection.protocol.silent()) if connection and late else [],
        )

    def _send(
        self,
        by_shard: Mapping[int, Sequence[BusItem]],
        latest: Mapping[str, LatestPrice],
        state: CollectorState | None,
        current: Mapping[int, Sequence[Quote]] | None = None,
    ) -> bool:
        """Write to the bus; return whether it could be."""
        try:
            self._writer.write(by_shard, latest, state, current)
        except BusUnavailableError as error:
            if not self._bus_down:
                self._log.warning("the bus does not answer", error=str(error))
            self._bus_down = True
            self._stopping.wait(BUS_PAUSE_S)
            return False
        if self._bus_down:
            self._bus_down = False
            self._log.info("the bus answers again")
            self._outbox.current_again()
        return True


def collector_of(venue: str, settings: Settings, database: Database) -> Collector:
    """Build the collector of a venue from the settings; nothing is connected before it runs."""
    addresses = {"binance": settings.binance_url, "coinbase": settings.coinbase_url}
    products = list(INSTRUMENTS.products_of(venue))

    def shards() -> int:
        with database.read() as connection:
            return shards_count(connection)

    def token() -> int:
        ensure_venues(database, [venue])
        return next_token(database, venue)

    return Collector(
        CollectorSettings(
            venue=venue,
            market=settings.market.value,
            make=lambda number: PROTOCOLS[venue](addresses.get(venue), products, number),
        ),
        QuoteWriter(connect(settings.bus, timeout_s=2)),
        token,
        shards,
    )


def main(arguments: list[str]) -> None:
    """Run the collector of the venue that is named, until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    if len(arguments) != 1 or arguments[0] not in PROTOCOLS:
        sys.exit(f"usage: python -m workers.collector {'|'.join(PROTOCOLS)}")
    settings = Settings()
    database = Database.open(settings.database, pool_size=1)
    collector = collector_of(arguments[0], settings, database)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: collector.stop())
    collector.run()
    database.close()


if __name__ == "__main__":
    main(sys.argv[1:])
