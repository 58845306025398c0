"""The analyst: from a trade to its average on the topic, whether it keeps up, and what a trade costs beside many pairs.

A process plays the collectors: it writes what it made in batches of 4 ms, each trade stamped with the time at which it
was made. The analyst is the real process, held to one core; a reader takes the topics as an outsider would, and
compares a record's time with its own clock. `python -m benchmarks.analysis feed ...` is the first of these.
"""

import math
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, setcontext
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from subprocess import Popen
from typing import Any

import orjson
import psutil

from models.bus.client import connect
from models.bus.names import quotes_stream
from models.bus.quotes import BATCHES_MAX, encode
from models.bus.topics import TopicReader
from models.domain.analysis import Analysis, Rules
from models.domain.decimals import EXACT
from models.domain.instruments import Instrument, Instruments, Product
from models.domain.quotes import BusItem, Mark, Quote, Trade
from models.settings import Settings
from models.store.database import Database
from models.store.schema import fix_shards, migrate
from tests.services import ROOT, running_valkey
from workers import analyst
from workers.connection import clock_us

BATCH_S = 0.004
WARM_S = 3.0
VENUES = ("binance", "coinbase", "deribit", "htx", "kraken", "okx")
PAIRS = 50  # of each venue
RATE = 5_000  # trades a second
LATENCY_S = 30.0
AIM_MS = 10
STEADY_S = 600.0
STEADY_TRADES, STEADY_QUOTES = 600, 3_000  # a second: two and ten of each product
MANY = (3, 3_000)
FLAT_TRADES, BATCH = 100_000, 20
STEP = Decimal("0.01")


def pairs_of(number: int) -> Instruments:
    """Return pairs that every venue lists."""
    symbols = [f"P{place}" for place in range(number)]
    products = {symbol: tuple(Product(venue, f"{symbol}-USD", STEP, STEP) for venue in VENUES) for symbol in symbols}
    return Instruments(Instrument(symbol, "USD", products[symbol]) for symbol in symbols)


class Market:
    """Makes trades and quotes of random products, each at its time."""

    def __init__(self, pairs: int) -> None:
        chance = random.Random(3)
        self._choice = random.Random(5)
        self._prices = [Decimal(chance.randrange(6_400_000, 6_420_000)).scaleb(-2) for _ in range(1_000)]
        self._sizes = [Decimal(chance.randrange(1, 10**9)).scaleb(-8) for _ in range(1_000)]
        self._numbers = count(1)
        self._pairs = pairs

    def trade(self, time_us: int) -> Trade:
        """Return a trade that is made now."""
        pick, number = self._choice.random, next(self._numbers)
        price, size = self._prices[int(pick() * 1_000)], self._sizes[int(pick() * 1_000)]
        venue, product = VENUES[int(pick() * 6)], f"P{int(pick() * self._pairs)}-USD"
        side = "buy" if pick() < 0.5 else "sell"
        return Trade(venue, product, 1, str(number), price, size, side, time_us, time_us)

    def each_venue(self, pair: int, time_us: int) -> list[Trade]:
        """Return a first trade of a pair at each venue."""
        one = Decimal(1)
        numbers = ((venue, str(next(self._numbers))) for venue in VENUES)
        return [Trade(venue, f"P{pair}-USD", 1, number, one, one, "buy", time_us, time_us) for venue, number in numbers]

    def quote(self, time_us: int) -> Quote:
        """Return a quote that is told now."""
        pick = self._choice.random
        bid, size = self._prices[int(pick() * 1_000)], self._sizes[int(pick() * 1_000)]
        venue, product = VENUES[int(pick() * 6)], f"P{int(pick() * self._pairs)}-USD"
        sides = (bid, size, bid + 1, size)
        number = next(self._numbers)
        return Quote(venue, product, 1, number, *sides, live=True, exchange_time_us=None, received_time_us=time_us)


def feed(url: str, trades_s: float, quotes_s: float, duration_s: float) -> None:
    """Be the collectors for some time: every 4 ms one batch of each venue that had something to say."""
    client, market = connect(url), Market(PAIRS)
    begun, marked, done = time.monotonic(), 0.0, 0.0
    made = [0, 0]
    while (now := time.monotonic() - begun) < duration_s:
        by_venue: defaultdict[str, list[BusItem]] = defaultdict(list)
        for place, (rate, make) in enumerate(((trades_s, market.trade), (quotes_s, market.quote))):
            due = int(now * rate) - made[place]
            made[place] += due
            for back in range(due, 0, -1):
                item: Any = make(clock_us() - int((now - done) * 1e6 * back / due))
                by_venue[item.venue].append(item)
        if now >= marked:
            marked = now + 0.5
            for venue in VENUES:
                by_venue[venue].append(Mark(venue, 1, clock_us()))
        done = now
        pipeline = client.pipeline(transaction=False)
        for items in by_venue.values():
            pipeline.xadd(quotes_stream(0), {b"b": encode(items)}, maxlen=BATCHES_MAX, approximate=True)
        pipeline.execute()
        time.sleep(max(0.0, begun + done + BATCH_S - time.monotonic()))


@contextmanager
def analysing(url: str, folder: Path) -> Iterator[psutil.Process]:
    """Run the analyst on one core."""
    database_url = f"sqlite:///{folder / 'crossfill.db'}"
    migrate(database_url)
    database = Database.open(database_url)
    fix_shards(database, 1)
    database.close()
    environment = {
        **os.environ,
        "CROSSFILL_DATABASE_URL": database_url,
        "CROSSFILL_BROKER_URL": url,
        "CROSSFILL_HOME": str(folder),
    }
    with Popen([sys.executable, "-m", "benchmarks.analysis", "analyst"], cwd=ROOT, env=environment) as child:
        process = psutil.Process(child.pid)
        process.cpu_affinity([max(process.cpu_affinity())])
        try:
            yield process
        finally:
            child.terminate()
            child.wait(30)


@contextmanager
def running() -> Iterator[tuple[str, psutil.Process]]:
    """Run Valkey and the analyst."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_valkey(Path(folder)) as url,
        analysing(url, Path(folder)) as process,
    ):
        yield url, process


def feeding(url: str, *arguments: float) -> Popen[bytes]:
    """Run the feeder in a process of its own."""
    return Popen([sys.executable, "-m", "benchmarks.analysis", "feed", url, *map(str, arguments)], cwd=ROOT)


def late(url: str, duration_s: float, kind: str) -> list[float]:
    """Return how late records of one pair's topic are read, in ms, by the time of the newest trade in them."""
    reader, found, named = TopicReader(connect(url), ["P7-USD"]), [], "received_us" if kind == "quote" else "until_us"
    until = time.monotonic() + duration_s
    while time.monotonic() < until:
        records = reader.read(0.1, 1_000)
        now_us = clock_us()
        found += [(now_us - orjson.loads(each.value)[named]) / 1_000 for each in records if each.kind == kind]
    return found


def latency(duration_s: float) -> None:
    """Print how long an average takes from its trade to who reads the topic."""
    with running() as (url, process):
        feeder = feeding(url, RATE, 0, duration_s + WARM_S)
        late(url, WARM_S, "vwap")
        before = sum(process.cpu_times()[:2])
        found = late(url, duration_s - 1, "vwap")
        spent = (sum(process.cpu_times()[:2]) - before) / (duration_s - 1)
        feeder.wait()
    p50, p99 = median(found), quantiles(found, n=100)[98]
    reached = "reached" if p99 < AIM_MS else "**not reached**"
    print(
        f"{len(found):,} averages of one of {PAIRS} pairs at {RATE:,} trades/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms "
        f"(aim {AIM_MS}: {reached}), max {max(found):.1f}; the analyst takes {spent:.0%} of its core."
    )


def steady(duration_s: float) -> None:
    """Print whether it keeps up with six venues of fifty pairs, and its memory."""
    with running() as (url, process):
        client = connect(url)
        feeder = feeding(url, STEADY_TRADES, STEADY_QUOTES, duration_s + WARM_S)
        time.sleep(WARM_S)
        lags, memory, before = [], [], sum(process.cpu_times()[:2])
        step_s = duration_s / 60
        for _ in range(60):
            lags.append(max(late(url, step_s / 2, "quote"), default=0.0))
            memory.append(process.memory_info().rss / 1e6)
            time.sleep(step_s / 2)
        spent = (sum(process.cpu_times()[:2]) - before) / duration_s
        used = client.info("memory")["used_memory"] / 1e6
        feeder.wait()
    print("| part of the run | worst lag, ms | memory of the analyst, MB |\n|---|--:|--:|")
    for place in range(0, 60, 10):
        part = slice(place, place + 10)
        print(f"| {place // 10 + 1} of 6 | {max(lags[part]):.0f} | {max(memory[part]):.1f} |")
    print(f"\nIt takes {spent:.0%} of its core; Valkey has {used:.0f} MB at the end.")


def flat() -> None:
    """Print what a trade costs the analysis beside 3 and beside 3,000 pairs, each of which trades as often."""
    setcontext(EXACT)
    best = dict.fromkeys(MANY, math.inf)
    for _ in range(2):
        for pairs in MANY:
            best[pairs] = min(best[pairs], _spent_us(pairs))
    print("| pairs at six venues | us of CPU a trade |\n|--:|--:|")
    for pairs, spent in best.items():
        print(f"| {pairs:,} | {spent:.1f} |")
    print(f"\n{best[MANY[1]] / best[MANY[0]]:.2f} times as much beside {MANY[1]:,} pairs.")


def _spent_us(pairs: int) -> float:
    analysis, market = Analysis(Rules("simulated", 200), pairs_of(pairs)), Market(pairs)
    time_us = clock_us()
    begun = [each for symbol in range(pairs) for each in market.each_venue(symbol, time_us)]
    analysis.apply(begun)
    step_us, spent_ns, made = 1_000_000 // (pairs * len(VENUES)), 0, 0
    while made < FLAT_TRADES:
        batch: list[BusItem] = []
        for _ in range(BATCH):
            time_us += step_us
            batch.append(market.trade(time_us))
        made += BATCH
        started = time.thread_time_ns()
        analysis.apply(batch)
        spent_ns += time.thread_time_ns() - started
    return spent_ns / 1_000 / made


def main(latency_s: float = LATENCY_S, steady_s: float = STEADY_S) -> None:
    """Run all three."""
    flat()
    print()
    latency(latency_s)
    print()
    steady(steady_s)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["feed", url, trades_s, quotes_s, duration_s]:
            feed(url, float(trades_s), float(quotes_s), float(duration_s))
        case ["analyst"]:
            settings = Settings()
            analyst.run(settings, pairs_of(PAIRS), Database.open(settings.database))
        case numbers:
            main(*map(float, numbers))
