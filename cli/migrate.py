"""`python -m cli.migrate`: bring the database to this version, with its venues, shards, local owner and first strategy.

`crossfill up` does the same in passing; on servers it runs once, before everything else.
"""

import sys

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError

from models.domain.errors import CrossfillError
from models.domain.strategies import GOLDEN_CROSS
from models.settings import Settings
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from models.store.strategies import ensure_strategy
from models.store.venues import ensure_venues

OWNER = "local"
ROLE = "admin"


class DatabaseUnusableError(CrossfillError):
    """The database is not one, or is not addressed as one."""


def prepare(settings: Settings, token: str) -> None:
    """Migrate the database, fix its number of shards, and make its venues, first strategy and owner of the token.

    Raises StateTooNewError, StoreUnavailableError, DatabaseUnusableError.
    """
    url = settings.database
    try:
        make_url(url).get_dialect()
    except ArgumentError as error:  # it would quote the address, and with it a password
        sentence = "CROSSFILL_DATABASE_URL is not the address of a database that SQLAlchemy knows"
        raise DatabaseUnusableError(sentence) from error
    try:
        _prepare(url, settings, token)
    except DatabaseError as error:
        raise DatabaseUnusableError(f"the database cannot be used: {error.orig}") from error


def _prepare(url: str, settings: Settings, token: str) -> None:
    migrate(url)
    database = Database.open(url)
    try:
        fix_shards(database, settings.shards)
        ensure_venues(database, settings.venue_names)
        ensure_owner(database, OWNER, ROLE, token)
        ensure_strategy(database, GOLDEN_CROSS)
    finally:
        database.close()


def main() -> int:
    """Prepare the database of CROSSFILL_DATABASE_URL for the token CROSSFILL_TOKEN; return the exit status."""
    settings = Settings()
    if settings.token is None:
        sys.stderr.write("CROSSFILL_TOKEN is not set: it is what clients sign in with\n")
        return 1
    try:
        prepare(settings, settings.token.get_secret_value())
    except CrossfillError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
