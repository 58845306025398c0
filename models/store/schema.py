"""The schema's version: migrating to it, and what is fixed when a database is first made."""

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, make_url, select, text

from models.domain.errors import CrossfillError
from models.store.database import Database
from models.store.tables import meta, shards
from models.store.venues import ensure_venues

__all__ = ["StateTooNewError", "StateTooOldError", "check", "ensure_venues", "fix_shards", "migrate"]

SHARDS_SQLITE = 1
SHARDS_BEYOND = 16
# Of PostgreSQL's advisory locks; the number means nothing but "Crossfill migrates".
MIGRATION_LOCK = 7_120_041


class StateTooNewError(CrossfillError):
    """The database was made by a newer version of this project."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"the database was made by a newer version of Crossfill (schema {revision}): "
            "run that version, or set CROSSFILL_HOME to another folder",
        )
        self.revision = revision


class StateTooOldError(CrossfillError):
    """The database must be migrated first."""

    def __init__(self, revision: str | None) -> None:
        super().__init__(f"the database is of an older version (schema {revision}): run `python -m cli.migrate` first")
        self.revision = revision


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _is_head(connection: Connection) -> tuple[bool, str | None]:
    """Return whether the schema is this version's, and its revision. Raises StateTooNewError."""
    script = ScriptDirectory.from_config(_config())
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {each.revision for each in script.walk_revisions()}:
        raise StateTooNewError(revision)
    return revision == script.get_current_head(), revision


def migrate(url: str) -> None:
    """Bring a database to this version's schema; a SQLite file of an older version is copied aside first.

    The whole of it is one write transaction: of two processes that migrate, the second finds it done.
    Raises StateTooNewError where a newer version made it, StoreUnavailableError.
    """
    database = Database.open(url)
    try:
        with database.read() as connection:
            if _is_head(connection)[0]:
                return
        with database.write() as connection:
            if not database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            done, revision = _is_head(connection)
            if done:
                return
            if revision is not None and database.is_sqlite:
                _copy_aside(Path(str(make_url(url).database)), revision)
            command.upgrade(_config(connection), "head")
    finally:
        database.close()


def _copy_aside(path: Path, revision: str) -> None:
    # Through SQLite's backup, which sees what still is in the write-ahead log only.
    copy = path.with_name(f"{path.name}.before-{revision}")
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def check(database: Database) -> None:
    """Raise StateTooNewError or StateTooOldError unless the database is of this version."""
    with database.read() as connection:
        done, revision = _is_head(connection)
    if not done:
        raise StateTooOldError(revision)


def fix_shards(database: Database, wanted: int | None) -> int:
    """Fix the number of shards where the database has none yet, and return the one that it has."""
    with database.write() as connection:
        fixed = connection.execute(select(meta.c.value).where(meta.c.key == "shards")).scalar_one_or_none()
        if fixed is not None:
            return int(fixed)
        count = wanted or (SHARDS_SQLITE if database.is_sqlite else SHARDS_BEYOND)
        connection.execute(insert(meta).values(key="shards", value=str(count)))
        rows = [{"shard": shard, "epoch": 0, "lease_until_us": 0} for shard in range(count)]
        connection.execute(insert(shards), rows)
        return count
