"""Orders: accepted in batches, read, asked to be cancelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Connection, select, update
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, StatementError

from models.domain.decimals import plain
from models.domain.errors import CrossfillError
from models.domain.events import EventType
from models.domain.orders import JobState, OrderState, Side, TimeInForce
from models.store.bulk import insert_rows
from models.store.database import Database
from models.store.events import NewEvent, append, rfc3339
from models.store.rows import OrderRow, SplitRow, order_row
from models.store.tables import idempotency_keys, jobs, orders, owners, splits


class KeyReusedError(CrossfillError):
    """The Idempotency-Key came before, with another request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Idempotency-Key {key!r} was used before with another request")
        self.key = key


class ClientOrderIdTakenError(CrossfillError):
    """The owner has an order with this client_order_id."""

    def __init__(self, client_order_id: str, order_id: str) -> None:
        super().__init__(f"client_order_id {client_order_id!r} is taken by order {order_id}")
        self.client_order_id = client_order_id
        self.order_id = order_id


class NotAcceptedError(CrossfillError):
    """The database refused this row, and this row alone."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the order could not be stored: {cause}".splitlines()[0])
        self.cause = cause


@dataclass(frozen=True, slots=True)
class NewOrder:
    """A validated order, ready to be stored."""

    id: str
    job_id: str
    owner_id: str
    shard: int
    symbol: str
    side: Side
    price: Decimal
    size: Decimal
    time_in_force: TimeInForce
    venues: tuple[str, ...] | None
    client_order_id: str | None
    market: str
    created_us: int
    deadline_us: int | None
    idempotency_key: str | None
    fingerprint: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The order is stored. `existing`: it was before, under the same Idempotency-Key."""

    job_id: str
    order_id: str
    existing: bool = False


# What one row can be guilty of. The whole batch fails by what is not the rows' fault.
_ROW_ERRORS = (StatementError, ValueError, OverflowError)
_Answer = Accepted | CrossfillError


def accept(database: Database, new: Sequence[NewOrder]) -> list[Accepted | CrossfillError]:
    """Store a batch in one transaction and return what became of each order, in their order.

    Keys seen before are resolved by look-up. Where a row fails otherwise the batch is rolled back and
    stored one by one, and only that row fails. Raises StoreUnavailableError and CommitUnknownError for
    the whole batch.
    """
    if not new:
        return []
    try:
        with database.write() as connection:
            known = _known(connection, new)
            with database.in_one_trip(connection):
                answers = _store(connection, new, *known)
                _append(connection, new, answers)
    except _ROW_ERRORS:
        with database.write() as connection:
            answers = [_store_alone(connection, order) for order in new]
            _append(connection, new, answers)
    return answers


def _append(connection: Connection, new: Sequence[NewOrder], answers: Sequence[_Answer]) -> None:
    stored = [order for order, answer in zip(new, answers, strict=True) if _is_fresh(answer)]
    append(connection, [_accepted_event(order) for order in stored], max(order.created_us for order in new))


def _is_fresh(answer: _Answer) -> bool:
    return isinstance(answer, Accepted) and not answer.existing


def _store(connection: Connection, new: Sequence[NewOrder], by_key: "_ByKey", by_name: "_ByName") -> list[_Answer]:
    answers: list[_Answer] = []
    fresh = []
    for order in new:
        answer = _judge(order, by_key, by_name)
        if answer is None:
            answer = Accepted(order.job_id, order.id)
            fresh.append(order)
            # The next of this batch that says the same key or name must find this one.
            if order.idempotency_key is not None:
                by_key[order.owner_id, order.idempotency_key] = (order.fingerprint, order.job_id, order.id)
            if order.client_order_id is not None:
                by_name[order.owner_id, order.client_order_id] = order.id
        answers.append(answer)
    if fresh:
        _insert(connection, fresh)
    return answers


def _store_alone(connection: Connection, order: NewOrder) -> _Answer:
    # What numbers the events of all would fail for all of them.
    if connection.execute(select(owners.c.id).where(owners.c.id == order.owner_id)).first() is None:
        return NotAcceptedError(f"there is no owner {order.owner_id!r}")
    try:
        with connection.begin_nested():
            return _store(connection, [order], *_known(connection, [order]))[0]
    except _ROW_ERRORS as error:
        if isinstance(error, OperationalError | InterfaceError):
            raise
        refused = NotAcceptedError(str(error))
        if not isinstance(error, IntegrityError):
            return refused
    # Perhaps another process was faster with the same key (PostgreSQL); now it is there to be seen.
    return _judge(order, *_known(connection, [order])) or refused


_ByKey = dict[tuple[str, str], tuple[str, str, str]]  # owner, key: fingerprint, job, order
_ByName = dict[tuple[str, str], str]  # owner, client order id: order


def _known(connection: Connection, new: Sequence[NewOrder]) -> tuple[_ByKey, _ByName]:
    """Look up the keys and client order ids that were seen before."""
    # The owners stand in both queries because the unique indexes begin with them.
    owner_ids = {order.owner_id for order in new}
    keys = {order.idempotency_key for order in new if order.idempotency_key is not None}
    names = {order.client_order_id for order in new if order.client_order_id is not None}
    by_key: _ByKey = {}
    by_name: _ByName = {}
    if keys:
        used = idempotency_keys.c
        query = (
            select(used.owner_id, used.key, used.fingerprint, used.job_id, orders.c.id)
            .outerjoin(orders, orders.c.job_id == used.job_id)  # the key may be another kind of job's
            .where(used.owner_id.in_(owner_ids), used.key.in_(keys))
        )
        for owner_id, key, fingerprint, job_id, order_id in connection.execute(query):
            by_key[owner_id, key] = (fingerprint, job_id, order_id)
    if names:
        named = select(orders.c.owner_id, orders.c.client_order_id, orders.c.id).where(
            orders.c.owner_id.in_(owner_ids),
            orders.c.client_order_id.in_(names),
        )
        by_name = {(owner_id, name): order_id for owner_id, name, order_id in connection.execute(named)}
    return by_key, by_name


def _judge(order: NewOrder, by_key: _ByKey, by_name: _ByName) -> _Answer | None:
    """Return the answer that is known without storing the order, or None."""
    if order.idempotency_key is not None and (order.owner_id, order.idempotency_key) in by_key:
        fingerprint, job_id, order_id = by_key[order.owner_id, order.idempotency_key]
        if fingerprint != order.fingerprint:
            return KeyReusedError(order.idempotency_key)
        return Accepted(job_id, order_id, existing=True)
    if order.client_order_id is not None and (order.owner_id, order.client_order_id) in by_name:
        return ClientOrderIdTakenError(order.client_order_id, by_name[order.owner_id, order.client_order_id])
    return None


def _insert(connection: Connection, new: Sequence[NewOrder]) -> None:
    insert_rows(
        connection,
        jobs,
        [
            {
                "id": order.job_id,
                "owner_id": order.owner_id,
                "kind": "order",
                "state": JobState.QUEUED.value,
                "task_id": order.task_id,
                "attempts": 0,
                "due_us": order.created_us,
                "created_us": order.created_us,
                "payload": {"order_id": order.id},
            }
            for order in new
        ],
    )
    insert_rows(
        connection,
        orders,
        [
            {
                "id": order.id,
                "job_id": order.job_id,
                "owner_id": order.owner_id,
                "shard": order.shard,
                "symbol": order.symbol,
                "side": order.side.value,
                "price": order.price,
                "size": order.size,
                "time_in_force": order.time_in_force.value,
                "venues": ",".join(sorted(order.venues)) if order.venues else None,
                "client_order_id": order.client_order_id,
                "state": OrderState.QUEUED.value,
                "filled_size": Decimal(0),
                "filled_value": Decimal(0),
                "market": order.market,
                "created_us": order.created_us,
                "deadline_us": order.deadline_us,
            }
            for order in new
        ],
    )
    keyed = [
        {
            "owner_id": order.owner_id,
            "key": order.idempotency_key,
            "fingerprint": order.fingerprint,
            "job_id": order.job_id,
            "created_us": order.created_us,
        }
        for order in new
        if order.idempotency_key is not None
    ]
    insert_rows(connection, idempotency_keys, keyed)


def _accepted_event(order: NewOrder) -> NewEvent:
    payload = {
        "symbol": order.symbol,
        "side": order.side.value,
        "size": plain(order.size),
        "price": plain(order.price),
        "time_in_force": order.time_in_force.value,
        "venues": sorted(order.venues) if order.venues else None,
        "deadline": rfc3339(order.deadline_us),
        "client_order_id": order.client_order_id,
        "market": order.market,
    }
    return NewEvent(order.owner_id, EventType.ORDER_ACCEPTED, order.job_id, order.id, payload)


def order_by_id(connection: Connection, owner_id: str, order_id: str) -> OrderRow | None:
    """Return the owner's order, or None."""
    query = select(orders).where(orders.c.id == order_id, orders.c.owner_id == owner_id)
    row = connection.execute(query).one_or_none()
    return order_row(row) if row else None


def orders_by_ids(connection: Connection, order_ids: Sequence[str]) -> dict[str, OrderRow]:
    """Return orders of any owner by id, in one query."""
    query = select(orders).where(orders.c.id.in_(order_ids))
    return {row.id: order_row(row) for row in connection.execute(query)}


def order_of_job(connection: Connection, owner_id: str, job_id: str) -> OrderRow | None:
    """Return the order that a job carries, or None."""
    query = select(orders).where(orders.c.job_id == job_id, orders.c.owner_id == owner_id)
    row = connection.execute(query).one_or_none()
    return order_row(row) if row else None


def list_orders(
    connection: Connection,
    owner_id: str,
    *,
    state: str | None = None,
    symbol: str | None = None,
    client_order_id: str | None = None,
    before_seq: int | None = None,
    limit: int = 50,
) -> list[OrderRow]:
    """Return the owner's orders, newest first, below a sequence number."""
    query = select(orders).where(orders.c.owner_id == owner_id).order_by(orders.c.seq.desc()).limit(limit)
    filters = {"state": state, "symbol": symbol, "client_order_id": client_order_id}
    for name, value in filters.items():
        if value is not None:
            query = query.where(orders.c[name] == value)
    if before_seq is not None:
        query = query.where(orders.c.seq < before_seq)
    return [order_row(row) for row in connection.execute(query)]


def splits_of(connection: Connection, order_seq: int) -> list[SplitRow]:
    """Return the splits of an order in book order."""
    rows = connection.execute(select(splits).where(splits.c.order_seq == order_seq))
    found = [SplitRow(**{**row._mapping, "side": Side(row.side)}) for row in rows]  # noqa: SLF001 -- the documented name
    return sorted(found, key=lambda split: tuple(map(int, split.id.split("-"))))


def request_cancel(database: Database, owner_id: str, order_id: str, time_us: int) -> OrderRow | None:
    """Ask for an order to be cancelled, once; return it as it is now, or None where there is none.

    The request changes nothing where the order has ended. The book decides what came first.
    """
    with database.write() as connection:
        asked = (
            update(orders)
            .where(orders.c.id == order_id, orders.c.owner_id == owner_id)
            .where(orders.c.cancel_us.is_(None), orders.c.ended_us.is_(None))
            .values(cancel_us=time_us)
        )
        connection.execute(asked)
        return order_by_id(connection, owner_id, order_id)
