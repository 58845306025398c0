"""A thousand orders that wait, and one more that could be filled at once: the tutorial design beside ours.

There a Celery task holds its worker until the price is reached or the order's 30 s are over (see
benchmarks.tutorial_worker); here an order lies in the book. Both get the same orders by POST, at prices that nobody
reaches, and then one that crosses. The tutorial's pools are what a machine of this size can have: prefork with two
children, and a thousand threads.

`python -m benchmarks.waiting_design 1000` takes the number of waiting orders.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import redis

from benchmarks.accept import UVICORN, serving
from benchmarks.processes import cpu_s, family, named
from benchmarks.tutorial_worker import BID, FILLED, TIMEOUT_S, WAITING
from cli.valkey import free_port
from tests.e2e.system import running_system
from tests.services import ROOT, running_valkey

POOLS = (("prefork", 2), ("threads", 1_000))
WATCH_S = 5.0
PATIENCE_S = 2 * TIMEOUT_S  # the next order is waited for so long
LIMIT_S = 60.0


@dataclass(frozen=True)
class Waited:
    """What waiting cost. `cpu_share` is of one core; `latency_s` the next order's from POST to its fill."""

    waiting: int
    bytes_each: float
    cpu_share: float
    latency_s: float


def _post(url: str, token: str, order: dict[str, str]) -> dict[str, Any]:
    body = json.dumps({"symbol": "BTCUSDT", "order_size": "0.00001", "side": "sell", **order}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    with urlopen(Request(f"{url}/order/limit", body, headers), timeout=20) as answer:
        told: dict[str, Any] = json.load(answer)
    return told


def _rss(processes: Sequence[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


def _share(processes: Sequence[psutil.Process]) -> float:
    before, began = sum(map(cpu_s, processes)), time.perf_counter()
    time.sleep(WATCH_S)
    return (sum(map(cpu_s, processes)) - before) / (time.perf_counter() - began)


def _wait(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


@contextmanager
def _celery(broker: str, pool: str, size: int) -> Iterator[psutil.Process]:
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.tutorial_worker", "worker", "--loglevel", "ERROR"]
    command += ["--pool", pool, "--concurrency", str(size), "--prefetch-multiplier", "1"]
    environment = {**os.environ, "CROSSFILL_BROKER_URL": broker}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        [*command, "--without-gossip", "--without-mingle"], cwd=ROOT, env=environment, stdout=quiet, stderr=quiet
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        # Asked kindly it would wait for the tasks that wait.
        for each in reversed(family(psutil.Process(process.pid))):
            each.kill()
        process.wait(20)


def tutorial(folder: Path, pool: str, size: int, count: int) -> Waited:
    """Measure the tutorial design with one of Celery's pools."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.tutorial_worker:api", "--factory", "--port", str(port)]
    with running_valkey(folder) as broker, redis.Redis.from_url(broker, decode_responses=True) as client:
        environment = {"CROSSFILL_BROKER_URL": broker}
        with _celery(broker, pool, size) as worker, serving([*command, *UVICORN], port, environment):
            url = f"http://127.0.0.1:{port}"

            def place(name: str, price: str) -> None:
                _post(url, "", {"price": price, "client_order_id": name})

            def waiting() -> int:
                return int(client.get(WAITING) or 0)

            def filled() -> bool:
                return bool(client.llen(FILLED))

            client.set(BID, "100")
            place("warm", "50")
            _wait(lambda: filled() and not waiting(), LIMIT_S)
            client.delete(FILLED)
            before = _rss(family(worker))
            for number in range(count):
                place(f"waits-{number}", "150")
            _wait(lambda: waiting() >= min(count, size), TIMEOUT_S / 2)
            held = waiting()
            # With prefork an order has a process, which was there before.
            each = _rss(worker.children()) / size if pool == "prefork" else (_rss(family(worker)) - before) / held
            posted = time.time()
            place("next", "50")
            share = _share(family(worker))
            _wait(filled, PATIENCE_S - WATCH_S)
            told: Any = client.lpop(FILLED)
    return Waited(held, each, share, float(told.split()[1]) - posted if told else float("inf"))


def ours(folder: Path, count: int) -> Waited:
    """Measure ours, all of `crossfill up` running; the CPU is what the fulfilment worker needs more than before."""
    with running_system(folder / "home") as system, system.client() as http:
        processes = named(family(psutil.Process(system.process.pid)))
        worker = [processes["workers fulfilment"]]

        def state(order_id: str) -> str:
            return str(http.get(f"/orders/{order_id}").json()["state"])

        def place(price: str) -> str:
            return str(_post(system.api, system.token, {"price": price, "time_in_force": "GTC"})["order"]["id"])

        warm = place("1")
        _wait(lambda: state(warm) == "filled", LIMIT_S)
        idle, before = _share(worker), _rss(list(processes.values()))
        placed = [place("1000000") for _ in range(count)]
        _wait(lambda: state(placed[-1]) == "working", LIMIT_S)
        held = sum(state(order_id) == "working" for order_id in placed)
        each = (_rss(list(processes.values())) - before) / held
        posted = time.monotonic()
        following = place("1")
        _wait(lambda: state(following) == "filled", PATIENCE_S)
        latency_s = time.monotonic() - posted
        return Waited(held, each, max(0.0, _share(worker) - idle), latency_s)


def main(count: int = 1_000) -> None:
    """Print a table."""
    print(f"| {count:,} orders that wait, then one more | waiting at once | KB each | CPU % | the next one's fill |")
    print("|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name:
        for pool, size in POOLS:
            folder = Path(name) / pool
            folder.mkdir()
            _print(f"a task for each, {pool} of {size:,}", tutorial(folder, pool, size, count))
        _print("crossfill, in the book", ours(Path(name), count))
    print(
        f"\nA fill that did not come within {PATIENCE_S:.0f} s would come once those before it gave up: with two ",
        end="",
    )
    print(f"children after {count / 2 * TIMEOUT_S / 3600:.1f} hours.")


def _print(design: str, waited: Waited) -> None:
    late = waited.latency_s == float("inf")
    latency = f"not within {PATIENCE_S:.0f} s" if late else f"{waited.latency_s * 1e3:,.0f} ms"
    row = f"{waited.waiting:,} | {waited.bytes_each / 1e3:,.1f} | {waited.cpu_share:.0%} | {latency}"
    print(f"| {design} | {row} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
