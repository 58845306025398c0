"""Strategies: named configurations in versions. A version never changes; what is put anew is the next one."""

from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, Row, func, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from models.domain.strategies import Strategy, read_strategy
from models.store.database import Database, now_us
from models.store.tables import strategies

_IDENTITY = ("name", "version")


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One version of a strategy, when it was put, and when it was stopped, if it was."""

    strategy: Strategy
    created_us: int
    stopped_us: int | None = None


def current_strategies(connection: Connection) -> list[StrategyRow]:
    """Return the newest version of each strategy, by name; those that are stopped too."""
    newest = select(strategies.c.name, func.max(strategies.c.version).label("version")).group_by(strategies.c.name)
    these = newest.subquery()
    query = select(strategies).where(strategies.c.name == these.c.name, strategies.c.version == these.c.version)
    return [_row(row) for row in connection.execute(query.order_by(strategies.c.name))]


def strategy_versions(connection: Connection, name: str) -> list[StrategyRow]:
    """Return every version of a strategy, oldest first."""
    query = select(strategies).where(strategies.c.name == name).order_by(strategies.c.version)
    return [_row(row) for row in connection.execute(query)]


def read_version(connection: Connection, name: str, version: int | None = None) -> StrategyRow | None:
    """Return a version of a strategy (None: the newest), or None where there is none such."""
    query = select(strategies).where(strategies.c.name == name).order_by(strategies.c.version.desc()).limit(1)
    row = connection.execute(query.where(true() if version is None else strategies.c.version == version)).one_or_none()
    return None if row is None else _row(row)


def put_strategy(database: Database, wanted: Strategy) -> StrategyRow:
    """Return the version that says what is wanted: the newest one where that does and is not stopped, or a new one.

    What `wanted` says of its version is of no account. Raises StoreUnavailableError.
    """
    dialect = sqlite if database.is_sqlite else postgresql
    new = dialect.insert(strategies).on_conflict_do_nothing(index_elements=_IDENTITY).returning(strategies.c.version)
    config = {name: value for name, value in msgspec.to_builtins(wanted).items() if name not in _IDENTITY}
    with database.write() as connection:
        created_us = now_us(connection)
        while True:
            before = read_version(connection, wanted.name)
            same = before is not None and replace(wanted, version=before.strategy.version) == before.strategy
            if before is not None and same and before.stopped_us is None:
                return before
            version = 1 if before is None else before.strategy.version + 1
            row = {"name": wanted.name, "version": version, "config": config, "created_us": created_us}
            # Nothing is written where another one has put this version meanwhile: then its is the newest.
            if connection.execute(new.values(row)).one_or_none() is not None:
                return StrategyRow(replace(wanted, version=version), created_us)


def stop_strategy(database: Database, name: str) -> StrategyRow | None:
    """Stop the newest version of a strategy, once, and return it; None where there is none of the name.

    What was raised stays. Raises StoreUnavailableError.
    """
    with database.write() as connection:
        newest = read_version(connection, name)
        if newest is not None and newest.stopped_us is None:
            these = strategies.c.name == name, strategies.c.version == newest.strategy.version
            connection.execute(update(strategies).where(*these).values(stopped_us=now_us(connection)))
        return newest and read_version(connection, name, newest.strategy.version)


def ensure_strategy(database: Database, default: Strategy) -> None:
    """Put a strategy where none of its name has ever been."""
    with database.read() as connection:
        missing = read_version(connection, default.name) is None
    if missing:
        put_strategy(database, default)


def _row(row: Row[Any]) -> StrategyRow:
    return StrategyRow(
        read_strategy({**row.config, "name": row.name, "version": row.version}), row.created_us, row.stopped_us
    )
