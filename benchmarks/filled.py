"""POST sent to `order.filled` received by a Socket.IO client, when the quote already crosses, 50 orders/s."""

import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import socketio

from tests.e2e.system import System, running_system

RATE = 50
# Small against any level, so that what is measured is the way and not the market.
BODY = {"symbol": "BTCUSDT", "order_size": "0.00001", "price": "1.00", "side": "sell"}


def _measure(system: System, count: int) -> list[float]:
    sent: dict[str, float] = {}
    received: dict[str, float] = {}
    ready, ended = threading.Event(), threading.Event()
    client = socketio.Client()

    def filled(message: dict[str, Any]) -> None:
        received[message["order_id"]] = time.perf_counter()
        if len(received) == count:
            ended.set()

    client.on("order.filled", filled)
    client.on("ready", lambda _message: ready.set())
    client.connect(system.notifier, auth={"token": system.token}, transports=["websocket"])
    assert ready.wait(10)
    with system.client() as http:
        started = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            before = time.perf_counter()
            sent[http.post("/order/limit", json=BODY).json()["order"]["id"]] = before
    ended.wait(10)
    client.disconnect()
    return sorted(received[order_id] - sent[order_id] for order_id in sent if order_id in received)


def main(count: int = 1000) -> None:
    """Print p50 and p99 in milliseconds."""
    with (
        tempfile.TemporaryDirectory(prefix="crossfill-bench-") as folder,
        running_system(Path(folder) / "home") as system,
    ):
        time.sleep(2)
        latencies = _measure(system, count)
    p50, p99 = (latencies[int(len(latencies) * fraction)] * 1000 for fraction in (0.5, 0.99))
    print(f"{len(latencies)} of {count} orders filled at {RATE}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
