"""Accept while another process commits a backlog: 100,000 splits, 500 in a transaction, in the same database.

Beside the API without a backlog, the no-op and the fastest form of the tutorial design, in one run.
"""

import multiprocessing
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.accept import BODY, TOKEN, crossfill, form
from benchmarks.fulfilling import DATABASES, store
from benchmarks.load import Load, post, run
from benchmarks.outcomes import BATCH, SHARDS, commit, prepare
from models.store.database import Database
from tests.services import running_valkey

SPLITS = 100_000
CONNECTIONS = (32, 256)
FORMS = ("noop", "async_plain")
TUTORIAL, NOOP = 2.5, 0.6  # the aims


def committing(url: str, splits: int, pipe: Connection) -> None:
    """Prepare a backlog, say so, commit it when told, until told again or it is all done; say how much in what time."""
    batches = prepare(url, splits // BATCH)
    pipe.send(None)
    pipe.recv()
    began, done = time.perf_counter(), 0
    with closing(Database.open(url)) as database:
        while done < len(batches) and not pipe.poll():
            commit(database, batches[done])
            done += 1
    pipe.send((done * BATCH, time.perf_counter() - began, done == len(batches)))


def _load(port: int, connections: int, duration_s: float) -> Load:
    load = run(port, post("/order/limit", BODY, TOKEN), connections=connections, duration_s=duration_s)
    assert set(load.statuses) == {202}, load.statuses
    return load


def main(splits: int = SPLITS, duration_s: float = 5) -> None:
    """Print a table: rate, p50 and p99 without and beside the backlog, and how fast that is committed meanwhile."""
    print("| server | connections | requests/s | p50 ms | p99 ms | splits/s |\n|---|--:|--:|--:|--:|--:|")
    rates: dict[tuple[str, int], float] = {}

    def tell(name: str, connections: int, load: Load, committed: str = "") -> None:
        rates[name, connections] = load.rate
        quantiles = f"{load.quantile_ms(0.5):.1f} | {load.quantile_ms(0.99):.1f}"
        print(f"| {name} | {connections} | {load.rate:,.0f} | {quantiles} | {committed} |", flush=True)

    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(running_valkey(folder / "valkey"))
        for kind in FORMS:
            with form(kind, broker) as port:
                for connections in CONNECTIONS:
                    tell(kind, connections, _load(port, connections, duration_s))
        for kind in DATABASES:
            made = stack.enter_context(store(kind, SHARDS))
            ours, its = multiprocessing.get_context("spawn").Pipe()
            process = multiprocessing.get_context("spawn").Process(target=committing, args=(made.url, splits, its))
            process.start()
            ours.recv()
            with crossfill(made, folder, broker) as port:
                _load(port, 4, 0.5)
                for connections in CONNECTIONS:
                    tell(kind, connections, _load(port, connections, duration_s))
                ours.send(None)
                loads = [_load(port, connections, duration_s) for connections in CONNECTIONS]
            ours.send(None)
            done, took_s, over = ours.recv()
            process.join()
            for connections, load in zip(CONNECTIONS, loads, strict=True):
                tell(f"{kind}, beside a backlog", connections, load, f"{done / took_s:,.0f}")
            if over:
                print(f"\n**The backlog was over after {took_s:.1f} s, before the load was.**", file=sys.stderr)
    for (kind, connections), rate in rates.items():
        if kind not in FORMS:
            tutorial, noop = (rate / rates[form_, connections] for form_ in ("async_plain", "noop"))
            reached = "reached" if tutorial >= TUTORIAL and noop >= NOOP else "NOT REACHED"
            ratios = f"{tutorial:.2f} x the tutorial's, {noop:.2f} x the no-op"
            print(f"\n{kind}, {connections} connections: {ratios}: {reached}")


if __name__ == "__main__":
    main()
