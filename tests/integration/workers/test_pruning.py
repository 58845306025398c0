"""What is older than it is kept goes."""

import time
from collections.abc import Iterator
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from models.domain.candles import INTERVALS_S, Candle
from models.domain.events import EventType
from models.settings import Settings
from models.store.candles import upsert_candles
from models.store.database import Database
from models.store.events import NewEvent, append
from models.store.owners import ensure_owner
from models.store.tables import candles, events
from workers.housekeeping import prune_old

DAY_US = 86_400_000_000
AGES_DAYS = (0.5, 2, 89, 91, 4_000)


@pytest.fixture(params=["database_url", "postgres_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database of either kind, with an owner."""
    opened = Database.open(request.getfixturevalue(request.param))
    ensure_owner(opened, "ann", "admin", "secret")
    yield opened
    opened.close()


def test_events_and_candles_go_when_they_are_old(database: Database) -> None:
    """By default seconds after a day, minutes after 90, events after 7; larger candles never."""
    now_us, one = time.time_ns() // 1000, Decimal(1)
    times_us = [now_us - int(days * DAY_US) for days in AGES_DAYS]
    upsert_candles(
        database,
        [
            Candle("okx", "BTC-USDT", interval_s, time_us, *(one,) * 7, 1, "simulated")
            for interval_s in INTERVALS_S.values()
            for time_us in times_us
        ],
    )
    with database.write() as connection:
        for time_us in reversed(times_us):
            append(connection, [NewEvent("ann", EventType.JOB_DONE, "j", None, {})], time_us)
    assert prune_old(database, Settings()) == 3 + 4 + 2
    with database.read() as connection:
        query = select(candles.c.interval_s, func.count()).group_by(candles.c.interval_s)
        left = {row[0]: row[1] for row in connection.execute(query)}
        assert connection.execute(select(func.count()).select_from(events)).scalar_one() == 2
    assert left == {1: 1, 60: 3, **dict.fromkeys(list(INTERVALS_S.values())[2:], 5)}
    assert prune_old(database, Settings()) == 0


def test_how_long_candles_are_kept_is_one_setting(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """By interval, as JSON."""
    two_hours_ago_us = time.time_ns() // 1000 - DAY_US // 12
    hour = Candle("okx", "BTC-USDT", 3_600, two_hours_ago_us, *(Decimal(1),) * 7, 1, "simulated")
    upsert_candles(database, [hour])
    monkeypatch.setenv("CROSSFILL_CANDLES_KEPT_DAYS", '{"1m": 0.01}')
    assert prune_old(database, Settings()) == 0
    monkeypatch.setenv("CROSSFILL_CANDLES_KEPT_DAYS", '{"1h": 0.01}')
    assert prune_old(database, Settings()) == 1
    monkeypatch.setenv("CROSSFILL_CANDLES_KEPT_DAYS", '{"2h": 1}')
    with pytest.raises(ValueError, match="'2h' is no interval of candles; one of 1s, 1m, "):
        Settings()
