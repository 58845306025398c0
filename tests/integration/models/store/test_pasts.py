"""What venues tell of their past, beside our own candles: kept once, and taken where ours are missing."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from models.domain.candles import EVERY_VENUE, Candle
from models.domain.pasts import PastCandle, known_closes
from models.store.candles import Series, read_candles, upsert_candles
from models.store.database import Database
from models.store.pasts import Closes, PastRow, closes_of, prune_told, put_pasts, read_pasts, read_told

HOUR_US = 3_600_000_000
NOON_US = 1_790_000_000_000_000 // HOUR_US * HOUR_US
SERIES = Series("simulated", "binance", "BTC-USDT", 3_600)
KRAKEN = SERIES._replace(venue="kraken")
ALL = SERIES._replace(venue=EVERY_VENUE)


def ours(hour: int, close: int, series: Series = SERIES, **values: Any) -> Candle:
    numbers = {name: Decimal(1) for name in ("open", "high", "low", "volume", "quote_volume", "taker_buy_volume")}
    at = {"open_time_us": NOON_US + hour * HOUR_US, "close": Decimal(close), "trades": 3}
    return Candle(**{**series._asdict(), **numbers, **at, **values})


def told(hour: int, close: int, volume: int = 1) -> PastCandle:
    return PastCandle(NOON_US + hour * HOUR_US, *(Decimal(close),) * 4, Decimal(volume), None, 7)


def tell(database: Database, candles: list[PastCandle], series: Series = SERIES) -> None:
    put_pasts(database, [PastRow(series=series)], candles)


def looked(database: Database, hour: int, count: int, series: Series = SERIES) -> Closes:
    with database.read() as connection:
        return closes_of(connection, series, NOON_US + hour * HOUR_US, count)


def closes(database: Database, hour: int, count: int, series: Series = SERIES) -> list[tuple[int, int]]:
    found = looked(database, hour, count, series).candles
    return [((each.open_time_us - NOON_US) // HOUR_US, int(each.close)) for each in found]


def lacking(database: Database, hour: int, count: int, series: Series = SERIES) -> list[int]:
    return [(each - NOON_US) // HOUR_US for each in looked(database, hour, count, series).lacking]


def test_what_a_venue_tells_warms_averages_up(database: Database) -> None:
    """Oldest first; all of it is lacking before."""
    assert closes(database, 3, 3) == []
    assert lacking(database, 3, 3) == [0, 1, 2]
    tell(database, [told(hour, 10 + hour) for hour in range(-2, 3)])
    assert closes(database, 3, 3) == [(0, 10), (1, 11), (2, 12)]
    assert lacking(database, 3, 3) == []
    assert lacking(database, 4, 7) == [-3, 3]


def test_ours_count_and_the_venues_where_ours_are_missing_or_incomplete(database: Database) -> None:
    """After an outage of two hours, whose first and last one were seen in part. Ours stay as they are."""
    seen = [ours(0, 20), ours(1, 21, incomplete=True), ours(4, 24, incomplete=True), ours(5, 25)]
    upsert_candles(database, seen)
    assert closes(database, 6, 6) == [(0, 20), (1, 21), (2, 21), (3, 21), (4, 24), (5, 25)]
    assert lacking(database, 6, 6) == [1, 2, 3, 4]
    assert known_closes(looked(database, 6, 6).candles) == 4
    tell(database, [told(hour, 10 + hour) for hour in range(6)])
    assert closes(database, 6, 6) == [(0, 20), (1, 11), (2, 12), (3, 13), (4, 14), (5, 25)]
    assert lacking(database, 6, 6) == []
    with database.read() as connection:
        assert read_candles(connection, SERIES, 0, 1 << 62, 99) == seen


def test_a_rebuild_from_the_archive_wins_over_the_venue(database: Database) -> None:
    """What it makes is ours, and complete."""
    upsert_candles(database, [ours(1, 21, incomplete=True)])
    tell(database, [told(1, 11)])
    assert closes(database, 2, 1) == [(1, 11)]
    upsert_candles(database, [ours(1, 22)])
    assert closes(database, 2, 1) == [(1, 22)]


def test_a_quiet_interval_has_the_close_before_it(database: Database) -> None:
    """A venue leaves it out, or tells it with a volume of 0, which is not stored."""
    tell(database, [told(0, 10), told(1, 10, volume=0), told(3, 13)])
    assert closes(database, 4, 4) == [(0, 10), (1, 10), (2, 10), (3, 13)]
    assert lacking(database, 4, 4) == []
    with database.read() as connection:
        assert len(read_told(connection, SERIES, 0, 1 << 62, 10)) == 2


def test_of_all_venues_it_is_the_one_that_traded_most(database: Database) -> None:
    """In each interval anew, of two alike the first by name; ours of all together count before."""
    tell(database, [told(0, 10, 5), told(1, 11, 5), told(2, 12, 5), told(3, 13, 5)])
    tell(database, [told(0, 90, 6), told(1, 91, 4), told(2, 92, 5), told(4, 94, 1)], KRAKEN)
    assert closes(database, 5, 5, ALL) == [(0, 90), (1, 11), (2, 12), (3, 13), (4, 94)]
    upsert_candles(database, [ours(1, 55, ALL), ours(3, 56, ALL, incomplete=True), ours(2, 57)])
    assert closes(database, 5, 5, ALL) == [(0, 90), (1, 55), (2, 12), (3, 13), (4, 94)]


def test_another_market_another_pair_and_another_interval_have_a_past_of_their_own(database: Database) -> None:
    """Nothing made up warms a live average up."""
    tell(database, [told(0, 10)])
    for other in (
        SERIES._replace(market="live"),
        SERIES._replace(symbol="ETH-USDT"),
        SERIES._replace(interval_s=7_200),
        KRAKEN,
        ALL._replace(market="live"),
    ):
        assert closes(database, 2, 2, other) == []


def test_what_is_told_again_takes_the_place_of_what_was(database: Database) -> None:
    """Once, however often it comes; pages go from either end."""
    for close in (10, 11, 11):
        tell(database, [told(hour, close) for hour in range(300)])
    with database.read() as connection:
        found = read_told(connection, SERIES, NOON_US, NOON_US + 4 * HOUR_US, 2, newest_first=True)
        everything = read_told(connection, SERIES, 0, 1 << 62, 1_000)
    assert found == [told(3, 11), told(2, 11)]
    assert everything == [told(hour, 11) for hour in range(300)]


def test_how_much_is_known_is_kept(database: Database) -> None:
    """For each series of a market."""
    row = PastRow(series=SERIES, from_us=1, until_us=2, wanted=200, closes=150, due_us=3, attempts=4, changed_us=5)
    other = PastRow(series=KRAKEN, problem="the answer is 503 Service Unavailable")
    put_pasts(database, [row, other])
    put_pasts(database, [PastRow(series=SERIES._replace(market="live"))])
    put_pasts(database, [other])
    with database.read() as connection:
        assert read_pasts(connection, "simulated") == {SERIES: row, KRAKEN: other}


def test_what_was_told_goes_when_candles_of_its_interval_do(database: Database) -> None:
    """Others stay."""
    tell(database, [told(hour, 10) for hour in range(5)])
    minutes = SERIES._replace(interval_s=60)
    tell(database, [told(hour, 10) for hour in range(5)], minutes)
    assert prune_told(database, {60: timedelta(hours=3)}, NOON_US + 5 * HOUR_US) == 2
    with database.read() as connection:
        assert read_told(connection, minutes, 0, 1 << 62, 10) == [told(hour, 10) for hour in (2, 3, 4)]
        assert len(read_told(connection, SERIES, 0, 1 << 62, 10)) == 5
