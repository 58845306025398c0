"""`python -m simulator`: its answer, its faults by HTTP, its end."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from models.domain.instruments import INSTRUMENTS
from tests.services import ROOT


def _drain(client: ClientConnection) -> None:
    while True:
        client.recv(timeout=30)


@contextmanager
def _simulator(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "simulator", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(10)


def test_it_says_where_it_listens_and_ends_clean() -> None:
    """One line of JSON; SIGTERM closes connections and ends it with status 0, soon and without a word."""
    with _simulator() as (process, said):
        assert set(said["ports"]) == {*INSTRUMENTS.venues, "control"}
        assert (said["market"], said["replayed"]) == ("simulated", [])
        with connect(f"ws://127.0.0.1:{said['ports']['binance']}/ws/btcusdt@trade") as client:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                _drain(client)
        assert process.wait(8) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


def test_a_taken_port_is_one_sentence() -> None:
    """No traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "simulator", "--port", f"binance={taken.getsockname()[1]}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("cannot listen:")
    assert len(done.stderr.splitlines()) == 1


def test_a_folder_without_a_session_is_one_sentence(tmp_path: Path) -> None:
    """It says what was looked for."""
    command = [sys.executable, "-m", "simulator", "--replay", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("no session of binance or coinbase or kraken")


def test_one_venue_is_replayed_and_the_other_synthetic(recordings: Path) -> None:
    """A venue without a session gets the synthetic market."""
    with _simulator("--replay", str(recordings), "--speed", "50") as (_, said):
        assert (said["market"], said["replayed"]) == ("replay", ["binance", "okx"])
        with connect(f"ws://127.0.0.1:{said['ports']['binance']}/ws/btcusdt@bookTicker") as client:
            assert json.loads(client.recv(timeout=30))["u"] == 50093239212
        with connect(f"ws://127.0.0.1:{said['ports']['coinbase']}") as client:
            client.send('{"type":"subscribe","product_ids":["BTC-USDT"],"channels":["level2_batch"]}')
            assert [json.loads(client.recv(timeout=30))["type"] for _ in range(2)] == ["subscriptions", "snapshot"]


def test_faults_by_http() -> None:
    """POST /faults lets one begin; anything else is refused with what there is."""
    with _simulator() as (_, said):
        url = f"http://127.0.0.1:{said['ports']['control']}"
        with connect(f"ws://127.0.0.1:{said['ports']['binance']}/ws/btcusdt@bookTicker") as client:
            client.recv(timeout=30)
            fault = {"venue": "binance", "fault": "drop", "seconds": 2}
            assert httpx.post(f"{url}/faults", json=fault).json() == fault
            with pytest.raises(ConnectionClosed):
                _drain(client)
        bodies: list[object] = [
            {},
            [],
            {"venue": "bitstamp", "fault": "drop"},
            {"venue": "binance", "fault": "flood"},
            {"venue": "binance", "fault": "stall", "seconds": "long"},
            {"venue": "binance", "fault": "stall", "hours": 1},
        ]
        for body in bodies:
            answer = httpx.post(f"{url}/faults", json=body)
            assert answer.status_code == 400
            assert "fault: one of drop" in answer.json()["usage"]
        assert httpx.get(url).status_code == 404
        assert httpx.post(f"{url}/faults", content=b"x" * 5_000).status_code == 400


def test_it_costs_little() -> None:
    """With every product of both venues subscribed it sends 30 to 80 frames a second each, below 6 % of a core."""
    with _simulator() as (process, said):
        streams = [
            f"{pid.lower()}@{channel}"
            for pid in INSTRUMENTS.products_of("binance")
            for channel in ("bookTicker", "trade")
        ]
        with (
            connect(
                f"ws://127.0.0.1:{said['ports']['binance']}/stream?streams={'/'.join(streams)}", close_timeout=0.5
            ) as one,
            connect(f"ws://127.0.0.1:{said['ports']['coinbase']}", close_timeout=0.5) as other,
        ):
            channels = ["level2_batch", "ticker", "matches", "heartbeat"]
            ids = list(INSTRUMENTS.products_of("coinbase"))
            other.send(json.dumps({"type": "subscribe", "product_ids": ids, "channels": channels}))
            for _ in range(1 + 3 * len(ids)):
                other.recv(timeout=30)
            times = psutil.Process(process.pid).cpu_times()
            started, counts = time.monotonic(), []
            for client in (one, other):
                count, until = 0, time.monotonic() + 3
                while time.monotonic() < until:
                    client.recv(timeout=30)
                    count += 1
                counts.append(count / 3)
            now = psutil.Process(process.pid).cpu_times()
        used_s = now.user + now.system - times.user - times.system
        # The second venue's first three seconds waited in the client's buffer.
        assert 30 < counts[0] < 80
        assert 30 < counts[1] < 160
        assert used_s / (time.monotonic() - started) < 0.06
