from dataclasses import replace
from threading import Barrier, Thread

import pytest

from models.domain.identifiers import uuid7
from models.domain.orders import JobState, OrderState
from models.store.database import Database, StoreUnavailableError
from models.store.events import as_message, cursor_of, events_after
from models.store.jobs import job_by_id, list_jobs
from models.store.orders import (
    Accepted,
    ClientOrderIdTakenError,
    KeyReusedError,
    NotAcceptedError,
    accept,
    list_orders,
    order_by_id,
    order_of_job,
    orders_by_ids,
    request_cancel,
)
from tests.integration.models.store.samples import NOW_US, new_order


def test_an_accepted_order_is_a_job_an_order_and_an_event(database: Database) -> None:
    """One transaction makes all three, each naming the others."""
    new = new_order(venues=("coinbase", "binance"), client_order_id="mine", task_id="task")
    assert accept(database, [new]) == [Accepted(new.job_id, new.id)]
    with database.read() as connection:
        order = order_by_id(connection, "ann", new.id)
        job = job_by_id(connection, "ann", new.job_id)
        (event,) = events_after(connection, "ann", 0, 10)
        assert order_of_job(connection, "ann", new.job_id) == order
        assert orders_by_ids(connection, [new.id, "none"]) == {new.id: order}
    assert order is not None
    assert job is not None
    assert (order.state, order.price, order.size, order.venues) == (
        "queued",
        new.price,
        new.size,
        ("binance", "coinbase"),
    )
    assert (order.avg_price, order.remaining_size, order.cancel_us) == (None, new.size, None)
    assert (job.state, job.kind, job.task_id, job.payload) == (JobState.QUEUED, "order", "task", {"order_id": new.id})
    assert (job.result, job.error, job.ended_us) == (None, None, None)
    assert as_message(event) == {
        "seq": 1,
        "type": "order.accepted",
        "time": "2026-09-21T14:13:20.123456Z",
        "job_id": new.job_id,
        "order_id": new.id,
        "symbol": "LTC-BTC",
        "side": "sell",
        "size": "10",
        "price": "0.0001",
        "time_in_force": "GTD",
        "venues": ["binance", "coinbase"],
        "deadline": "2026-09-21T14:13:50.123456Z",
        "client_order_id": "mine",
        "market": "simulated",
    }


def test_another_owner_sees_nothing(database: Database) -> None:
    """An order, its job and a cancel belong to its owner alone."""
    new = new_order()
    accept(database, [new])
    assert request_cancel(database, "bob", new.id, NOW_US) is None
    with database.read() as connection:
        assert order_by_id(connection, "bob", new.id) is None
        assert order_of_job(connection, "bob", new.job_id) is None
        assert job_by_id(connection, "bob", new.job_id) is None
        assert list_orders(connection, "bob") == []
        assert list_jobs(connection, "bob") == []
        order = order_by_id(connection, "ann", new.id)
    assert order is not None
    assert order.cancel_us is None


def test_the_same_key_gives_the_same_job(database: Database) -> None:
    """A repeated request stores nothing, in a later batch and within one."""
    first = new_order(idempotency_key="k")
    again = [replace(first, id=uuid7(NOW_US), job_id=uuid7(NOW_US)) for _ in range(3)]
    existing = Accepted(first.job_id, first.id, existing=True)
    assert accept(database, [first, again[0]]) == [Accepted(first.job_id, first.id), existing]
    assert accept(database, again[1:]) == [existing, existing]
    with database.read() as connection:
        assert len(list_orders(connection, "ann")) == 1
        assert cursor_of(connection, "ann") == (1, 1)


def test_a_key_belongs_to_its_owner_and_its_body(database: Database) -> None:
    """Another body under the key is refused; another owner's same key is another key."""
    first = new_order(idempotency_key="k")
    answers = accept(database, [first, new_order(idempotency_key="k", fingerprint="other")])
    answers += accept(database, [new_order(idempotency_key="k", fingerprint="other")])
    answers += accept(database, [new_order(idempotency_key="k", owner_id="bob")])
    assert [type(answer) for answer in answers] == [Accepted, KeyReusedError, KeyReusedError, Accepted]
    assert answers[3] != answers[0]


def test_a_client_order_id_is_taken_once_per_owner(database: Database) -> None:
    """The refusal names the order that has it, within a batch and later."""
    first = new_order(client_order_id="c")
    answers = accept(database, [first, new_order(client_order_id="c"), new_order(client_order_id="c", owner_id="bob")])
    answers += accept(database, [new_order(client_order_id="c")])
    assert [type(answer) for answer in answers] == [
        Accepted,
        ClientOrderIdTakenError,
        Accepted,
        ClientOrderIdTakenError,
    ]
    for place in (1, 3):
        refused = answers[place]
        assert isinstance(refused, ClientOrderIdTakenError)
        assert refused.order_id == first.id


def test_a_bad_row_fails_alone(database: Database) -> None:
    """Its neighbours in the batch are stored, in their order, and their events have no hole."""
    good = [new_order(), new_order(owner_id="bob"), new_order()]
    bad = new_order(owner_id="nobody")
    answers = accept(database, [good[0], bad, good[1], good[2]])
    assert [type(answer) for answer in answers] == [Accepted, NotAcceptedError, Accepted, Accepted]
    with database.read() as connection:
        assert [row.id for row in list_orders(connection, "ann")] == [good[2].id, good[0].id]
        assert [event.seq for event in events_after(connection, "ann", 0, 10)] == [1, 2]
        assert [event.seq for event in events_after(connection, "bob", 0, 10)] == [1]
        assert order_by_id(connection, "nobody", bad.id) is None


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_a_database_cannot_hold_fails_alone(database: Database, text: str) -> None:
    """NUL and lone surrogates: refused or stored, but never the end of the batch."""
    good = new_order()
    answers = accept(database, [new_order(client_order_id=text), good, new_order(idempotency_key=text)])
    assert answers[1] == Accepted(good.job_id, good.id)
    for place in (0, 2):
        assert isinstance(answers[place], Accepted | NotAcceptedError)


def test_lists_are_newest_first_and_filtered(database: Database) -> None:
    """A page begins below the sequence number of the last row of the page before."""
    new = [
        new_order(client_order_id=f"c{number}", symbol="LTC-BTC" if number % 2 else "ETH-BTC") for number in range(5)
    ]
    accept(database, new)
    with database.read() as connection:
        rows = list_orders(connection, "ann", limit=2)
        assert [row.client_order_id for row in rows] == ["c4", "c3"]
        rest = list_orders(connection, "ann", before_seq=rows[-1].seq)
        assert [row.client_order_id for row in rest] == ["c2", "c1", "c0"]
        assert [row.symbol for row in list_orders(connection, "ann", symbol="ETH-BTC")] == ["ETH-BTC"] * 3
        assert [row.id for row in list_orders(connection, "ann", client_order_id="c1")] == [new[1].id]
        assert list_orders(connection, "ann", state="filled") == []
        jobs = list_jobs(connection, "ann", limit=3)
        assert len(jobs + list_jobs(connection, "ann", before_id=jobs[-1].id)) == 5
        assert list_jobs(connection, "ann", state="done") == []


def test_a_cancel_is_asked_once(database: Database) -> None:
    """The first request's time stays, and the order goes on until the book decides."""
    new = new_order()
    accept(database, [new])
    for time_us in (NOW_US + 5, NOW_US + 9):
        row = request_cancel(database, "ann", new.id, time_us)
        assert row is not None
        assert (row.cancel_us, row.state, row.ended_us) == (NOW_US + 5, OrderState.QUEUED, None)
    assert request_cancel(database, "ann", "none", NOW_US) is None


def test_racing_batches_with_the_same_keys_store_each_once(database: Database) -> None:
    """Two API processes that are sent the same requests at the same time agree on the jobs."""
    keys = [f"k{number}" for number in range(20)]
    answers: list[list[object]] = [[], []]
    barrier = Barrier(2)

    def run(place: int) -> None:
        for key in keys:
            batch = [new_order(idempotency_key=key), new_order(idempotency_key=f"{key}-{place}")]
            barrier.wait(10)
            answers[place] += accept(database, batch)[:1]

    threads = [Thread(target=run, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for first, second in zip(*answers, strict=True):
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert first.order_id == second.order_id
        assert {first.existing, second.existing} == {True, False}
    with database.read() as connection:
        assert len(list_orders(connection, "ann", limit=1000)) == 3 * len(keys)
        events = events_after(connection, "ann", 0, 1000)
        assert [event.seq for event in events] == list(range(1, 3 * len(keys) + 1))


def test_no_database_is_said_so(tmp_path: object) -> None:
    """A database that cannot be reached raises a retryable error, before anything is written."""
    for url in (f"sqlite:///{tmp_path}/none/none.db", "postgresql+psycopg://crossfill@127.0.0.1:1/none"):
        database = Database.open(url)
        with pytest.raises(StoreUnavailableError) as raised:
            accept(database, [new_order()])
        assert raised.value.retryable
        database.close()
