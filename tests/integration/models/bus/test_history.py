"""The history on a real server: what is written is read around a window, and what is old goes."""

import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import redis

from models.bus.client import BusUnavailableError, connect
from models.bus.history import (
    KEPT_S,
    KEYFRAME_S,
    LATE_S,
    HistoryWriter,
    read_candles,
    read_chunks,
    read_spans,
)
from models.bus.leases import LEASE_MS, BusLease
from models.bus.names import venue_lease_key
from models.domain.candles import VenueCandle
from models.domain.history import Chunk, Print, Sample, Span

ONE = Decimal("1.000000000000000000000000001")
CHUNK = Chunk("okx", "A", 7, (Sample(5, ONE, None, ONE),), (Print(6, "9", ONE, ONE),))
CANDLE = VenueCandle("okx", "A", 7, 60, 0, ONE, ONE, ONE, ONE, ONE, None, None, True, 6)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = connect(redis_url)
    yield made
    made.close()


def now_us() -> int:
    return time.time_ns() // 1000


def test_what_is_written_is_read_around_its_window(client: redis.Redis) -> None:
    """With every digit; another symbol's and another time's is not."""
    writer = HistoryWriter(client)
    span = Span("okx", 7, 1, 2, ("A",))
    writer.write({"A-USD": CHUNK}, {"A-USD": [CANDLE]}, span, now_us())
    at = now_us()
    assert read_chunks(client, "A-USD", at, at) == [CHUNK]
    assert read_candles(client, "A-USD", at, at) == [CANDLE]
    assert read_spans(client, "okx", at, at) == [span]
    assert read_chunks(client, "B-USD", at, at) == []
    long_ago = at - int((KEYFRAME_S + LATE_S) * 1e6) * 2
    assert read_chunks(client, "A-USD", long_ago, long_ago) == []


def test_what_is_old_goes(client: redis.Redis) -> None:
    """By the time of the entries: the streams are bounded whatever comes."""
    writer = HistoryWriter(client)
    for _ in range(300):
        writer.write({"A-USD": CHUNK}, {}, Span("okx", 7, 1, 2), now_us())
    later = now_us() + int((KEPT_S + KEYFRAME_S + LATE_S + 60) * 1e6)
    writer.write({"A-USD": CHUNK}, {}, Span("okx", 7, 1, 2), later)
    # Redis trims whole nodes of about a hundred entries.
    assert client.xlen("history:A-USD") < 110
    assert client.xlen("spans:okx") < 110


def test_without_memory_the_older_half_goes(client: redis.Redis) -> None:
    """The write that met it fails and says so; the next one finds room."""
    writer = HistoryWriter(client)
    long = CHUNK.samples * 2_000
    for at_s in (7_000, 5_000, 3_000, 60):
        entry: Any = {b"b": msgspec.msgpack.encode([long])}
        client.xadd("history:A-USD", entry, id=f"{now_us() // 1000 - at_s * 1_000}-0")
    try:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]))
        with pytest.raises(BusUnavailableError, match="maxmemory"):
            writer.write({"A-USD": CHUNK}, {}, None, now_us())
        assert client.xlen("history:A-USD") == 2
        writer.write({"A-USD": CHUNK}, {}, None, now_us())
        assert client.xlen("history:A-USD") == 3
    finally:
        client.config_set("maxmemory", 0)


def test_a_bus_that_is_away_is_said_to_be() -> None:
    """As everywhere: the collector logs a hole in the history and goes on."""
    away = connect("redis://127.0.0.1:1/0", timeout_s=0.2)
    with pytest.raises(BusUnavailableError):
        HistoryWriter(away).write({"A-USD": CHUNK}, {}, None, 0)
    with pytest.raises(BusUnavailableError):
        read_chunks(away, "A-USD", 0, 1)


def test_one_holds_the_lease_until_it_ends(client: redis.Redis) -> None:
    """It is renewed by its holder alone, runs out by itself, and is given back only by whom it belongs to."""
    first, second = (
        BusLease(client, venue_lease_key("okx"), "first"),
        BusLease(client, venue_lease_key("okx"), "second"),
    )
    assert (first.hold(), second.hold(), first.hold()) == (True, False, True)
    second.release()
    assert not second.hold()
    first.release()
    assert second.hold()
    time.sleep(LEASE_MS / 1000 + 0.1)
    assert first.hold()
    assert not second.hold()
    assert BusLease(client, venue_lease_key("htx"), "second").hold()
