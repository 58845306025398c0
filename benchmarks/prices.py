"""GET /prices/{pair} beside a no-op GET that reads the same hashes from Redis, and from 10 to 1,000 pairs.

`uvicorn benchmarks.prices:noop` and `:many` are the servers; `many` is the API with a thousand pairs
of six venues each.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from statistics import median

from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

import api.app
from api import market
from benchmarks.accept import UVICORN, serving
from benchmarks.load import get, run_many
from cli.valkey import free_port
from models.bus.client import connect, connect_async
from models.bus.latest import CollectorState, LatestPrice
from models.bus.names import COLLECTORS, latest_key
from models.bus.quotes import QuoteWriter
from models.domain.instruments import Instrument, Instruments, Product
from models.settings import Settings
from models.store.database import Database
from models.store.schema import ensure_venues, fix_shards, migrate
from tests.services import running_valkey

VENUES = ("binance", "coinbase", "deribit", "htx", "kraken", "okx")
PAIRS = [f"A{number:03}-USD" for number in range(1_000)]
COPIES = "CROSSFILL_BENCH_KEPT_S"  # how long the measured API may keep what it read


def _instruments() -> Instruments:
    step = Decimal("0.01")
    return Instruments(
        Instrument(pair.split("-")[0], "USD", tuple(Product(venue, pair, step, step) for venue in VENUES))
        for pair in PAIRS
    )


def noop() -> FastAPI:
    """Return an app that reads a pair's prices and the collectors' states, and answers with their sizes."""
    app = FastAPI()
    bus = connect_async(os.environ["CROSSFILL_BROKER_URL"], timeout_s=2)

    async def price(pair: str) -> Response:
        pipeline = bus.pipeline(transaction=False)
        pipeline.hgetall(latest_key(pair))
        pipeline.hgetall(COLLECTORS)
        latest, states = await pipeline.execute()
        return JSONResponse({"pair": pair, "value": len(latest), "sources": len(states)})

    app.get("/prices/{pair}")(price)
    return app


def many() -> FastAPI:
    """Return the API with a thousand pairs."""
    made = _instruments()
    api.app.instruments_at = lambda *_: made  # type: ignore[attr-defined] # the app asks its own module for them
    market.KEPT_S = float(os.environ[COPIES])
    return api.app.create_app(Settings())


@contextmanager
def _feeding(redis_url: str) -> Iterator[None]:
    """Keep a thousand pairs fresh: all of them once a second or so."""
    stop, bus = threading.Event(), connect(redis_url)
    writer = QuoteWriter(bus)

    def feed() -> None:
        one = Decimal(1)
        while not stop.is_set():
            for venue in VENUES:
                now_us = time.time_ns() // 1000
                state = CollectorState(venue, 1, now_us - 60_000_000, now_us, "simulated")
                latest = {
                    pair: LatestPrice(
                        venue,
                        pair,
                        Decimal(100),
                        now_us,
                        Decimal(99),
                        one,
                        Decimal(101),
                        one,
                        live=True,
                        quote_time_us=now_us,
                        market="simulated",
                    )
                    for pair in PAIRS
                }
                writer.write({}, latest, state)
            stop.wait(2)

    thread = threading.Thread(target=feed)
    thread.start()
    time.sleep(2)
    yield
    stop.set()
    thread.join()
    bus.close()


def main(rounds: int = 3, duration_s: float = 4) -> None:
    """Print a table: rate, p50 and p99 at 8 connections, medians of rounds in turn."""
    rates: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'crossfill.db'}"
        migrate(url)
        database = Database.open(url)
        fix_shards(database, 1)
        ensure_venues(database, VENUES)
        database.close()
        print("| server | pairs | requests/s | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|")
        with running_valkey(folder / "valkey") as broker, _feeding(broker):
            for _ in range(rounds):
                for form in ("noop", "no copy", "copy of 50 ms"):
                    port = free_port()
                    factory = "noop" if form == "noop" else "many"
                    command = [sys.executable, "-m", "uvicorn", f"benchmarks.prices:{factory}", "--factory", "--port"]
                    environment = {
                        "CROSSFILL_BROKER_URL": broker,
                        "CROSSFILL_DATABASE_URL": url,
                        COPIES: "0.05" if form.startswith("copy") else "0",
                    }
                    with serving([*command, str(port), *UVICORN], port, environment):
                        for pairs in (10, 1_000):
                            requests = [get(f"/prices/{pair}") for pair in PAIRS[:pairs]]
                            run_many(port, requests, connections=8, duration_s=0.5)
                            load = run_many(port, requests, connections=8, duration_s=duration_s)
                            assert set(load.statuses) == {200}, (form, load.statuses)
                            rates.setdefault((form, pairs), []).append(load.rate)
                            p50, p99 = load.quantile_ms(0.5), load.quantile_ms(0.99)
                            print(f"| {form} | {pairs} | {load.rate:,.0f} | {p50:.2f} | {p99:.2f} |", flush=True)
    for form in ("no copy", "copy of 50 ms"):
        of = {pairs: median(rates[form, pairs]) for pairs in (10, 1_000)}
        print(
            f"\n{form}: {of[10] / median(rates['noop', 10]):.2f} x the no-op with 10 pairs, "
            f"{of[1_000] / median(rates['noop', 1_000]):.2f} x with 1,000; "
            f"1,000 pairs are {of[1_000] / of[10]:.2f} x as fast as 10."
        )
