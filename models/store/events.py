"""Events: what each owner is told, numbered without a gap.

The number comes from the owner's counter row, raised as the last act of the transaction that made
the event true, owners in the order of their ids. The row lock makes the order of the numbers the
order of the commits, and a rollback leaves no hole.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, outerjoin, select, update

from models.domain.events import EventType
from models.store.bulk import Bulk, given
from models.store.database import Database
from models.store.tables import events, owners

PRUNE_BATCH = 5_000


class NewEvent(NamedTuple):
    """An event without its number."""

    owner_id: str
    type: EventType
    job_id: str
    order_id: str | None
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as the database has it."""

    owner_id: str
    seq: int
    type: EventType
    created_us: int
    job_id: str
    order_id: str | None
    payload: dict[str, Any]


def rfc3339(time_us: int | None) -> str | None:
    """Return a time as RFC 3339 text in UTC, to the microsecond."""
    if time_us is None:
        return None
    seconds, microseconds = divmod(time_us, 1_000_000)
    return f"{_second(seconds)}.{microseconds:06d}Z"


@lru_cache(maxsize=256)  # events come many a second, and so do deadlines
def _second(seconds: int) -> str:
    # Not strftime: some platforms write the year 1 with one digit.
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


def as_message(row: EventRow) -> dict[str, Any]:
    """Return what clients are sent, over Socket.IO and over HTTP alike."""
    head = {"seq": row.seq, "type": row.type.value, "time": rfc3339(row.created_us)}
    return {**head, "job_id": row.job_id, "order_id": row.order_id, **row.payload}


_OWNERS = given(id=owners.c.id, count=owners.c.event_seq)
# As an UPDATE locks them: the lock of a plain FOR UPDATE waits for every new row that names the owner.
_LOCK_COUNTERS = (
    select(owners.c.id)
    .where(owners.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(owners.c.id)
    .with_for_update(key_share=True)
)
_RAISE_COUNTERS = Bulk(
    _OWNERS,
    update(owners).where(owners.c.id == _OWNERS.c.id).values(event_seq=owners.c.event_seq + _OWNERS.c.count),
)
# An event is told how many of its owner's come after it: its number is found where the counter is.
_NEW = given(**{column.name: column for column in events.c if column.name != "seq"}, left=events.c.seq)
_NUMBERED = {**dict(_NEW.c), "seq": owners.c.event_seq - _NEW.c.left}
_INSERT = Bulk(
    _NEW,
    insert(events).from_select(
        events.c.keys(),
        # An owner who is missing makes the number NULL, which the table refuses.
        select(*(_NUMBERED[name] for name in events.c.keys())).select_from(  # noqa: SIM118 -- SQLAlchemy's own kind
            outerjoin(_NEW, owners, owners.c.id == _NEW.c.owner_id)
        ),
    ),
)


def append(connection: Connection, new: Sequence[NewEvent], time_us: int) -> None:
    """Number events and write them. Call it last in a transaction: it locks the owners' counters."""
    left = Counter(event.owner_id for event in new)
    counts = [{"id": owner_id, "count": left[owner_id]} for owner_id in sorted(left)]
    if len(counts) > 1:  # an UPDATE of several rows locks them in no order
        connection.execute(_LOCK_COUNTERS, {"ids": [each["id"] for each in counts]})
    _RAISE_COUNTERS.execute(connection, counts)
    rows = []
    for event in new:
        left[event.owner_id] -= 1
        rows.append(
            {
                "owner_id": event.owner_id,
                "left": left[event.owner_id],
                "type": event.type.value,
                "created_us": time_us,
                "job_id": event.job_id,
                "order_id": event.order_id,
                "payload": event.payload,
            }
        )
    _INSERT.execute(connection, rows)


def events_after(connection: Connection, owner_id: str, after_seq: int, limit: int) -> list[EventRow]:
    """Return the owner's events above a number, in order, at most `limit`."""
    query = (
        select(events)
        .where(events.c.owner_id == owner_id, events.c.seq > after_seq)
        .order_by(events.c.seq)
        .limit(limit)
    )
    return [
        EventRow(row.owner_id, row.seq, EventType(row.type), row.created_us, row.job_id, row.order_id, row.payload)
        for row in connection.execute(query)
    ]


def cursor_of(connection: Connection, owner_id: str) -> tuple[int, int]:
    """Return the numbers of the owner's oldest kept and newest event; oldest is newest + 1 where none is kept."""
    newest = connection.execute(select(owners.c.event_seq).where(owners.c.id == owner_id)).scalar_one_or_none() or 0
    oldest = connection.execute(select(func.min(events.c.seq)).where(events.c.owner_id == owner_id)).scalar_one()
    return (oldest if oldest is not None else newest + 1), newest


def newest_by_owner(connection: Connection, owner_ids: Iterable[str]) -> dict[str, int]:
    """Return the newest number of each owner, in one query."""
    query = select(owners.c.id, owners.c.event_seq).where(owners.c.id.in_(bindparam("ids", expanding=True)))
    return {row.id: row.event_seq for row in connection.execute(query, {"ids": list(owner_ids)})}


def prune(database: Database, before_us: int) -> int:
    """Delete events older than a time, in short transactions, and return how many went.

    What goes is each owner's beginning, up to the newest event that is old enough: times need not
    rise with the numbers, and what is kept must have no holes.
    """
    old = select(events.c.owner_id, func.max(events.c.seq), func.min(events.c.seq)).where(
        events.c.created_us < before_us,
    )
    with database.read() as connection:
        spans = connection.execute(old.group_by(events.c.owner_id)).all()
    total = 0
    for owner_id, last, first in spans:
        for start in range(first, last + 1, PRUNE_BATCH):
            end = min(last, start + PRUNE_BATCH - 1)
            with database.write() as connection:
                gone = delete(events).where(events.c.owner_id == owner_id, events.c.seq <= end)
                total += connection.execute(gone).rowcount
    return total
