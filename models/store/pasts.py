"""What venues tell of their past: candles beside our own, how much is known, and what averages are warmed up with."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from msgspec.structs import asdict
from sqlalchemy import ColumnElement, Connection, and_, delete, select, true
from sqlalchemy.dialects import postgresql, sqlite

from models.domain.candles import EVERY_VENUE, Candle
from models.domain.instruments import INSTRUMENTS
from models.domain.pasts import PastCandle
from models.store.bulk import Bulk, given
from models.store.candles import Series, filled, newest_before, read_candles
from models.store.database import Database
from models.store.tables import pasts, venue_candles

_SERIES = tuple(Series._fields)
_KEY = (*_SERIES, "open_time_us")
_PAST = given(**dict(pasts.c))
_CANDLE = given(**dict(venue_candles.c))
_TOLD = [venue_candles.c[name] for name in PastCandle.__struct_fields__]


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRow:
    """How much of a series' past is known.

    Its venue was asked for what ours lack in [from_us, until_us). `closes` of `wanted` were known at the last look, and
    the next one is due at `due_us`. `attempts` failed since one did not, the last one for the `problem`.
    """

    series: Series
    from_us: int = 0
    until_us: int = 0
    wanted: int = 0
    closes: int = 0
    due_us: int = 0
    attempts: int = 0
    problem: str | None = None
    changed_us: int = 0


class Closes(NamedTuple):
    """Candles to warm averages up with, oldest first, and those of their open times that the record says nothing of."""

    candles: list[Candle]
    lacking: list[int]


def read_pasts(connection: Connection, market: str) -> dict[Series, PastRow]:
    """Return what is known of the pasts of a market's series."""
    rows = connection.execute(select(pasts).where(pasts.c.market == market)).mappings()
    return {(made := _row(row)).series: made for row in rows}


def read_past(connection: Connection, series: Series) -> PastRow | None:
    """Return what is known of a series' past; None where it was never looked at."""
    row = connection.execute(select(pasts).where(_of(pasts.c, series))).mappings().one_or_none()
    return None if row is None else _row(row)


def _row(row: Mapping[Any, Any]) -> PastRow:
    values = dict(row)
    return PastRow(series=Series(*(values.pop(name) for name in _SERIES)), **values)


def _upsert(statement: postgresql.Insert | sqlite.Insert, rows: Any, key: Sequence[str]) -> Bulk:  # noqa: ANN401 -- a subquery
    names = list(rows.c.keys())
    # SQLite cannot tell this ON from that of a join where no WHERE stands before it.
    new = statement.from_select(names, select(rows).where(true()))
    changed = {name: new.excluded[name] for name in names if name not in key}
    return Bulk(rows, new.on_conflict_do_update(index_elements=key, set_=changed))


_PUT_PASTS = {
    "postgresql": _upsert(postgresql.insert(pasts), _PAST, _SERIES),
    "sqlite": _upsert(sqlite.insert(pasts), _PAST, _SERIES),
}
_PUT_CANDLES = {
    "postgresql": _upsert(postgresql.insert(venue_candles), _CANDLE, _KEY),
    "sqlite": _upsert(sqlite.insert(venue_candles), _CANDLE, _KEY),
}


def put_pasts(database: Database, rows: Iterable[PastRow], told: Sequence[PastCandle] = ()) -> None:
    """Put rows in the place of their former ones, with what the venue told of the first row's series.

    A candle in which nothing was traded is left out: readers make it. Raises StoreUnavailableError.
    """
    changed = sorted(rows, key=lambda row: row.series)
    candles = [{**changed[0].series._asdict(), **asdict(candle)} for candle in told if candle.volume]
    with database.write() as connection:
        dialect = connection.dialect.name
        _PUT_CANDLES[dialect].execute(connection, candles)
        _PUT_PASTS[dialect].execute(connection, [_values(row) for row in changed])


def _values(row: PastRow) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in pasts.c.keys() if name not in _SERIES}  # noqa: SIM118 -- not a dict
    return {**row.series._asdict(), **values}


def read_told(
    connection: Connection, series: Series, start_us: int, end_us: int, limit: int, *, newest_first: bool = False
) -> list[PastCandle]:
    """Return what a venue told of candles with start <= open time < end, in order, at most `limit`."""
    time_us = venue_candles.c.open_time_us
    query = select(*_TOLD).where(_of(venue_candles.c, series), time_us >= start_us, time_us < end_us)
    query = query.order_by(time_us.desc() if newest_first else time_us).limit(limit)
    return [PastCandle(*row) for row in connection.execute(query)]


def _of(columns: Any, series: Series) -> ColumnElement[bool]:  # noqa: ANN401 -- a table's columns
    return and_(*(columns[name] == value for name, value in zip(_SERIES, series, strict=True)))


def last_closes(connection: Connection, series: Series, before_us: int, count: int) -> list[Candle]:
    """Return the last `count` candles that ended by a time, oldest first, to warm averages of their closes up.

    Ours are taken, and the venue's own where ours is not there or incomplete. Of all venues together that is the candle
    of the venue which traded most in it, of two the first by name. Those in which nothing was traded are among
    them. Fewer where the record begins later; none where nothing was traded in all of them: a price from before that
    says nothing of an average. A second without trades has no candle (see CandleMaker), and no venue is asked for
    seconds, so of these they are the last ones that there are.
    """
    return closes_of(connection, series, before_us, count).candles


def closes_of(connection: Connection, series: Series, before_us: int, count: int) -> Closes:
    """Return likewise what averages are warmed up with, and what is lacking: incomplete, or not there."""
    interval_us = series.interval_us
    end_us = before_us // interval_us * interval_us
    if series.interval_s == 1:
        return Closes(read_candles(connection, series, 0, end_us, count, newest_first=True)[::-1], [])
    start_us = end_us - count * interval_us
    ours = {candle.open_time_us: candle for candle in read_candles(connection, series, start_us, end_us, count)}
    told = _told(connection, series, start_us, end_us)
    found = [
        told[time_us] if time_us in told and (time_us not in ours or ours[time_us].incomplete) else ours[time_us]
        for time_us in sorted(ours.keys() | told.keys())
    ]
    if not found:
        return Closes([], list(range(start_us, end_us, interval_us)))
    # Before what the venue tells first nobody may have looked.
    before = newest_before(connection, series, start_us) if found[0].open_time_us in ours else None
    candles = list(filled(found if before is None else [before, *found], interval_us, start_us, end_us))
    newest_us = found[-1].open_time_us
    known = {each.open_time_us for each in candles if not each.incomplete and each.open_time_us <= newest_us}
    return Closes(candles, [time_us for time_us in range(start_us, end_us, interval_us) if time_us not in known])


def _told(connection: Connection, series: Series, start_us: int, end_us: int) -> dict[int, Candle]:
    """Return what is told of a series by open time, as candles that have a close and nothing else."""
    columns = venue_candles.c
    # Each is named, so that the key is read for each and not as a whole.
    venues = [*INSTRUMENTS.venues] if series.venue == EVERY_VENUE else [series.venue]
    query = select(columns.open_time_us, columns.close, columns.volume).where(
        columns.market == series.market,
        columns.venue.in_(venues),
        columns.symbol == series.symbol,
        columns.interval_s == series.interval_s,
        columns.open_time_us >= start_us,
        columns.open_time_us < end_us,
    )
    most: dict[int, tuple[Decimal, Decimal]] = {}  # by time: the volume and the close
    for time_us, close, volume in connection.execute(query.order_by(columns.venue, columns.open_time_us)):
        if time_us not in most or volume > most[time_us][0]:
            most[time_us] = volume, close
    nothing = (Decimal(0),) * 2
    identity = (series.venue, series.symbol, series.interval_s)
    return {
        time_us: Candle(*identity, time_us, *(close,) * 4, volume, *nothing, 1, series.market)
        for time_us, (volume, close) in most.items()
    }


def prune_told(database: Database, kept: Mapping[int, timedelta], now_us: int) -> int:
    """Delete what venues told of longer ago than candles of its interval are kept; return how many went."""
    total = 0
    for interval_s, age in kept.items():
        before_us = now_us - age // timedelta(microseconds=1)
        old = (venue_candles.c.interval_s == interval_s, venue_candles.c.open_time_us < before_us)
        with database.write() as connection:
            total += connection.execute(delete(venue_candles).where(*old)).rowcount
    return total
