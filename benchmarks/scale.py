"""1, 2 and 4 fulfilment workers over 16 shards on PostgreSQL: what is committed a second, and whose CPU it takes.

Each number of workers has a fresh server that writes through to the disk. Orders of every symbol are put into the
database in one transaction: all are placed and rest ("placed"). Then a venue bids for all of them: each is filled by
one split ("filled"). Beside the rates stands what the machine's cores would allow if every one of them only did
this: cores / CPU seconds of all processes for one order.

`python -m benchmarks.scale 16000 1 2 4` takes the number of orders, then those of workers.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.fulfilling import Store, feeding, listed, new_orders, store, until_committed, workers
from benchmarks.processes import cpu_s, program
from models.bus.wakeups import Wakeups, new_task_id
from models.store.orders import accept
from tests.services import running_valkey

SHARDS = 16
WARM = 320


class _Budget:
    """CPU milliseconds for 1,000 orders, by kind of process, since it was begun."""

    def __init__(self, processes: dict[str, list[psutil.Process]]) -> None:
        self._processes = processes
        self._began = time.perf_counter()
        self._before = self._used()

    def _used(self) -> dict[str, float]:
        return {name: sum(map(cpu_s, each)) for name, each in self._processes.items()}

    def row(self, ended: float, count: int) -> str:
        """Return the rest of a row of the table."""
        used = {name: after - self._before[name] for name, after in self._used().items()}
        rate, total = count / (ended - self._began), sum(used.values())
        shares = " | ".join(f"{1e6 * each / count:,.0f}" for each in used.values())
        return f"{rate:,.0f} | {(os.cpu_count() or 1) * count / total:,.0f} | {shares} | {1e6 * total / count:,.0f}"


def _measure(made: Store, redis_url: str, number: int, count: int) -> None:
    symbols, wakeups = listed(), Wakeups(redis_url)
    assert made.server is not None
    valkey = [each for each in psutil.Process().children() if program(each).startswith("valkey")]
    with workers(made, redis_url, number) as running:
        processes = {"workers": running, "PostgreSQL": [made.server], "Valkey": valkey}
        accept(made.database, new_orders(WARM, symbols, SHARDS))
        done = WARM
        until_committed(made.database, done)
        orders = new_orders(count, symbols, SHARDS)
        accept(made.database, orders)
        budget = _Budget(processes)
        wakeups.publish({shard: new_task_id() for shard in range(SHARDS)})
        done += count
        ended = until_committed(made.database, done)
        print(f"| {number} | placed | {budget.row(ended, count)} |", flush=True)
        budget = _Budget(processes)
        with feeding(redis_url, symbols, SHARDS):
            ended = until_committed(made.database, done + WARM + count)
            print(f"| {number} | filled | {budget.row(ended, WARM + count)} |", flush=True)
    wakeups.close()


def main(count: int = 16_000, *numbers: int) -> None:
    """Print a table."""
    print(
        "| workers | orders | a second | what the cores allow | CPU ms for 1,000: workers | PostgreSQL | Valkey | all |"
    )
    print("|--:|---|--:|--:|--:|--:|--:|--:|")
    for number in numbers or (1, 2, 4):
        with (
            tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name,
            running_valkey(Path(name)) as redis_url,
            store("postgresql", SHARDS) as made,
        ):
            _measure(made, redis_url, number, count)
    print(f"\n{os.cpu_count()} cores, which also ran this program; it only asks how far the workers are.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
