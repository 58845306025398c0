"""What the fulfilment loop reads: a book as it was committed, and what has come since."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from models.domain.orders import Order, OrderState, Side
from models.domain.outcomes import Level
from models.domain.quotes import Market
from models.store.rows import domain_order, order_row
from models.store.tables import levels, orders
from models.store.venues import switches, tokens


@dataclass(frozen=True, slots=True)
class LoadedBook:
    """What a new owner of a shard starts from."""

    levels: list[Level]
    working: list[Order]
    disabled: list[str]
    tokens: dict[str, int]


def load(connection: Connection, shard: int, market: Market | None = None) -> LoadedBook:
    """Return what was taken from levels, the working orders in accept order, and the venues' switches and tokens.

    Orders of other markets than `market` are left out, and wait until theirs runs again; None: of every market.
    """
    taken = [
        Level(row.venue, row.product_id, Side(row.side), row.price, row.taken)
        for row in connection.execute(select(levels).where(levels.c.shard == shard))
    ]
    disabled = [venue for venue, enabled in switches(connection).items() if not enabled]
    working = _open(connection, shard, OrderState.WORKING, None, market)
    return LoadedBook(taken, working, disabled, tokens(connection))


def queued(connection: Connection, shard: int, limit: int, market: Market | None = None) -> list[Order]:
    """Return accepted orders of a market (None: of every one) that are in no book yet, in accept order."""
    return _open(connection, shard, OrderState.QUEUED, limit, market)


def _open(
    connection: Connection, shard: int, state: OrderState, limit: int | None, market: Market | None
) -> list[Order]:
    query = (
        select(orders)
        .where(orders.c.shard == shard, orders.c.state == state.value, orders.c.ended_us.is_(None))
        .order_by(orders.c.seq)
        .limit(limit)
    )
    if market is not None:
        query = query.where(orders.c.market == market.value)
    return [domain_order(order_row(row)) for row in connection.execute(query)]


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
