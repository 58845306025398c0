"""A collector against a venue that does what a test says: how connections end, and what is done then."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog
from websockets.sync.server import Server, ServerConnection, serve

from exchanges.binance.protocol import Binance
from exchanges.protocol import Limits
from models.bus.client import BusUnavailableError
from models.bus.latest import CollectorState
from models.bus.quotes import QuoteWriter
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import EVERY_PRODUCT, BusItem, Mark, Quote, Trade
from models.store.database import StoreUnavailableError
from tests.integration.workers.memory import Held, MemoryHistory
from tests.services import ROOT
from workers.collector import Collector, Lease, Ports
from workers.connection import STILL_S_MAX, Connection
from workers.links import CollectorSettings
from workers.outbox import Outbox

TICKER = '{"stream":"ltcbtc@bookTicker","data":{"u":%d,"s":"LTCBTC","b":"0.001","B":"1","a":"0.002","A":"2"}}'
TRADE = '{"stream":"ltcbtc@trade","data":{"s":"LTCBTC","t":%d,"p":"0.001","q":"1","T":1700000000000,"m":true}}'
SHUTDOWN = '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'


class Memory(QuoteWriter):
    """The bus, in memory."""

    def __init__(self) -> None:
        self.items: list[BusItem] = []
        self.states: list[CollectorState] = []
        self.refused: list[BusItem] = []
        self.failing = False

    def write(self, by_shard: Any, latest: Any, state: Any = None, current: Any = None) -> None:
        if self.failing:
            for items in by_shard.values():
                self.refused += items
            raise BusUnavailableError(OSError("on purpose"))
        for items in by_shard.values():
            self.items += items
        if state is not None:
            self.states.append(state)

    def of(self, kind: type) -> list[Any]:
        return [item for item in list(self.items) if isinstance(item, kind)]


@contextmanager
def venue(script: Callable[[ServerConnection, int], None]) -> Iterator[Server]:
    """Run a server that plays `script` with each connection and its number, from 1."""
    numbers = itertools.count(1)

    def handle(connection: ServerConnection) -> None:
        connection.recv()
        script(connection, next(numbers))

    with serve(handle, "127.0.0.1", 0, ping_interval=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def stay(connection: ServerConnection) -> None:
    """Keep a connection open until the client goes."""
    for _ in connection:
        pass


def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.socket.getsockname()[1]}"


@contextmanager
def collecting(
    server: Server,
    bus: Memory,
    token: Callable[[], int] | None = None,
    limits: Limits | None = None,
    lease: Lease | None = None,
    **settings: float,
) -> Iterator[Collector]:
    class Ours(Binance):
        pass

    Ours.limits = limits or Binance.limits
    options = {"backoff_base_s": 0.05, "backoff_cap_s": 0.1, **settings}
    made = CollectorSettings(
        "binance",
        "simulated",
        lambda number: Ours(url(server), ["LTCBTC"], number),
        None,
        INSTRUMENTS,
        **options,
    )
    ports = Ports(bus, MemoryHistory(), lease or Held(), token or itertools.count(1).__next__, lambda: 1)
    collector = Collector(made, ports)
    thread = threading.Thread(target=collector.run)
    thread.start()
    try:
        yield collector
    finally:
        collector.stop()
        thread.join(10)
        assert not thread.is_alive()


def until(condition: Callable[[], object], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_shutdown_notice_is_followed_at_once() -> None:
    """No backoff is waited for, however long it might be; a second notice in a row is not trusted so."""

    def script(connection: ServerConnection, number: int) -> None:
        connection.send(TICKER % number)
        if number == 1:
            connection.send(SHUTDOWN)
        stay(connection)

    bus = Memory()
    with venue(script) as server, collecting(server, bus, backoff_base_s=1_000, backoff_cap_s=1_000):
        until(lambda: {quote.token for quote in bus.of(Quote)} >= {2})


def test_what_came_before_the_venue_closed_is_sent() -> None:
    """Trades that were read are not lost with their connection."""

    def script(connection: ServerConnection, number: int) -> None:
        if number == 1:
            for trade in range(500):
                connection.send(TRADE % trade)
            return
        stay(connection)

    bus = Memory()
    with venue(script) as server, collecting(server, bus):
        until(lambda: len(bus.of(Trade)) >= 500)
        assert [trade.trade_id for trade in bus.of(Trade)] == [str(number) for number in range(500)]


def test_marks_stop_with_silence() -> None:
    """A venue that does not even answer a ping is connected to anew, and nothing marks it alive beyond its limit."""
    held = threading.Event()

    def script(connection: ServerConnection, number: int) -> None:
        connection.send(TICKER % number)
        if number == 1:
            with connection.protocol_mutex:  # no pong leaves any more
                held.wait(10)
            return
        stay(connection)

    bus = Memory()
    limits = Limits(silence_s=1, first_message_s=60, ping_s=0.2)
    with venue(script) as server, collecting(server, bus, limits=limits):
        until(lambda: {quote.token for quote in bus.of(Quote)} == {1, 2})
        marks = [mark.marked_time_us for mark in bus.of(Mark) if mark.token == 1]
        [first] = [quote.received_time_us for quote in bus.of(Quote) if quote.token == 1]
        held.set()
    assert max(marks) - first < 1.6e6


def test_a_stream_that_never_speaks_is_reported() -> None:
    """After its deadline, in the collector's state; the streams that speak go on."""

    def script(connection: ServerConnection, _number: int) -> None:
        connection.send(TICKER % 1)
        stay(connection)

    bus = Memory()
    limits = Limits(silence_s=5, first_message_s=0.5, ping_s=0.2)
    with venue(script) as server, collecting(server, bus, limits=limits):
        until(lambda: bus.states and bus.states[-1].silent_streams == ["ltcbtc@kline_1m", "ltcbtc@trade"])
        assert len(bus.of(Quote)) == 1


def test_a_connection_is_replaced_at_the_end_of_its_lifetime() -> None:
    """Before the venue closes it, and without a pause."""

    def script(connection: ServerConnection, number: int) -> None:
        connection.send(TICKER % number)
        stay(connection)

    bus = Memory()
    limits = Limits(silence_s=5, first_message_s=60, lifetime_s=0.3)
    with venue(script) as server, collecting(server, bus, limits=limits, backoff_base_s=1_000, backoff_cap_s=1_000):
        until(lambda: {quote.token for quote in bus.of(Quote)} >= {2})


def test_a_database_that_is_away_is_tried_again() -> None:
    """Without a token there is no connection; with the first token there is."""
    asked = itertools.count(1)

    def token() -> int:
        if next(asked) < 3:
            raise StoreUnavailableError(OSError("away"))
        return 7

    def script(connection: ServerConnection, _number: int) -> None:
        connection.send(TICKER % 1)
        stay(connection)

    bus = Memory()
    with venue(script) as server, collecting(server, bus, token):
        until(lambda: bus.of(Quote))
        assert bus.of(Quote)[0].token == 7


def test_what_a_bus_outage_cost_is_counted() -> None:
    """Trades that could not be written are lost and counted; the current quote comes again, once."""
    go = threading.Event()

    def script(connection: ServerConnection, _number: int) -> None:
        connection.send(TICKER % 1)
        go.wait(10)
        for number in range(10):
            connection.send(TRADE % number)
        stay(connection)

    bus = Memory()
    with venue(script) as server, collecting(server, bus):
        until(lambda: bus.of(Quote))
        bus.failing = True
        go.set()
        until(lambda: sum(isinstance(item, Trade) for item in list(bus.refused)) == 10)
        bus.failing = False
        until(lambda: bus.states[-1].trades_lost == 10)
        until(lambda: len(bus.of(Quote)) == 2)
        assert [quote.number for quote in bus.of(Quote)] == [1, 2]


def test_a_mark_names_the_products_of_which_trades_were_missed() -> None:
    """Once; and any, where trades were lost on the way: nobody knows whose they were."""
    go = threading.Event()

    def script(connection: ServerConnection, _number: int) -> None:
        for number in (1, 2, 5):
            connection.send(TRADE % number)
        go.wait(10)
        connection.send(TRADE % 6)
        stay(connection)

    bus = Memory()
    with venue(script) as server, collecting(server, bus):
        until(lambda: any(mark.missed for mark in bus.of(Mark)))
        told = len(bus.of(Mark))
        until(lambda: len(bus.of(Mark)) > told)
        assert [mark.missed for mark in bus.of(Mark) if mark.missed] == [("LTCBTC",)]
        bus.failing = True
        go.set()
        until(lambda: any(isinstance(item, Trade) for item in list(bus.refused)))
        bus.failing = False
        until(lambda: len([mark for mark in bus.of(Mark) if mark.missed]) > 1)
        assert [mark.missed for mark in bus.of(Mark) if mark.missed][1:] == [(EVERY_PRODUCT,)]


def test_quotes_come_before_the_first_mark_after_a_bus_outage() -> None:
    """Who begins with what an older Redis knows is told better before it is told that quotes count."""

    def speak_once(connection: ServerConnection, _number: int) -> None:
        connection.send(TICKER % 1)
        stay(connection)

    bus = Memory()
    with venue(speak_once) as server, collecting(server, bus):
        for _ in range(3):
            until(lambda: bus.of(Quote) and bus.of(Mark))
            bus.refused.clear()
            bus.failing = True
            until(lambda: any(isinstance(item, Mark) for item in list(bus.refused)))
            bus.items.clear()
            bus.failing = False
            until(lambda: bus.of(Mark))
            assert isinstance(bus.items[0], Quote)


class Taken(Held):
    """A lease that somebody takes away."""

    def __init__(self) -> None:
        self.ours = True
        self.refused = 0

    def hold(self) -> bool:
        self.refused += not self.ours
        return self.ours


def test_an_overtaken_collector_has_no_last_word() -> None:
    """What it says of the venue at its end would stand over what the next one has said; quotes are still sent."""

    def script(connection: ServerConnection, _number: int) -> None:
        connection.send(TICKER % 1)
        stay(connection)

    bus, lease = Memory(), Taken()
    with venue(script) as server, collecting(server, bus, lease=lease) as collector:
        until(lambda: len(bus.states) > 1)
        lease.ours = False
        until(lambda: lease.refused > 1)  # the first ends the connection
        assert all(state.connected_since_us is not None for state in bus.states)
        lease.ours = True
        until(lambda: bus.states[-1].token == 2)
        collector.stop()
        until(lambda: bus.states[-1].connected_since_us is None)


def test_a_process_that_stood_still_takes_nothing_from_its_buffers() -> None:
    """What arrived while it did not run is old: the connection is thrown away with it."""
    woken = threading.Event()

    def script(connection: ServerConnection, _number: int) -> None:
        woken.wait(10)
        connection.send(TICKER % 1)
        stay(connection)

    outbox = Outbox("binance", "simulated")
    with venue(script) as server:
        connection = Connection(Binance(url(server), ["LTCBTC"], 1), outbox, structlog.get_logger())
        connection._ticked_at -= STILL_S_MAX + 1  # as if the clock had run on
        woken.set()
        assert connection.closing.wait(5)
        connection.close()
    assert outbox.take() == ([], {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals, database_url: str, redis_url: str) -> None:
    """Within eight seconds, also while it cannot connect."""
    environment = {
        **os.environ,
        "CROSSFILL_DATABASE_URL": database_url,
        "CROSSFILL_BROKER_URL": redis_url,
        "CROSSFILL_VENUE_URLS": '{"binance": "ws://127.0.0.1:1"}',
    }
    command = [sys.executable, "-m", "workers.collector", "binance"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "no connection" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(8) == 0
