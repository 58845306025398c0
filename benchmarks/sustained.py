"""500 orders/s for two minutes, all of `crossfill up` running: from POST to `order.filled`, and memory meanwhile.

Orders arrive in an open loop, each with its own client_order_id, of several owners in turn, small against any level and
at prices that cross at once; one client of each owner listens. A latency is counted from when the order was due and
from when its 202 was here; an event may overtake its 202, which then counts as 0.

`python -m benchmarks.sustained 120 500` takes the seconds and the rate.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psutil
import uvloop
from websockets.asyncio.client import connect

from benchmarks.arrivals import Answer, arrive, quantile
from benchmarks.load import post
from benchmarks.processes import SAMPLE_S, MemoryWatch, family, named, own_cpu_s, thirds
from models.store.database import Database
from models.store.owners import ensure_owner
from tests.e2e.system import System, running_system

OWNERS = {f"owner-{number}": f"token-of-owner-{number}" for number in range(4)}
# Each of these about a dollar or less, on either side.
SIZES = {"BTCUSDT": "0.00001", "ETHUSDT": "0.0003", "LTCUSDT": "0.01", "BTCUSDC": "0.00001", "ETHUSDC": "0.0003"}
PRICES = {"sell": "0.01", "buy": "1000000"}
CONNECTIONS = 128
WARM_S = 5.0
LAST_S = 15.0  # for the last events
P50_MS, P99_MS, GROWTH = 40.0, 200.0, 1.05  # the aims
FILLED = '42["order.filled",'


def orders() -> Iterator[bytes]:
    """Yield requests that cross at once, of each owner, symbol and side in turn, with names of their own."""
    tokens, symbols, sides = list(OWNERS.values()), list(SIZES.items()), list(PRICES.items())
    for number in count():
        (symbol, size), (side, price) = symbols[number // 2 % len(symbols)], sides[number % 2]
        body = {"symbol": symbol, "order_size": size, "price": price, "side": side}
        named = {**body, "client_order_id": f"sustained-{number}"}
        # An owner has orders of every symbol and side: their numbers have no factor in common with it.
        yield post("/order/limit", json.dumps(named).encode(), tokens[number // 10 % len(tokens)])


class Listener:
    """A client that speaks Socket.IO itself, to be cheap, and notes when it was told of each fill."""

    def __init__(self, notifier: str, token: str, filled: dict[str, float]) -> None:
        self.ready = asyncio.Event()
        self._url = f"{notifier.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket"
        self._token, self._filled = token, filled

    async def run(self) -> None:
        """Listen until it is cancelled."""
        async with connect(self._url, max_size=None, max_queue=None, compression=None) as client:
            async for packet in client:
                text = str(packet)
                if text.startswith(FILLED):
                    self._filled[orjson.loads(text[2:])[1]["order_id"]] = time.perf_counter()
                elif text.startswith("0"):
                    await client.send("40" + json.dumps({"token": self._token}))
                elif text == "2":
                    await client.send("3")
                elif text.startswith('42["ready"'):
                    self.ready.set()


async def _sustain(system: System, rate: float, duration_s: float) -> tuple[list[Answer], dict[str, float], float]:
    """Return the answers, when each order's event came, and how long this program itself needed the processor."""
    filled: dict[str, float] = {}
    listeners = [Listener(system.notifier, token, filled) for token in OWNERS.values()]
    tasks = [asyncio.create_task(listener.run()) for listener in listeners]
    for listener in listeners:
        await asyncio.wait_for(listener.ready.wait(), 20)
    port, requests = urlsplit(system.api).port or 0, orders()
    await arrive(port, requests, connections=CONNECTIONS, duration_s=WARM_S, rate=rate)
    await asyncio.sleep(1)
    filled.clear()
    used = time.process_time()
    answers = await arrive(port, requests, connections=CONNECTIONS, duration_s=duration_s, rate=rate)
    used = time.process_time() - used
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_S):
            while len(filled) < len(answers):  # noqa: ASYNC110 -- what fills it is four clients
                await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers, filled, used


def main(duration_s: float = 120, rate: float = 500) -> None:
    """Print latencies, memory by process in the thirds of the run, and CPU by process."""
    with (
        tempfile.TemporaryDirectory(prefix="crossfill-bench-") as folder,
        running_system(Path(folder) / "home") as system,
    ):
        database = Database.open(f"sqlite:///{system.home / 'crossfill.db'}", pool_size=1)
        for owner, token in OWNERS.items():
            ensure_owner(database, owner, "user", token)
        database.close()
        time.sleep(2)
        processes = named(family(psutil.Process(system.process.pid)))
        before, began = _cpu(processes), time.perf_counter()
        with MemoryWatch(processes) as watch, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            answers, filled, used = runner.run(_sustain(system, rate, duration_s))
        took_s = time.perf_counter() - began
        after = _cpu(processes)
    _print_latencies(answers, filled, rate, duration_s)
    shares = {name: (after[name] - before[name]) / took_s for name in processes}
    shares["this load"] = used / duration_s
    print(
        "\n| process | MB, first third | middle | last | last / middle | CPU % of a core |\n|---|--:|--:|--:|--:|--:|"
    )
    worst = 0.0
    for name, samples in watch.samples.items():
        first, middle, last = (each / 1e6 for each in thirds(samples[int(WARM_S / SAMPLE_S) :]))
        worst = max(worst, last / middle)
        print(f"| {name} | {first:.1f} | {middle:.1f} | {last:.1f} | {last / middle:.3f} | {shares[name]:.0%} |")
    print(f"| this load | | | | | {shares['this load']:.0%} |")
    print(f"\nmemory {_reached(worst <= GROWTH)}: at most {worst:.3f} (aim {GROWTH}); CPU of all together ", end="")
    print(f"{sum(shares.values()):.2f} of {os.cpu_count()} cores")


def _cpu(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    return {name: own_cpu_s(process) for name, process in processes.items()}


def _print_latencies(answers: list[Answer], filled: dict[str, float], rate: float, duration_s: float) -> None:
    accepted = [(answer, orjson.loads(answer.body)["order"]["id"]) for answer in answers if answer.status == 202]
    told = [(answer, filled[order_id]) for answer, order_id in accepted if order_id in filled]
    latencies = {
        "due to 202": [answer.latency_ms for answer, _ in accepted],
        "due to `order.filled`": [(at - answer.due) * 1e3 for answer, at in told],
        "202 to `order.filled`": [max(0.0, at - answer.answered) * 1e3 for answer, at in told],
    }
    print(
        f"{rate:,.0f} orders/s for {duration_s:.0f} s: {len(answers):,} answers, {len(accepted):,} accepted, ", end=""
    )
    print(f"{len(told):,} filled; {dict(Counter(answer.status for answer in answers))}\n")
    print("| from | p50 ms | p99 ms | max ms | aim |\n|---|--:|--:|--:|---|")
    for name, values in latencies.items():
        values.sort()
        p50, p99 = quantile(values, 0.5), quantile(values, 0.99)
        aim = _reached(p50 < P50_MS and p99 < P99_MS) if name.endswith("filled`") else ""
        print(f"| {name} | {p50:.1f} | {p99:.1f} | {quantile(values, 1):.1f} | {aim} |")


def _reached(reached: bool) -> str:  # noqa: FBT001 -- what it says
    return "reached" if reached else "NOT REACHED"


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
