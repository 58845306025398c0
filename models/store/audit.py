"""The audit log as it is stored: extended in the outcome transaction, read row by row by whoever verifies."""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, Select, event, func, select, text, update

from models.domain.audit import OrderNow
from models.domain.orders import JobState, OrderState, Reason, Side, TimeInForce
from models.domain.records import AuditedOrder, AuditedSplit, Head, Link, Progress, chained
from models.store.bulk import insert_rows
from models.store.database import Database
from models.store.jobs import AVERAGE_KIND
from models.store.rows import split_row
from models.store.tables import audit, jobs, meta, orders, shards, splits

ROWS_AT_ONCE = 500


def extend(connection: Connection, head: Head, records: Sequence[tuple[int, str]], time_us: int) -> None:
    """Append records, each with its order's accept sequence, to the chain whose head the caller has locked."""
    number, previous = head.number, head.hash
    rows = []
    for order_seq, record in records:
        number += 1
        hashed = chained(previous, head.shard, number, record)
        row = {"shard": head.shard, "number": number, "order_seq": order_seq, "record": record}
        rows.append({**row, "previous": previous, "hash": hashed})
        previous = hashed
    insert_rows(connection, audit, rows)
    moved = {"audit_number": number, "audit_hash": previous, "audit_time_us": time_us}
    connection.execute(update(shards).where(shards.c.shard == head.shard).values(moved))


def heads(connection: Connection) -> list[Head]:
    """Return the head of each shard's chain."""
    query = select(shards.c.shard, shards.c.audit_number, shards.c.audit_hash, shards.c.audit_time_us)
    return [Head(*row) for row in connection.execute(query.order_by(shards.c.shard))]


@contextmanager
def snapshot(database: Database) -> Iterator[Connection]:
    """Run a read transaction that sees one state of the whole database, however long it lasts.

    SQLite sorts on the disk then, not in memory. Raises StoreUnavailableError.
    """
    if database.is_sqlite:
        event.listen(database.engine, "connect", _sort_on_disk)
    with database.read() as connection:
        if database.is_sqlite:
            yield connection
            return
        connection.execution_options(isolation_level="REPEATABLE READ")
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        raw: Any = connection.connection.dbapi_connection
        before, raw.answer_s = raw.answer_s, None
        try:
            yield connection
        finally:
            raw.answer_s = before


def _sort_on_disk(connection: Any, _record: object) -> None:  # noqa: ANN401 -- a driver's connection
    connection.execute("PRAGMA temp_store=FILE").close()


def _streamed(connection: Connection, query: Select[Any]) -> Iterator[Row[Any]]:
    # Of a copy: the option would stay with the connection.
    yield from connection.execute(query, execution_options={"stream_results": True, "yield_per": ROWS_AT_ONCE})


def _link(row: Row[Any]) -> Link:
    return Link(row.shard, row.number, row.order_seq, row.record, row.previous, row.hash)


def shards_of_links(connection: Connection) -> list[int]:
    """Return the shards that the log has rows of."""
    return list(connection.execute(select(audit.c.shard).distinct().order_by(audit.c.shard)).scalars())


def links(connection: Connection, shard: int) -> Iterator[Link]:
    """Yield a shard's rows of the log in the order of their numbers."""
    query = select(audit).where(audit.c.shard == shard).order_by(audit.c.number)
    return map(_link, _streamed(connection, query))


def link_before(connection: Connection, link: Link) -> Link | None:
    """Return the row that a row follows."""
    query = select(audit).where(audit.c.shard == link.shard, audit.c.number == link.number - 1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _link(row)


def seq_of(connection: Connection, order_id: str) -> int | None:
    """Return an order's accept sequence, or None."""
    return connection.execute(select(orders.c.seq).where(orders.c.id == order_id)).scalar_one_or_none()


@dataclass(slots=True)
class Story:
    """All that is stored of one order; `now` is None where only its records or splits are left."""

    seq: int
    now: OrderNow | None = None
    links: list[Link] = field(default_factory=list)
    splits: list[AuditedSplit] = field(default_factory=list)


def stories(connection: Connection, seq: int | None = None) -> Iterator[Story]:
    """Yield orders in accept order, each with its records and its splits in book order; `seq`: that one alone."""
    epochs = {row.shard: row.audit_epoch for row in connection.execute(select(shards))}
    after = connection.execute(select(meta.c.value).where(meta.c.key == "audit_after_seq")).scalar_one_or_none()
    logged_after = int(after or 0)
    joined = select(orders, jobs.c.state.label("job_state"), jobs.c.result).join(jobs, jobs.c.id == orders.c.job_id)
    queries: list[tuple[Select[Any], ColumnElement[Any]]] = [
        (joined, orders.c.seq),
        (select(audit), audit.c.order_seq),
        (select(splits), splits.c.order_seq),
    ]
    if seq is not None:
        queries = [(query.where(column == seq), column) for query, column in queries]
    streams = [_keyed(connection, kind, query, column) for kind, (query, column) in enumerate(queries)]
    for key, rows in groupby(heapq.merge(*streams, key=itemgetter(0, 1)), key=itemgetter(0)):
        story = Story(key)
        for _, kind, row in rows:
            if kind == 0:
                story.now = _order_now(row, epochs.get(row.shard, 0), logged_after)
            elif kind == 1:
                story.links.append(_link(row))
            else:
                story.splits.append(split_row(row))
        story.links.sort(key=lambda link: (link.shard, link.number))
        story.splits.sort(key=lambda split: split.place)
        yield story


def _keyed(
    connection: Connection, kind: int, query: Select[Any], column: ColumnElement[Any]
) -> Iterator[tuple[int, int, Row[Any]]]:
    for row in _streamed(connection, query.order_by(column)):
        yield getattr(row, str(column.key)), kind, row


def _order_now(row: Row[Any], chained_from: int, logged_after: int) -> OrderNow:
    order = AuditedOrder(
        seq=row.seq,
        id=row.id,
        symbol=row.symbol,
        side=Side(row.side),
        limit=row.price,
        size=row.size,
        time_in_force=TimeInForce(row.time_in_force),
        venues=tuple(row.venues.split(",")) if row.venues else None,
        deadline_us=row.deadline_us,
    )
    reason = Reason(row.reason) if row.reason else None
    return OrderNow(
        order,
        Progress(OrderState(row.state), row.filled_size, row.filled_value, reason, row.avg_price),
        row.shard,
        row.market,
        row.ended_us,
        JobState(row.job_state),
        row.result,
        chained_from,
        row.seq <= logged_after,
    )


def splits_by_level(connection: Connection, seq: int | None = None) -> Iterator[AuditedSplit]:
    """Yield splits level by level, within one by epoch and quote; `seq`: of the levels that this order took from."""
    level = (splits.c.venue, splits.c.product_id, splits.c.side, splits.c.price)
    query = select(splits).order_by(*level, *_quote(connection))
    if seq is not None:
        mine = select(splits).where(splits.c.order_seq == seq).subquery()
        same = (mine.c.venue, mine.c.product_id, mine.c.side, mine.c.price)
        conditions = [here == there for here, there in zip(level, same, strict=True)]
        query = query.where(select(mine.c.id).where(*conditions).exists())
    return map(split_row, _streamed(connection, query))


def splits_by_quote(connection: Connection, seq: int | None = None) -> Iterator[AuditedSplit]:
    """Yield splits product by product, within one by epoch and quote; `seq`: of this order alone."""
    query = select(splits).order_by(splits.c.venue, splits.c.product_id, *_quote(connection))
    return map(split_row, _streamed(connection, query if seq is None else query.where(splits.c.order_seq == seq)))


def _quote(connection: Connection) -> tuple[ColumnElement[Any], ...]:
    # The epoch is the second number of a split's id. An id that is none is found elsewhere.
    second: ColumnElement[Any] = func.substr(splits.c.id, func.instr(splits.c.id, "-") + 1)
    if connection.dialect.name != "sqlite":
        second = func.coalesce(func.substring(splits.c.id, "^[0-9]+-([0-9]{1,18})-"), "-1")
    return second.cast(BigInteger), splits.c.token, splits.c.quote_number


@dataclass(frozen=True, slots=True)
class StoredAverage:
    """A price job that is done."""

    id: str
    payload: dict[str, Any]
    result: dict[str, Any]


def averages(connection: Connection) -> Iterator[StoredAverage]:
    """Yield the stored averages, oldest first."""
    query = select(jobs.c.id, jobs.c.payload, jobs.c.result).where(
        jobs.c.kind == AVERAGE_KIND, jobs.c.state == JobState.DONE.value
    )
    for row in _streamed(connection, query.order_by(jobs.c.id)):
        yield StoredAverage(row.id, row.payload, row.result or {})
