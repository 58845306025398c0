from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import DBAPIError

from models.store.bulk import Bulk, given, insert_rows, rows_met
from models.store.database import Database
from models.store.tables import events, levels

DIGITS = Decimal("12345678901234567890.000000000000000000000000000000000012345")


def _event(seq: int, **values: Any) -> dict[str, Any]:
    row = {"owner_id": "ann", "seq": seq, "type": "job.done", "created_us": 1, "job_id": "j", "order_id": None}
    return {**row, "payload": {"n": seq, "text": 'é"\\%s? :x \n'}, **values}


def _level(price: Decimal, taken: Decimal) -> dict[str, Any]:
    row = {"venue": "binance", "product_id": "LTCBTC", "side": "sell", "shard": 0}
    return {**row, "price": price, "taken": taken}


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 800])
def test_rows_of_any_number_arrive_as_they_were_given(database: Database, count: int) -> None:
    """None stays none, JSON stays JSON, and a text may hold whatever a statement or an array could trip over."""
    rows = [_event(seq) for seq in range(count)]
    with database.write() as connection:
        insert_rows(connection, events, rows)
    with database.read() as connection:
        found = connection.execute(select(events).order_by(events.c.seq))
        assert [dict(row._mapping) for row in found] == rows


def test_decimals_are_exact(database: Database) -> None:
    """All digits of a price are kept, and it is found again by its value, given as a number or as its text."""
    with database.write() as connection:
        insert_rows(connection, levels, [_level(DIGITS, Decimal("1E+3"))])
    this = given(price=levels.c.price, taken=levels.c.taken)
    raised = update(levels).where(levels.c.price == this.c.price).values(taken=this.c.taken)
    with database.write() as connection:
        assert connection.execute(select(levels.c.price, levels.c.taken)).one() == (DIGITS, Decimal(1000))
        assert rows_met(Bulk(this, raised).execute(connection, [{"price": DIGITS, "taken": "2.50"}])) == 1
        assert connection.execute(select(levels.c.taken)).scalar_one() == Decimal("2.5")


def test_a_statement_counts_and_returns_what_it_met(database: Database) -> None:
    """Over all of its parts: a given row that meets none does not count."""
    this = given(seq=events.c.seq, created_us=events.c.created_us)
    changed = update(events).where(events.c.seq == this.c.seq).values(created_us=this.c.created_us)
    rows = [{"seq": seq, "created_us": seq * 2} for seq in range(0, 1200, 2)]
    with database.write() as connection:
        insert_rows(connection, events, [_event(seq) for seq in range(1, 1001)])
        assert rows_met(Bulk(this, changed).execute(connection, rows)) == 500
        told = Bulk(this, changed.returning(events.c.seq, events.c.created_us)).returning(connection, rows)
        assert sorted((row.seq, row.created_us) for row in told) == [(seq, 2 * seq) for seq in range(2, 1001, 2)]
        gone = delete(events).where(events.c.seq.in_(select(this.c.seq)))
        assert rows_met(Bulk(this, gone).execute(connection, rows)) == 500
        assert connection.execute(select(func.count()).select_from(events)).scalar_one() == 500


@pytest.mark.parametrize("value", ["\ud800", 1 << 64])
def test_what_no_database_can_hold_is_an_error_of_its_row(database: Database, value: object) -> None:
    """Half a surrogate pair and a number beyond 64 bits are refused as any other bad value is."""
    name = "created_us" if isinstance(value, int) else "job_id"
    with pytest.raises((ValueError, OverflowError, DBAPIError)), database.write() as connection:
        insert_rows(connection, events, [_event(1), _event(2, **{name: value})])


def test_a_text_that_is_too_long_is_refused_and_not_cut(postgres_url: str) -> None:
    """PostgreSQL says so; a cast to the column's type would cut it off in silence."""
    with closing(Database.open(postgres_url)) as database:
        too_long = pytest.raises(DBAPIError, match="too long")
        with too_long, database.write() as connection:
            insert_rows(connection, events, [_event(1, type="t" * 33)])
