"""The archivist beside a real Redis: killed at any moment, or twice at once, it archives each trade once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import redis

from models.archive.files import Archive
from models.archive.layout import DAY_MS, Entry, Kind, Series, day_of
from models.archive.reading import read_chunks, read_spans
from models.archive.rows import Rows
from models.bus.client import connect
from models.bus.history import HistoryWriter
from models.domain.history import Chunk, Print, Sample, Span
from tests.services import ROOT
from workers import archivist as room
from workers.archivist import Archivist

VENUES = ("binance", "kraken", "okx")
PAIRS = ("BTC-USDT", "ETH-USDT")
FAR_MS = 4_102_444_800_000  # in 2100


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = connect(redis_url)
    yield made
    made.close()


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "archive"), "simulated")


class Market:
    """Collectors that write what the test remembers."""

    def __init__(self, client: redis.Redis) -> None:
        self._writer = HistoryWriter(client)
        self._random = random.Random(7)
        self.trades: set[tuple[str, str, str, Decimal]] = set()
        self.samples = 0

    def write(self, count: int, market: str = "simulated") -> None:
        for _ in range(count):
            venue, pair = self._random.choice(VENUES), self._random.choice(PAIRS)
            now_us = time.time_ns() // 1000
            made = []
            for _ in range(self._random.randrange(4)):
                price = Decimal(self._random.randrange(1, 10**9)).scaleb(-self._random.randrange(9))
                made.append(Print(now_us, str(len(self.trades)), price, Decimal(1), "buy", now_us))
                if market == "simulated":
                    self.trades.add((venue, pair, made[-1].trade_id, price))
            samples = (Sample(now_us, Decimal(1), None, None),) * self._random.randrange(3)
            self.samples += len(samples)
            chunk = Chunk(venue, f"{venue}-{pair}", 7, samples, tuple(made), market)
            self._writer.write({pair: chunk}, {}, Span(venue, 7, now_us, now_us, (), market), now_us)


def archived(archive: Archive) -> list[tuple[str, str, str, Decimal]]:
    """Return the trades as a reader sees them."""
    return [
        (chunk.venue, pair, made.trade_id, made.price)
        for pair in PAIRS
        for chunk in read_chunks(archive, pair, 0, FAR_MS, set()).values()
        for made in chunk.prints
    ]


def rows_of(archive: Archive, kind: Kind) -> int:
    """Return how many rows there are in all files, seen twice or not."""
    return sum(
        pq.read_metadata(file.path).num_rows
        for series in archive.series(kind)
        for day in archive.days(series)
        for file in archive.of_day(series, day)
    )


def started(redis_url: str, folder: Path, every_s: float) -> subprocess.Popen[bytes]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CROSSFILL_")}
    environment |= {
        "CROSSFILL_BROKER_URL": redis_url,
        "CROSSFILL_HOME": str(folder),
        "CROSSFILL_ARCHIVE_EVERY": str(every_s),
    }
    return subprocess.Popen([sys.executable, "-m", "workers.archivist"], cwd=ROOT, env=environment)


def test_each_trade_is_archived_once_whenever_it_is_killed(
    client: redis.Redis, redis_url: str, tmp_path: Path, archive: Archive
) -> None:
    """SIGKILL at random moments while collectors write: nothing is left out, and no row is there twice."""
    market, chance = Market(client), random.Random(11)
    market.write(200)
    for _ in range(4):
        process = started(redis_url, tmp_path, 0.01)
        before = len(list(tmp_path.rglob("*.parquet*")))
        deadline = time.monotonic() + 60
        while len(list(tmp_path.rglob("*.parquet*"))) == before and time.monotonic() < deadline:
            market.write(5)
            time.sleep(0.02)
        until = time.monotonic() + chance.random() * 0.2
        while time.monotonic() < until:
            market.write(5)
            time.sleep(0.005)
        process.kill()
        process.wait(10)
    Archivist(client, archive, 30).turn()
    found = archived(archive)
    assert sorted(found) == sorted(market.trades)
    assert rows_of(archive, Kind.TRADES) == len(market.trades)
    assert rows_of(archive, Kind.QUOTES) == market.samples


@pytest.mark.parametrize("killed_at", range(1, 9))
def test_a_kill_between_two_files_leaves_nothing_out(
    client: redis.Redis, archive: Archive, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    """The next one writes what is missing, and only that: each series' files say how far it is."""
    market = Market(client)
    market.write(60)
    killed = Archivist(client, archive, 30)
    write, count = archive.write, 0

    def dying(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == killed_at:
            raise KeyboardInterrupt
        return write(*arguments)  # type: ignore[arg-type] # as they came

    monkeypatch.setattr(archive, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        killed.turn()
    monkeypatch.undo()
    market.write(60)
    Archivist(client, archive, 30).turn()
    assert sorted(archived(archive)) == sorted(market.trades)
    assert rows_of(archive, Kind.TRADES) == len(market.trades)
    assert rows_of(archive, Kind.SPANS) == 120


def test_two_of_them_harm_nothing(client: redis.Redis, archive: Archive) -> None:
    """What both have written is seen once; when it is made one, it is there once."""
    market = Market(client)
    one, other = Archivist(client, archive, 30), Archivist(client, archive, 30)
    market.write(30)
    one.turn()
    for _ in range(3):
        market.write(30)
        other.turn()
        market.write(30)
        one.turn()
    assert rows_of(archive, Kind.TRADES) > len(market.trades)
    assert sorted(archived(archive)) == sorted(market.trades)
    now_ms = time.time_ns() // 1_000_000
    for each in (one, other):
        each.tidy(now_ms + DAY_MS)
    assert rows_of(archive, Kind.TRADES) == len(market.trades)
    assert sorted(archived(archive)) == sorted(market.trades)
    market.write(30)
    one.turn()
    assert sorted(archived(archive)) == sorted(market.trades)


def test_a_clean_stop_writes_what_there_is(
    client: redis.Redis, redis_url: str, tmp_path: Path, archive: Archive
) -> None:
    """It was asleep; it ends at once, with all of it archived."""
    market = Market(client)
    market.write(20)
    process = started(redis_url, tmp_path, 3_600)
    deadline = time.monotonic() + 60
    while len(archived(archive)) < len(market.trades) and time.monotonic() < deadline:
        time.sleep(0.05)
    market.write(20)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert sorted(archived(archive)) == sorted(market.trades)


def test_memory_is_bounded_by_what_is_written_at_once(
    client: redis.Redis, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long absence is written in parts."""
    monkeypatch.setattr(room, "ROWS_MAX", 20)
    monkeypatch.setattr(room, "PAGE", 5)
    market = Market(client)
    market.write(100)
    archivist = Archivist(client, archive, 30)
    archivist.turn()
    assert archivist.counts["files"] > 20
    assert sorted(archived(archive)) == sorted(market.trades)
    archivist.turn()
    assert rows_of(archive, Kind.TRADES) == len(market.trades)


def test_another_market_is_left_alone(client: redis.Redis, archive: Archive) -> None:
    """A Redis that was there before knows prices of another one, and of none where they are older than that."""
    market = Market(client)
    market.write(20, "live")
    market.write(20, "")
    Archivist(client, archive, 30).turn()
    assert archive.series(Kind.TRADES) == archive.series(Kind.SPANS) == []


def test_spans_are_archived_too(client: redis.Redis, archive: Archive) -> None:
    """By venue."""
    span = Span("okx", 7, 5, 6, ("A",), "simulated")
    HistoryWriter(client).write({}, {}, span, time.time_ns() // 1000)
    Archivist(client, archive, 30).turn()
    assert list(read_spans(archive, "okx", 0, FAR_MS, set()).values()) == [span]


def test_where_nothing_can_be_written_it_is_tried_again(client: redis.Redis, tmp_path: Path) -> None:
    """It is counted; once it can be, everything is there."""
    market = Market(client)
    market.write(10)
    (tmp_path / "archive").touch()  # no folder can be made here
    archive = Archive(str(tmp_path / "archive"), "simulated")
    archivist = Archivist(client, archive, 30)
    assert [archivist.attempt() for _ in range(2)] == [False, False]
    assert archivist.counts["failures"] == 2
    (tmp_path / "archive").unlink()
    assert archivist.attempt()
    assert sorted(archived(archive)) == sorted(market.trades)


def test_an_entry_that_cannot_be_decoded_is_counted(client: redis.Redis, archive: Archive) -> None:
    """The others do not wait for it."""
    market = Market(client)
    market.write(10)
    client.xadd("history:BTC-USDT", {b"b": b"\xc1"})
    market.write(10)
    archivist = Archivist(client, archive, 30)
    archivist.turn()
    assert archivist.counts["unreadable"] == 1
    assert sorted(archived(archive)) == sorted(market.trades)


def test_days_that_are_older_than_kept_go(client: redis.Redis, archive: Archive) -> None:
    """Those that are kept stay; 0 keeps them for ever."""
    market = Market(client)
    market.write(10)
    archivist = Archivist(client, archive, 2)
    archivist.turn()
    now_ms = time.time_ns() // 1_000_000
    series = Series(Kind.TRADES, "okx", PAIRS[0])
    chunk = Chunk("okx", "A", 7, (), (Print(1, "1", Decimal(1), Decimal(1)),))
    for days_ago in (1, 3):
        rows, entry = Rows(Kind.TRADES), Entry(now_ms - days_ago * DAY_MS, 0)
        rows.add(entry, chunk)
        archive.write(series, rows.table(), entry, entry)
    Archivist(client, archive, 0).tidy(now_ms)
    assert len(archive.days(series)) == 3
    archivist.tidy(now_ms)
    assert archive.days(series) == [day_of(now_ms - DAY_MS), day_of(now_ms)]
