"""Venues: on or off, and the connection tokens given out."""

from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from models.store.database import Database
from models.store.tables import venues


def ensure_venues(database: Database, names: Iterable[str]) -> None:
    """Make the rows of venues that have none, switched on."""
    with database.write() as connection:
        known = set(connection.execute(select(venues.c.venue)).scalars())
        for name in sorted(set(names) - known):
            connection.execute(insert(venues).values(venue=name, enabled=True, token=0))


def next_token(database: Database, venue: str) -> int:
    """Return a connection token for a venue, higher than any before it."""
    raised = update(venues).where(venues.c.venue == venue).values(token=venues.c.token + 1).returning(venues.c.token)
    with database.write() as connection:
        return int(connection.execute(raised).scalar_one())


def tokens(connection: Connection) -> dict[str, int]:
    """Return the highest connection token given out for each venue."""
    return {row.venue: row.token for row in connection.execute(select(venues.c.venue, venues.c.token))}


def set_enabled(database: Database, venue: str, *, enabled: bool) -> bool:
    """Switch a venue on or off; return whether there is such a venue."""
    with database.write() as connection:
        changed = update(venues).where(venues.c.venue == venue).values(enabled=enabled)
        return bool(connection.execute(changed).rowcount)


def switches(connection: Connection) -> dict[str, bool]:
    """Return whether each venue is on."""
    return {row.venue: row.enabled for row in connection.execute(select(venues.c.venue, venues.c.enabled))}
