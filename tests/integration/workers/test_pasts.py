"""The past of simulated venues over HTTP, in the worker's own way, and what the analyst's averages make of it."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from decimal import Decimal
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import update

from models.bus.client import connect
from models.bus.quotes import QuoteWriter
from models.domain.candles import EVERY_VENUE, Candle
from models.domain.moving_averages import Kind, Seed
from models.domain.pasts import PastCandle, known_closes
from models.domain.quotes import Market, Trade
from models.domain.signals import Cross, Signal
from models.domain.strategies import Strategy, Variant
from models.settings import Settings
from models.store import tables
from models.store.candles import Series, upsert_candles
from models.store.database import Database
from models.store.pasts import PastRow, last_closes, put_pasts, read_pasts
from models.store.schema import fix_shards
from models.store.signals import read_signals
from models.store.strategies import put_strategy, stop_strategy
from simulator.registry import WIRES
from tests.integration.simulator.running import Running, running
from tests.integration.workers.test_analyst import running_analyst, until
from tests.services import ROOT
from workers import strategies as working
from workers.connection import clock_us
from workers.listings import fetch
from workers.pasts import fetch_due
from workers.strategies import Strategies

HOUR_US = 3_600_000_000
# A time of this hour that stands still: no test is told that an hour has ended meanwhile.
NOW_US = clock_us() // HOUR_US * HOUR_US + 600_000_000
END_US = NOW_US // HOUR_US * HOUR_US
GOLDEN = Strategy("golden", {"a": Variant(Kind.SMA, 50, 200)}, pairs=("BTC-USDT",))
ALL = Series("simulated", EVERY_VENUE, "BTC-USDT", 3_600)
BINANCE, KRAKEN = ALL._replace(venue="binance"), ALL._replace(venue="kraken")


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


@pytest.fixture
def venues() -> Iterator[dict[str, Running]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(running(WIRES[name], start_us=clock_us())) for name in ("binance", "kraken")}


@pytest.fixture
def settings(venues: dict[str, Running], database_url: str, redis_url: str) -> Settings:
    urls = {name: venue.url for name, venue in venues.items()}
    return Settings(
        venues="binance,kraken",
        venue_urls=urls,
        market=Market.SIMULATED,
        database_url=SecretStr(database_url),
        broker_url=SecretStr(redis_url),
    )


def rows_of(database: Database) -> dict[Series, PastRow]:
    with database.read() as connection:
        return read_pasts(connection, "simulated")


def closes(database: Database, series: Series, count: int = 200) -> list[Candle]:
    with database.read() as connection:
        return last_closes(connection, series, END_US, count)


def due_again(database: Database) -> None:
    """Let the time of the next look come."""
    with database.write() as connection:
        connection.execute(update(tables.pasts).values(due_us=0))


def ours(open_time_us: int, price: int, *, incomplete: bool = False) -> Candle:
    """Return a candle of Binance's that we made."""
    numbers = (*(Decimal(price),) * 4, *(Decimal(7),) * 3)
    return Candle("binance", "BTC-USDT", 3_600, open_time_us, *numbers, 9, "simulated", incomplete=incomplete)


class Asking:
    """Asks venues in turns, and notes what for."""

    def __init__(self, database: Database, client: redis.Redis, settings: Settings) -> None:
        self._given = database, client, settings
        self.urls: list[str] = []

    def _fetch(self, url: str, timeout_s: float) -> bytes:
        self.urls.append(url)
        return fetch(url, timeout_s)

    def turns(self, count: int = 12) -> int:
        """Return how many requests were made."""
        return sum(fetch_due(*self._given, self._fetch, lambda _: NOW_US) for _ in range(count))


@pytest.fixture(autouse=True)
def _long_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    # A turn ends by the clock; here it ends when everything was looked at, however slow the machine is.
    monkeypatch.setattr("workers.pasts.TURN_S", 600.0)


@pytest.fixture
def asking(database: Database, client: redis.Redis, settings: Settings) -> Asking:
    return Asking(database, client, settings)


def test_the_past_is_fetched_once(database: Database, asking: Asking) -> None:
    """Of each venue, to the hour that closed last; a restart, or a look after it, asks for nothing again."""
    put_strategy(database, GOLDEN)
    assert asking.turns() == 2
    rows = rows_of(database)
    counted = {series: (row.closes, row.wanted, row.problem) for series, row in rows.items()}
    assert counted == dict.fromkeys((ALL, BINANCE, KRAKEN), (200, 200, None))
    for series in rows:
        found = closes(database, series)
        assert len(found) == known_closes(found) == 200
    due_again(database)
    assert asking.turns() == 0
    assert all(row.due_us > NOW_US for row in rows_of(database).values())


def test_a_strategy_that_was_stopped_wants_nothing(database: Database, asking: Asking) -> None:
    """Nobody is asked for it."""
    put_strategy(database, GOLDEN)
    stop_strategy(database, "golden")
    assert asking.turns() == 0


def test_a_longer_average_and_another_interval_want_more(database: Database, asking: Asking) -> None:
    """A new version is worked without a restart; at a venue without that interval the answer says so."""
    put_strategy(database, GOLDEN)
    asking.turns()
    wider = {"a": Variant(Kind.SMA, 50, 200), "b": Variant(Kind.EMA, 50, 190, Seed.SMA)}
    put_strategy(database, Strategy("golden", wider, venue="kraken", pairs=("BTC-USDT",)))
    seconds = Strategy("seconds", GOLDEN.variants, interval="1s", venue="kraken", pairs=("BTC-USDT",))
    put_strategy(database, seconds)
    before = len(asking.urls)
    asking.turns()
    assert all("OHLC" in url and "interval=60" in url for url in asking.urls[before:])
    assert len(asking.urls) == before + 1
    rows = rows_of(database)
    # Kraken has 720 of 950, the one that is still made among them; by now the next hour may have begun.
    assert rows[KRAKEN].wanted == 950
    assert rows[KRAKEN].closes in (717, 718, 719)
    assert rows[KRAKEN._replace(interval_s=1)].problem == "kraken is not asked for candles of 1s"
    due_again(database)
    assert asking.turns() == 0


def test_an_outage_is_filled_and_nothing_else(database: Database, asking: Asking) -> None:
    """Our own candles are there again after it: one request for the hours between."""
    put_strategy(database, Strategy("golden", GOLDEN.variants, venue="binance", pairs=("BTC-USDT",)))
    asking.turns()
    with database.write() as connection:
        # As if the last look had been ten hours ago, and the analyst been back for two.
        connection.execute(update(tables.pasts).values(until_us=END_US - 10 * HOUR_US, due_us=0))
        told = tables.venue_candles
        connection.execute(told.delete().where(told.c.open_time_us >= END_US - 10 * HOUR_US))
    mine = [ours(END_US - back * HOUR_US, 7, incomplete=back in (9, 2)) for back in (10, 9, 2, 1)]
    upsert_candles(database, mine)
    assert asking.turns() == 1
    assert f"startTime={mine[1].open_time_us // 1_000}&endTime={mine[3].open_time_us // 1_000 - 1}" in asking.urls[-1]
    taken = closes(database, BINANCE)
    assert [each.close == 7 for each in taken[-10:]] == [True, *[False] * 8, True]
    assert known_closes(taken) == 200


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("refuse", "the answer is 503 Service Unavailable"),
        ("throttle", "the answer is 429 Too Many Requests"),
        ("nonsense", "the answer is not what it should be"),
    ],
)
def test_a_venue_that_fails_is_left_alone_and_asked_later(
    database: Database, asking: Asking, venues: dict[str, Running], fault: str, sentence: str
) -> None:
    """The other one's closes are those of all together; nothing of the answer is stored, and the row says why."""
    put_strategy(database, GOLDEN)
    venues["binance"].inject(fault, seconds=3_000)
    assert asking.turns() == 2
    rows = rows_of(database)
    assert (rows[BINANCE].problem or "").startswith(sentence)
    assert (rows[BINANCE].attempts, rows[BINANCE].closes, rows[BINANCE].until_us) == (1, 0, 0)
    assert rows[BINANCE].due_us >= NOW_US + (2_900_000_000 if fault == "throttle" else 5_000_000)
    assert (rows[KRAKEN].closes, rows[ALL].closes) == (200, 200)
    assert closes(database, BINANCE) == []
    assert [each.close for each in closes(database, ALL)] == [each.close for each in closes(database, KRAKEN)]
    due_again(database)
    assert asking.turns() == 1
    assert rows_of(database)[BINANCE].attempts == 2
    venues["binance"].inject("clear")
    due_again(database)
    assert asking.turns() == 1
    again = rows_of(database)[BINANCE]
    assert (again.attempts, again.closes, again.problem) == (0, 200, None)


def test_a_venue_that_is_down_holds_up_no_other_series_of_its_own(
    database: Database, client: redis.Redis, settings: Settings
) -> None:
    """One failure puts all of them off: nobody waits for its time limit once a pair."""
    put_strategy(database, Strategy("golden", GOLDEN.variants, venue="binance"))
    urls = {"binance": "ws://127.0.0.1:1"}
    asking = Asking(database, client, settings.model_copy(update={"venue_urls": urls}))
    assert asking.turns() == 1
    rows = rows_of(database)
    assert len(rows) > 10
    assert {row.attempts for row in rows.values()} == {1}
    assert all("refused" in (row.problem or "") for row in rows.values())


def test_one_who_asks_keeps_others_from_asking_the_same_venue(
    database: Database, client: redis.Redis, settings: Settings
) -> None:
    """Two workers at once: a venue has one request at a time, and the second one asks another."""
    put_strategy(database, GOLDEN)
    second, inner = Asking(database, client, settings), list[int]()

    def slow(url: str, timeout_s: float) -> bytes:
        inner.append(second.turns(1))
        return fetch(url, timeout_s)

    assert fetch_due(database, client, settings, slow, lambda _: NOW_US) == 1
    assert inner == [1]
    assert ["OHLC" in url for url in second.urls] == [True]
    assert not client.keys("past:*")


def test_a_redis_or_a_venue_that_goes_on_after_a_kill_is_asked_again(
    database: Database, client: redis.Redis, asking: Asking
) -> None:
    """A claim of one who was killed ends by itself; what was stored before stays."""
    put_strategy(database, GOLDEN)
    client.set("past:binance", "", px=200)
    asking.turns(1)
    assert BINANCE not in rows_of(database) or rows_of(database)[BINANCE].until_us == 0
    until(lambda: not client.exists("past:binance"))
    asking.turns()
    assert rows_of(database)[BINANCE].closes == 200


@contextmanager
def jobs_worker(settings: Settings, home: Path) -> Iterator[None]:
    """Run a worker for jobs, with its beat."""
    assert settings.database_url is not None
    assert settings.broker_url is not None
    urls = "{" + ",".join(f'"{name}":"{url}"' for name, url in settings.venue_urls.items()) + "}"
    environment = {
        **os.environ,
        "CROSSFILL_MARKET": "simulated",
        "CROSSFILL_VENUE_URLS": urls,
        "CROSSFILL_DATABASE_URL": settings.database_url.get_secret_value(),
        "CROSSFILL_BROKER_URL": settings.broker_url.get_secret_value(),
        "CROSSFILL_HOME": str(home),
    }
    with (home / "jobs.log").open("ab") as log:
        command = [sys.executable, "-m", "workers", "jobs"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def signals(database: Database) -> list[Signal]:
    with database.read() as connection:
        return [row.signal for row in read_signals(connection, "simulated", 100, variant="a")]


def test_an_average_of_200_hours_is_known_at_once(
    database: Database,
    database_url: str,
    redis_url: str,
    client: redis.Redis,
    settings: Settings,
    tmp_path: Path,
) -> None:
    """A worker fetches, and the first hour that an analyst closes is judged with 200: no signal is of the past."""
    longer = {**GOLDEN.variants, "b": Variant(Kind.EMA, 50, 60, Seed.SMA)}
    put_strategy(database, Strategy("golden", longer, pairs=("BTC-USDT",)))
    with jobs_worker(settings, tmp_path):
        until(lambda: ALL in rows_of(database) and rows_of(database)[ALL].closes == 300, 120)
    hour_us = rows_of(database)[BINANCE].until_us
    with database.read() as connection:
        before = [each.close for each in last_closes(connection, ALL, hour_us - HOUR_US, 200)]
    assert len(before) == 200
    is_above = sum(before[-50:]) * 4 > sum(before)
    # So far from the others that the faster average, which has more of it, comes to its side.
    price = Decimal(1) if is_above else Decimal(10_000_000)
    writer = QuoteWriter(client)

    def trade(number: int, time_us: int) -> Trade:
        return Trade("binance", "BTCUSDT", 1, str(number), price, Decimal(1), "buy", time_us, time_us)

    numbers = itertools.count(1)

    def said() -> list[Signal]:
        for time_us in (hour_us - HOUR_US // 2, hour_us + 3_000_000):
            writer.write({0: [trade(next(numbers), time_us)]}, {})
        return signals(database)

    with running_analyst(database_url, redis_url, tmp_path):
        until(said, 90)
    [raised] = signals(database)
    assert raised.open_time_us == hour_us - HOUR_US
    assert raised.cross is (Cross.DEATH if is_above else Cross.GOLDEN)
    assert raised.slow == (sum(before[1:]) + price) / 200


def test_closes_that_come_late_warm_up_what_began_without_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signal is raised for the past, and none again that was raised already."""
    monkeypatch.setattr(working, "LOOK_S", 0.0)
    put_strategy(database, Strategy("small", {"b": Variant(Kind.EMA, 2, 4, Seed.SMA)}, venue="binance"))
    begin_us = END_US - 50 * HOUR_US
    at_work = Strategies(database)

    def close(hour: int, price: int) -> list[Cross]:
        candle = ours(begin_us + hour * HOUR_US, price)
        upsert_candles(database, [candle])
        return [each.cross for each in at_work.take([candle], 1)]

    assert [close(hour, price) for hour, price in enumerate((9, 8, 7, 6))] == [[]] * 4
    assert close(4, 20) == [Cross.GOLDEN]
    # A past so high that the averages with it are the other way round.
    past = [PastCandle(begin_us - back * HOUR_US, *(Decimal(10**6 * back),) * 4, Decimal(1)) for back in range(1, 30)]
    put_pasts(database, [PastRow(series=BINANCE, closes=20, changed_us=clock_us())], past)
    assert close(5, 21) == []
    assert close(6, 10**9) == []  # they come back to where they were told to be
    assert close(7, 1) == [Cross.DEATH]
    assert [close(hour, 1) for hour in range(8, 14)] == [[]] * 6
