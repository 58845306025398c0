"""Outcomes: what a step of the book did, made true in one fenced transaction."""

from collections.abc import Sequence
from decimal import Decimal, localcontext
from typing import Any

from sqlalchemy import Connection, CursorResult, delete, func, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from models.domain.decimals import EXACT, plain
from models.domain.errors import CrossfillError
from models.domain.events import EventType
from models.domain.orders import OrderState, check_transition, job_state_of
from models.domain.outcomes import Level, Outcome, Split
from models.domain.quotes import Market
from models.domain.records import Head, record_of
from models.store import audit
from models.store.bulk import Bulk, given, insert_rows, rows_met
from models.store.database import Database
from models.store.events import NewEvent, append
from models.store.rows import average
from models.store.shards import Lease, held
from models.store.tables import jobs, levels, orders, shards, splits


class FencedError(CrossfillError):
    """The shard has another owner or epoch: whoever asks was overtaken and commits nothing."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(f"shard {lease.shard} is no longer held under epoch {lease.epoch}")
        self.lease = lease


class SplitRefusedError(CrossfillError):
    """An order cannot take what the book gave it; the book is wrong and must be dropped."""

    def __init__(self, order_ids: Sequence[str]) -> None:
        super().__init__(f"outcomes do not fit the orders they are for, among these: {', '.join(order_ids[:5])}")
        self.order_ids = order_ids


def commit_outcomes(
    database: Database,
    lease: Lease,
    first_number: int,
    outcomes: Sequence[Outcome],
    changed: Sequence[Level],
    *,
    market: Market,
    fee_bps: Decimal = Decimal(0),
) -> set[str]:
    """Write splits, orders, jobs, levels, audit log and events of a step; return the owners to be told.

    An order has at most one outcome in a step: all orders are changed in one statement.
    Raises FencedError where the lease does not hold, SplitRefusedError where an order is not as the
    book thinks it is, CommitUnknownError and StoreUnavailableError. After any of them the book must
    be dropped: nothing is patched.
    """
    with localcontext(EXACT):
        numbered = enumerate(outcomes, first_number)
        written = [_Written(outcome, lease, number, market, fee_bps) for number, outcome in numbered]
        split_rows = [row for each in written for row in each.split_rows]
        events = [event for each in written for event in each.events()]
        records = [(each.outcome.order.seq, each.record()) for each in written]
    with database.write() as connection:
        # Rewriting the epoch that it has changes nothing, and holds the row against whoever overtakes.
        locked = update(shards).where(*held(lease)).values(epoch=lease.epoch)
        head = connection.execute(locked.returning(shards.c.audit_number, shards.c.audit_hash)).one_or_none()
        if head is None:
            raise FencedError(lease)
        with database.in_one_trip(connection):
            met = _update_orders(connection, written)
            insert_rows(connection, splits, split_rows)
            _write_levels(connection, lease.shard, changed)
            if records:
                audit.extend(connection, Head(lease.shard, *head), records, outcomes[-1].time_us)
            if events:
                append(connection, events, outcomes[-1].time_us)
        if rows_met(met) != len(written):
            raise SplitRefusedError([outcome.order.id for outcome in outcomes])
    return {outcome.order.owner_id for outcome in outcomes}


_THIS_ORDER = given(
    seq=orders.c.seq,
    before=orders.c.state,
    filled_before=orders.c.filled_size,
    state=orders.c.state,
    reason=orders.c.reason,
    filled_size=orders.c.filled_size,
    filled_value=orders.c.filled_value,
    avg_price=orders.c.avg_price,
    ended_us=orders.c.ended_us,
)
_UPDATE_ORDERS = Bulk(
    _THIS_ORDER,
    update(orders)
    .where(
        orders.c.seq == _THIS_ORDER.c.seq,
        # It is NULL, said so that PostgreSQL does not go through the index of all open orders.
        func.coalesce(orders.c.ended_us, 0) == 0,
        orders.c.state == _THIS_ORDER.c.before,
        orders.c.filled_size == _THIS_ORDER.c.filled_before,
    )
    .values(
        {
            name: _THIS_ORDER.c[name]
            for name in ("state", "reason", "filled_size", "filled_value", "avg_price", "ended_us")
        }
    ),
)
_THIS_JOB = given(id=jobs.c.id, state=jobs.c.state, result=jobs.c.result, ended_us=jobs.c.ended_us)
_UPDATE_JOBS = Bulk(
    _THIS_JOB,
    update(jobs)
    .where(jobs.c.id == _THIS_JOB.c.id)
    .values(state=_THIS_JOB.c.state, result=_THIS_JOB.c.result, ended_us=_THIS_JOB.c.ended_us),
)


def _update_orders(connection: Connection, written: Sequence["_Written"]) -> list[CursorResult[Any]]:
    """Change orders and their jobs; what was said of the orders tells how many of them were as the book thinks."""
    met = _UPDATE_ORDERS.execute(connection, [each.order_row for each in written])
    _UPDATE_JOBS.execute(connection, [row for each in written if (row := each.job_row())])
    return met


def _write_levels(connection: Connection, shard: int, changed: Sequence[Level]) -> None:
    latest = {(level.venue, level.product_id, level.side, level.price): level for level in changed}
    rows = [
        {
            "venue": level.venue,
            "product_id": level.product_id,
            "side": level.side.value,
            "price": level.price.normalize(),
            "shard": shard,
            "taken": level.taken,
        }
        for level in latest.values()
    ]
    _DELETE_LEVELS.execute(connection, [row for row in rows if not row["taken"]])
    _UPSERT_LEVELS[connection.dialect.name].execute(connection, [row for row in rows if row["taken"]])


_LEVEL_KEY = ("venue", "product_id", "side", "price")
_THIS_LEVEL = given(**dict(levels.c))


def _upsert_levels(statement: postgresql.Insert | sqlite.Insert) -> Bulk:
    # SQLite cannot tell this ON from that of a join where no WHERE stands before it.
    rows = select(_THIS_LEVEL).where(true())
    changed = {"taken": statement.excluded.taken}
    upsert = statement.from_select(list(levels.c.keys()), rows).on_conflict_do_update(
        index_elements=_LEVEL_KEY, set_=changed
    )
    return Bulk(_THIS_LEVEL, upsert)


_UPSERT_LEVELS = {
    "postgresql": _upsert_levels(postgresql.insert(levels)),
    "sqlite": _upsert_levels(sqlite.insert(levels)),
}
_DELETE_LEVELS = Bulk(
    _THIS_LEVEL,
    delete(levels).where(select(true()).where(*(levels.c[key] == _THIS_LEVEL.c[key] for key in _LEVEL_KEY)).exists()),
)


class _Written:
    """One outcome as its rows and events have it: each number is made a text once, for all of them."""

    def __init__(self, outcome: Outcome, lease: Lease, number: int, market: Market, fee_bps: Decimal) -> None:
        order, state = outcome.order, outcome.state
        if state is not order.state:
            check_transition(order.id, order.state, state)
        size = sum((split.size for split in outcome.splits), order.filled_size)
        value = sum((split.price * split.size for split in outcome.splits), order.filled_value)
        if size > order.size or (size == order.size) is not (state is OrderState.FILLED):
            raise SplitRefusedError([order.id])
        mean = average(value, size)
        self.outcome = outcome
        self.place = (lease.epoch, number)
        self.number = f"{lease.shard}-{lease.epoch}-{number}"
        self.market = market.value
        self.fee_bps = fee_bps
        self.ended_us = outcome.time_us if state.ended else None
        self.order_row = {
            "seq": order.seq,
            "before": order.state.value,
            "filled_before": plain(order.filled_size),
            "state": state.value,
            "reason": outcome.reason.value if outcome.reason else None,
            "filled_size": plain(size),
            "filled_value": plain(value),
            "avg_price": None if mean is None else plain(mean),
            "ended_us": self.ended_us,
        }
        self.result = self._result()
        self.split_rows = [self._split_row(index, split) for index, split in enumerate(outcome.splits)]

    def _result(self) -> dict[str, Any] | None:
        if self.ended_us is None:
            return None
        row = self.order_row
        return {
            "order_id": self.outcome.order.id,
            "state": row["state"],
            "reason": row["reason"],
            "filled_size": row["filled_size"],
            "avg_price": row["avg_price"],
        }

    def _split_row(self, index: int, split: Split) -> dict[str, Any]:
        return {
            "id": f"{self.number}-{index}",
            "order_seq": self.outcome.order.seq,
            "venue": split.venue,
            "product_id": split.product_id,
            "side": split.side.value,
            "price": plain(split.price),
            "size": plain(split.size),
            "fee": plain(split.price * split.size * self.fee_bps / 10_000),
            "token": split.token,
            "quote_number": split.quote_number,
            "shown": plain(split.shown),
            "taken_before": plain(split.taken_before),
            "exchange_time_us": split.exchange_time_us,
            "received_time_us": split.received_time_us,
            "created_us": self.outcome.time_us,
            "market": self.market,
        }

    def record(self) -> str:
        """Return what the audit log says of it."""
        return record_of(self.outcome, *self.place, self.fee_bps, self.market, self.order_row, self.split_rows)

    def job_row(self) -> dict[str, Any] | None:
        """Return the job's row after the step; None where its state stays."""
        order, state = self.outcome.order, job_state_of(self.outcome.state)
        if state is job_state_of(order.state):
            return None
        return {"id": order.job_id, "state": state.value, "result": self.result, "ended_us": self.ended_us}

    def events(self) -> list[NewEvent]:
        outcome, order = self.outcome, self.outcome.order
        events = []
        filled = order.filled_size
        sizes = self._sizes(filled)
        if order.state is OrderState.QUEUED and outcome.state is OrderState.WORKING:
            events.append(self._event(EventType.ORDER_WORKING, sizes))
        for split, row in zip(outcome.splits, self.split_rows, strict=True):
            filled += split.size
            sizes = self._sizes(filled)
            told = {
                "split_id": row["id"],
                "venue": row["venue"],
                "product_id": row["product_id"],
                "price": row["price"],
                "size": row["size"],
                "fee": row["fee"],
            }
            events.append(self._event(EventType.ORDER_SPLIT, told | sizes))
        if self.result is not None:
            kind = EventType.JOB_FAILED if outcome.state is OrderState.REJECTED else EventType.JOB_DONE
            end = {"avg_price": self.result["avg_price"], "reason": self.result["reason"]}
            events.append(self._event(EventType(f"order.{outcome.state}"), end | sizes))
            events.append(self._event(kind, {"kind": "order", "result": self.result, "market": self.market}))
        return events

    def _sizes(self, filled: Decimal) -> dict[str, Any]:
        remaining = self.outcome.order.size - filled
        return {"filled_size": plain(filled), "remaining_size": plain(remaining), "market": self.market}

    def _event(self, kind: EventType, payload: dict[str, Any]) -> NewEvent:
        order = self.outcome.order
        return NewEvent(order.owner_id, kind, order.job_id, order.id, payload)
