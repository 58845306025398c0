"""Candles that are closed, each with its revisions, and how they compare with what the venues tell themselves.

One in which nothing was traded has the close before it four times: it is made when it is read, and not stored.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, true, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from models.domain.candles import GAP_MAX_US, Candle
from models.store.bulk import Bulk, given, rows_met
from models.store.database import Database
from models.store.tables import candle_checks, candles, signals

PRUNE_BATCH = 5_000

_NOTHING = (Decimal(0),) * 3  # volumes


class Series(NamedTuple):
    """What one candle follows another in. `venue` may be models.domain.candles.EVERY_VENUE."""

    market: str
    venue: str
    symbol: str
    interval_s: int

    @property
    def interval_us(self) -> int:
        """The length of one."""
        return self.interval_s * 1_000_000


class Check(NamedTuple):
    """Candles of a series that were compared with the venue's own, and the last difference (JSON), if any."""

    series: Series
    compared: int
    differing: int = 0
    difference: Mapping[str, Any] | None = None
    difference_us: int | None = None


_SERIES = tuple(Series._fields)
_KEY = (*_SERIES, "open_time_us", "revision")
_CANDLE = given(**dict(candles.c))
_CHECK = given(**dict(candle_checks.c))


def _upsert_candles(statement: postgresql.Insert | sqlite.Insert) -> Bulk:
    # SQLite cannot tell this ON from that of a join where no WHERE stands before it.
    new = statement.from_select(list(candles.c.keys()), select(_CANDLE).where(true()))
    given_ones = new.excluded
    changed = {name: given_ones[name] for name in candles.c.keys() if name not in _KEY}  # noqa: SIM118 -- not a dict
    worse = given_ones.incomplete & ~candles.c.incomplete
    return Bulk(_CANDLE, new.on_conflict_do_update(index_elements=_KEY, set_=changed, where=~worse))


def _add_checks(statement: postgresql.Insert | sqlite.Insert) -> Bulk:
    new = statement.from_select(list(candle_checks.c.keys()), select(_CHECK).where(true()))
    changed: dict[str, ColumnElement[Any]] = {
        name: candle_checks.c[name] + new.excluded[name] for name in ("compared", "differing")
    }
    for name in ("difference", "difference_us"):
        changed[name] = func.coalesce(new.excluded[name], candle_checks.c[name])
    return Bulk(_CHECK, new.on_conflict_do_update(index_elements=_SERIES, set_=changed))


_UPSERT_CANDLES = {
    "postgresql": _upsert_candles(postgresql.insert(candles)),
    "sqlite": _upsert_candles(sqlite.insert(candles)),
}
_ADD_CHECKS = {
    "postgresql": _add_checks(postgresql.insert(candle_checks)),
    "sqlite": _add_checks(sqlite.insert(candle_checks)),
}


def upsert_candles(database: Database, made: Sequence[Candle]) -> int:
    """Store candles that are closed, once however often they come; return how many were written.

    Of two with one key (series, open time, revision) the later counts, unless trades may be missing in it and
    not in the other. One without trades is left out: readers make it. It is stored only where it is
    incomplete, for nobody else knows that. Raises StoreUnavailableError.
    """
    kept: dict[tuple[Any, ...], Candle] = {}
    for candle in made:
        if candle.closed and (candle.trades or candle.incomplete):
            key = _key_of(candle)
            before = kept.get(key)
            if before is None or before.incomplete or not candle.incomplete:
                kept[key] = candle
    if not kept:
        return 0
    # In the order of the key, so that two who write the same ones wait for each other in one direction only.
    rows = [{name: getattr(kept[key], name) for name in candles.c.keys()} for key in sorted(kept)]  # noqa: SIM118 -- not a dict
    with database.write() as connection:
        return rows_met(_UPSERT_CANDLES[connection.dialect.name].execute(connection, rows))


def _key_of(candle: Candle) -> tuple[Any, ...]:
    return tuple(getattr(candle, name) for name in _KEY)


_FIELDS = [candles.c[name] for name in Candle.__struct_fields__ if name != "closed"]
_later = candles.alias("later")
_IS_NEWEST_REVISION = candles.c.revision == (
    select(func.max(_later.c.revision))
    .where(*(_later.c[name] == candles.c[name] for name in _KEY[:-1]))
    .scalar_subquery()
)


def read_candles(
    connection: Connection,
    series: Series,
    start_us: int,
    end_us: int,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[Candle]:
    """Return the newest revision of each stored candle with start <= open time < end, in order, at most `limit`."""
    time_us = candles.c.open_time_us
    query = (
        select(*_FIELDS)
        .where(_of(series), time_us >= start_us, time_us < end_us, _IS_NEWEST_REVISION)
        .order_by(time_us.desc() if newest_first else time_us)
        .limit(limit)
    )
    return [Candle(*row) for row in connection.execute(query)]


def _of(series: Series) -> ColumnElement[bool]:
    return and_(*(candles.c[name] == value for name, value in zip(_SERIES, series, strict=True)))


def newest_before(connection: Connection, series: Series, before_us: int) -> Candle | None:
    """Return the newest stored candle that opened before a time, or None."""
    found = read_candles(connection, series, 0, before_us, 1, newest_first=True)
    return found[0] if found else None


def filled(made: Iterable[Candle], interval_us: int, from_us: int = 0, until_us: int = 0) -> Iterator[Candle]:
    """Yield candles of one series, oldest first, with those between them in which nothing was traded.

    `from_us`: none that opens before it. `until_us`: also after the last one, as far as they end by then.
    Where the record cannot tell whether nothing was traded or nobody looked, they are incomplete: before one
    that is, for there somebody may have begun to look, and in a gap of more than GAP_MAX_US after one that is.
    """
    before: Candle | None = None
    for candle in made:
        if before is not None:
            yield from _empty(before, candle.open_time_us, interval_us, from_us, incomplete=candle.incomplete)
        if candle.open_time_us >= from_us:
            yield candle
        before = candle
    if before is not None:
        yield from _empty(before, until_us // interval_us * interval_us, interval_us, from_us, incomplete=False)


def _empty(before: Candle, end_us: int, interval_us: int, from_us: int, *, incomplete: bool) -> Iterator[Candle]:
    start_us = before.open_time_us + interval_us
    incomplete = incomplete or (before.incomplete and end_us - start_us > GAP_MAX_US)
    prices = (before.close,) * 4
    for time_us in range(max(start_us, from_us), end_us, interval_us):
        yield Candle(
            *(before.venue, before.symbol, before.interval_s, time_us, *prices, *_NOTHING, 0, before.market),
            incomplete=incomplete,
        )


def prune_candles(database: Database, kept: Mapping[int, timedelta], now_us: int) -> int:
    """Delete candles that are older than those of their interval (in seconds) are kept; return how many went.

    Intervals that are not named are kept for ever. Transactions are short.
    """
    total = 0
    with database.read() as connection:
        old = deque(_old(connection, kept, now_us))
    while old:
        deleted = 0
        with database.write() as connection:
            while old and deleted < PRUNE_BATCH:
                series, before_us = old.popleft()
                first_us = _first_us(connection, series, before_us)
                if first_us is not None:
                    end_us = min(before_us, first_us + PRUNE_BATCH * series.interval_us)
                    gone = delete(candles).where(_of(series), candles.c.open_time_us < end_us)
                    deleted += connection.execute(gone).rowcount
                    old.appendleft((series, before_us))
        total += deleted
    return total


def forget_market(database: Database, market: str) -> None:
    """Delete all candles of a market, how they compared with the venues' own, and the signals that they raised."""
    with database.write() as connection:
        for table in (candles, candle_checks, signals):
            connection.execute(delete(table).where(table.c.market == market))


def _old(connection: Connection, kept: Mapping[int, timedelta], now_us: int) -> Iterator[tuple[Series, int]]:
    """Yield series that have candles to delete, and the time before which those opened."""
    for market, venue, symbol in _pairs(connection):
        for interval_s, age in kept.items():
            series = Series(market, venue, symbol, interval_s)
            before_us = now_us - age // timedelta(microseconds=1)
            if _first_us(connection, series, before_us) is not None:
                yield series, before_us


def _first_us(connection: Connection, series: Series, before_us: int) -> int | None:
    time_us = candles.c.open_time_us
    query = select(func.min(time_us)).where(_of(series), time_us < before_us)
    first_us: int | None = connection.execute(query).scalar_one()
    return first_us


def _pairs(connection: Connection) -> Iterator[tuple[str, str, str]]:
    # One look into the index for each: DISTINCT would read every candle that there is.
    names = (candles.c.market, candles.c.venue, candles.c.symbol)
    query = select(*names).order_by(*names).limit(1)
    row = connection.execute(query).one_or_none()
    while row is not None:
        yield row.market, row.venue, row.symbol
        row = connection.execute(query.where(tuple_(*names) > tuple_(*row))).one_or_none()


def note_checks(database: Database, checks: Sequence[Check]) -> None:
    """Add to what is known of series compared with the venues' own candles. Raises StoreUnavailableError."""
    sums: dict[Series, Check] = {}
    for check in checks:
        before = sums.get(check.series, Check(check.series, 0))
        told = before if check.difference is None else check
        sums[check.series] = Check(
            check.series,
            before.compared + check.compared,
            before.differing + check.differing,
            told.difference,
            told.difference_us,
        )
    if not sums:
        return
    rows = [{**series._asdict(), **sums[series]._asdict()} for series in sorted(sums)]
    with database.write() as connection:
        _ADD_CHECKS[connection.dialect.name].execute(connection, rows)


def check_of(connection: Connection, series: Series) -> Check | None:
    """Return how a series compared with the venue's own candles; None where none was compared."""
    query = select(candle_checks).where(
        *(candle_checks.c[name] == value for name, value in zip(_SERIES, series, strict=True))
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    return Check(series, row.compared, row.differing, row.difference, row.difference_us)
