"""The backlog: what was accepted and is not done, counted so that a million resting orders cost nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from models.domain.orders import JobState, OrderState
from models.domain.quotes import Market
from models.store.database import now_us
from models.store.jobs import ORDER_KIND
from models.store.shards import owned
from models.store.tables import jobs, orders, shards

COUNT_MAX = 10_000  # rows that are counted; more is that many


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits; an age is None where nothing does. `jobs` are by kind and state, those of orders left out."""

    queued: int
    queued_age_us: int | None
    jobs: Mapping[tuple[str, str], int]
    due_age_us: int | None
    shards: int
    shards_owned: int


def backlog(connection: Connection, market: Market, timeout_ms: int) -> Backlog:
    """Count what waits, up to COUNT_MAX rows of each kind; of orders, those of a market.

    PostgreSQL gives up on a query after `timeout_ms`.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL statement_timeout = {timeout_ms:d}"))
    now = now_us(connection)
    numbers = connection.execute(select(shards.c.shard)).scalars().all()
    queued, oldest = 0, now
    # Shard by shard, because that is how the index finds them beside the orders that rest.
    for shard in numbers:
        waiting = (
            select(orders.c.seq, orders.c.created_us)
            .where(orders.c.shard == shard, orders.c.state == OrderState.QUEUED.value, orders.c.ended_us.is_(None))
            .where(orders.c.market == market.value)
            .order_by(orders.c.seq)
        )
        first = connection.execute(waiting.limit(1)).first()
        if first is not None:
            oldest = min(oldest, first.created_us)
            counted = select(func.count()).select_from(waiting.limit(COUNT_MAX - queued).subquery())
            queued += connection.execute(counted).scalar_one()
    open_ = select(jobs.c.kind, jobs.c.state, jobs.c.due_us).where(jobs.c.ended_us.is_(None), jobs.c.kind != ORDER_KIND)
    some = open_.limit(COUNT_MAX).subquery()
    grouped = select(some.c.kind, some.c.state, func.count()).group_by(some.c.kind, some.c.state)
    late = open_.where(jobs.c.state == JobState.QUEUED.value, jobs.c.due_us <= now).order_by(jobs.c.due_us).limit(1)
    due = connection.execute(late).first()
    return Backlog(
        queued=queued,
        queued_age_us=now - oldest if queued else None,
        jobs={(kind, state): count for kind, state, count in connection.execute(grouped)},
        due_age_us=None if due is None else now - due.due_us,
        shards=len(numbers),
        shards_owned=owned(connection),
    )
