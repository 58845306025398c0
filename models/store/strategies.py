"""Strategies: named configurations in versions. A version never changes; what is put anew is the next one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, true
from sqlalchemy.dialects import postgresql, sqlite

from models.store.database import Database, now_us
from models.store.tables import strategies


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One version of a strategy."""

    name: str
    version: int
    config: dict[str, Any]
    created_us: int


def current_strategies(connection: Connection) -> list[StrategyRow]:
    """Return the newest version of each strategy, by name."""
    newest = select(strategies.c.name, func.max(strategies.c.version).label("version")).group_by(strategies.c.name)
    these = newest.subquery()
    query = select(strategies).where(strategies.c.name == these.c.name, strategies.c.version == these.c.version)
    return [_row(row) for row in connection.execute(query.order_by(strategies.c.name))]


def strategy_versions(connection: Connection, name: str) -> list[StrategyRow]:
    """Return every version of a strategy, oldest first."""
    query = select(strategies).where(strategies.c.name == name).order_by(strategies.c.version)
    return [_row(row) for row in connection.execute(query)]


def read_strategy(connection: Connection, name: str, version: int | None = None) -> StrategyRow | None:
    """Return a version of a strategy (None: the newest), or None where there is none such."""
    query = select(strategies).where(strategies.c.name == name).order_by(strategies.c.version.desc()).limit(1)
    row = connection.execute(query.where(true() if version is None else strategies.c.version == version)).one_or_none()
    return None if row is None else _row(row)


def put_strategy(database: Database, name: str, config: Mapping[str, Any]) -> StrategyRow:
    """Return the version of this configuration: the newest one where that is equal, or a new one.

    Raises StoreUnavailableError.
    """
    wanted = dict(config)
    dialect = sqlite if database.is_sqlite else postgresql
    new = dialect.insert(strategies).on_conflict_do_nothing(index_elements=["name", "version"])
    with database.write() as connection:
        created_us = now_us(connection)
        while True:
            before = read_strategy(connection, name)
            if before is not None and before.config == wanted:
                return before
            row = StrategyRow(name, 1 if before is None else before.version + 1, wanted, created_us)
            # Nothing is written where another one has put this version meanwhile: then its is the newest.
            if connection.execute(new.values(asdict(row)).returning(strategies.c.version)).one_or_none() is not None:
                return row


def _row(row: Row[Any]) -> StrategyRow:
    return StrategyRow(row.name, row.version, row.config, row.created_us)
