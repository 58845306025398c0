"""The analyst: from a trade to its average on the topic, whether it keeps up, and what a trade costs beside many pairs.

A process plays the collectors: it writes what it made in batches of 4 ms, each trade stamped with the time at which it
was made. The analyst is the real process, held to one core with its keeper; a reader takes the topics as an outsider
would, and compares a record's time with its own clock. What the feeder, Valkey and a reader take without any analyst is
measured first: it is in all that is measured then. `python -m benchmarks.analysis feed ...` is the first of these.
`python -m benchmarks.analysis 30 600` runs all, each latency for 30 seconds and the steady market for 600.
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
from models.bus.quotes import BATCHES_MAX, decode, encode
from models.bus.topics import TopicReader
from models.domain import vwap
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
RATES = (1_000, 5_000)
LATENCY_S = 30.0
ALONE_S = 8.0
AIM_MS = 10
STEADY_S = 600.0
MINUTE_S = 60.0
GROWS_MB = 1.0  # a minute: less is taken for flat
SHORT_S = (60, 90, 120)
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
    begun_at, marked, done = time.monotonic(), 0.0, 0.0
    made = [0, 0]
    while (now := time.monotonic() - begun_at) < duration_s:
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
        time.sleep(max(0.0, begun_at + done + BATCH_S - time.monotonic()))


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
        try:
            yield psutil.Process(child.pid)
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


@contextmanager
def feeding(url: str, *arguments: float) -> Iterator[None]:
    """Run the feeder in a process of its own."""
    with Popen([sys.executable, "-m", "benchmarks.analysis", "feed", url, *map(str, arguments)], cwd=ROOT) as feeder:
        try:
            yield
        finally:
            feeder.terminate()


def late(url: str, duration_s: float, kind: str) -> list[float]:
    """Return how late records of one pair's topic are read, in ms, by the time of the newest trade in them."""
    reader, found, named = TopicReader(connect(url), ["P7-USD"]), [], "received_us" if kind == "quote" else "until_us"
    until = time.monotonic() + duration_s
    while time.monotonic() < until:
        records = reader.read(0.1, 1_000)
        now_us = clock_us()
        found += [(now_us - orjson.loads(each.value)[named]) / 1_000 for each in records if each.kind == kind]
    return found


def late_alone(rate: float) -> list[float]:
    """Return how late trades themselves are read, in ms, when there is no analyst."""
    found: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running_valkey(Path(folder)) as url,
        feeding(url, rate, 0, ALONE_S + WARM_S),
    ):
        reader, after = connect(url), b"$"
        until = time.monotonic() + ALONE_S
        while time.monotonic() < until:
            answer: Any = reader.xread({quotes_stream(0): after}, count=64, block=100)
            now_us = clock_us()
            for after, fields in [entry for _, entries in answer for entry in entries]:  # noqa: B007 -- where it reads on
                trades = (item for item in decode(fields[b"b"]) if isinstance(item, Trade))
                found += [(now_us - trade.received_time_us) / 1_000 for trade in trades]
    return found


def spent_s(process: psutil.Process) -> float:
    """Return the CPU time of the analyst and its keeper."""
    return float(sum(sum(each.cpu_times()[:2]) for each in (process, *process.children())))


def begun(url: str) -> None:
    """Wait until the analyst tells something, and a little more."""
    while not late(url, 0.5, "vwap"):
        pass
    time.sleep(WARM_S)


def latency(duration_s: float) -> None:
    """Print how long an average takes from its trade to who reads the topic."""
    print("| trades a second | | p50, ms | p90 | p99 | max | of a core |\n|--:|---|--:|--:|--:|--:|--:|")
    for rate in RATES:
        _print_late(rate, "without an analyst: the feeder, Valkey, a reader", late_alone(rate), "")
        with running() as (url, process), feeding(url, rate, 0, math.inf):
            begun(url)
            before = spent_s(process)
            found = late(url, duration_s, "vwap")
            spent = (spent_s(process) - before) / duration_s
            _print_late(rate, f"averages of one of {PAIRS} pairs, read on its topic", found, f"{spent:.0%}")
    p99 = quantiles(found, n=100)[98]
    print(
        f"\nAim: p99 below {AIM_MS} ms at {RATES[-1]:,} trades/s: {'reached' if p99 < AIM_MS else '**not reached**'}."
    )


def _print_late(rate: float, what: str, found: list[float], spent: str) -> None:
    cuts = quantiles(found, n=100)
    figures = " | ".join(f"{each:.1f}" for each in (cuts[49], cuts[89], cuts[98], max(found)))
    print(f"| {rate:,} | {what} | {figures} | {spent} |", flush=True)


def steady(duration_s: float) -> None:
    """Print minute by minute whether it keeps up with six venues of fifty pairs, and its memory."""
    print(
        f"{STEADY_TRADES:,} trades/s and {STEADY_QUOTES:,} quotes/s of six venues of {PAIRS} pairs, all on one core.\n"
    )
    print("| minute | lag p50, ms | p99 | worst | analyst, MB | keeper, MB | Valkey, MB | of a core |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    memory, worst = [], []
    with running() as (url, process), feeding(url, STEADY_TRADES, STEADY_QUOTES, math.inf):
        begun(url)
        client = connect(url)
        for minute in range(1, max(2, round(duration_s / MINUTE_S)) + 1):
            before = spent_s(process)
            cuts = quantiles(found := late(url, MINUTE_S, "quote"), n=100)
            spent = (spent_s(process) - before) / MINUTE_S
            memory.append(process.memory_info().rss / 1e6)
            worst.append(cuts[98])
            keeper = sum(each.memory_info().rss for each in process.children()) / 1e6
            used = client.info("memory")["used_memory"] / 1e6
            lags = f"{cuts[49]:.1f} | {cuts[98]:.1f} | {max(found):.0f}"
            print(f"| {minute} | {lags} | {memory[-1]:.1f} | {keeper:.1f} | {used:.0f} | {spent:.0%} |", flush=True)
    half = len(memory) // 2
    grows = (memory[-1] - memory[half]) / max(1, len(memory) - 1 - half)
    flat = "flat: reached" if grows < GROWS_MB else "**not flat**"
    lag = "not growing: reached" if median(worst[half:]) <= 2 * median(worst[:half]) else "**growing**"
    print(f"\nThe second half: memory grows by {grows:.2f} MB a minute ({flat}), the lag (p99) is {lag}.")
    print(f"The windows of 5 minutes to an hour are shortened to {SHORT_S} s here, so that they are full early.")


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
    first = [each for symbol in range(pairs) for each in market.each_venue(symbol, time_us)]
    analysis.apply(first)
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
            this = psutil.Process()
            this.cpu_affinity([max(this.cpu_affinity())])  # and the keeper's, its child
            vwap.SECONDS_SPANS_S = SHORT_S
            settings = Settings()
            analyst.run(settings, pairs_of(PAIRS), Database.open(settings.database))
        case numbers:
            main(*map(float, numbers))
