from models.store.database import Database, now_us
from models.store.schema import fix_shards
from models.store.shards import (
    Lease,
    beat,
    claim,
    leave,
    owned,
    processes_seen,
    release,
    renew,
    shards_count,
)
from models.store.tables import processes, shards

MINUTE_US = 60_000_000


def _more_shards(database: Database, count: int) -> None:
    with database.write() as connection:
        connection.execute(shards.insert(), [{"shard": n, "epoch": 0, "lease_until_us": 0} for n in range(1, count)])


def test_the_number_of_shards_is_fixed_once(database: Database) -> None:
    """A symbol must never change its shard, so the first word holds."""
    assert fix_shards(database, 16) == 1
    with database.read() as connection:
        assert shards_count(connection) == 1


def test_a_shard_has_one_owner(database: Database) -> None:
    """Claims take what is free, at most what was wanted, each under a new epoch."""
    _more_shards(database, 3)
    first = claim(database, "one", 2, MINUTE_US)
    assert first == [Lease(0, "one", 1), Lease(1, "one", 1)]
    assert claim(database, "two", 5, MINUTE_US) == [Lease(2, "two", 1)]
    assert claim(database, "one", 5, MINUTE_US) == []
    with database.read() as connection:
        assert owned(connection) == 3
    assert renew(database, first, MINUTE_US) == first
    release(database, first[:1])
    assert renew(database, first, MINUTE_US) == first[1:]
    assert claim(database, "two", 5, MINUTE_US) == [Lease(0, "two", 2)]
    release(database, first)
    assert claim(database, "three", 5, MINUTE_US) == [Lease(1, "three", 2)]
    assert renew(database, [], MINUTE_US) == []


def test_a_lease_that_ran_out_is_taken_over(database: Database) -> None:
    """Until somebody takes it, its owner may renew it; afterwards never."""
    (old,) = claim(database, "old", 1, -1)
    assert renew(database, [old], -1) == [old]
    (new,) = claim(database, "new", 1, MINUTE_US)
    assert new.epoch == old.epoch + 1
    assert renew(database, [old], MINUTE_US) == []
    release(database, [old])  # changes nothing: it is not the old owner's any more
    assert renew(database, [new], MINUTE_US) == [new]


def test_processes_are_seen_by_kind_and_time(database: Database) -> None:
    """By the database's clock; one that leaves is forgotten, and so is what was not seen for an hour."""
    for name, kind in (("b", "jobs"), ("a", "jobs"), ("c", "notifier")):
        beat(database, name, kind, 5)
    beat(database, "a", "jobs", 5)
    with database.read() as connection:
        assert processes_seen(connection, "jobs", MINUTE_US) == ["a", "b"]
        assert processes_seen(connection, "jobs", -MINUTE_US) == []
    with database.write() as connection:
        connection.execute(processes.update().where(processes.c.id == "b").values(seen_us=0))
    leave(database, "c")
    with database.read() as connection:
        assert [row.id for row in connection.execute(processes.select())] == ["a"]


def test_the_databases_clock_is_the_time(database: Database) -> None:
    """It gives microseconds since the epoch and goes forward."""
    import time  # noqa: PLC0415 -- used once

    with database.read() as connection:
        first = now_us(connection)
        assert abs(first - time.time_ns() // 1000) < 5_000_000
        time.sleep(0.01)
        assert 5_000 < now_us(connection) - first < 5_000_000
