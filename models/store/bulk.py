"""Many rows in one statement.

SQLAlchemy and the drivers work through a statement's rows one by one: SQLite's gives the interpreter lock away
for each, PostgreSQL answers each. Here a statement reads its rows, in their order, from a table named `given`:
on SQLite of VALUES (json_each takes up to three times as long), on PostgreSQL of one JSON array for each column
(1 us of the client's time a row of seven columns; executemany takes 14, its own arrays 43, VALUES 17).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    CursorResult,
    Dialect,
    Row,
    String,
    Table,
    UpdateBase,
    insert,
    select,
    text,
)
from sqlalchemy import column as named
from sqlalchemy.sql.expression import Subquery

from models.domain.decimals import plain
from models.store.tables import Money

# SQLite's statements have one of these many rows, so that they are few and stay prepared.
ROWS_ON_SQLITE = (256, 128, 64, 32, 16, 8, 4, 2, 1)
_GIVEN = "SELECT the_given_rows"


def given(**columns: Column[Any]) -> Subquery:
    """Return the table of a statement's rows; each of its columns holds what another column can hold."""
    return text(_GIVEN).columns(*(named(name, column.type) for name, column in columns.items())).subquery("given")


class Bulk:
    """An INSERT, UPDATE or DELETE that reads its rows from `given`."""

    def __init__(self, rows: Subquery, statement: UpdateBase) -> None:
        self._types = {column.name: column.type for column in rows.columns}
        self._statement = statement
        self._texts: dict[tuple[str, int], str] = {}

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[CursorResult[Any]]:
        """Run it for these rows, each with every column of `given`; `rows_met` of them tells how many rows it met.

        A Decimal, and what goes into a JSON column, may also be given as the text that stands for it.
        """
        return list(self._results(connection, rows))

    def returning(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[Row[Any]]:
        """Run it likewise and return what its RETURNING says, in no order."""
        return [row for result in self._results(connection, rows) for row in result]

    def _results(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Iterator[CursorResult[Any]]:
        dialect = connection.dialect
        columns = [_stored(kind, [row[name] for row in rows]) for name, kind in self._types.items()]
        if dialect.name != "sqlite":
            if rows:
                yield connection.exec_driver_sql(self._text(dialect, 0), tuple(map(_json, columns)))
            return
        values = tuple(chain.from_iterable(zip(*columns, strict=True)))
        width, start = len(columns), 0
        for count in ROWS_ON_SQLITE:
            while len(values) - start >= count * width:
                end = start + count * width
                yield connection.exec_driver_sql(self._text(dialect, count), values[start:end])
                start = end

    def _text(self, dialect: Dialect, count: int) -> str:
        key = (dialect.name, count)
        if key not in self._texts:
            compiled = str(self._statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
            rows = _values(list(self._types), count) if count else _arrays(self._types, dialect)
            self._texts[key] = compiled.replace(_GIVEN, rows)
        return self._texts[key]


def rows_met(results: Iterable[CursorResult[Any]]) -> int:
    """Return how many rows statements met, also of those that were sent without waiting (Database.in_one_trip)."""
    # An answer that came at once is with SQLAlchemy, and one that came later with the driver.
    return sum(each.rowcount if each.rowcount >= 0 else each.context.cursor.rowcount for each in results)


def _stored(kind: Any, values: list[Any]) -> list[Any]:  # noqa: ANN401 -- a type of SQLAlchemy's
    if isinstance(kind, Money):
        return [value if value is None or type(value) is str else plain(value) for value in values]
    if isinstance(kind, JSON):
        return [value if value is None or type(value) is str else _json(value) for value in values]
    return values


def _json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:  # also of half a surrogate pair, and of a whole number beyond 64 bits
        raise ValueError(str(error)) from error


def _values(names: list[str], count: int) -> str:
    columns = ", ".join(f'column{place} AS "{name}"' for place, name in enumerate(names, 1))
    row = f"({', '.join('?' * len(names))})"
    return f"SELECT {columns} FROM (VALUES {', '.join([row] * count)})"  # noqa: S608 -- the tables' own names


def _arrays(types: Mapping[str, Any], dialect: Dialect) -> str:
    # Not as VARCHAR(n): a cast to it cuts off silently what an INSERT of too long a text refuses.
    sql = {name: "TEXT" if isinstance(kind, String) else kind.compile(dialect) for name, kind in types.items()}
    columns = ", ".join(f'CAST("{name}" AS {kind}) AS "{name}"' for name, kind in sql.items())
    arrays = ", ".join(["json_array_elements_text(%s)"] * len(types))
    names = ", ".join(f'"{name}"' for name in types)
    return f"SELECT {columns} FROM ROWS FROM ({arrays}) AS rows ({names})"  # noqa: S608 -- likewise


@cache
def _inserting(table: Table, names: tuple[str, ...]) -> Bulk:
    rows = given(**{name: table.c[name] for name in names})
    return Bulk(rows, insert(table).from_select(names, select(rows)))


def insert_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, all with the columns that the first has. Defaults that SQLAlchemy would fill in are not."""
    if rows:
        _inserting(table, tuple(rows[0])).execute(connection, rows)
