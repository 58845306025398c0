from threading import Thread
from typing import Any

import pytest

from models.domain.identifiers import uuid7
from models.domain.orders import JobState
from models.domain.quotes import Market
from models.store.database import Database, now_us
from models.store.events import as_message, events_after
from models.store.jobs import (
    ATTEMPTS_MAX,
    ClaimedJob,
    ClaimLostError,
    claim_due,
    fail,
    finish,
    job_by_id,
    jobs_forgotten,
    shards_forgotten,
)
from models.store.rows import JobRow
from models.store.shards import claim, renew
from models.store.tables import jobs
from tests.integration.models.store.samples import NOW_US, accepted

MINUTE_US = 60_000_000
KINDS = ["price", "candle"]


def _add(database: Database, **values: Any) -> str:
    job_id = uuid7(NOW_US)
    row = {"kind": "price", "state": "queued", "due_us": NOW_US, "created_us": NOW_US, "payload": {"pair": "LTC-BTC"}}
    with database.write() as connection:
        # The samples' time is in the past, so the job is due.
        connection.execute(jobs.insert().values({"id": job_id, "owner_id": "ann", **row, **values}))
    return job_id


def _claim(database: Database, lease_us: int = MINUTE_US, worker: str = "w") -> ClaimedJob:
    claimed = claim_due(database, KINDS, worker, lease_us)
    assert claimed is not None
    return claimed


def _job(database: Database, job_id: str) -> JobRow:
    with database.read() as connection:
        job = job_by_id(connection, "ann", job_id)
    assert job is not None
    return job


def _set_due(database: Database) -> None:
    with database.write() as connection:
        connection.execute(jobs.update().values(due_us=0))


def _told(database: Database) -> list[tuple[object, ...]]:
    with database.read() as connection:
        messages = [as_message(row) for row in events_after(connection, "ann", 0, 100)]
    return [(message["type"], message["kind"], message["result"], message.get("error")) for message in messages]


def test_a_job_is_claimed_and_finished(database: Database) -> None:
    """The result is in the row, and the owner is told."""
    job_id = _add(database)
    claimed = _claim(database)
    assert claimed == ClaimedJob(job_id, "ann", "price", {"pair": "LTC-BTC"}, 1, "w")
    assert _job(database, job_id).state is JobState.RUNNING
    assert claim_due(database, KINDS, "v", MINUTE_US) is None
    finish(database, claimed, {"price": "0.1"})
    job = _job(database, job_id)
    assert (job.state, job.result, job.attempts) == (JobState.DONE, {"price": "0.1"}, 1)
    assert job.ended_us is not None
    assert _told(database) == [("job.done", "price", {"price": "0.1"}, None)]
    assert claim_due(database, KINDS, "v", MINUTE_US) is None


def test_the_longest_due_is_claimed_first(database: Database) -> None:
    """Never a kind that was not asked for, one that is not due, or a job that carries an order."""
    accepted(database)
    with database.read() as connection:
        later = now_us(connection) + MINUTE_US
    _add(database, due_us=later)
    _add(database, kind="signal")
    second, first = _add(database, due_us=9, kind="candle"), _add(database, due_us=8)
    assert [_claim(database).id, _claim(database).id] == [first, second]
    assert claim_due(database, KINDS, "w", MINUTE_US) is None
    assert claim_due(database, ["order"], "w", MINUTE_US) is None
    assert claim_due(database, [], "w", MINUTE_US) is None


def test_a_failed_attempt_is_repeated_five_times(database: Database) -> None:
    """It rests first; after the last attempt the job fails with its error, and the owner is told once."""
    job_id = _add(database)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        claimed = _claim(database)
        assert claimed.attempt == attempt
        assert _told(database) == []
        last = attempt == ATTEMPTS_MAX
        assert fail(database, claimed, f"error {attempt}") is (JobState.FAILED if last else JobState.QUEUED)
        assert claim_due(database, KINDS, "w", MINUTE_US) is None
        _set_due(database)
    job = _job(database, job_id)
    assert (job.state, job.error, job.result, job.attempts) == (JobState.FAILED, "error 5", None, 5)
    assert _told(database) == [("job.failed", "price", None, "error 5")]
    assert claim_due(database, KINDS, "w", MINUTE_US) is None


def test_a_worker_that_was_overtaken_changes_nothing(database: Database) -> None:
    """Once the lease ran out and another claimed, finish and fail are refused."""
    job_id = _add(database)
    old = _claim(database, lease_us=-1)
    new = _claim(database, worker="v")
    assert (new.id, new.attempt) == (old.id, 2)
    with pytest.raises(ClaimLostError):
        finish(database, old, {"price": "old"})
    with pytest.raises(ClaimLostError):
        fail(database, old, "old")
    assert _job(database, job_id).state is JobState.RUNNING
    finish(database, new, {"price": "new"})
    with pytest.raises(ClaimLostError):
        finish(database, new, {"price": "again"})
    assert _told(database) == [("job.done", "price", {"price": "new"}, None)]


def test_a_job_that_kills_its_workers_fails(database: Database) -> None:
    """Five leases that ran out are five attempts; the next claim ends the job and goes on to another."""
    job_id = _add(database, due_us=1)
    for _ in range(ATTEMPTS_MAX):
        _claim(database, lease_us=-1)
    other = _add(database, due_us=2)
    assert _claim(database).id == other
    job = _job(database, job_id)
    assert (job.state, job.error) == (JobState.FAILED, "no worker came to the end of it in 5 attempts")
    assert [each[0] for each in _told(database)] == ["job.failed"]


def test_two_workers_never_claim_the_same_job(database: Database) -> None:
    """Each job is claimed once, however many ask at a time."""
    wanted = {_add(database) for _ in range(30)}
    got: list[str] = []

    def run() -> None:
        while (claimed := claim_due(database, KINDS, "w", MINUTE_US)) is not None:
            got.append(claimed.id)

    threads = [Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(got) == sorted(wanted)


def test_shards_that_wait_are_named(database: Database) -> None:
    """A shard is forgotten when an order of it was accepted before the time, is in no book yet, and nobody owns it."""
    accepted(database)

    def forgotten(before_us: int, market: Market = Market.SIMULATED) -> list[int]:
        with database.read() as connection:
            return shards_forgotten(connection, before_us, market)

    assert forgotten(NOW_US + 1) == [0]
    assert forgotten(NOW_US) == []
    assert forgotten(NOW_US + 1, Market.LIVE) == []  # whoever runs that market could do nothing about it
    [lease] = claim(database, "w", 1, MINUTE_US)
    assert forgotten(NOW_US + 1) == []
    renew(database, [lease], -1)
    assert forgotten(NOW_US + 1) == [0]


def test_jobs_are_forgotten_when_none_was_claimed_of_late(database: Database) -> None:
    """A backlog that is worked is not; one whose wake-up may still come is not, for a time; orders' jobs never are."""

    def forgotten(within_us: int = MINUTE_US) -> bool:
        with database.read() as connection:
            return jobs_forgotten(connection, within_us)

    _add(database, kind="order")
    assert not forgotten()
    for _ in range(2):
        _add(database, task_id="woken")
    assert forgotten()
    claimed = _claim(database)
    assert not forgotten()
    assert forgotten(0)
    finish(database, claimed, {})
    assert not forgotten()
    with database.write() as connection:
        connection.execute(jobs.update().values(claimed_us=None, due_us=now_us(connection) - 1))
    assert not forgotten()
    with database.write() as connection:
        connection.execute(jobs.update().values(task_id=None))
    assert forgotten()
