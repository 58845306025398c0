"""Faults as a client meets them, and the rules of time."""

import contextlib
import json
import socket
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from simulator import binance, coinbase
from tests.integration.simulator.running import running

STREAMS = "/stream?streams=" + "/".join(
    f"{symbol}@{channel}"
    for symbol in ("btcusdt", "ethusdt", "ltcusdt", "ltcbtc", "ethbtc")
    for channel in ("bookTicker", "trade")
)


def _frames(client: ClientConnection, seconds: float) -> list[str]:
    """Return what comes within some seconds."""
    frames: list[str] = []
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0:
        with contextlib.suppress(TimeoutError):
            frames.append(str(client.recv(timeout=left_s)))
    return frames


@pytest.mark.parametrize("fault", ["drop", "reset"])
def test_a_connection_is_cut_without_a_word(fault: str) -> None:
    """The client's socket ends, with no closing frame; the next connection is served."""
    with running(binance.WIRE) as venue:
        with connect(venue.url + STREAMS) as client:
            client.recv(timeout=30)
            venue.inject(fault)
            with pytest.raises(ConnectionClosedError) as ended:
                _frames(client, 5)
        assert ended.value.rcvd is None
        with connect(venue.url + STREAMS) as client:
            client.recv(timeout=30)


def test_a_reset_is_a_tcp_reset() -> None:
    """The operating system says that the connection was reset."""
    with running(coinbase.WIRE) as venue:
        port = int(venue.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            )
            assert b" 101 " in raw.recv(4_096)
            venue.inject("reset")
            with pytest.raises(ConnectionResetError):
                raw.recv(4_096)


def test_a_stalled_venue_says_nothing_at_all() -> None:
    """While it stalls no frame, heartbeat, ping or pong comes; afterwards what waited does."""
    with (
        running(binance.WIRE, timing=replace(binance.WIRE.timing, ping_s=0.1)) as venue,
        connect(venue.url + STREAMS) as client,
    ):
        client.recv(timeout=30)
        venue.inject("stall", seconds=3)
        while _frames(client, 0.2):  # what was on its way
            pass
        pong = client.ping()
        assert _frames(client, 1) == []
        assert not pong.is_set()
        came = 0
        while came < 20 or not pong.is_set():  # which comes after what waited before it
            came += bool(client.recv(timeout=30))


def test_nobody_gets_in_while_a_venue_stalls_or_refuses() -> None:
    """A stalled venue takes the connection and answers nothing; a refusing one answers 503."""
    with running(coinbase.WIRE) as venue:
        venue.inject("stall", seconds=2)
        with pytest.raises(TimeoutError), connect(venue.url, open_timeout=0.5):
            pass
        venue.inject("clear")
        venue.inject("refuse", seconds=600)
        with pytest.raises(InvalidStatus, match="503"), connect(venue.url):
            pass
        venue.inject("clear")
        with connect(venue.url):
            pass


def test_a_slow_venue_sends_everything_later() -> None:
    """Frames come with a delay and none is missing; trade ids still rise by one."""
    with running(binance.WIRE) as venue, connect(f"{venue.url}/ws/btcusdt@trade") as client:
        client.recv(timeout=20)
        venue.inject("slow", seconds=600, delay_s=0.5)
        injected_ms = time.time() * 1000
        trades: list[dict[str, int]] = []
        late_ms: list[float] = []
        while len(late_ms) < 2:
            trades.append(json.loads(client.recv(timeout=30)))
            if trades[-1]["T"] > injected_ms:
                late_ms.append(time.time() * 1000 - trades[-1]["T"])
        assert all(trade["t"] == before["t"] + 1 for before, trade in pairwise(trades))
        assert min(late_ms) > 490


def test_a_gap_shows_in_coinbases_heartbeat() -> None:
    """A match that was not sent is one that the heartbeat knows of."""
    with running(coinbase.WIRE) as venue, connect(venue.url) as client:
        channels = ["matches", "heartbeat"]
        client.send(json.dumps({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": channels}))
        ids: list[int] = []
        venue.inject("gap", count=3)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            message = json.loads(client.recv(timeout=30))
            if message["type"] in ("match", "last_match"):
                ids.append(message["trade_id"])
            elif message["type"] == "heartbeat" and message["last_trade_id"] > ids[-1]:
                break
        else:
            pytest.fail("no heartbeat knew more than came")


def test_binance_pings_and_wants_its_pongs() -> None:
    """The server pings with a payload; who never answers is closed."""
    timing = replace(binance.WIRE.timing, ping_s=0.1, pong_within_s=1.5)
    with running(binance.WIRE, timing=timing) as venue:
        with connect(f"{venue.url}/ws") as client:
            time.sleep(2)
            assert client.ping().wait(30)  # answered pings keep the connection
        port = int(venue.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            raw.sendall(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            )
            said = b""
            while chunk := raw.recv(4_096):
                said += chunk
        frames = said.partition(b"\r\n\r\n")[2]
        assert frames[0] == 0x89  # a ping
        assert frames[2 : 2 + frames[1]].isdigit()
        assert b"\x88" in frames  # a close


def test_too_many_requests_end_the_connection() -> None:
    """Binance bears five messages a second."""
    with running(binance.WIRE) as venue, connect(f"{venue.url}/ws") as client:
        for number in range(6):
            client.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        with pytest.raises(ConnectionClosed, match="Too many requests"):
            _frames(client, 5)
        assert client.close_code == 1008


def test_a_client_that_does_not_read_is_cut_off() -> None:
    """What waits for a client is bounded."""
    with running(coinbase.WIRE) as venue, connect(venue.url, max_queue=1) as client:
        client.send(json.dumps({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["matches"]}))
        while not venue.venue.busy:
            time.sleep(0.01)
        [held] = venue.venue._clients

        def flood() -> None:
            held.put("x" * 100_000 for _ in range(6_000))

        venue.loop.call_soon_threadsafe(flood)
        deadline = time.monotonic() + 30
        while held.queue.qsize() < 4_900 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 4_900 < held.queue.qsize() <= 5_000
        with pytest.raises(ConnectionClosedError):
            _frames(client, 10)
