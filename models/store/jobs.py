"""Jobs: what was promised with a 202, how far it is, and who works on it.

A job that carries an order is worked by the book. Every other kind is claimed here by any worker:
a claim counts an attempt and runs out after its lease; whoever finishes names the attempt, so one
that was overtaken changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from models.domain.errors import CrossfillError
from models.domain.events import EventType
from models.domain.orders import JobState, OrderState
from models.domain.quotes import Market
from models.store.database import Database, now_us
from models.store.events import NewEvent, append
from models.store.orders import KeyReusedError
from models.store.rows import JobRow
from models.store.tables import idempotency_keys, jobs, orders, shards

ORDER_KIND = "order"
AVERAGE_KIND = "average"
VWAP_KIND = "vwap"
CANDLES_KIND = "candles"
CANCELLED = "cancelled"
ATTEMPTS_MAX = 5
RETRY_S_MAX = 60


class ClaimLostError(CrossfillError):
    """The lease ran out and the job was claimed by another worker, or ended."""

    def __init__(self, claimed: "ClaimedJob") -> None:
        super().__init__(f"attempt {claimed.attempt} of job {claimed.id} was overtaken")
        self.claimed = claimed


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a worker has to itself until its lease runs out. `attempt` counts from 1.

    `progress` is what was reported last; a long job goes on from there. See put_back.
    """

    id: str
    owner_id: str
    kind: str
    payload: dict[str, Any]
    attempt: int
    worker: str
    progress: dict[str, Any] | None = None

    @property
    def failures(self) -> int:
        """How many attempts have come to nothing if this one does."""
        return self.attempt - _turns(self.progress)


def _turns(progress: Mapping[str, Any] | None) -> int:
    """Return how many attempts ended well, with more left to do."""
    return int((progress or {}).get("turns", 0))


def _job_row(row: Row[Any]) -> JobRow:
    return JobRow(
        id=row.id,
        owner_id=row.owner_id,
        kind=row.kind,
        state=JobState(row.state),
        task_id=row.task_id,
        attempts=row.attempts,
        created_us=row.created_us,
        ended_us=row.ended_us,
        due_us=row.due_us,
        payload=row.payload,
        progress=row.progress,
        result=row.result,
        error=row.error,
    )


def job_by_id(connection: Connection, owner_id: str, job_id: str) -> JobRow | None:
    """Return the owner's job, or None."""
    row = connection.execute(select(jobs).where(jobs.c.id == job_id, jobs.c.owner_id == owner_id)).one_or_none()
    return _job_row(row) if row else None


def list_jobs(
    connection: Connection,
    owner_id: str,
    *,
    state: str | None = None,
    before_id: str | None = None,
    limit: int = 50,
) -> list[JobRow]:
    """Return the owner's jobs, newest first, below an id."""
    query = select(jobs).where(jobs.c.owner_id == owner_id).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    if before_id is not None:
        query = query.where(jobs.c.id < before_id)
    return [_job_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job for any worker, ready to be stored. It is worked from `due_us` on."""

    id: str
    owner_id: str
    kind: str
    payload: dict[str, Any]
    created_us: int
    due_us: int
    task_id: str | None
    idempotency_key: str | None
    fingerprint: str


def create(database: Database, new: NewJob) -> JobRow:
    """Store a job and return it; under an Idempotency-Key that was used before, the job of then.

    Raises KeyReusedError where that was another request, StoreUnavailableError, CommitUnknownError.
    """
    try:
        return _create(database, new)
    except IntegrityError:
        # Another process was faster with the same key; now it is there to be seen.
        return _create(database, new)


def _create(database: Database, new: NewJob) -> JobRow:
    with database.write() as connection:
        if new.idempotency_key is not None:
            used = idempotency_keys.c
            query = select(used.fingerprint, used.job_id).where(
                used.owner_id == new.owner_id, used.key == new.idempotency_key
            )
            before = connection.execute(query).one_or_none()
            if before is not None:
                found = job_by_id(connection, new.owner_id, before.job_id)
                if before.fingerprint != new.fingerprint or found is None:
                    raise KeyReusedError(new.idempotency_key)
                return found
        row = {
            "id": new.id,
            "owner_id": new.owner_id,
            "kind": new.kind,
            "state": JobState.QUEUED.value,
            "task_id": new.task_id,
            "attempts": 0,
            "due_us": new.due_us,
            "created_us": new.created_us,
            "payload": new.payload,
        }
        connection.execute(insert(jobs).values(row))
        if new.idempotency_key is not None:
            keyed = {"owner_id": new.owner_id, "key": new.idempotency_key, "fingerprint": new.fingerprint}
            connection.execute(insert(idempotency_keys).values(**keyed, job_id=new.id, created_us=new.created_us))
        made = job_by_id(connection, new.owner_id, new.id)
        assert made is not None
        return made


def jobs_forgotten(connection: Connection, within_us: int) -> bool:
    """Say whether jobs that are not orders have been due for a time, and no worker has claimed any in that time.

    One that nobody was woken for is meant from its due time on: it was accepted for later, or put back, or left.
    """
    now = now_us(connection)
    if connection.execute(select(jobs.c.id).where(jobs.c.claimed_us > now - within_us).limit(1)).first() is not None:
        return False
    unannounced = or_(jobs.c.task_id.is_(None), jobs.c.attempts > 0)
    query = select(jobs.c.id).where(_free(now), or_(unannounced, jobs.c.due_us <= now - within_us)).limit(1)
    return connection.execute(query).first() is not None


def shards_forgotten(connection: Connection, before_us: int, market: Market) -> list[int]:
    """Return the shards without an owner in which orders of a market were accepted before a time and are in no book.

    An owner claims all rows of its shard with the lease, and looks at them once a second by itself.
    """
    unowned = or_(shards.c.owner.is_(None), shards.c.lease_until_us < now_us(connection))
    # Asked shard by shard, the index finds it beside a million resting orders without a scan.
    waiting = exists().where(
        orders.c.shard == shards.c.shard,
        orders.c.state == OrderState.QUEUED.value,
        orders.c.ended_us.is_(None),
        orders.c.created_us < before_us,
        orders.c.market == market.value,
    )
    query = select(shards.c.shard).where(unowned, waiting).order_by(shards.c.shard)
    return list(connection.execute(query).scalars())


def retry_after_us(attempt: int) -> int | None:
    """Return how long a job rests after a failed attempt (2, 4, 8, 16 s), or None where it was the last."""
    return None if attempt >= ATTEMPTS_MAX else min(2**attempt, RETRY_S_MAX) * 1_000_000


def claim_due(database: Database, kinds: Collection[str], worker: str, lease_us: int) -> ClaimedJob | None:
    """Claim the job of these kinds that is due longest, or return None.

    Due is what is queued past its time or was left by a worker whose lease ran out. A job that was
    left in its last attempt fails here. Jobs that carry orders are never claimed.
    """
    with database.read() as connection:  # an idle worker asks often, and must not lock who writes
        if connection.execute(select(jobs.c.id).where(_due(kinds, now_us(connection))).limit(1)).first() is None:
            return None
    lost: list[NewEvent] = []
    with database.write() as connection:
        now = now_us(connection)
        claimed = None
        while claimed is None:
            query = select(jobs).where(_due(kinds, now)).order_by(jobs.c.due_us, jobs.c.id).limit(1)
            row = connection.execute(query.with_for_update(skip_locked=True)).first()
            if row is None:
                break
            if row.attempts - _turns(row.progress) >= ATTEMPTS_MAX:
                error = row.error or f"no worker came to the end of it in {ATTEMPTS_MAX} attempts"
                lost.append(_end(connection, row.id, JobState.FAILED, now, error=error))
                continue
            claimed = ClaimedJob(row.id, row.owner_id, row.kind, row.payload, row.attempts + 1, worker, row.progress)
            values = {"state": JobState.RUNNING.value, "attempts": claimed.attempt, "worker": worker}
            times = {"claimed_us": now, "lease_until_us": now + lease_us}
            connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values, **times))
        append(connection, lost, now)
    return claimed


def finish(database: Database, claimed: ClaimedJob, result: dict[str, Any], told: dict[str, Any] | None = None) -> None:
    """End a claimed job with its result, and tell its owner: of `told`, where the result is long.

    Raises ClaimLostError; then nothing is written.
    """
    with database.write() as connection:
        now = _fence(connection, claimed)
        event = _end(connection, claimed.id, JobState.DONE, now, result=result)
        if told is not None:
            event = event._replace(payload={**event.payload, "result": told})
        append(connection, [event], now)


def fail(database: Database, claimed: ClaimedJob, error: str) -> JobState:
    """Put a claimed job back for its next attempt, or after the last one end it; return its state.

    Raises ClaimLostError; then nothing is written.
    """
    wait_us = retry_after_us(claimed.failures)
    with database.write() as connection:
        now = _fence(connection, claimed)
        if wait_us is None:
            append(connection, [_end(connection, claimed.id, JobState.FAILED, now, error=error)], now)
            return JobState.FAILED
        values = {"state": JobState.QUEUED.value, "lease_until_us": None, "error": error}
        connection.execute(update(jobs).where(jobs.c.id == claimed.id).values(due_us=now + wait_us, **values))
        return JobState.QUEUED


def put_back(database: Database, claimed: ClaimedJob, progress: dict[str, Any]) -> None:
    """Put a claimed job back behind those that are due, to be worked on from its progress by whoever is free.

    Such a turn is no failed attempt, however many there are. Raises ClaimLostError; then nothing is written.
    """
    with database.write() as connection:
        now = _fence(connection, claimed)
        progress = {**progress, "turns": _turns(claimed.progress) + 1}
        values = {"state": JobState.QUEUED.value, "lease_until_us": None, "progress": progress, "due_us": now}
        connection.execute(update(jobs).where(jobs.c.id == claimed.id).values(values))
        append(connection, [_progressed(claimed, progress)], now)


def cancel(database: Database, owner_id: str, job_id: str) -> tuple[JobRow, bool] | None:
    """End the owner's job, whether it waits or is worked; return it and whether this ended it, or None.

    It fails with the error CANCELLED. Whoever works it loses its claim and sees so with its next report. A job
    that carries an order is left as it is.
    """
    with database.write() as connection:
        row = job_by_id(connection, owner_id, job_id)
        if row is None or row.kind == ORDER_KIND:
            return None if row is None else (row, False)
        open_ = and_(jobs.c.id == job_id, jobs.c.ended_us.is_(None))
        ended = bool(connection.execute(update(jobs).where(open_).values(worker=None)).rowcount)
        if ended:
            now = now_us(connection)
            append(connection, [_end(connection, job_id, JobState.FAILED, now, error=CANCELLED)], now)
        found = job_by_id(connection, owner_id, job_id)
        assert found is not None
        return found, ended


def report(database: Database, claimed: ClaimedJob, progress: dict[str, Any], lease_us: int) -> None:
    """Say how far a claimed job is, tell its owner, and keep it for longer.

    Raises ClaimLostError; then nothing is written.
    """
    with database.write() as connection:
        now = _fence(connection, claimed)
        progress = {**progress, "turns": turns} if (turns := _turns(claimed.progress)) else progress
        values = {"progress": progress, "lease_until_us": now + lease_us}
        connection.execute(update(jobs).where(jobs.c.id == claimed.id).values(values))
        append(connection, [_progressed(claimed, progress)], now)


def _progressed(claimed: ClaimedJob, progress: dict[str, Any]) -> NewEvent:
    # Sums so far are for who goes on from them.
    payload = {"kind": claimed.kind, "progress": {key: progress[key] for key in progress if key != "so_far"}}
    return NewEvent(claimed.owner_id, EventType.JOB_PROGRESS, claimed.id, None, payload)


def _due(kinds: Collection[str], now: int) -> ColumnElement[bool]:
    return and_(_free(now), jobs.c.kind.in_(kinds))


def _free(now: int) -> ColumnElement[bool]:
    queued = and_(jobs.c.state == JobState.QUEUED.value, jobs.c.due_us <= now)
    left = and_(jobs.c.state == JobState.RUNNING.value, jobs.c.lease_until_us < now)
    # The first two conditions are those of the index of what is due.
    return and_(jobs.c.ended_us.is_(None), jobs.c.kind != ORDER_KIND, or_(queued, left))


def _fence(connection: Connection, claimed: ClaimedJob) -> int:
    """Lock the job's row for the claim; return the time."""
    mine = and_(jobs.c.id == claimed.id, jobs.c.state == JobState.RUNNING.value, jobs.c.attempts == claimed.attempt)
    if not connection.execute(update(jobs).where(mine).values(attempts=claimed.attempt)).rowcount:
        raise ClaimLostError(claimed)
    return now_us(connection)


def _end(
    connection: Connection,
    job_id: str,
    state: JobState,
    now: int,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> NewEvent:
    values = {"state": state.value, "result": result, "error": error, "ended_us": now, "lease_until_us": None}
    ended = update(jobs).where(jobs.c.id == job_id).values(values).returning(jobs.c.owner_id, jobs.c.kind)
    owner_id, kind = connection.execute(ended).one()
    payload = {"kind": kind, "result": result} if error is None else {"kind": kind, "result": result, "error": error}
    told = EventType.JOB_DONE if state is JobState.DONE else EventType.JOB_FAILED
    return NewEvent(owner_id, told, job_id, None, payload)
