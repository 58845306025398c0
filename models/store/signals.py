"""Signals: each is there once, whoever raised it and how often."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, true
from sqlalchemy.dialects import postgresql, sqlite

from models.domain.signals import Cross, Signal
from models.store.bulk import Bulk, given
from models.store.database import Database
from models.store.tables import signals

_IDENTITY = ("market", "strategy", "version", "variant", "venue", "symbol", "interval_s", "open_time_us")
_COLUMNS = [name for name in signals.c.keys() if name != "id"]  # noqa: SIM118 -- not a dict
_SIGNAL = given(**{name: signals.c[name] for name in _COLUMNS})


def _insert_new(statement: postgresql.Insert | sqlite.Insert) -> Bulk:
    # SQLite cannot tell this ON from that of a join where no WHERE stands before it.
    new = statement.from_select(_COLUMNS, select(_SIGNAL).where(true()))
    ignoring = new.on_conflict_do_nothing(index_elements=_IDENTITY)
    return Bulk(_SIGNAL, ignoring.returning(*(signals.c[name] for name in _IDENTITY)))


_INSERT_NEW = {
    "postgresql": _insert_new(postgresql.insert(signals)),
    "sqlite": _insert_new(sqlite.insert(signals)),
}


@dataclass(frozen=True, slots=True)
class SignalRow:
    """A signal and its place in the record."""

    id: int
    signal: Signal


def insert_signals(database: Database, raised: Sequence[Signal]) -> list[Signal]:
    """Store signals and return those that were not there yet, in the order given. Raises StoreUnavailableError."""
    by_identity: dict[tuple[Any, ...], Signal] = {}
    for signal in raised:
        by_identity.setdefault(tuple(getattr(signal, name) for name in _IDENTITY), signal)
    if not by_identity:
        return []
    rows = [
        {**{name: getattr(signal, name) for name in _COLUMNS}, "cross": signal.cross.value}
        for signal in by_identity.values()
    ]
    with database.write() as connection:
        told = _INSERT_NEW[connection.dialect.name].returning(connection, rows)
    new = {tuple(row) for row in told}
    return [signal for identity, signal in by_identity.items() if identity in new]


def read_signals(
    connection: Connection,
    market: str,
    limit: int,
    *,
    symbol: str | None = None,
    strategy: str | None = None,
    version: int | None = None,
    variant: str | None = None,
    before_id: int | None = None,
) -> list[SignalRow]:
    """Return a market's signals, newest first, at most `limit`; `before_id` is where the last page ended."""
    query = select(signals).where(signals.c.market == market).order_by(signals.c.id.desc()).limit(limit)
    wanted = {"symbol": symbol, "strategy": strategy, "version": version, "variant": variant}
    query = query.where(*(signals.c[name] == value for name, value in wanted.items() if value is not None))
    if before_id is not None:
        query = query.where(signals.c.id < before_id)
    return [_row(row) for row in connection.execute(query).mappings()]


def _row(row: Any) -> SignalRow:  # noqa: ANN401 -- rows carry no types
    values = {name: row[name] for name in _COLUMNS}
    return SignalRow(row["id"], Signal(**{**values, "cross": Cross(values["cross"])}))
