"""Owners: who may ask, and how far their events have been numbered."""

from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, insert, select, update

from models.store.database import Database
from models.store.tables import owners


@dataclass(frozen=True, slots=True)
class Owner:
    """Somebody who holds a token. `role` is "admin" or "user"."""

    id: str
    role: str


def token_hash(token: str) -> str:
    """Return what is stored of a token: tokens are long and random, so a plain SHA-256 is enough."""
    return sha256(token.encode()).hexdigest()


def ensure_owner(database: Database, owner_id: str, role: str, token: str) -> None:
    """Make the owner, or give the one that is there this role and token."""
    values = {"role": role, "token_sha256": token_hash(token)}
    with database.write() as connection:
        changed = connection.execute(update(owners).where(owners.c.id == owner_id).values(values))
        if not changed.rowcount:
            connection.execute(insert(owners).values(id=owner_id, event_seq=0, **values))


def owner_of_token(connection: Connection, token: str) -> Owner | None:
    """Return whose token this is, or None."""
    query = select(owners.c.id, owners.c.role).where(owners.c.token_sha256 == token_hash(token))
    row = connection.execute(query).one_or_none()
    return Owner(row.id, row.role) if row else None
