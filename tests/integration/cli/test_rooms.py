"""`crossfill watch` of rooms, against a notifier in a process of its own."""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from models.store.database import Database
from tests.integration.notifier.market import signal, tell_candle, tell_price, tell_signals, tell_vwap
from tests.integration.notifier.test_server import address, database
from tests.integration.notifier.test_sockets import up
from tests.services import ROOT

__all__ = ["address", "database"]


def watch(address: str, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "CROSSFILL_NOTIFIER_URL": address,
        "CROSSFILL_TOKEN": "secret",
        "CROSSFILL_HOME": str(home),
    }
    command = [sys.executable, "-m", "cli", "watch", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def changing(redis_url: str) -> Iterator[None]:
    stop = threading.Event()

    def change() -> None:
        with redis.Redis.from_url(redis_url) as bus:
            for number in itertools.count(3):
                tell_candle(bus, number, symbol="LTC-BTC")
                if stop.wait(0.05):
                    return

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_rooms_are_watched(address: str, database: Database, redis_url: str, tmp_path: Path) -> None:
    """A line a message, for people or as it came; what is wrong is told in a sentence."""
    up(address)
    with redis.Redis.from_url(redis_url) as bus:
        tell_price(bus, "30000.00")
        tell_vwap(bus, 2)
        tell_vwap(bus, 2, venue="all:5m")
        tell_candle(bus, 7)
        tell_signals(bus, signal(1))
    rooms = [
        "price:btcusdt",
        "price:BTC-USDT",
        "vwap:BTC-USDT",
        "candle:BTC-USDT:1m",
        "candle:LTC-BTC:1m",
        "signal:BTC-USDT",
        "signal:LTC-BTC",
    ]
    with changing(redis_url):  # which is not shown where once was asked for
        people = watch(address, tmp_path, "--once", *rooms)
    assert (people.returncode, people.stderr) == (0, "")
    lines = sorted(people.stdout.splitlines())
    assert lines.pop(1).startswith("candle:LTC-BTC:1m  okx 10/12.5/9/11 (")
    assert lines == [
        "candle:BTC-USDT:1m  okx 10/12.5/9/11 (7)",
        "price:BTC-USDT  binance 30000/30000.1",
        "signal:BTC-USDT  golden_cross by averages v1 a, all 1m: 10.5 and 10.25  (before)",
        "vwap:BTC-USDT  all 0.6666666667 (2)",
    ]
    [told] = watch(address, tmp_path, "--once", "--json", "price:BTC-USDT").stdout.splitlines()
    assert json.loads(told)["prices"]["binance"]["ask"] == "30000.1"
    wrong = watch(address, tmp_path, "price:BTC-USDTT")
    assert wrong.returncode == 1
    assert "did you mean BTC-USDT" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_notifier_that_is_not_there_is_told(tmp_path: Path) -> None:
    """In one sentence."""
    refused = watch("http://127.0.0.1:1", tmp_path, "price:BTC-USDT")
    assert refused.returncode == 1
    assert refused.stderr.startswith("crossfill: the notifier at http://127.0.0.1:1 refuses or does not answer")
    assert len(refused.stderr.splitlines()) == 1
