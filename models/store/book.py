"""What the fulfilment loop reads: a book as it was committed, and what has come since."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from sys import intern
from typing import Any

from sqlalchemy import Connection, select

from models.domain.orders import Order, OrderState, Side, TimeInForce
from models.domain.outcomes import Level
from models.domain.quotes import Market
from models.store.tables import levels, orders
from models.store.venues import switches, tokens


@dataclass(frozen=True, slots=True)
class LoadedBook:
    """What a new owner of a shard starts from, beside the orders that work."""

    levels: list[Level]
    disabled: list[str]
    tokens: dict[str, int]


def load(connection: Connection, shard: int) -> LoadedBook:
    """Return what was taken from levels, and the venues' switches and tokens."""
    taken = [
        Level(row.venue, row.product_id, Side(row.side), row.price, row.taken)
        for row in connection.execute(select(levels).where(levels.c.shard == shard))
    ]
    disabled = [venue for venue, enabled in switches(connection).items() if not enabled]
    return LoadedBook(taken, disabled, tokens(connection))


def working(
    connection: Connection, shard: int, limit: int, market: Market | None = None, *, after_seq: int = 0
) -> list[Order]:
    """Return orders that work, in accept order, from the one after a sequence on: a page of what there is.

    Orders of other markets than `market` are left out, and wait until theirs runs again; None: of every market.
    """
    return _open(connection, shard, OrderState.WORKING, limit, market, after_seq)


def queued(connection: Connection, shard: int, limit: int, market: Market | None = None) -> list[Order]:
    """Return accepted orders of a market (None: of every one) that are in no book yet, in accept order."""
    return _open(connection, shard, OrderState.QUEUED, limit, market)


_COLUMNS = [orders.c[name] for name in Order.__struct_fields__]
_SIDES = {side.value: side for side in Side}
_TIMES_IN_FORCE = {word.value: word for word in TimeInForce}
_STATES = {state.value: state for state in OrderState}


def _open(
    connection: Connection, shard: int, state: OrderState, limit: int, market: Market | None, after_seq: int = 0
) -> list[Order]:
    query = (
        select(*_COLUMNS)
        .where(orders.c.shard == shard, orders.c.state == state.value, orders.c.ended_us.is_(None))
        .where(orders.c.seq > after_seq)
        .order_by(orders.c.seq)
        .limit(limit)
    )
    if market is not None:
        query = query.where(orders.c.market == market.value)
    return [_order(row) for row in connection.execute(query)]


def _order(row: Sequence[Any]) -> Order:
    seq, order_id, job_id, owner_id, symbol, side, price, size, word, venues, deadline_us, state, filled, value = row
    # A book may hold a million of these: what repeats is kept once.
    return Order(
        seq,
        order_id,
        job_id,
        intern(owner_id),
        intern(symbol),
        _SIDES[side],
        _one(price),
        _one(size),
        _TIMES_IN_FORCE[word],
        _venues(venues) if venues else None,
        deadline_us,
        _STATES[state],
        _one(filled),
        _one(value),
    )


@lru_cache(maxsize=131_072)
def _one(number: Decimal) -> Decimal:
    """Return the number that was seen first among equal ones."""
    return number


@lru_cache(maxsize=1_024)
def _venues(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


def cancels(connection: Connection, shard: int, market: Market | None = None) -> list[int]:
    """Return the open orders of a market (None: of every one) whose owners asked for a cancel."""
    query = select(orders.c.seq).where(
        orders.c.shard == shard,
        orders.c.cancel_us.is_not(None),
        orders.c.ended_us.is_(None),
    )
    if market is not None:
        query = query.where(orders.c.market == market.value)
    return list(connection.execute(query.order_by(orders.c.seq)).scalars())
