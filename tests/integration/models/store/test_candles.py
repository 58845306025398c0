import random
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from threading import Thread
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event, func, select, text

from models.domain.candles import Candle, CandleMaker, MakerState
from models.store import candles as store
from models.store.candles import (
    Check,
    Series,
    check_of,
    filled,
    forget_market,
    newest_before,
    note_checks,
    prune_candles,
    read_candles,
    upsert_candles,
)
from models.store.database import Database
from models.store.pasts import last_closes
from models.store.signals import insert_signals
from models.store.tables import candles
from tests.integration.models.store.test_signals import SIGNAL

MINUTE_US = 60_000_000
NOON_US = 1_790_000_040_000_000 // MINUTE_US * MINUTE_US
SERIES = Series("simulated", "binance", "BTC-USDT", 60)
FOR_EVER_US = 1 << 62


def candle(minute: int, close: str = "100.5", **values: Any) -> Candle:
    """Return the candle that opens so many minutes after noon."""
    prices = {"open": Decimal(100), "high": Decimal("1E+3"), "low": Decimal("0.000000000000000000012345"), "trades": 7}
    sizes = {"volume": Decimal("2.50"), "quote_volume": Decimal("251.25"), "taker_buy_volume": Decimal(0)}
    at = {"venue": "binance", "symbol": "BTC-USDT", "interval_s": 60, "open_time_us": NOON_US + minute * MINUTE_US}
    return Candle(**{**at, **prices, **sizes, "close": Decimal(close), "market": "simulated", **values})


def minutes(found: Sequence[Candle]) -> list[int]:
    return [(each.open_time_us - NOON_US) // MINUTE_US for each in found]


def stored(database: Database, start: int = 0, end: int = 1_000_000, limit: int = 1_000, **how: Any) -> list[Candle]:
    with database.read() as connection:
        ends = (NOON_US + start * MINUTE_US, NOON_US + end * MINUTE_US)
        return read_candles(connection, SERIES, *ends, limit, **how)


def test_a_candle_is_read_as_it_was_stored(database: Database) -> None:
    """All digits of it, and once however often it comes."""
    made = [candle(0), candle(1, incomplete=True), candle(2, "0.1", revision=3)]
    assert upsert_candles(database, made) == 3
    upsert_candles(database, [*made, *made])
    assert stored(database) == made
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(candles)).scalar_one() == 3


def test_the_newest_revision_of_each_counts(database: Database) -> None:
    """In whichever order they came; the older ones stay in the record."""
    upsert_candles(database, [candle(0, revision=2, close="3"), candle(1), candle(0, close="1")])
    upsert_candles(database, [candle(0, revision=1, close="2"), candle(1, revision=10, close="9")])
    assert [(each.close, each.revision) for each in stored(database)] == [(Decimal(3), 2), (Decimal(9), 10)]
    with database.read() as connection:
        assert connection.execute(select(func.count()).select_from(candles)).scalar_one() == 5


def test_ranges_have_an_end_a_limit_and_a_direction(database: Database) -> None:
    """The end is not within; other venues, pairs, intervals and markets are other series."""
    mine = [candle(minute) for minute in range(10)]
    others = ({"venue": "all"}, {"symbol": "ETH-USDT"}, {"interval_s": 300}, {"market": "live"})
    upsert_candles(database, [*mine, *(replace(mine[5], **other, trades=99) for other in others)])
    assert stored(database) == mine
    assert minutes(stored(database, 2, 5)) == [2, 3, 4]
    assert minutes(stored(database, 2, limit=2)) == [2, 3]
    assert minutes(stored(database, 2, newest_first=True, limit=3)) == [9, 8, 7]
    assert stored(database, 20, 30) == []
    with database.read() as connection:
        assert newest_before(connection, SERIES, NOON_US + 4 * MINUTE_US) == mine[3]
        assert newest_before(connection, SERIES, NOON_US) is None


def test_what_is_empty_or_open_is_not_stored(database: Database) -> None:
    """An empty one is made by its readers; that trades of it may be missing is known from the record only."""
    made = [candle(0, closed=False), candle(1, trades=0), candle(2, trades=0, incomplete=True), candle(3)]
    assert upsert_candles(database, made) == 2
    assert upsert_candles(database, made[:2]) == 0
    assert stored(database) == made[2:]


@pytest.mark.parametrize("together", [True, False])
def test_a_complete_candle_stays_where_an_incomplete_one_comes(database: Database, *, together: bool) -> None:
    """What a process that began anew made of half of the trades does not replace the whole; the whole does the half."""
    half, whole = candle(0, "1", incomplete=True, trades=1), candle(0, "2")
    for pair, left in (((whole, half), whole), ((half, whole), whole), ((half, replace(half, trades=2)), None)):
        for batch in [pair] if together else [pair[:1], pair[1:]]:
            upsert_candles(database, batch)
        assert stored(database) == [left or whole]


def test_two_who_store_the_same_candles_at_once(database: Database) -> None:
    """Neither fails, and all of them are there."""
    made = [candle(minute) for minute in range(300)]
    errors: list[Exception] = []

    def run(given: list[Candle]) -> None:
        try:
            for _ in range(5):
                upsert_candles(database, given)
        except Exception as error:  # noqa: BLE001 -- the test shows any
            errors.append(error)

    threads = [Thread(target=run, args=(given,)) for given in (made, made[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert stored(database) == made


def test_a_range_is_read_from_the_key_alone(database: Database) -> None:
    """Without a sort, and without reading what is not in it: the plan names the key's two ends."""
    upsert_candles(database, [candle(minute) for minute in range(2_000)])
    told: list[tuple[str, Any]] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: told.append((given[2], given[3])))
    assert minutes(stored(database, 100, newest_first=True, limit=2)) == [1999, 1998]
    (statement, values), *_ = [each for each in told if "candles" in each[0]]
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("ANALYZE candles"))
        plan = [str(row) for row in connection.exec_driver_sql(explain + statement, values)]
    assert not any("SORT" in line.upper() or "TEMP B-TREE" in line or "SEQ SCAN" in line.upper() for line in plan)
    ends = "open_time_us>? AND open_time_us<?" if database.is_sqlite else "open_time_us >="
    assert any(ends in line for line in plan)


def test_empty_candles_are_made_between_those_that_are_stored() -> None:
    """With the close before, from a time on, and after the last one as far as is said."""
    made = list(filled([candle(0, "7"), candle(3, "8")], MINUTE_US, until_us=NOON_US + 6 * MINUTE_US + 1))
    assert minutes(made) == [0, 1, 2, 3, 4, 5]
    assert made[0] == candle(0, "7")
    seven, nothing = Decimal(7), Decimal(0)
    sizes = {"volume": nothing, "quote_volume": nothing, "taker_buy_volume": nothing}
    assert made[2] == replace(candle(2, "7"), open=seven, high=seven, low=seven, trades=0, **sizes)
    assert [each.close for each in made[4:]] == [8, 8]
    assert list(filled([], MINUTE_US, until_us=NOON_US)) == []
    assert minutes(list(filled([candle(2)], MINUTE_US, until_us=NOON_US))) == [2]
    ago = replace(candle(0), open_time_us=0)
    late = NOON_US + 2 * MINUTE_US
    assert minutes(list(filled([ago, candle(5)], MINUTE_US, late))) == [2, 3, 4, 5]
    assert minutes(list(filled([ago, candle(0)], MINUTE_US, late, late + MINUTE_US))) == [2]


def test_what_nobody_may_have_looked_at_is_incomplete() -> None:
    """Before a candle that is: there the record may begin anew. After one that is, if the gap is an outage's."""

    def marks(*made: Candle) -> str:
        return "".join("x" if each.incomplete else "." for each in filled(made, MINUTE_US))

    half = {"incomplete": True}
    assert marks(candle(0), candle(3)) == "...."
    assert marks(candle(0), candle(3, "1", **half)) == ".xxx"
    assert marks(candle(0, "1", **half), candle(3)) == "x..."
    assert marks(candle(0, "1", **half), candle(61)) == "x" + "." * 61
    assert marks(candle(0, "1", **half), candle(62)) == "x" * 62 + "."


def closes(database: Database, minute: float, count: int) -> list[tuple[int, int]]:
    with database.read() as connection:
        found = last_closes(connection, SERIES, NOON_US + int(minute * MINUTE_US), count)
    return list(zip(minutes(found), (int(each.close) for each in found), strict=True))


def test_the_last_closes_warm_an_average_up(database: Database) -> None:
    """Oldest first, of candles that ended by then, empty ones among them, the newest revision of each."""
    upsert_candles(database, [candle(0, "10"), candle(4, "14"), candle(5, "15"), candle(8, "18")])
    upsert_candles(database, [candle(4, "44", revision=1)])
    assert closes(database, 8, 3) == [(5, 15), (6, 15), (7, 15)]
    assert closes(database, 9.5, 3) == [(6, 15), (7, 15), (8, 18)]
    assert closes(database, 8.99, 6) == [(2, 10), (3, 10), (4, 44), (5, 15), (6, 15), (7, 15)]
    assert closes(database, 11, 2) == []  # nothing was traded in them
    assert closes(database, 5, 200) == [(0, 10), (1, 10), (2, 10), (3, 10), (4, 44)]  # the record begins there
    assert closes(database, 0, 5) == []


def test_the_last_closes_of_seconds_are_those_that_there_are(database: Database) -> None:
    """As they are told: a second without trades has no candle."""
    upsert_candles(database, [candle(minute, interval_s=1) for minute in (0, 1, 5, 9)])
    with database.read() as connection:
        found = last_closes(connection, SERIES._replace(interval_s=1), NOON_US + 9 * MINUTE_US + 999_999, 2)
    assert minutes(found) == [1, 5]


def test_old_candles_go_by_their_interval(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every series, in transactions of a few; intervals that are not named stay."""
    monkeypatch.setattr(store, "PRUNE_BATCH", 7)
    made = [
        candle(0, venue=venue, interval_s=interval_s, open_time_us=NOON_US + number * interval_s * 1_000_000)
        for venue in ("all", "binance", "okx")
        for interval_s in (1, 60, 300)
        for number in (*range(10), *range(90, 100))
    ]
    upsert_candles(database, [*made, *(replace(each, revision=1) for each in made[:5])])
    kept = {1: timedelta(seconds=15), 60: timedelta(minutes=5)}
    assert prune_candles(database, kept, NOON_US + 100_000_000) == 5 + 3 * (10 + 0)
    with database.read() as connection:
        query = select(candles.c.interval_s, func.count()).group_by(candles.c.interval_s)
        counts = {row[0]: row[1] for row in connection.execute(query)}
    assert counts == {1: 30, 60: 60, 300: 60}
    assert prune_candles(database, kept, NOON_US + 101 * MINUTE_US) == 30 + 3 * 16
    assert prune_candles(database, kept, NOON_US + 101 * MINUTE_US) == 0
    assert prune_candles(database, {}, FOR_EVER_US) == 0


def test_checks_add_up(database: Database) -> None:
    """For each series, and the last difference stays until there is another."""
    other = SERIES._replace(venue="okx")
    with database.read() as connection:
        assert check_of(connection, SERIES) is None
    difference = {"field": "close", "ours": "1.5", "theirs": "1.6"}
    note_checks(database, [Check(SERIES, 3, 1, difference, 77), Check(other, 1), Check(SERIES, 2)])
    note_checks(database, [Check(SERIES, 4), Check(other, 1, 1, {"field": "volume"}, 78)])
    note_checks(database, [])
    with database.read() as connection:
        assert check_of(connection, SERIES) == Check(SERIES, 9, 1, difference, 77)
        assert check_of(connection, other) == Check(other, 2, 1, {"field": "volume"}, 78)
    note_checks(database, [Check(SERIES, 1, 1, {"field": "high"}, 80)])
    with database.read() as connection:
        assert check_of(connection, SERIES) == Check(SERIES, 10, 2, {"field": "high"}, 80)


def test_a_market_is_forgotten_and_the_others_stay(database: Database) -> None:
    """Its candles, their checks and its signals: what a replay begins with is nothing."""
    upsert_candles(database, [candle(0), candle(0, market="replay"), candle(1, market="replay")])
    note_checks(database, [Check(SERIES, 1), Check(SERIES._replace(market="replay"), 1)])
    insert_signals(database, [SIGNAL, again := replace(SIGNAL, market="replay")])
    forget_market(database, "replay")
    assert stored(database) == [candle(0)]
    with database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(candles)) == 1
        assert check_of(connection, SERIES) == Check(SERIES, 1)
        assert check_of(connection, SERIES._replace(market="replay")) is None
    assert insert_signals(database, [SIGNAL, again]) == [again]


def test_what_the_maker_tells_is_what_is_read(database: Database) -> None:
    """Stored as it is told, late revisions and all, and filled as it is read: the same candles, empty ones too."""
    draw = random.Random(7)
    maker = CandleMaker("binance", "BTC-USDT", "simulated", MakerState(NOON_US))
    told: list[Candle] = []
    clock_us = NOON_US
    for number in range(400):
        clock_us += draw.choice([100_000, 3_000_000, 30_000_000, 400_000_000])
        at_us = clock_us - draw.choice([0, 0, 0, 9_000_000])
        maker.trade(Decimal(100 + number), Decimal(1 + number % 3), draw.choice(["buy", "sell"]), at_us)
        told += maker.advance(clock_us)
        if number % 50 == 0:
            upsert_candles(database, told[-200:])
    upsert_candles(database, told)
    assert maker.state.late > 20
    for interval_s in (60, 300, 900, 3_600):
        newest = {each.open_time_us: each for each in told if each.interval_s == interval_s}
        with database.read() as connection:
            series = SERIES._replace(interval_s=interval_s)
            kept = read_candles(connection, series, 0, FOR_EVER_US, 10_000)
            closes = last_closes(connection, series, kept[-1].open_time_us + series.interval_us, 50)
        made = list(filled(kept, series.interval_us))
        expected = [newest[time_us] for time_us in sorted(newest) if time_us <= made[-1].open_time_us]
        assert sum(not each.trades for each in expected) > 10 or interval_s > 300
        # An empty one that was revised is not told from one that was not: neither has anything of its own.
        assert made == [each if each.trades else replace(each, revision=0) for each in expected]
        assert closes == made[-50:]
