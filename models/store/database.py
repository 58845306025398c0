"""The database: one engine, its transactions, and the rules that SQLite needs.

On SQLite every write transaction and every checkpoint holds one file lock, in every process. Versions
before 3.51.3 can corrupt a WAL database when a checkpoint meets a commit (sqlite.org/wal.html,
"the WAL-reset bug"), and the lock makes waiting fair, which SQLite's own busy handler is not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Self

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from models.domain.errors import CrossfillError
from models.store.file_lock import FileLock, LockTimeoutError

LOCK_TIMEOUT_S = 10
CLOSE_S = 0.5  # of waiting for the lock, where whoever has it is busy for longer than that
BUSY_MS = 10_000
CHECKPOINT_BUSY_MS = 100
TRUSTED_S = 1.0  # a connection that was used so lately is not asked whether it is still one
_USED = "used"


class StoreUnavailableError(CrossfillError):
    """The database cannot be reached or does not answer; nothing was written."""

    retryable = True

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"the database is not available: {cause}".splitlines()[0])


class CommitUnknownError(StoreUnavailableError):
    """COMMIT did not answer: what was written may be there or not."""


class Database:
    """An engine with the transactions that the store's functions run in."""

    def __init__(self, engine: Engine, patience_s: float | None = None) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        timeout_s = LOCK_TIMEOUT_S if patience_s is None else patience_s
        self._lock = FileLock(f"{engine.url.database}.lock", timeout_s=timeout_s) if self.is_sqlite else None
        self._busy_ms = _busy_ms(patience_s)

    @classmethod
    def open(cls, url: str, *, pool_size: int = 5, patience_s: float | None = None) -> Self:
        """Return a database of this URL; nothing is connected before the first transaction.

        `patience_s` is how long it waits where another has SQLite's lock; ten seconds where it is not said.
        """
        sqlite = make_url(url).get_backend_name() == "sqlite"
        engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=20,
            pool_timeout=10,
            connect_args={"timeout": 10} if sqlite else {},
            json_serializer=_dumps,
            json_deserializer=orjson.loads,
        )
        if sqlite:
            event.listen(engine, "connect", partial(_prepare_sqlite, patience_s))
        else:
            event.listen(engine, "do_connect", _connect_postgres)
            event.listen(engine, "checkin", _note_use)
            event.listen(engine, "checkout", partial(_ping, engine))
        return cls(engine) if patience_s is None else cls(engine, patience_s)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one write transaction: committed at the end, rolled back by an error.

        Raises StoreUnavailableError where the database cannot take it, and CommitUnknownError where
        COMMIT itself failed to answer.
        """
        with self._locked(), self._connected() as connection:
            # The driver begins nothing by itself (isolation_level None): the transaction says
            # from its start that it will write, so that it never has to be upgraded.
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            try:
                if self.is_sqlite:
                    connection.exec_driver_sql("COMMIT")
                connection.commit()
            except DBAPIError as error:
                raise CommitUnknownError(error) from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run one read transaction. Raises StoreUnavailableError where the database does not answer."""
        with self._connected() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection

    @contextmanager
    def in_one_trip(self, connection: Connection) -> Iterator[None]:
        """Send the statements within one after the other, and wait for all of their answers at the end.

        Nothing within may ask what a statement returned or how many rows it met. The first error is raised,
        then or at the end. SQLite is asked one by one: there is no way there.
        """
        if self.is_sqlite:
            yield
            return
        raw: Any = connection.connection.dbapi_connection
        problem = self.engine.dialect.loaded_dbapi.Error
        try:
            with raw.pipeline() as pipeline:
                try:
                    yield
                except BaseException:
                    # What the other statements say, which were not worked any more, is nobody's business.
                    with suppress(problem):
                        pipeline.sync()
                    raise
        except problem as last:
            error = _first(last, problem)
            gone = self.engine.dialect.is_disconnect(error, raw, None)
            if gone:
                connection.invalidate(error)
            raise DBAPIError.instance(None, None, error, problem, connection_invalidated=gone) from error

    @contextmanager
    def _locked(self, timeout_s: float | None = None) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        try:
            self._lock.acquire(timeout_s)
        except (LockTimeoutError, OSError) as error:
            raise StoreUnavailableError(error) from error
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        try:
            with self.engine.connect() as connection:
                try:
                    yield connection
                finally:
                    self._roll_back(connection)
        except (OperationalError, InterfaceError, PoolTimeoutError) as error:
            raise StoreUnavailableError(error) from error
        except InternalError as error:
            # PostgreSQL says so of a transaction that was silent for too long, and hangs up.
            if not error.connection_invalidated:
                raise
            raise StoreUnavailableError(error) from error

    def _roll_back(self, connection: Connection) -> None:
        """End whatever is open; a connection that cannot even do that is thrown away."""
        if connection.invalidated:
            return
        try:
            raw = connection.connection.dbapi_connection
            if self.is_sqlite and raw is not None and raw.in_transaction:
                raw.rollback()
            connection.rollback()
        except DBAPIError:
            connection.invalidate()

    def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into its file, so that neither grows without bound.

        A reader in the midst of its transaction keeps part of the log; the next checkpoint moves
        that. Writers wait meanwhile, so it waits for readers hardly at all.
        """
        if not self.is_sqlite:
            return
        with self._locked(), self._connected() as connection:
            connection.exec_driver_sql(f"PRAGMA busy_timeout={CHECKPOINT_BUSY_MS}").close()
            try:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
            finally:
                connection.exec_driver_sql(f"PRAGMA busy_timeout={self._busy_ms}").close()

    def close(self) -> None:
        """Close every connection."""
        if self._lock is None:
            self.engine.dispose()
            return
        # The last connection of all checkpoints as it closes. Where the lock is not free, its
        # holder is connected too, and this is not the last one.
        with suppress(StoreUnavailableError), self._locked(CLOSE_S):
            self.engine.dispose()
        self.engine.dispose()
        self._lock.close()


def _first(error: Any, kind: type[BaseException]) -> Any:  # noqa: ANN401 -- errors of a driver
    """Return the error that began it: in the driver's words each statement after it was aborted, in its turn."""
    while isinstance(error.__context__, kind):
        error = error.__context__
    return error


def _busy_ms(patience_s: float | None) -> int:
    return BUSY_MS if patience_s is None else int(patience_s * 1000)


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


def _connect_postgres(_dialect: object, _record: object, _arguments: object, named: dict[str, Any]) -> object:
    from models.store import postgres  # noqa: PLC0415 -- with SQLite nobody needs the driver, and it is large

    return postgres.Connection.connect(**{**postgres.options(), **named})


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_USED] = time.monotonic()


def _ping(engine: Engine, connection: DBAPIConnection | None, record: ConnectionPoolEntry, _proxy: object) -> None:
    """Ask a connection whether it is still one, unless it was used just now: to ask takes as long as a statement."""
    used = record.info.get(_USED)
    if connection is None or used is None or time.monotonic() - used < TRUSTED_S:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error  # the pool makes another one


def _prepare_sqlite(patience_s: float | None, connection: Any, _record: object) -> None:  # noqa: ANN401 -- a driver's connection
    connection.isolation_level = None
    try:
        for pragma in (
            f"busy_timeout={_busy_ms(patience_s)}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "wal_autocheckpoint=0",
            "temp_store=MEMORY",
            "cache_size=-16000",
        ):
            connection.execute(f"PRAGMA {pragma}").close()
    except Exception:  # of a file that is no database, say: nobody else closes what the pool never got
        connection.close()
        raise


_CLOCKS = {
    "sqlite": text("SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER) * 1000"),
    "postgresql": text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"),
}


def now_us(connection: Connection) -> int:
    """Return the database's own time, in microseconds (SQLite's clock steps in milliseconds)."""
    return int(connection.execute(_CLOCKS[connection.dialect.name]).scalar_one())
