"""Shards: who owns which, under which epoch, until when by the database's clock."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from models.store.database import Database, now_us
from models.store.tables import processes, shards


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to commit outcomes of a shard, under this epoch and no other."""

    shard: int
    owner: str
    epoch: int


def claim(database: Database, owner: str, wanted: int, lease_us: int) -> list[Lease]:
    """Take up to `wanted` shards that nobody holds now, each under a new epoch."""
    leases = []
    with database.write() as connection:
        now = now_us(connection)
        free = or_(shards.c.owner.is_(None), shards.c.lease_until_us < now)
        found = connection.execute(select(shards.c.shard).where(free).order_by(shards.c.shard).limit(wanted)).scalars()
        for shard in found.all():
            taken = (
                update(shards)
                .where(shards.c.shard == shard, free)
                .values(owner=owner, epoch=shards.c.epoch + 1, lease_until_us=now + lease_us)
                .returning(shards.c.epoch)
            )
            epoch = connection.execute(taken).scalar_one_or_none()
            if epoch is not None:
                leases.append(Lease(shard, owner, epoch))
    return leases


def renew(database: Database, leases: Sequence[Lease], lease_us: int) -> list[Lease]:
    """Extend leases; return those that are still held."""
    if not leases:
        return []
    with database.write() as connection:
        until = now_us(connection) + lease_us
        return [
            lease
            for lease in leases
            if connection.execute(update(shards).where(*held(lease)).values(lease_until_us=until)).rowcount
        ]


def release(database: Database, leases: Sequence[Lease]) -> None:
    """Give leases back, so that the next owner need not wait."""
    if not leases:
        return
    with database.write() as connection:
        for lease in leases:
            connection.execute(update(shards).where(*held(lease)).values(owner=None, lease_until_us=0))


def held(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions under which a lease still holds: the fence of every outcome transaction."""
    return (shards.c.shard == lease.shard, shards.c.owner == lease.owner, shards.c.epoch == lease.epoch)


def shards_count(connection: Connection) -> int:
    """Return the number of shards that this database was made with."""
    return int(connection.execute(select(func.count()).select_from(shards)).scalar_one())


def owned(connection: Connection) -> int:
    """Return how many shards have an owner whose lease runs."""
    running = (shards.c.owner.is_not(None)) & (shards.c.lease_until_us >= now_us(connection))
    return int(connection.execute(select(func.count()).select_from(shards).where(running)).scalar_one())


def beat(database: Database, process_id: str, kind: str, started_us: int) -> None:
    """Say that a process lives."""
    with database.write() as connection:
        now = now_us(connection)
        seen = update(processes).where(processes.c.id == process_id).values(seen_us=now)
        if not connection.execute(seen).rowcount:
            row = {"id": process_id, "kind": kind, "seen_us": now, "started_us": started_us}
            connection.execute(insert(processes).values(row))


def leave(database: Database, process_id: str) -> None:
    """Forget a process that ended in order, and those that have not been seen for an hour."""
    with database.write() as connection:
        stale = processes.c.seen_us < now_us(connection) - 3_600_000_000
        connection.execute(delete(processes).where(or_(processes.c.id == process_id, stale)))


def processes_seen(connection: Connection, kind: str, within_us: int) -> list[str]:
    """Return the ids of the processes of a kind that were seen within a time, sorted."""
    recent = processes.c.seen_us >= now_us(connection) - within_us
    query = select(processes.c.id).where(processes.c.kind == kind, recent).order_by(processes.c.id)
    return list(connection.execute(query).scalars())
