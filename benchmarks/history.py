"""Jobs over a day of ten million trades in the archive: VWAP, and one-minute candles, in a worker's process.

`python -c 'from benchmarks.history import worker; worker()'` is the worker; its environment says where.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from models.archive.files import Archive
from models.archive.layout import DAY_MS, Entry, Kind, Series
from models.bus.client import connect
from models.domain.averages import quotient
from models.domain.decimals import plain
from models.domain.instruments import INSTRUMENTS
from models.settings import Settings
from models.store.database import Database
from models.store.jobs import NewJob, create
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from models.store.venues import ensure_venues
from tests.services import ROOT, running_valkey

TRADES = 10_000_000
PAIR = "BTC-USDT"
MARKET = "simulated"
ROUNDS = 3
SECONDS_AIM, BYTES_AIM = 30, 1 << 30


def _decimals(values: np.ndarray, scale: int) -> pa.Array:
    words = np.zeros((len(values), 2), np.int64)
    words[:, 0] = values
    return pa.Decimal128Array.from_buffers(pa.decimal128(18, scale), len(values), [None, pa.py_buffer(words)])


def _written(archive: Archive, day_us: int, trades: int) -> tuple[int, int]:
    """Write a day of trades, a file a venue; return the sums of size (1e-5) and of price times size (1e-7)."""
    venues = sorted(product.venue for product in INSTRUMENTS[PAIR].products)
    sizes = values = 0
    for place, venue in enumerate(venues):
        count = trades // len(venues) + (place < trades % len(venues))
        number = np.arange(count, dtype=np.int64)
        times = day_us + number * (DAY_MS * 1000 // count) + number * 7919 % 1000
        cents = 6_000_000 + (number * 7_919 + place) % 20_011
        units = 1 + (number * 104_729 + place) % 300_007
        sizes += int(units.sum())
        values += int((cents * units).sum())
        numbers = np.char.add(f"{place}", number.astype(str))
        columns = {
            "time_us": times,
            "received_time_us": times + 5_000,
            "exchange_time_us": times,
            "product_id": pa.array(np.full(count, "BTCUSDT")),
            "trade_id": pa.array(numbers),
            "taker_side": pa.array(np.where(number % 2, "buy", "sell")),
            "price": _decimals(cents, 2),
            "size": _decimals(units, 5),
            "token": np.full(count, 7, np.int64),
            "entry_ms": times // 1000 + 2_000,
            "entry_seq": np.zeros(count, np.int32),
            "place": (number % 30).astype(np.int32),
        }
        # The last entries of the day are of the next; they stand in this file as a compacted one would have them.
        first, last = (Entry(int(times[at]) // 1000, 0) for at in (0, -1))
        archive.write(Series(Kind.TRADES, venue, PAIR), pa.table(columns), first, last)
    return sizes, values


def worker() -> None:
    """Work the jobs that are due, and print how that went as JSON."""
    from workers.jobs import run_due  # noqa: PLC0415 -- only here; it reads the environment

    settings = Settings()
    database, bus = Database.open(settings.database, pool_size=1), connect(settings.bus)
    begun, processor = time.monotonic(), time.process_time()
    while not run_due(database, bus, settings):
        pass
    used = {"s": time.monotonic() - begun, "cpu_s": time.process_time() - processor}
    # Not getrusage's figure: that one begins with what the parent had when it forked.
    [peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(json.dumps({**used, "bytes": int(peak) * 1024}))


def _worked(database: Database, kind: str, day_us: int, number: int) -> tuple[dict[str, float], Any]:
    job_id = f"bench-{number}"
    payload = {"pairs": [PAIR], "venues": None, "start_us": day_us, "end_us": day_us + DAY_MS * 1000}
    if kind == "candles":
        payload["intervals"] = ["1m"]
    create(database, NewJob(job_id, "admin", kind, payload, 1, 1, None, None, job_id))
    command = [sys.executable, "-c", "from benchmarks.history import worker; worker()"]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    with database.read() as connection:
        row = connection.exec_driver_sql("SELECT state, result FROM jobs WHERE id = ?", (job_id,)).one()
    assert row.state == "done", row
    *logged, told = done.stdout.decode().splitlines()
    for line in logged:
        print(line, file=sys.stderr)
    return json.loads(told), json.loads(row.result)


def main(trades: int = TRADES, rounds: int = ROUNDS) -> None:
    """Print a table: seconds, processor time and peak memory of each job, medians of rounds in turn."""
    day_us = (time.time_ns() // 1_000_000 // DAY_MS - 2) * DAY_MS * 1000
    used: dict[str, list[dict[str, float]]] = {"vwap": [], "candles": []}
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, running_valkey(Path(name) / "valkey") as url:
        home = Path(name) / "home"
        home.mkdir()
        os.environ |= {"CROSSFILL_HOME": str(home), "CROSSFILL_BROKER_URL": url}
        settings = Settings()
        sizes, values = _written(Archive(settings.archive, MARKET), day_us, trades)
        megabytes = sum(path.stat().st_size for path in home.rglob("*.parquet")) / 1e6
        migrate(settings.database)
        database = Database.open(settings.database)
        fix_shards(database, 1)
        ensure_venues(database, INSTRUMENTS.venues)
        ensure_owner(database, "admin", "admin", "a-token_of-43-characters")
        for place in range(rounds):
            for kind, each in used.items():
                told, result = _worked(database, kind, day_us, 2 * place + (kind == "vwap"))
                each.append(told)
                if kind == "vwap":
                    expected = quotient(Decimal(values).scaleb(-7), Decimal(sizes).scaleb(-5))
                    [part] = result["parts"]
                    assert (part["points"], part["vwap"]) == (trades, plain(expected)), part
                else:
                    assert result["candles"] == 1_440 * (1 + len(INSTRUMENTS[PAIR].products)), result
        database.close()
        for variable in ("CROSSFILL_HOME", "CROSSFILL_BROKER_URL"):
            del os.environ[variable]
    print(
        f"{trades:,} trades of one pair at {len(INSTRUMENTS[PAIR].products)} venues, {megabytes:,.0f} MB of Parquet.\n"
    )
    print("| job | s | CPU s | trades/s | peak MB |\n|---|--:|--:|--:|--:|")
    for kind, each in used.items():
        seconds, cpu, peak = (median(told[key] for told in each) for key in ("s", "cpu_s", "bytes"))
        print(f"| {kind} | {seconds:.1f} | {cpu:.1f} | {trades / seconds:,.0f} | {peak / 1e6:,.0f} |")
        reached = seconds < SECONDS_AIM and peak < BYTES_AIM
        print(f"{kind}: {'reached' if reached else 'NOT reached'} (aims: 30 s, 1 GiB)", file=sys.stderr)
