from contextlib import closing
from threading import Thread

import pytest
from sqlalchemy import insert, text

from models.domain.events import EventType
from models.store.database import Database
from models.store.events import NewEvent, append, cursor_of, events_after, newest_by_owner, prune
from models.store.owners import ensure_owner
from models.store.tables import jobs


def _event(owner_id: str, job_id: str = "j") -> NewEvent:
    return NewEvent(owner_id, EventType.JOB_DONE, job_id, None, {"text": "é"})


def _write(database: Database, *new: NewEvent, time_us: int = 1) -> None:
    with database.write() as connection:
        append(connection, new, time_us)


def test_numbers_are_the_owners_own_and_in_order(database: Database) -> None:
    """Each owner counts from 1, in the order in which the events were given."""
    _write(database, _event("bob", "b1"), _event("ann", "a1"), _event("bob", "b2"), time_us=7)
    _write(database)
    with database.read() as connection:
        rows = events_after(connection, "bob", 0, 10)
        assert [(row.seq, row.job_id, row.created_us, row.payload) for row in rows] == [
            (1, "b1", 7, {"text": "é"}),
            (2, "b2", 7, {"text": "é"}),
        ]
        assert events_after(connection, "bob", 1, 10) == rows[1:]
        assert events_after(connection, "bob", 0, 1) == rows[:1]
        assert newest_by_owner(connection, ["ann", "bob", "nobody"]) == {"ann": 1, "bob": 2}
        assert newest_by_owner(connection, []) == {}


def _write_and_fail(database: Database) -> None:
    with database.write() as connection:
        append(connection, [_event("ann"), _event("bob")], 1)
        raise ZeroDivisionError


def test_a_rollback_leaves_no_hole(database: Database) -> None:
    """What a transaction numbered that was not committed is numbered again."""
    _write(database, _event("ann"))
    with pytest.raises(ZeroDivisionError):
        _write_and_fail(database)
    _write(database, _event("ann"))
    with database.read() as connection:
        assert [row.seq for row in events_after(connection, "ann", 0, 10)] == [1, 2]
        assert cursor_of(connection, "bob") == (1, 0)


def test_the_order_of_numbers_is_the_order_of_commits(database: Database) -> None:
    """With writers side by side, some of which fail, a reader never sees a number before a lower one."""
    rounds = 25
    done: list[str] = []
    seen: list[int] = []

    def run(name: str) -> None:
        for number in range(rounds):
            # The owners come in a different order each time: the counters are locked in one order.
            _write(database, *[_event(owner) for owner in (("ann", "bob") if number % 2 else ("bob", "ann"))])
            with pytest.raises(ZeroDivisionError):
                _write_and_fail(database)
        done.append(name)

    threads = [Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    while len(seen) < 2 * rounds and (any(thread.is_alive() for thread in threads) or len(done) == 2):
        with database.read() as connection:
            seen += [row.seq for row in events_after(connection, "ann", len(seen), 1000)]
        assert seen == list(range(1, len(seen) + 1))
    for thread in threads:
        thread.join(30)
    assert (len(done), len(seen)) == (2, 2 * rounds)


def test_numbering_does_not_wait_for_rows_that_name_its_owners(postgres_url: str) -> None:
    """An accept holds its owners against deletion until it commits; two that did so would wait for each other."""
    with closing(Database.open(postgres_url)) as database:
        for owner in ("ann", "bob"):
            ensure_owner(database, owner, "user", f"token of {owner}")
        with database.write() as accepting:
            named = {"kind": "average", "state": "queued", "due_us": 1, "created_us": 1, "payload": {}}
            accepting.execute(insert(jobs), [{"id": owner, "owner_id": owner, **named} for owner in ("ann", "bob")])
            with database.write() as connection:
                connection.execute(text("SET LOCAL lock_timeout = 1000"))
                append(connection, [_event("ann"), _event("bob")], 1)
        with database.read() as connection:
            assert newest_by_owner(connection, ["ann", "bob"]) == {"ann": 1, "bob": 1}


def test_pruning_takes_the_beginning_and_leaves_no_hole(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times need not rise with the numbers; what is kept is whole, and the counter goes on."""
    monkeypatch.setattr("models.store.events.PRUNE_BATCH", 2)
    for time_us in (10, 11, 30, 12, 31, 32):
        _write(database, _event("ann"), time_us=time_us)
    _write(database, _event("bob"), time_us=40)
    with database.read() as connection:
        assert cursor_of(connection, "ann") == (1, 6)
    assert prune(database, 20) == 4
    with database.read() as connection:
        assert [row.seq for row in events_after(connection, "ann", 0, 10)] == [5, 6]
        assert cursor_of(connection, "ann") == (5, 6)
    assert prune(database, 20) == 0
    assert prune(database, 100) == 3
    with database.read() as connection:
        assert cursor_of(connection, "ann") == (7, 6)
        assert cursor_of(connection, "bob") == (2, 1)
        assert cursor_of(connection, "nobody") == (1, 0)
