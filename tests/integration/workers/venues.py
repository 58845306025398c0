"""Six collectors in this process, each between its simulated venue and a real Redis."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import redis
from structlog.testing import capture_logs

from exchanges.protocol import Limits, VenueProtocol
from exchanges.registry import COMPANIONS, PROTOCOLS
from models.bus.client import connect
from models.bus.latest import CollectorState, read_collectors
from models.bus.quotes import QuoteReader, QuoteWriter
from models.domain.instruments import INSTRUMENTS, Instruments
from models.domain.quotes import BusItem, Mark, Quote, Trade
from simulator.market import Event, Habits, Market
from simulator.registry import WIRES
from simulator.server import Venue, drive
from tests.integration.workers.memory import Held, MemoryHistory
from workers.collector import Collector, Lease, Ports
from workers.connection import clock_us
from workers.links import CollectorSettings

VENUES = tuple(PROTOCOLS)
# Some products of each venue, the majors, and an index of Deribit's.
PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "binance": ("BTCUSDT", "ETHUSDT", "LTCUSDT", "LTCBTC"),
    "coinbase": ("BTC-USD", "ETH-USD", "LTC-USD", "LTC-BTC"),
    "kraken": ("BTC/USD", "ETH/USD", "LTC/USD", "LTC/BTC"),
    "htx": ("btcusdt", "ethusdt", "ltcusdt", "ltcbtc"),
    "okx": ("BTC-USD", "ETH-USD", "BTC-USDT", "ETH-USDT"),
    "deribit": ("BTC_USDC", "ETH_USDC", "BTC_USDT", "btc_usd"),
}
INDEX = "btc_usd"
BOOKS = {venue: tuple(pid for pid in products if pid != INDEX) for venue, products in PRODUCTS.items()}
FEW = Instruments(
    replace(each, products=tuple(product for product in each.products if product.id in PRODUCTS[product.venue]))
    for each in INSTRUMENTS
)
# Each product quotes eight times a second and trades four times: nothing takes long to show.
LIVELY = Habits(spread=0.0001, quote_chance=0.4, trade_chance=0.2)

# The venues' limits of time, shortened: what they say of silence by four or so. HTX and Coinbase speak by
# themselves in a quiet market (here each second, see `htx_pings_each_second`) and are not asked, so that
# their silence must last for more than two of those.
SILENCE_S = dict.fromkeys(VENUES, 1.2) | {"coinbase": 2.4, "htx": 2.4}
PING_S = 0.4
FIRST_MESSAGE_S = 3.0


class Stoppable(Market):
    """A market in which nothing happens while it is `quiet`."""

    quiet = False

    def tick(self, now_us: int) -> list[Event]:
        return [] if self.quiet else super().tick(now_us)


@dataclass(frozen=True)
class Simulated:
    """Simulated venues that listen, in a thread of their own."""

    market: Stoppable
    venues: Mapping[str, Venue]
    urls: Mapping[str, str]
    loop: asyncio.AbstractEventLoop

    def inject(self, venue: str, fault: str, **options: Any) -> None:
        """Let a fault begin, in the venues' thread."""

        async def inject() -> None:
            self.venues[venue].faults.inject(fault, **options)

        asyncio.run_coroutine_threadsafe(inject(), self.loop).result(30)


@contextmanager
def simulated(instruments: Instruments = FEW) -> Iterator[Simulated]:
    """Run all venues on free ports."""
    market = Stoppable(instruments, VENUES, 7, clock_us())
    venues = {wire.name: Venue(wire, market.of_venue(wire.name)) for wire in WIRES.values()}
    ready = threading.Event()
    found: list[Simulated] = []
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        servers = {name: await venue.listen(0) for name, venue in venues.items()}
        urls = {
            name: f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}" for name, server in servers.items()
        }
        driving = asyncio.create_task(drive(market, list(venues.values())))
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        found.append(Simulated(market, venues, urls, loop))
        ready.set()
        await stopped.wait()
        driving.cancel()
        for server in servers.values():
            server.close()
        await asyncio.gather(*(server.wait_closed() for server in servers.values()))

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    try:
        yield found[0]
    finally:
        for venue in venues:
            found[0].inject(venue, "clear")  # who is stalled does not close either
        stop[0]()
        thread.join(10)
        assert not thread.is_alive()


class Bus:
    """What comes over the bus, by venue, in the order of its arrival."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.items: dict[str, list[BusItem]] = {venue: [] for venue in VENUES}
        self._reader = QuoteReader(client, 0)
        self.read()  # from the stream's beginning on: what it finds later would be the newest quotes, and those again

    def read(self, block_ms: int = 20) -> None:
        """Take what has come."""
        for item in self._reader.read(block_ms):
            self.items[item.venue].append(item)

    def quotes(self, venue: str, token: int | None = None) -> list[Quote]:
        """Return a venue's quotes, of one connection or of all."""
        return [item for item in self.items[venue] if isinstance(item, Quote) and token in (None, item.token)]

    def trades(self, venue: str, token: int | None = None) -> list[Trade]:
        """Return a venue's trades, of one connection or of all."""
        return [item for item in self.items[venue] if isinstance(item, Trade) and token in (None, item.token)]

    def marks(self, venue: str, token: int | None = None) -> list[Mark]:
        """Return a venue's marks, of one connection or of all."""
        return [item for item in self.items[venue] if isinstance(item, Mark) and token in (None, item.token)]

    def token(self, venue: str) -> int:
        """Return the token of a venue's newest connection that has quoted; 0 where none has."""
        return max((quote.token for quote in self.quotes(venue)), default=0)

    def until(
        self,
        holds: Callable[[str], object],
        venues: Iterable[str] = VENUES,
        limit_s: float = 30,
        said: Callable[[str], object] | None = None,
    ) -> None:
        """Read until something holds, or has held, for each venue."""
        deadline = time.monotonic() + limit_s
        waiting = list(venues)
        while waiting := [venue for venue in waiting if not holds(venue)]:
            assert time.monotonic() < deadline, (
                f"not so within {limit_s} s: {[said(venue) if said else venue for venue in waiting]}"
            )
            self.read()

    def spell(self, seconds: float) -> None:
        """Read for some time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read()


@dataclass
class Run:
    """Running collectors: what each was told, has sent, kept and said."""

    simulated: Simulated
    bus: Bus
    logs: list[MutableMapping[str, Any]]
    protocols: dict[str, list[VenueProtocol]] = field(default_factory=lambda: {venue: [] for venue in VENUES})
    histories: dict[str, MemoryHistory] = field(default_factory=lambda: {venue: MemoryHistory() for venue in VENUES})

    def state(self, venue: str) -> CollectorState:
        """Return what a collector last said of itself."""
        return read_collectors(self.bus.client)[venue]

    def said(self, venue: str, *events: str) -> list[MutableMapping[str, Any]]:
        """Return what a collector logged of some kinds."""
        return [entry for entry in list(self.logs) if entry.get("venue") == venue and entry["event"] in events]

    def story(self, venue: str) -> Sequence[object]:
        """Return what a collector logged of late, for a failure's message."""
        return [entry for entry in list(self.logs) if entry.get("venue") == venue][-5:]

    def warnings(self, venue: str) -> list[MutableMapping[str, Any]]:
        """Return what a collector warned of."""
        return [entry for entry in list(self.logs) if entry.get("venue") == venue and entry["log_level"] != "info"]

    def inject(self, fault: str, venues: Iterable[str] = VENUES, **options: Any) -> int:
        """Let a fault begin at venues; return when that was."""
        since_us = clock_us()
        for venue in venues:
            self.simulated.inject(venue, fault, **options)
        return since_us

    def speaks(self, venue: str, since_us: int, but: Collection[str] = ()) -> bool:
        """Say whether the newest connection has quoted each of a venue's books since a time."""
        heard = {
            quote.product_id
            for quote in self.bus.quotes(venue, self.bus.token(venue))
            if quote.received_time_us > since_us
        }
        return heard >= set(BOOKS[venue]) - set(but)

    def traded(self, venue: str) -> bool:
        """Say whether the newest connection has told of a trade of each book."""
        trades = self.bus.trades(venue, self.bus.token(venue))
        return {trade.product_id for trade in trades} >= set(BOOKS[venue])

    def settle(self, venues: Iterable[str] = VENUES) -> None:
        """Wait until every book has quoted and traded."""
        self.bus.until(lambda venue: self.bus.token(venue) and self.speaks(venue, 0) and self.traded(venue), venues)

    def go_on(self, since_us: int, tokens: Mapping[str, int], but: Mapping[str, str] | None = None) -> None:
        """Wait until every book has quoted since a time, then check that connections are those of `tokens`."""
        gone = but or {}
        self.bus.until(
            lambda venue: self.speaks(venue, since_us, [gone[venue]] if venue in gone else []),
            tokens,
            said=self.story,
        )
        found = {venue: self.bus.token(venue) for venue in tokens}
        assert found == dict(tokens), {venue: self.warnings(venue)[-3:] for venue in tokens}

    def again(self, since_us: int, venues: Iterable[str] = VENUES, but: Mapping[str, str] | None = None) -> None:
        """Wait until a connection with a higher token than before has quoted every book."""
        gone = but or {}
        before = {
            venue: max(q.token for q in self.bus.quotes(venue) if q.received_time_us <= since_us) for venue in venues
        }
        self.bus.until(
            lambda venue: (
                self.bus.token(venue) > before[venue]
                and self.speaks(venue, since_us, [gone[venue]] if venue in gone else [])
            ),
            before,
            said=self.story,
        )

    def check(self) -> None:
        """Check what is always so: connections follow each other, and numbers are complete."""
        for venue in VENUES:
            quotes = self.bus.quotes(venue)
            if not quotes:
                continue
            tokens = [quote.token for quote in quotes]
            assert tokens == sorted(tokens), f"{venue}: a quote of an older connection came late"
            numbers: dict[int, list[int]] = {}
            for quote in quotes:
                numbers.setdefault(quote.token, []).append(quote.number)
            holes = sum(max(each) - len(each) for each in numbers.values())
            state = self.state(venue)
            assert all(each == sorted(set(each)) for each in numbers.values()), f"{venue}: numbers do not rise"
            assert holes <= state.conflated, f"{venue}: {holes} numbers are missing"
            assert state.trades_lost == 0, venue


@contextmanager
def collecting(
    redis_url: str,
    venues: Iterable[str] = VENUES,
    lease: Callable[[redis.Redis, str], Lease] = lambda _client, _venue: Held(),
    *,
    companions: bool = False,
    **limits: float,
) -> Iterator[Run]:
    """Run collectors in threads, with quick reconnections and short limits; leave nothing behind."""
    threads_before = set(threading.enumerate())
    with ExitStack() as stack:
        told = stack.enter_context(simulated())
        logs = stack.enter_context(capture_logs())
        client = stack.enter_context(connect(redis_url))
        run = Run(told, Bus(client), logs)
        collectors = []
        for venue in venues:
            bus = stack.enter_context(connect(redis_url))
            settings = CollectorSettings(
                venue=venue,
                market="simulated",
                make=_maker(venue, run, limits, PROTOCOLS[venue]),
                companion=_maker(venue, run, limits, COMPANIONS[venue]) if companions else None,
                backoff_base_s=0.05,
                backoff_cap_s=0.1,
            )
            count = itertools.count(1).__next__
            ports = Ports(QuoteWriter(bus), run.histories[venue], lease(bus, venue), count, lambda: 1)
            collectors.append(Collector(settings, ports))
        threads = [threading.Thread(target=collector.run) for collector in collectors]
        for thread in threads:
            thread.start()
        try:
            yield run
        finally:
            for collector in collectors:
                collector.stop()
            for thread in threads:
                thread.join(15)
            assert not any(thread.is_alive() for thread in threads)
        run.bus.spell(0.05)
        run.check()
    deadline = time.monotonic() + 30  # nobody waits for a companion to end
    while left := set(threading.enumerate()) - threads_before:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def _maker(
    venue: str,
    run: Run,
    limits: Mapping[str, float],
    kind: Callable[[str | None, Sequence[str], int], VenueProtocol],
) -> Callable[[int], VenueProtocol]:
    def make(token: int) -> VenueProtocol:
        protocol = kind(run.simulated.urls[venue], PRODUCTS[venue], token)
        real = protocol.limits
        protocol.limits = Limits(
            silence_s=SILENCE_S[venue],
            first_message_s=limits.get("first_message_s", FIRST_MESSAGE_S),
            ping_s=None if real.ping_s is None else PING_S,
            lifetime_s=limits.get("lifetime_s"),
        )
        run.protocols[venue].append(protocol)
        return protocol

    return make
