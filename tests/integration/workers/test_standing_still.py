"""A fulfilment worker that stood still, and marks that lay about: nothing is sold on what is old by then."""

import signal
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psutil
import pytest
import redis

from models.bus.client import connect
from models.bus.quotes import QuoteWriter
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import BusItem, Mark, Market, Quote
from models.store.database import Database
from models.store.shards import claim
from tests.integration.workers.test_fulfilment import clock_us, database, place, read, running_worker, until
from workers.fulfilment import FulfilmentLoop, LoopSettings

__all__ = ["database"]

SILENCE_S = 1.5


class Feed:
    """A collector whose marks come as long as it lives."""

    def __init__(self, client: redis.Redis) -> None:
        self._writer = QuoteWriter(client)
        self._number = 0
        self.lives = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self.lives.set()
        self._thread.start()

    def quote(self, bid: str, size: str) -> Quote:
        """Return the next quote of LTC-BTC."""
        self._number += 1
        sides = (Decimal(bid), Decimal(size), Decimal("0.002"), Decimal(1))
        now_us = clock_us()
        return Quote("binance", "LTCBTC", 1, self._number, *sides, True, None, now_us)

    def write(self, *items: BusItem) -> None:
        self._writer.write({0: items}, {})

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            if self.lives.is_set():
                self.write(Mark("binance", 1, clock_us()))


@pytest.fixture
def feed(redis_url: str) -> Iterator[Feed]:
    client = connect(redis_url)
    made = Feed(client)
    made.start()
    yield made
    made.close()
    client.close()


def _state(database: Database, order_id: str) -> str:
    return read(database, order_id).state.value


@pytest.mark.parametrize("lives", [True, False])
def test_a_worker_that_stood_still_sells_nothing_on_what_was_said_meanwhile(
    lives: bool,
    database: Database,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    feed: Feed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether its venue lives or has died since: what lay in the stream for longer than the limit is never sold."""
    monkeypatch.setenv("CROSSFILL_SILENCE_S", str(SILENCE_S))
    # The lease runs on, so that nobody overtakes it either.
    with running_worker("fulfilment", database_url, redis_url, tmp_path, lease_s=60) as process:
        feed.write(feed.quote("0.0002", "5"))
        [near] = place(database, "1", price="0.0001")
        until(lambda: _state(database, near) == "filled")
        [far] = place(database, "3", price="0.0009")
        until(lambda: _state(database, far) == "working")
        process.send_signal(signal.SIGSTOP)
        # The signal is for its main thread, and until that one's turn comes, on a busy machine, the others go on.
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        stopped_at = time.monotonic()
        feed.write(feed.quote("0.001", "50"))
        time.sleep(SILENCE_S / 2)
        if lives:
            feed.write(feed.quote("0.0003", "50"))
        else:
            feed.lives.clear()
        until(lambda: time.monotonic() > stopped_at + 2.5 * SILENCE_S)
        process.send_signal(signal.SIGCONT)
        [late] = place(database, "2", price="0.0003")
        until(lambda: _state(database, late) == ("filled" if lives else "working"))
        assert read(database, far).filled_size == 0
        feed.lives.set()
        feed.write(feed.quote("0.0011", "50"))
        until(lambda: _state(database, far) == _state(database, late) == "filled")


def test_marks_that_lay_about_bring_no_dead_venue_back(database: Database, redis_url: str, feed: Feed) -> None:
    """Redis stood still, say, and works what collectors sent it long ago: only a mark of now lets anything be sold."""
    [lease] = claim(database, "owner", 1, 60_000_000)
    settings = LoopSettings(Market.SIMULATED, Decimal(0), int(SILENCE_S * 1e6), None)
    loop = FulfilmentLoop(lease, INSTRUMENTS, database, connect(redis_url), connect(redis_url), settings)
    loop.start()
    feed.write(feed.quote("0.0002", "5"))
    [near] = place(database, "1", price="0.0001")
    until(lambda: _state(database, near) == "filled")
    [far] = place(database, "3", price="0.0009")
    feed.lives.clear()
    until(lambda: _state(database, far) == "working")
    time.sleep(1.5 * SILENCE_S)
    feed.write(feed.quote("0.001", "50"), Mark("binance", 1, clock_us() - 5_000_000))
    feed.write(feed.quote("0.0003", "50"), Mark("binance", 1, clock_us()))
    [late] = place(database, "2", price="0.0003")
    until(lambda: _state(database, late) == "filled")
    assert read(database, far).filled_size == 0
    assert loop.alive
    loop.stop()
