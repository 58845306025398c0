"""A collector between the simulator and a real Redis: what it sends, and what it does when things go wrong."""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest

from exchanges.registry import PROTOCOLS
from models.bus.client import BusUnavailableError, connect
from models.bus.latest import CollectorState, read_collectors, read_latest
from models.bus.quotes import QuoteReader, QuoteWriter
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import BusItem, Mark, Quote, Trade
from tests.integration.workers.memory import Held, MemoryHistory
from tests.services import ROOT
from workers.collector import Collector, Ports
from workers.links import CollectorSettings

VENUES = ("binance", "coinbase")


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """The ports of a simulator."""
    process = subprocess.Popen([sys.executable, "-m", "simulator"], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["ports"]
    process.terminate()
    process.wait(10)
    process.stdout.close()


def fault(ports: dict[str, int], venue: str, name: str, **more: float) -> None:
    body = json.dumps({"venue": venue, "fault": name, **more}).encode()
    urlopen(Request(f"http://127.0.0.1:{ports['control']}/faults", body, method="POST"), timeout=30).close()


class Run:
    """A running collector and what it has sent."""

    def __init__(self, venue: str, redis_url: str) -> None:
        self.venue = venue
        self.client = connect(redis_url)
        self._reader = QuoteReader(self.client, 0)
        self.items: list[BusItem] = []

    def read(self) -> list[BusItem]:
        self.items += self._reader.read(100)
        return self.items

    def of(self, kind: type, token: int | None = None) -> list[Any]:
        return [item for item in self.items if isinstance(item, kind) and token in (None, item.token)]

    def until(self, condition: Callable[[], object], limit_s: float = 60) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, self.items[-3:]
            self.read()

    def state(self) -> CollectorState:
        return read_collectors(self.client)[self.venue]


@contextmanager
def collecting(
    venue: str, venue_ports: dict[str, int], redis_url: str, writer: QuoteWriter | None = None
) -> Iterator[Run]:
    """Run a collector in a thread, with quick reconnections."""
    run = Run(venue, redis_url)
    products = list(INSTRUMENTS.products_of(venue))
    url = f"ws://127.0.0.1:{venue_ports[venue]}"
    settings = CollectorSettings(
        venue=venue,
        market="simulated",
        make=lambda token: PROTOCOLS[venue](url, products, token),
        backoff_base_s=0.05,
        backoff_cap_s=0.1,
    )
    bus = connect(redis_url)
    ports = Ports(writer or QuoteWriter(bus), MemoryHistory(), Held(), itertools.count(1).__next__, lambda: 1)
    collector = Collector(settings, ports)
    thread = threading.Thread(target=collector.run)
    thread.start()
    try:
        yield run
    finally:
        collector.stop()
        thread.join(15)
        run.client.close()
        bus.close()
        assert not thread.is_alive()


@pytest.mark.parametrize("venue", VENUES)
def test_quotes_trades_marks_and_latest_prices(venue: str, ports: dict[str, int], redis_url: str) -> None:
    """Quotes are numbered, each one left out is counted; marks come; latest prices say which market is on."""
    with collecting(venue, ports, redis_url) as run:
        run.until(lambda: len(run.of(Quote)) > 100 and len(run.of(Trade)) > 5 and len(run.of(Mark)) > 2)
        live = {quote.product_id for quote in run.of(Quote) if quote.live}
        numbers = {quote.number for quote in run.of(Quote)}
        left_out = max(numbers) - min(numbers) + 1 - len(numbers)
        run.until(lambda: run.state().conflated >= left_out)
        latest = read_latest(run.client, "LTC-BTC")
        state = run.state()
    assert {"binance": "LTCBTC", "coinbase": "LTC-BTC"}[venue] in live <= set(INSTRUMENTS.products_of(venue))
    assert latest[venue].market == state.market == "simulated"
    assert latest[venue].bid is not None
    assert state.connected_since_us is not None


@pytest.mark.parametrize("venue", VENUES)
def test_a_cut_connection_is_made_anew_under_a_higher_token(venue: str, ports: dict[str, int], redis_url: str) -> None:
    """What comes then has the new token, and is counted as a reconnection."""
    with collecting(venue, ports, redis_url) as run:
        run.until(lambda: len(run.of(Quote, 1)) > 20)
        fault(ports, venue, "drop")
        run.until(lambda: len(run.of(Quote, 2)) > 20)
        run.until(lambda: run.state().reconnects == 1)


def test_garbage_is_said_and_survived(ports: dict[str, int], redis_url: str) -> None:
    """A frame cut in half stops nothing at Binance, whose quotes stand alone."""
    with collecting("binance", ports, redis_url) as run:
        run.until(lambda: len(run.of(Quote)) > 20)
        fault(ports, "binance", "garbage")
        count = len(run.of(Quote))
        run.until(lambda: len(run.of(Quote)) > count + 100)
        assert run.of(Quote, 2) == []


def test_a_swallowed_trade_is_a_gap_and_coinbases_book_begins_anew(ports: dict[str, int], redis_url: str) -> None:
    """A trade that is missing may mean that the book missed something too."""
    with collecting("coinbase", ports, redis_url) as run:
        run.until(lambda: len(run.of(Trade)) > 20)
        for _ in range(5):
            fault(ports, "coinbase", "gap")
        run.until(lambda: len(run.of(Quote, 2)) > 20)
        run.until(lambda: run.state().gaps >= 1)


class Flaky(QuoteWriter):
    """A bus that fails for a while."""

    failing = False

    def write(self, *arguments: Any, **named: Any) -> None:
        if self.failing:
            raise BusUnavailableError(OSError("on purpose"))
        super().write(*arguments, **named)


def test_after_a_failed_write_the_current_quotes_come_under_new_numbers(ports: dict[str, int], redis_url: str) -> None:
    """Nothing is sent twice: every product's newest quote is, and numbers go on rising."""
    client = connect(redis_url)
    writer = Flaky(client)
    with collecting("binance", ports, redis_url, writer) as run:
        run.until(lambda: len(run.of(Quote)) > 50)
        writer.failing = True
        time.sleep(1)
        run.read()
        before = max(quote.number for quote in run.of(Quote))
        writer.failing = False
        products = set(INSTRUMENTS.products_of("binance"))
        run.until(lambda: {quote.product_id for quote in run.of(Quote) if quote.number > before} == products)
        numbers = [quote.number for quote in run.of(Quote)]
        assert len(numbers) == len(set(numbers))
    client.close()
