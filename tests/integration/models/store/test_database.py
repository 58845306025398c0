import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Executable, text
from sqlalchemy.exc import IntegrityError

from models.domain.orders import Side
from models.store import database as module
from models.store import postgres
from models.store.database import CommitUnknownError, Database, StoreUnavailableError
from models.store.owners import Owner, ensure_owner, owner_of_token
from models.store.tables import levels, owners
from models.store.venues import next_token
from tests.chaos.proxy import Proxy
from tests.services import ROOT

WRITER = """
import sys
from models.store.database import Database
from models.store.venues import next_token
database = Database.open(sys.argv[1])
for number in range(60):
    next_token(database, "binance")
    if number % 5 == 0:
        database.checkpoint()
database.close()
"""
RAISE = text("UPDATE owners SET event_seq = event_seq + 1 WHERE id = 'ann'")
SEQ = text("SELECT event_seq FROM owners WHERE id = 'ann'")


def _seq(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(SEQ).scalar_one())


def _raise_and(database: Database, problem: Exception) -> None:
    with database.write() as connection:
        connection.execute(RAISE)
        raise problem


def test_a_write_is_committed_or_nothing(database: Database) -> None:
    """An error inside rolls back and comes out as it is; the next transaction is unharmed."""
    with pytest.raises(ZeroDivisionError):
        _raise_and(database, ZeroDivisionError())
    assert _seq(database) == 0
    with database.write() as connection:
        connection.execute(RAISE)
    assert _seq(database) == 1


def test_a_read_sees_one_moment(database_url: str) -> None:
    """In SQLite a reader keeps its snapshot while others write and checkpoint, and blocks nobody."""
    database = Database.open(database_url)
    ensure_owner(database, "ann", "admin", "token of ann")
    with database.read() as reader:
        before = reader.execute(SEQ).scalar_one()
        with database.write() as connection:
            connection.execute(RAISE)
        database.checkpoint()
        assert reader.execute(SEQ).scalar_one() == before
    assert _seq(database) == before + 1
    database.close()


def test_a_broken_rule_is_not_an_unavailable_database(database: Database) -> None:
    """Constraint errors come out as they are: the same call would fail again."""
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(owners.insert().values(id="ann", role="user", token_sha256="x", event_seq=0))
    with database.read() as connection:
        assert owner_of_token(connection, "token of ann") == Owner("ann", "admin")


def test_money_is_exact(database: Database) -> None:
    """Numbers come back as they went in, and equal numbers are one key however they are written."""
    price, taken = Decimal("9223372036854775807.1234567890123456789"), Decimal("0.00000000000000000001")
    row = {"venue": "v", "product_id": "p", "side": Side.SELL.value, "shard": 0, "taken": taken}
    with database.write() as connection:
        connection.execute(levels.insert().values(price=price, **row))
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(levels.insert().values(price=Decimal(f"{price}00"), **row))
    with database.read() as connection:
        (stored,) = connection.execute(levels.select())
    assert (stored.price, stored.taken) == (price, taken)


def _write_and_lose_connection(database: Database, *, then: str | None) -> None:
    with database.write() as connection:
        process = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with database.read() as other:
            other.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
        if then is not None:
            connection.execute(text(then))


@pytest.mark.parametrize(("then", "expected"), [(None, CommitUnknownError), ("SELECT 1", StoreUnavailableError)])
def test_a_connection_that_dies_is_said_so(postgres_url: str, then: str | None, expected: type[Exception]) -> None:
    """Before COMMIT answers: it may have committed or not. Before that: nothing was. The next one is a new one."""
    database = Database.open(postgres_url)
    with pytest.raises(StoreUnavailableError) as raised:
        _write_and_lose_connection(database, then=then)
    assert type(raised.value) is expected
    assert raised.value.retryable
    with database.read() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    database.close()


def _write_at_once(database: Database, *statements: Executable) -> None:
    with database.write() as connection, database.in_one_trip(connection):
        for statement in statements:
            connection.execute(statement)


def test_the_first_error_of_one_trip_is_the_one_that_is_raised(database: Database) -> None:
    """What came after it was not worked; nothing stays, and the connection goes on."""
    double = owners.insert().values(id="ann", role="user", token_sha256="x", event_seq=0)
    with pytest.raises(IntegrityError):
        _write_at_once(database, RAISE, double, text("SELECT nothing FROM nowhere"))
    assert _seq(database) == 0
    _write_at_once(database, RAISE, RAISE)
    assert _seq(database) == 2


def _write_in_one_trip(database: Database, before: Callable[[], None]) -> None:
    with database.write() as connection:
        connection.execute(RAISE)
        before()
        with database.in_one_trip(connection):
            connection.execute(RAISE)
            connection.execute(RAISE)


@pytest.mark.parametrize("lost", [True, False])
def test_one_trip_over_a_connection_that_dies_writes_nothing(
    lost: bool, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the server hangs up or falls silent: it is not available, and not an unknown end."""
    monkeypatch.setattr(postgres.Connection, "answer_s", 1.0)
    straight = Database.open(postgres_url)
    ensure_owner(straight, "ann", "admin", "token of ann")
    assert straight.engine.url.port is not None
    proxy = Proxy(straight.engine.url.port)
    database = Database.open(straight.engine.url.set(port=proxy.port).render_as_string(hide_password=False))
    assert _seq(database) == 0
    with pytest.raises(StoreUnavailableError) as raised:
        _write_in_one_trip(database, before=proxy.drop if lost else proxy.half_open)
    proxy.heal()
    assert type(raised.value) is StoreUnavailableError
    assert _seq(database) == 0
    database.close()
    proxy.close()
    straight.close()


def test_a_connection_that_was_not_used_of_late_is_asked_first(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that died meanwhile is replaced, with all others of the pool, and nobody hears of it."""
    monkeypatch.setattr(module, "TRUSTED_S", 0.0)
    database = Database.open(postgres_url)
    ensure_owner(database, "ann", "admin", "token of ann")
    with database.read() as connection, database.read() as other:
        processes = [each.execute(text("SELECT pg_backend_pid()")).scalar_one() for each in (connection, other)]
    killer = Database.open(postgres_url)
    for process in processes:
        with killer.read() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
    killer.close()
    with database.write() as connection, database.write() as other:
        connection.execute(RAISE)
        assert other.execute(text("SELECT pg_backend_pid()")).scalar_one() not in processes
    assert _seq(database) == 1
    database.close()


def _half_open(proxy: Proxy, database: Database, *, at_commit: bool) -> list[Exception]:
    """Write over a connection behind which everybody falls silent, and return how that ended."""
    raised: list[Exception] = []

    def write() -> None:
        try:
            with database.write() as connection:
                if not at_commit:
                    proxy.half_open()
                connection.execute(RAISE)
                if at_commit:
                    proxy.half_open()
        except StoreUnavailableError as error:
            raised.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(60)
    proxy.heal()
    return raised


@pytest.mark.parametrize("at_commit", [False, True])
def test_a_connection_that_is_half_open_for_ever_is_given_up(
    at_commit: bool, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers, nobody hangs up: the write ends all the same, and what it says is not less than is known."""
    monkeypatch.setattr(postgres.Connection, "answer_s", 1.0)
    monkeypatch.setattr(postgres, "COMMIT_S", 1.0)
    straight = Database.open(postgres_url)
    ensure_owner(straight, "ann", "admin", "token of ann")
    assert straight.engine.url.port is not None
    proxy = Proxy(straight.engine.url.port)
    database = Database.open(straight.engine.url.set(port=proxy.port).render_as_string(hide_password=False))
    with database.read() as connection:
        assert connection.execute(SEQ).scalar_one() == 0
    [error] = _half_open(proxy, database, at_commit=at_commit)
    assert type(error) is (CommitUnknownError if at_commit else StoreUnavailableError)
    with database.write() as connection:  # over a new connection
        connection.execute(RAISE)
    assert _seq(straight) == 1
    database.close()
    proxy.close()
    straight.close()


@pytest.mark.parametrize(("then", "expected"), [(None, CommitUnknownError), ("SELECT 1", StoreUnavailableError)])
def test_a_transaction_that_falls_silent_is_ended_by_the_server(
    then: str | None, expected: type[Exception], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for its locks goes on; it is told, wrote nothing, and goes on over a new connection."""
    monkeypatch.setattr(postgres, "IDLE_S", 1)
    silent, other = Database.open(postgres_url), Database.open(postgres_url)
    ensure_owner(other, "ann", "admin", "token of ann")

    def fall_silent() -> None:
        with silent.write() as connection:
            connection.execute(RAISE)
            with other.write() as waiting:
                waiting.execute(RAISE)  # waits for the row
            if then is not None:
                connection.execute(text(then))

    with pytest.raises(StoreUnavailableError) as raised:
        fall_silent()
    assert type(raised.value) is expected
    assert _seq(other) == 1
    with silent.write() as connection:
        connection.execute(RAISE)
    assert _seq(other) == 2
    silent.close()
    other.close()


def test_a_server_that_has_gone_is_found_by_the_kernel(postgres_url: str) -> None:
    """Nothing that was sent or asked stays without an acknowledgement for longer than some seconds."""
    database = Database.open(postgres_url)
    with database.read() as connection:
        raw: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=os.dup(raw.fileno())) as tcp:
            assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count = (
                tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, name, socket.TCP_KEEPINTVL))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
            )
            if sys.platform == "linux":
                assert 0 < tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 1000 * postgres.GONE_S
    assert 0 < idle + interval * count <= postgres.GONE_S
    database.close()


def test_a_lock_that_stays_taken_is_an_unavailable_database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that cannot have its turn says so in a bounded time; readers go on."""
    monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.1)
    one, two = Database.open(database_url), Database.open(database_url)
    with one.write():
        with pytest.raises(StoreUnavailableError), two.write():
            pass
        with two.read() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        two.close()
    with one.write():
        pass
    one.close()


def test_sqlite_keeps_what_it_promises(database_url: str) -> None:
    """Write-ahead log, full synchronisation, no checkpoint by itself, foreign keys."""
    database = Database.open(database_url)
    expected = {"journal_mode": "wal", "synchronous": 2, "wal_autocheckpoint": 0, "foreign_keys": 1}
    with database.read() as connection:
        for pragma, value in expected.items():
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value
    database.close()


def test_a_checkpoint_empties_the_log(database_url: str) -> None:
    """The log is in the file afterwards, and what was written is still there."""
    database = Database.open(database_url)
    log = Path(f"{database.engine.url.database}-wal")
    with database.write() as connection:
        connection.execute(text("INSERT INTO venues VALUES ('v', TRUE, 7)"))
    assert log.stat().st_size > 0
    database.checkpoint()
    assert log.stat().st_size == 0
    assert next_token(database, "v") == 8
    database.close()


def test_processes_that_write_and_checkpoint_side_by_side_harm_nothing(database_url: str) -> None:
    """Every commit is there, and the file is whole."""
    database = Database.open(database_url)
    with database.write() as connection:
        connection.execute(text("INSERT INTO venues VALUES ('binance', TRUE, 0)"))
    command = [sys.executable, "-c", WRITER, database_url]
    writers = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert next_token(database, "binance") == 181
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    database.close()
