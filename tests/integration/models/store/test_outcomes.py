from decimal import Decimal
from threading import Barrier, Thread

import pytest

from models.domain.orders import IllegalTransitionError, JobState, Order, OrderState, Reason, Side
from models.domain.outcomes import Level, Outcome
from models.domain.quotes import Market
from models.store.book import load, queued, working
from models.store.database import Database
from models.store.events import as_message, events_after
from models.store.jobs import job_by_id
from models.store.orders import accept, order_by_id, splits_of
from models.store.outcomes import FencedError, SplitRefusedError, commit_outcomes
from models.store.rows import OrderRow
from models.store.shards import Lease, claim
from tests.integration.models.store.samples import NOW_US, accepted, after, new_order, outcome, split

AGES = 3_600_000_000


@pytest.fixture
def lease(database: Database) -> Lease:
    return claim(database, "owner", 1, AGES)[0]


def _commit(
    database: Database, lease: Lease, number: int, *outcomes: Outcome, levels: tuple[Level, ...] = ()
) -> set[str]:
    return commit_outcomes(database, lease, number, outcomes, levels, market=Market.SIMULATED, fee_bps=Decimal("2.5"))


def _row(database: Database, order: Order) -> OrderRow:
    with database.read() as connection:
        row = order_by_id(connection, order.owner_id, order.id)
    assert row is not None
    return row


def _messages(database: Database, after_seq: int = 0) -> list[dict[str, object]]:
    with database.read() as connection:
        return [as_message(row) for row in events_after(connection, "ann", after_seq, 1000)]


def test_an_order_is_filled_in_parts(database: Database, lease: Lease) -> None:
    """Orders, splits, job and events say the same, exactly."""
    order = accepted(database)
    first = outcome(order, OrderState.WORKING, split("3"), split("4", "0.00011"))
    assert _commit(database, lease, 1, first) == {"ann"}
    row = _row(database, order)
    assert (row.state, row.filled_size, row.remaining_size) == (OrderState.WORKING, Decimal(7), Decimal(3))
    assert (row.filled_value, row.avg_price) == (Decimal("0.00074"), Decimal("0.0001057142857142857142857142857"))
    with database.read() as connection:
        job = job_by_id(connection, "ann", order.job_id)
        assert job is not None
        assert (job.state, job.result, job.ended_us) == (JobState.RUNNING, None, None)
        assert working(connection, 0, 10) == [after(first)]

    _commit(database, lease, 2, outcome(after(first), OrderState.FILLED, split("3")))
    row = _row(database, order)
    assert (row.state, row.filled_size, row.avg_price) == (OrderState.FILLED, Decimal(10), Decimal("0.000104"))
    assert (row.reason, row.ended_us) == (None, NOW_US + 1_000_000)
    with database.read() as connection:
        job = job_by_id(connection, "ann", order.job_id)
        parts = splits_of(connection, order.seq)
        assert working(connection, 0, 10) == []
    assert job is not None
    assert (job.state, job.ended_us) == (JobState.DONE, NOW_US + 1_000_000)
    result = {"order_id": order.id, "state": "filled", "reason": None, "filled_size": "10", "avg_price": "0.000104"}
    assert job.result == result
    assert [part.id for part in parts] == ["0-1-1-0", "0-1-1-1", "0-1-2-0"]
    assert [(part.size, part.price, part.side) for part in parts][1] == (Decimal(4), Decimal("0.00011"), Side.SELL)
    assert parts[1].fee == Decimal("0.00000011")
    assert sum(part.size for part in parts) == row.filled_size

    messages = _messages(database, 1)
    assert [message["type"] for message in messages] == [
        "order.working",
        "order.split",
        "order.split",
        "order.split",
        "order.filled",
        "job.done",
    ]
    assert [message["seq"] for message in messages] == [2, 3, 4, 5, 6, 7]
    common = {
        "time": "2026-09-21T14:13:21.123456Z",
        "job_id": order.job_id,
        "order_id": order.id,
        "market": "simulated",
    }
    assert messages[0] == {"seq": 2, "type": "order.working", "filled_size": "0", "remaining_size": "10", **common}
    assert messages[2] == {
        "seq": 4,
        "type": "order.split",
        "split_id": "0-1-1-1",
        "venue": "binance",
        "product_id": "LTCBTC",
        "price": "0.00011",
        "size": "4",
        "fee": "0.00000011",
        "filled_size": "7",
        "remaining_size": "3",
        **common,
    }
    end = {"filled_size": "10", "remaining_size": "0", "avg_price": "0.000104", "reason": None}
    assert messages[4] == {"seq": 6, "type": "order.filled", **end, **common}
    assert messages[5] == {"seq": 7, "type": "job.done", "kind": "order", "result": result, **common}


@pytest.mark.parametrize(
    ("state", "reason", "job_state", "told"),
    [
        (OrderState.EXPIRED, Reason.DEADLINE, JobState.DONE, "job.done"),
        (OrderState.CANCELLED, Reason.CANCELLED, JobState.DONE, "job.done"),
        (OrderState.REJECTED, Reason.STEP_FAILED, JobState.FAILED, "job.failed"),
    ],
)
def test_an_end_without_a_fill_says_why(
    database: Database, lease: Lease, state: OrderState, reason: Reason, job_state: JobState, told: str
) -> None:
    """An expired order is a done job whose result says so; a rejected one is a failed job."""
    order = accepted(database)
    _commit(database, lease, 1, outcome(order, state, reason=reason))
    row = _row(database, order)
    assert (row.state, row.reason, row.filled_size, row.avg_price) == (state, reason, Decimal(0), None)
    with database.read() as connection:
        job = job_by_id(connection, "ann", order.job_id)
    assert job is not None
    assert job.state is job_state
    messages = _messages(database, 1)
    assert [message["type"] for message in messages] == [f"order.{state.value}", told]
    assert (messages[0]["reason"], messages[0]["avg_price"]) == (reason.value, None)


def test_an_old_epoch_commits_nothing(database: Database, lease: Lease) -> None:
    """Nor does another owner, another shard, or a lease that was never given."""
    order = accepted(database)
    filled = outcome(order, OrderState.FILLED, split("10"))
    level = Level("binance", "LTCBTC", Side.SELL, Decimal("0.0001"), Decimal(10))
    for other in (Lease(0, "owner", lease.epoch - 1), Lease(0, "owner", 2), Lease(0, "other", 1), Lease(1, "owner", 1)):
        with pytest.raises(FencedError):
            _commit(database, other, 1, filled, levels=(level,))
    assert _row(database, order).state is OrderState.QUEUED
    assert len(_messages(database)) == 1
    with database.read() as connection:
        assert splits_of(connection, order.seq) == []
        assert load(connection, 0).levels == []
    assert _commit(database, lease, 1, filled, levels=(level,)) == {"ann"}


def test_an_overtaken_owner_is_fenced(database: Database) -> None:
    """Once the lease ran out and was claimed, the epoch has risen and the old one is worth nothing."""
    (old,) = claim(database, "old", 1, -1)
    (new,) = claim(database, "new", 1, AGES)
    assert (old.epoch, new.epoch) == (1, 2)
    order = accepted(database)
    with pytest.raises(FencedError):
        _commit(database, old, 1, outcome(order, OrderState.FILLED, split("10")))
    _commit(database, new, 1, outcome(order, OrderState.FILLED, split("10")))


def test_more_than_the_order_wants_is_refused(database: Database, lease: Lease) -> None:
    """Whether in one step or over two, nothing of the batch is written."""
    other, order = accepted(database), accepted(database)
    good = outcome(other, OrderState.FILLED, split("10"))
    for state, sizes in (
        (OrderState.FILLED, ("10", "0.1")),
        (OrderState.WORKING, ("10",)),
        (OrderState.FILLED, ("9",)),
    ):
        with pytest.raises(SplitRefusedError):
            _commit(database, lease, 1, good, outcome(order, state, *map(split, sizes)))
    first = outcome(order, OrderState.WORKING, split("2"))
    _commit(database, lease, 2, first)
    _commit(database, lease, 3, outcome(after(first), OrderState.WORKING, split("4")))
    # The book believes that less was filled: its order is not the one that the database has.
    for stale in (order, after(first)):
        with pytest.raises(SplitRefusedError):
            _commit(database, lease, 4, good, outcome(stale, OrderState.WORKING, split("6")))
    assert _row(database, other).state is OrderState.QUEUED
    assert _row(database, order).filled_size == Decimal(6)


def test_an_order_ends_once(database: Database, lease: Lease) -> None:
    """A second end is refused, whatever it is, and tells nobody anything."""
    order = accepted(database)
    _commit(database, lease, 1, outcome(order, OrderState.EXPIRED, reason=Reason.DEADLINE))
    told = _messages(database)
    for again in (
        outcome(order, OrderState.FILLED, split("10")),
        outcome(order, OrderState.EXPIRED, reason=Reason.DEADLINE),
        outcome(order, OrderState.WORKING),
    ):
        with pytest.raises(SplitRefusedError):
            _commit(database, lease, 2, again)
    with pytest.raises(IllegalTransitionError):
        _commit(database, lease, 2, outcome(after(outcome(order, OrderState.EXPIRED)), OrderState.WORKING))
    assert _messages(database) == told


def test_levels_are_kept_while_something_is_taken(database: Database, lease: Lease) -> None:
    """A level is written, changed and forgotten by its price as a number; the last word in a step counts."""

    def level(taken: str, price: str = "0.00010") -> Level:
        return Level("binance", "LTCBTC", Side.SELL, Decimal(price), Decimal(taken))

    steps = [
        ((level("5"), level("7", "0.00011")), {Decimal("0.0001"): Decimal(5), Decimal("0.00011"): Decimal(7)}),
        ((level("6", "0.0001"), level("0", "1.1E-4")), {Decimal("0.0001"): Decimal(6)}),
        ((level("8"), level("0")), {}),
        ((level("0"), level("1e2")), {Decimal("0.0001"): Decimal(100)}),
    ]
    for changed, kept in steps:
        assert _commit(database, lease, 1, levels=changed) == set()
        with database.read() as connection:
            assert {each.price: each.taken for each in load(connection, 0).levels} == kept
            assert load(connection, 1).levels == []


def test_five_hundred_outcomes_go_in_one_transaction(database: Database, lease: Lease) -> None:
    """Numbers of the events run on without a gap, over two owners."""
    accept(database, [new_order(owner_id="ann" if number % 2 else "bob") for number in range(500)])
    with database.read() as connection:
        orders = queued(connection, 0, 1000)
    done = [outcome(order, OrderState.FILLED, split("4"), split("6")) for order in orders]
    assert _commit(database, lease, 1, *done) == {"ann", "bob"}
    with database.read() as connection:
        for owner in ("ann", "bob"):
            assert [row.seq for row in events_after(connection, owner, 0, 5000)] == list(range(1, 250 * 5 + 1))
        assert queued(connection, 0, 10) == []


def _race(database: Database, old: Lease, order: Order) -> list[str]:
    """Let the old owner commit while a new one claims and commits; return what became of each."""
    barrier = Barrier(2)
    results: list[str] = []

    def run(lease: Lease | None) -> None:
        barrier.wait(10)
        mine = lease or claim(database, "new", 1, -1)[0]
        try:
            _commit(database, mine, 1, outcome(order, OrderState.FILLED, split("10")))
        except (FencedError, SplitRefusedError):
            results.append("refused")
        else:
            results.append("committed")

    threads = [Thread(target=run, args=(lease,)) for lease in (old, None)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return sorted(results)


def test_of_two_owners_at_once_one_commits(database: Database) -> None:
    """An owner that is overtaken between its step and its commit, or after it: one fill, never two."""
    for _ in range(10):
        order = accepted(database)
        (old,) = claim(database, "old", 1, -1)
        assert _race(database, old, order) == ["committed", "refused"]
        with database.read() as connection:
            assert len(splits_of(connection, order.seq)) == 1
