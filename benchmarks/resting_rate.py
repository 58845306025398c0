"""Orders from 202 to rest in the book, beside one Celery worker process that does nothing for each task.

Ours: the real fulfilment worker on SQLite and on PostgreSQL, both writing through to the disk. Orders are put into the
database in batches, each with a wake-up, as the API does ("arriving"), and all in one transaction ("at once"). The
time is from the first commit until all are `working`. Celery's: the same broker and settings, its tasks published
before its worker starts, from the first task to the last; prefork and threads of one, the faster counts.

`python -m benchmarks.resting_rate 20000 10000` takes the numbers of orders and of tasks.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import redis
from celery import Celery

from benchmarks.fulfilling import DATABASES, Store, listed, new_orders, store, until_committed, workers
from benchmarks.processes import cpu_s
from benchmarks.tutorial_worker import BEGAN, ENDED
from models.bus.broker import celery_options
from models.bus.wakeups import Wakeups, new_task_id
from models.store.orders import NewOrder, accept
from tests.services import ROOT, running_valkey

BATCH = 256  # at most so many does the API store at once
WARM = 500
PREFETCH = 64  # of the no-op: 4, which is Celery's own number, is slower
AIM = 5.0


def noop_rate(broker: str, pool: str, count: int) -> float:
    """Return how many no-op tasks a second a Celery worker process with a pool of one does."""
    client = redis.Redis.from_url(broker, decode_responses=True)
    client.flushall()
    publisher = Celery("publisher", set_as_current=False)
    publisher.conf.update(celery_options(broker))
    with publisher.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            mark = {0: BEGAN, count - 1: ENDED}.get(number)
            publisher.send_task("tutorial.noop", kwargs={"mark": mark}, queue="noop", producer=producer)
    publisher.close()
    options = ["--pool", pool, "--concurrency", "1", "--queues", "noop", "--prefetch-multiplier", str(PREFETCH)]
    quiet = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.tutorial_worker", "worker", *options, *quiet]
    environment = {**os.environ, "CROSSFILL_BROKER_URL": broker}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while client.get(ENDED) is None:
            if time.monotonic() > deadline or process.poll() is not None:
                raise TimeoutError(f"a Celery worker with {pool} did not do {count:,} tasks")
            time.sleep(0.05)
        return (count - 1) / (float(client.get(ENDED) or 0) - float(client.get(BEGAN) or 0))
    finally:
        process.terminate()
        process.wait(20)
        client.close()


def _server_s(made: Store) -> float:
    return cpu_s(made.server) if made.server else 0.0


def _accept(made: Store, wakeups: Wakeups, orders: Sequence[NewOrder]) -> None:
    answers = accept(made.database, orders)
    assert len(answers) == len(orders)
    wakeups.publish({shard: new_task_id() for shard in {order.shard for order in orders}})


def resting_rate(made: Store, broker: str, count: int) -> dict[str, tuple[float, float, float]]:
    """Return orders a second until they rest, arriving and at once.

    With each rate come the CPU milliseconds for 1,000 orders of the worker and of the database's server, which is the
    same for those that arrive.
    """
    wakeups, symbols, done, rates = Wakeups(broker), listed(), WARM, {}
    with workers(made, broker, 1) as [worker]:
        _accept(made, wakeups, new_orders(WARM, symbols, 1))
        until_committed(made.database, done)
        for way, size in (("arriving", BATCH), ("at once", count)):
            orders = new_orders(count, symbols, 1)
            used, server, began = cpu_s(worker), _server_s(made), 0.0
            for start in range(0, count, size):
                _accept(made, wakeups, orders[start : start + size])
                began = began or time.perf_counter()
            done += count
            took_s = until_committed(made.database, done) - began
            each = 1e6 / count
            rates[way] = count / took_s, each * (cpu_s(worker) - used), each * (_server_s(made) - server)
    wakeups.close()
    return rates


def main(count: int = 20_000, tasks: int = 10_000) -> None:
    """Print a table."""
    print("| | way | orders/s until they rest | worker: CPU ms for 1,000 | server |\n|---|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, running_valkey(Path(name)) as broker:
        slowest = float("inf")
        for kind in DATABASES:
            with store(kind, 1) as made:
                rates = resting_rate(made, broker, count)
            slowest = min(slowest, rates["arriving"][0])
            for way, (rate, worker, server) in rates.items():
                print(f"| crossfill, {kind} | {way} | {rate:,.0f} | {worker:,.0f} | {server:,.0f} |", flush=True)
            with redis.Redis.from_url(broker) as client:
                client.flushall()
        noops = {pool: noop_rate(broker, pool, tasks) for pool in ("prefork", "threads")}
    for pool, rate in noops.items():
        print(f"| Celery no-op | {pool} of one | {rate:,.0f} | | |")
    ratio = slowest / max(noops.values())
    print(f"\n{ratio:.1f} x Celery's faster no-op; the aim of {AIM:.0f} x is {'' if ratio >= AIM else 'NOT '}reached.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
