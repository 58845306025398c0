import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import make_url, text

from models.domain.records import GENESIS
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import StateTooNewError, StateTooOldError, check, fix_shards, migrate
from models.store.shards import claim
from models.store.tables import metadata
from tests.integration.models.store.samples import accepted

# Back to the first revision: what the later migrations make is undone by hand, and the first is stamped.
UNDO = (
    *(f"DROP TABLE {name}" for name in ("pasts", "venue_candles")),
    *(f"DROP TABLE {name}" for name in ("signals", "strategies", "candle_checks", "candles")),
    "DROP INDEX jobs_claimed",
    "ALTER TABLE jobs DROP COLUMN claimed_us",
    "DROP TABLE audit",
    *(f"ALTER TABLE shards DROP COLUMN audit_{name}" for name in ("number", "hash", "time_us", "epoch")),
    "DELETE FROM meta WHERE key = 'audit_after_seq'",
    "DROP TABLE listings",
    "ALTER TABLE jobs DROP COLUMN progress",
    "DROP VIEW fulfilled_order_splits",
    "DROP VIEW fulfilled_orders",
    "UPDATE alembic_version SET version_num = '0001'",
)


def _run(url: str, *statements: str) -> None:
    database = Database.open(url)
    with database.write() as connection:
        for statement in statements:
            connection.execute(text(statement))
    database.close()


def _check(url: str) -> None:
    database = Database.open(url)
    try:
        check(database)
    finally:
        database.close()


def test_the_migrations_make_the_tables_of_the_code(any_url: str) -> None:
    """Alembic finds no difference between the migrated database and models.store.tables."""
    database = Database.open(any_url)
    with database.read() as connection:
        options = {"compare_type": True, "include_object": _is_kept_by(connection.dialect.name)}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    database.close()


def _is_kept_by(dialect: str) -> Callable[..., bool]:
    return lambda _object, _name, kind, *_: dialect == "sqlite" or kind != "foreign_key_constraint"


def test_postgresql_checks_no_foreign_keys(postgres_url: str) -> None:
    """It would ask a query for each row; what stores a row has its other rows in the same transaction."""
    database = Database.open(postgres_url)
    with database.read() as connection:
        assert connection.execute(text("SELECT conname FROM pg_constraint WHERE contype = 'f'")).all() == []
    database.close()


def test_partial_indexes_are_those_of_the_code(any_url: str) -> None:
    """Alembic does not compare their conditions, so this does."""
    database = Database.open(any_url)
    source = (
        "SELECT name, sql FROM sqlite_master WHERE type = 'index'"
        if database.is_sqlite
        else "SELECT indexname, indexdef FROM pg_indexes"
    )
    with database.read() as connection:
        made = {name: definition or "" for name, definition in connection.execute(text(source))}
    database.close()
    for name, words in {
        "orders_open": ["ended_us IS NULL"],
        "orders_cancel": ["cancel_us IS NOT NULL", "ended_us IS NULL"],
        "jobs_due": ["ended_us IS NULL", "order"],
        "jobs_claimed": ["claimed_us IS NOT NULL"],
    }.items():
        assert all(word in made[name] for word in ["WHERE", *words])


def test_migrating_again_changes_nothing(any_url: str) -> None:
    """A database of this version is left alone."""
    migrate(any_url)
    _check(any_url)


def test_a_newer_state_is_refused(any_url: str) -> None:
    """With one sentence that says what to do; nothing is touched."""
    _run(any_url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        StateTooNewError, match=r"newer version.*9999.*run that version, or set CROSSFILL_HOME"
    ) as raised:
        migrate(any_url)
    assert "\n" not in str(raised.value)
    with pytest.raises(StateTooNewError):
        _check(any_url)


def test_an_older_state_is_migrated(any_url: str) -> None:
    """What was in it stays, and what this version adds is there."""
    _run(any_url, "INSERT INTO venues VALUES ('old', TRUE, 41)", *UNDO)
    with pytest.raises(StateTooOldError, match="0001"):
        _check(any_url)
    migrate(any_url)
    _check(any_url)
    _run(any_url, "SELECT * FROM fulfilled_orders", "UPDATE venues SET token = token + 1 WHERE venue = 'old'")


def test_an_older_sqlite_file_is_copied_aside_first(database_url: str) -> None:
    """The copy has what the file had, also what stood in its log only, and nobody else may read it."""
    _run(database_url, "INSERT INTO venues VALUES ('old', TRUE, 41)", *UNDO)
    path = Path(str(make_url(database_url).database))
    copy = path.with_name("crossfill.db.before-0001")
    holder = Database.open(database_url)
    with holder.write() as connection:  # a connection stays open, so that this stays in the log
        connection.execute(text("UPDATE venues SET token = 42"))
    migrate(database_url)
    holder.close()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT token FROM venues").fetchall() == [(42,)]
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'").fetchall() == []
    _run(database_url, *UNDO)
    migrate(database_url)  # a second time, over the first copy
    _check(database_url)


def test_a_fresh_file_is_not_copied(database_url: str) -> None:
    """There is nothing to keep."""
    assert list(Path(str(make_url(database_url).database)).parent.glob("*.before-*")) == []


def test_two_that_migrate_at_once_do_it_once(any_url: str) -> None:
    """The second waits and finds it done."""
    _run(any_url, *UNDO)
    errors: list[Exception] = []

    def run() -> None:
        try:
            migrate(any_url)
        except Exception as error:  # noqa: BLE001 -- the test shows any
            errors.append(error)

    threads = [Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    _check(any_url)


def test_what_was_there_before_the_audit_log_is_remembered(any_url: str) -> None:
    """Epochs and orders of then are known after the migration; all later ones must be in the log."""
    database = Database.open(any_url)
    fix_shards(database, 2)
    ensure_owner(database, "ann", "admin", "token")
    order = accepted(database)
    claim(database, "owner", 1, 1)
    database.close()
    _run(any_url, *UNDO)
    migrate(any_url)
    database = Database.open(any_url)
    with database.read() as connection:
        rows = connection.execute(text("SELECT audit_epoch, audit_number, audit_hash FROM shards ORDER BY shard")).all()
        after = connection.execute(text("SELECT value FROM meta WHERE key = 'audit_after_seq'")).scalar_one()
    database.close()
    assert [tuple(row) for row in rows] == [(1, 0, GENESIS), (0, 0, GENESIS)]
    assert after == str(order.seq)
