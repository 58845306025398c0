"""The analyst as a process: whoever is killed, and when, each record is told once and no trade is left out."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
import redis
from pydantic import SecretStr

from models.bus.analysis import decode_signal, decode_vwaps
from models.bus.client import BusUnavailableError, connect
from models.bus.leases import LEASE_MS, BusLease
from models.bus.names import ANALYST, PENDING, SIGNALS, STATE, quotes_stream, topic_stream, vwap_key, window_key
from models.bus.quotes import QuoteWriter
from models.bus.tape import position_of
from models.domain.analysis import PARTS
from models.domain.candles import EVERY_VENUE, Candle
from models.domain.decimals import plain
from models.domain.instruments import INSTRUMENTS
from models.domain.moving_averages import Kind
from models.domain.quotes import BusItem, Mark, Trade
from models.domain.signals import Signal
from models.domain.strategies import Crosses, Strategy, Variant
from models.domain.vwap import SlidingVwap
from models.settings import Settings
from models.store.candles import Series, read_candles
from models.store.database import Database
from models.store.schema import fix_shards
from models.store.signals import read_signals
from models.store.strategies import put_strategy
from tests.services import ROOT
from workers.analyst import Analysed, analyst_of
from workers.connection import clock_us

BEGIN_US = 1_789_995_600_000_000  # long ago: the clock of these trades runs a hundred times as fast as ours
WINDOW = 20
STEP_US = 700_000  # of the venue's clock, from trade to trade
MARKET = "simulated"
SYMBOL = "LTC-BTC"
QUICK = Strategy("quick", {"a": Variant(Kind.SMA, 2, 5), "b": Variant(Kind.SMA, 3, 7)}, interval="1m")
FACTS = ("open_time_us", "variant", "cross", "fast")  # of a signal


@contextmanager
def running_analyst(
    database_url: str, redis_url: str, home: Path, market: str = MARKET, sitting: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "CROSSFILL_MARKET": market,
        "CROSSFILL_SITTING": sitting,
        "CROSSFILL_DATABASE_URL": database_url,
        "CROSSFILL_BROKER_URL": redis_url,
        "CROSSFILL_HOME": str(home),
        "CROSSFILL_VWAP_WINDOW": str(WINDOW),
        "CROSSFILL_TOPIC_LENGTH": "1000000",
    }
    with (home / "analyst.log").open("ab") as log:
        command = [sys.executable, "-m", "workers.analyst"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(12)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


class Collector:
    """Writes trades of Binance's, one `STEP_US` of its clock after the other, with marks between."""

    def __init__(self, redis_url: str, begin_us: int = BEGIN_US) -> None:
        self._client = connect(redis_url)
        self._begin_us = begin_us
        self._writer = QuoteWriter(self._client)
        self._prices = random.Random(7)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.trades: list[Trade] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        numbers = itertools.count(1)
        while not self._stopping.wait(0.02):
            items: list[BusItem] = [self._trade(next(numbers)) for _ in range(3)]
            if len(self.trades) % 30 == 0:
                items.append(Mark("binance", 1, clock_us()))
            try:
                self._writer.write({0: items}, {})
            except BusUnavailableError:
                continue
            self.trades += [item for item in items if isinstance(item, Trade)]

    def _trade(self, number: int) -> Trade:
        price = Decimal(self._prices.randrange(900, 1100)).scaleb(-6)
        size = Decimal(self._prices.randrange(1, 5000)).scaleb(-3)
        side = self._prices.choice(["buy", "sell"])
        time_us = self._begin_us + number * STEP_US
        return Trade("binance", "LTCBTC", 1, str(number), price, size, side, time_us, clock_us())


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    fix_shards(opened, 1)
    yield opened
    opened.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = connect(redis_url)
    yield made
    made.close()


def until(condition: Callable[[], object], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def told(client: redis.Redis, topic: str, kind: str) -> list[dict[str, Any]]:
    entries: Any = client.xrange(topic_stream(topic))
    return [json.loads(fields[b"value"]) for _, fields in entries if fields[b"kind"] == kind.encode()]


def expected_candles(trades: list[Trade], interval_us: int) -> dict[int, tuple[Any, ...]]:
    """Return what trades come to, by open time."""
    parts: dict[int, list[Trade]] = defaultdict(list)
    for trade in trades:
        assert trade.exchange_time_us is not None
        parts[trade.exchange_time_us - trade.exchange_time_us % interval_us].append(trade)
    return {
        open_us: (
            part[0].price,
            max(each.price for each in part),
            min(each.price for each in part),
            part[-1].price,
            sum(each.size for each in part),
            sum(each.size * each.price for each in part),
            sum(each.size for each in part if each.taker_side == "buy"),
            len(part),
        )
        for open_us, part in parts.items()
    }


def figures(candle: Candle) -> tuple[Any, ...]:
    volumes = (candle.volume, candle.quote_volume, candle.taker_buy_volume)
    return (candle.open, candle.high, candle.low, candle.close, *volumes, candle.trades)


def check_everything(client: redis.Redis, database: Database, trades: list[Trade]) -> None:
    """Every trade is told once and in order, each average is right at its step, and so is every candle."""
    for topic in (SYMBOL, "binance"):
        assert [int(each["trade_id"]) for each in told(client, topic, "trade")] == [int(t.trade_id) for t in trades]
    window, averages = SlidingVwap(WINDOW), []
    for trade in trades:
        window.add(trade.price, trade.size, trade.received_time_us, trade.trade_id)
        assert window.value is not None
        averages.append(plain(window.value))
    for venue in ("binance", EVERY_VENUE):
        assert [each["vwap"] for each in told(client, SYMBOL, "vwap") if each["venue"] == venue] == averages
    for interval_s in (1, 60, 300):
        right = expected_candles(trades, interval_s * 1_000_000)
        for venue in ("binance", EVERY_VENUE):
            series = Series(MARKET, venue, SYMBOL, interval_s)
            with database.read() as connection:
                stored = read_candles(connection, series, 0, 2**62, 100_000)
            newest_us = max(right)
            closed = {open_us for open_us in right if open_us + interval_s * 1_000_000 <= newest_us - 3_000_000}
            missing = sorted(closed - {each.open_time_us for each in stored})
            assert not missing
            assert {each.open_time_us: figures(each) for each in stored} == {
                each.open_time_us: right[each.open_time_us] for each in stored
            }
            assert not any(each.incomplete for each in stored[1:])
            assert {each.revision for each in stored} == {0}
            of_topic = [
                each["open_time_us"]
                for each in told(client, SYMBOL, "candle")
                if (each["venue"], each["interval"]) == (venue, {1: "1s", 60: "1m", 300: "5m"}[interval_s])
                and each["trades"]
            ]
            assert of_topic == [each.open_time_us for each in stored]


def goes_on(client: redis.Redis) -> None:
    before = client.xlen(topic_stream(SYMBOL))
    until(lambda: client.xlen(topic_stream(SYMBOL)) > before)


def settled(client: redis.Redis, trades: list[Trade]) -> bool:
    newest = told(client, SYMBOL, "trade")
    all_told = bool(newest) and newest[-1]["trade_id"] == trades[-1].trade_id
    [(position, _)] = list(client.xrevrange(quotes_stream(0), count=1) or ())
    kept: Any = client.hmget(STATE, [position_of(part, 0) for part in range(PARTS)])
    return all_told and set(kept) == {position} and not client.llen(PENDING)


def test_a_killed_analyst_leaves_nothing_out_and_tells_nothing_twice(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """SIGKILL at whatever it is doing, again and again; the next one goes on."""
    moments = random.Random(11)
    with Collector(redis_url) as collector:
        with running_analyst(database_url, redis_url, tmp_path):
            until(lambda: client.exists(STATE))
        for _ in range(6):
            with running_analyst(database_url, redis_url, tmp_path) as process:
                goes_on(client)
                time.sleep(moments.uniform(0, 1.5))
                process.kill()
                process.wait(5)
        with running_analyst(database_url, redis_url, tmp_path):
            goes_on(client)
            collector.stop()
            until(lambda: settled(client, collector.trades))
    first = told(client, SYMBOL, "trade")[0]["trade_id"]
    check_everything(client, database, collector.trades[int(first) - 1 :])
    assert client.llen(window_key(f"binance/{SYMBOL}")) == WINDOW


def test_an_analyst_that_slept_tells_nothing_when_it_wakes(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """Another one has gone on meanwhile; the sleeper stands by, and goes on itself when the other ends.

    Each one's keeper knows then that it does not know what the other took: signals are those of all closes.
    """
    put_strategy(database, QUICK)
    with Collector(redis_url) as collector, running_analyst(database_url, redis_url, tmp_path) as first:
        goes_on(client)
        with running_analyst(database_url, redis_url, tmp_path) as second:
            for _ in range(2):
                for sleeper in (first, second):
                    sleeper.send_signal(signal.SIGSTOP)
                    goes_on(client)  # the other one has taken over
                    time.sleep(0.5)
                    sleeper.send_signal(signal.SIGCONT)
                    time.sleep(0.5)
        goes_on(client)
        until(lambda: len(minutes(database)) > 20, 90)
        collector.stop()
        until(lambda: settled(client, collector.trades))
    start = int(told(client, SYMBOL, "trade")[0]["trade_id"])
    check_everything(client, database, collector.trades[start - 1 :])
    check_signals(client, database)


def test_an_analyst_that_takes_long_to_begin_is_not_overtaken_meanwhile(
    database: Database,
    database_url: str,
    redis_url: str,
    client: redis.Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two of them would take the lease from one another for ever: it is renewed from series to series."""
    with Collector(redis_url), running_analyst(database_url, redis_url, tmp_path):
        until(lambda: minutes(database))
    taken: list[bool] = []
    other = BusLease(client, ANALYST, "other")

    def slow(*_: object) -> list[Candle]:
        time.sleep(LEASE_MS / 1_000 * 0.55)
        taken.append(other.hold())
        return []

    monkeypatch.setattr("workers.analyst.last_day", slow)
    settings = Settings(database_url=SecretStr(database_url), broker_url=SecretStr(redis_url), home=tmp_path)
    analyst = analyst_of(settings, INSTRUMENTS, database, None, Analysed(), "own")
    thread = threading.Thread(target=analyst.run)
    thread.start()
    until(lambda: len(taken) > 1)
    analyst.stop()
    thread.join()
    assert taken == [False, False]


def test_an_emptied_redis_takes_nothing_from_an_analyst_that_lives(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """Its windows go on, and are kept anew: one that is killed after it is followed by one that has them."""
    with Collector(redis_url):
        with running_analyst(database_url, redis_url, tmp_path) as process:
            until(lambda: len(minutes(database)) > 1)
            client.flushall()
            goes_on(client)
            assert {each["points"] for each in told(client, SYMBOL, "vwap")} == {WINDOW}
            until(lambda: client.exists(STATE))
            process.kill()
        count = len(told(client, SYMBOL, "vwap"))
        with running_analyst(database_url, redis_url, tmp_path):
            until(lambda: len(told(client, SYMBOL, "vwap")) > count)
            assert {each["points"] for each in told(client, SYMBOL, "vwap")} == {WINDOW}
            until(lambda: incomplete_minutes(database))


def test_what_another_version_kept_is_dropped(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """All series begin anew, and say so: the first candles of each are incomplete. The next restart has them."""
    with Collector(redis_url):
        with running_analyst(database_url, redis_url, tmp_path):
            until(lambda: len(minutes(database)) > 1)
        client.hset(STATE, f"state:series/binance/{SYMBOL}", b"\x91\xc0")
        client.rpush(window_key(f"binance/{SYMBOL}"), b"\xc0")
        for _ in range(2):
            before = len(minutes(database))
            with running_analyst(database_url, redis_url, tmp_path):
                until(lambda: len(minutes(database)) > before + 1)  # noqa: B023 -- called at once
    assert len(incomplete_minutes(database)) == 1
    assert (tmp_path / "analyst.log").read_text().count("cannot be read") == 1


def test_batches_that_were_dropped_before_they_were_read_make_candles_incomplete(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """The stream is bounded: an analyst that was away for too long says so."""
    with Collector(redis_url):
        with running_analyst(database_url, redis_url, tmp_path):
            until(lambda: client.exists(STATE))
            goes_on(client)
        count = client.xlen(quotes_stream(0))
        until(lambda: client.xlen(quotes_stream(0)) > count + 10)
        client.xtrim(quotes_stream(0), maxlen=3, approximate=False)
        with running_analyst(database_url, redis_url, tmp_path):
            until(lambda: incomplete_minutes(database))
    assert "batches may be lost" in (tmp_path / "analyst.log").read_text()


@pytest.mark.parametrize(
    ("before", "after"), [(("simulated", ""), ("replay", "a")), (("replay", "a"), ("replay", "b"))]
)
def test_another_market_begins_anew(
    database: Database,
    database_url: str,
    redis_url: str,
    client: redis.Redis,
    tmp_path: Path,
    before: tuple[str, str],
    after: tuple[str, str],
) -> None:
    """A replay of an older time has averages and candles of its own trades; so has another replay after it."""
    put_strategy(database, Strategy("quick", {"a": Variant(Kind.SMA, 2, 5)}, interval="1m"))
    with Collector(redis_url) as collector, running_analyst(database_url, redis_url, tmp_path, *before):
        goes_on(client)
        until(lambda: client.llen("LTCBTC:1m:ma50") > 5)
        collector.stop()
        until(lambda: settled(client, collector.trades))
    with Collector(redis_url, BEGIN_US - 10**14) as collector:
        with running_analyst(database_url, redis_url, tmp_path, *after) as process:
            goes_on(client)
            process.kill()
            process.wait(5)
        with running_analyst(database_url, redis_url, tmp_path, *after):
            goes_on(client)
            until(lambda: client.llen("LTCBTC:1m:ma50") > 1)
            collector.stop()
            until(lambda: settled(client, collector.trades))
    trades = [each for each in told(client, SYMBOL, "trade") if each["time_us"] < BEGIN_US]
    first = int(trades[0]["trade_id"])
    assert [int(each["trade_id"]) for each in trades] == list(range(first, len(collector.trades) + 1))
    window = SlidingVwap(WINDOW)
    for trade in collector.trades[first - 1 :]:
        window.add(trade.price, trade.size, trade.received_time_us, trade.trade_id)
    assert window.value is not None
    told_last = decode_vwaps(client.hgetall(vwap_key(SYMBOL)))
    assert told_last["binance"].value == window.value
    with database.read() as connection:
        stored = read_candles(connection, Series(after[0], "all", SYMBOL, 60), 0, BEGIN_US, 10_000)
    assert len(stored) > 1
    right = expected_candles(collector.trades[first - 1 :], 60_000_000)
    assert [figures(each) for each in stored] == [right[each.open_time_us] for each in stored]
    assert [Decimal(text.decode()) for text in _list(client, "LTCBTC:1m:ma50")] == [each.close for each in stored][-50:]


def test_averages_on_the_topics_may_be_told_so_often_only(
    database: Database, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """The newest of each series, at once and then when it is time; trades are all told."""
    settings = Settings(broker_url=SecretStr(redis_url), home=tmp_path, vwap_topic_s=3_600)
    analyst = analyst_of(settings, INSTRUMENTS, database, None, Analysed(), "own")
    session, collector = analyst._begin(), Collector(redis_url)
    session.turn()
    for number in range(1, 10, 3):
        QuoteWriter(client).write({0: [collector._trade(each) for each in range(number, number + 3)]}, {})
        session.turn()
    assert len(told(client, SYMBOL, "trade")) == 9
    assert [(each["venue"], each["points"]) for each in told(client, SYMBOL, "vwap")] == [("binance", 3), ("all", 3)]
    session._paced_at = 0
    for _ in range(2):  # it looks what is due, and tells it
        session.turn()
    assert [each["points"] for each in told(client, SYMBOL, "vwap")] == [3, 3, 9, 9]


def test_trades_leave_the_short_windows_though_nothing_more_comes(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """The venue goes on saying that it is there, for a quarter of a minute; the longer windows still know them."""

    def points(span: str) -> int | None:
        of_binance = decode_vwaps(client.hgetall(vwap_key(SYMBOL))).get(f"binance:{span}")
        return None if of_binance is None else of_binance.points

    with running_analyst(database_url, redis_url, tmp_path), Collector(redis_url) as collector:
        until(lambda: points("10s"))
        collector.stop()
        writer, from_us = QuoteWriter(client), clock_us()
        for second, span in ((6, "1s"), (15, "10s")):  # the first closes the last candle with trades
            writer.write({0: [Mark("binance", 1, from_us + half * 500_000) for half in range(2 * second)]}, {})
            until(lambda span=span: points(span) == 0)  # type: ignore[misc] # a lambda's default carries no type
        assert points("5m")


def incomplete_minutes(database: Database) -> list[Candle]:
    """Return what is incomplete of Binance's minutes, but for the first one, which began in its midst."""
    return [candle for candle in minutes(database)[1:] if candle.incomplete]


def minutes(database: Database) -> list[Candle]:
    with database.read() as connection:
        return read_candles(connection, Series(MARKET, "binance", SYMBOL, 60), 0, 2**62, 1_000)


def test_signals_are_raised_once_whoever_is_killed(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """Those of the averages of the closes, in the database, on the topic and in the rooms' stream, each once."""
    put_strategy(database, QUICK)
    moments = random.Random(5)
    with Collector(redis_url) as collector:
        for _ in range(4):
            with running_analyst(database_url, redis_url, tmp_path) as process:
                goes_on(client)
                time.sleep(moments.uniform(1, 2))
                process.kill()
                process.wait(5)
        with running_analyst(database_url, redis_url, tmp_path):
            until(lambda: len(minutes(database)) > 20, 90)  # some averages have crossed by then
            collector.stop()
            until(lambda: settled(client, collector.trades))
    check_signals(client, database)


def test_a_killed_keeper_is_followed_by_another_one(
    database: Database, database_url: str, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    """Its analyst goes on meanwhile. All is stored and raised, each once; and no keeper outlives its analyst."""
    put_strategy(database, QUICK)
    with Collector(redis_url) as collector, running_analyst(database_url, redis_url, tmp_path) as process:
        analyst = psutil.Process(process.pid)
        killed: set[int] = set()

        def another() -> bool:
            return any(child.pid not in killed for child in analyst.children())

        for count in (2, 4, 6):
            until(lambda: len(minutes(database)) > count)  # noqa: B023 -- called at once
            until(another)
            for child in analyst.children():
                killed.add(child.pid)
                child.kill()
            goes_on(client)
        until(lambda: len(minutes(database)) > 20, 90)
        collector.stop()
        until(lambda: settled(client, collector.trades))
        [keeper] = analyst.children()
        process.kill()
        until(lambda: not keeper.is_running() or keeper.status() == psutil.STATUS_ZOMBIE)
    assert len(killed) >= 3
    start = int(told(client, SYMBOL, "trade")[0]["trade_id"])
    check_everything(client, database, collector.trades[start - 1 :])
    check_signals(client, database)


def check_signals(client: redis.Redis, database: Database) -> None:
    """Signals are those that the stored closes raise, in the database, on the topic and in the stream, each once."""
    with database.read() as connection:
        stored = [row.signal for row in read_signals(connection, MARKET, 10_000)][::-1]
        closes = read_candles(connection, Series(MARKET, EVERY_VENUE, SYMBOL, 60), 0, 2**62, 10_000)
    right = []
    for name in QUICK.variants:
        crosses = Crosses(QUICK, name)
        right += [signal for candle in closes if (signal := crosses.close(candle, 0)) is not None]

    def facts(signals: Iterable[Signal]) -> list[tuple[Any, ...]]:
        return sorted((each.open_time_us, each.variant, each.cross.value, plain(each.fast)) for each in signals)

    assert len(right) > 3
    assert facts(stored) == facts(right)
    entries: Any = client.xrange(SIGNALS)
    assert facts(decode_signal(fields) for _, fields in entries) == facts(right)
    on_topic = [
        (each["open_time_us"], each["variant"], each["cross"], each["fast"]) for each in told(client, SYMBOL, "signal")
    ]
    assert sorted(on_topic) == facts(right)
    assert [Decimal(text.decode()) for text in _list(client, "LTCBTC:1m:ma50")] == [each.close for each in closes][-50:]


def _list(client: redis.Redis, key: str) -> Any:
    return client.lrange(key, 0, -1)
