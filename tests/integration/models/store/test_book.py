from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from models.domain.orders import OrderState, Reason, Side, TimeInForce
from models.domain.quotes import Market
from models.store.book import cancels, queued, working
from models.store.database import Database
from models.store.orders import accept, request_cancel
from models.store.outcomes import commit_outcomes
from models.store.schema import migrate
from models.store.shards import claim
from tests.integration.models.store.samples import NOW_US, accepted, after, new_order, outcome, split


def test_what_waits_is_read_in_accept_order(database: Database) -> None:
    """Only of the shard, only what is in no book yet, at most the limit."""
    new = [new_order() for _ in range(5)]
    accept(database, [*new, new_order(shard=1)])
    with database.read() as connection:
        orders = queued(connection, 0, 3)
        assert [order.id for order in orders] == [each.id for each in new[:3]]
        assert orders == sorted(orders, key=lambda order: order.seq)
        assert len(queued(connection, 1, 10)) == 1
        assert working(connection, 0, 10) == []


def test_working_orders_are_read_in_pages(database: Database) -> None:
    """Each page begins after the last order of the one before."""
    accept(database, [new_order() for _ in range(5)])
    lease = claim(database, "owner", 1, 60_000_000)[0]
    with database.read() as connection:
        waiting = queued(connection, 0, 10)
    rested = [outcome(each, OrderState.WORKING) for each in waiting]
    commit_outcomes(database, lease, 0, rested, [], market=Market.SIMULATED)
    with database.read() as connection:
        pages = [working(connection, 0, 2), working(connection, 0, 2, after_seq=waiting[1].seq)]
        pages.append(working(connection, 0, 2, after_seq=waiting[3].seq))
    assert [[each.seq for each in page] for page in pages] == [
        [each.seq for each in waiting[:2]],
        [each.seq for each in waiting[2:4]],
        [waiting[4].seq],
    ]
    assert pages[0][0].size is pages[2][0].size  # equal numbers are kept once


@pytest.mark.parametrize(
    ("read", "index"),
    [
        (lambda connection: queued(connection, 0, 10, Market.SIMULATED), "orders_open"),
        (lambda connection: working(connection, 0, 10, Market.SIMULATED, after_seq=5), "orders_open"),
        (lambda connection: cancels(connection, 0, Market.SIMULATED), "orders_cancel"),
    ],
)
def test_what_a_loop_reads_grows_with_what_it_finds_and_not_with_what_rests(
    tmp_path: Path, read: Callable[[Connection], object], index: str
) -> None:
    """SQLite looks for nothing but what is asked for, by an index that has it in accept order."""
    url = f"sqlite:///{tmp_path / 'crossfill.db'}"
    migrate(url)
    with closing(Database.open(url)) as database, database.read() as connection:
        asked: list[tuple[str, Any]] = []
        event.listen(connection, "before_cursor_execute", lambda _c, _u, text, given, *_: asked.append((text, given)))
        read(connection)
        [(statement, given)] = asked
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)]
    assert len(plan) == 1, plan  # no sorting, no second look
    assert f"INDEX {index} (shard=?" in plan[0]


def test_an_order_is_read_as_it_was_accepted(database: Database) -> None:
    """Exact numbers, words as enums, venues as a set."""
    values = {
        "side": Side.BUY,
        "price": Decimal("0.00000000000000000123"),
        "size": Decimal("9223372036854775807.000000010"),
        "time_in_force": TimeInForce.GTC,
        "venues": ("coinbase", "binance"),
        "deadline_us": None,
    }
    order = accepted(database, **values)
    assert (order.side, order.price, order.size) == (Side.BUY, values["price"], values["size"])
    assert (order.time_in_force, order.deadline_us) == (TimeInForce.GTC, None)
    assert order.venues == frozenset({"binance", "coinbase"})
    assert (order.state, order.filled_size, order.filled_value) == (OrderState.QUEUED, Decimal(0), Decimal(0))


def test_cancels_are_read_until_the_order_ends(database: Database) -> None:
    """Of queued and of working orders alike; an ended order cannot be cancelled."""
    (lease,) = claim(database, "owner", 1, 60_000_000)
    first, second = accepted(database), accepted(database)
    working = outcome(first, OrderState.WORKING, split("1"))
    commit_outcomes(database, lease, 1, [working], [], market=Market.SIMULATED)
    for order in (second, first):
        request_cancel(database, "ann", order.id, NOW_US)
    with database.read() as connection:
        assert cancels(connection, 0) == [first.seq, second.seq]
        assert cancels(connection, 1) == []
    ends = [outcome(order, OrderState.CANCELLED, reason=Reason.CANCELLED) for order in (after(working), second)]
    commit_outcomes(database, lease, 2, ends, [], market=Market.SIMULATED)
    row = request_cancel(database, "ann", first.id, NOW_US + 5)
    assert row is not None
    assert (row.state, row.cancel_us) == (OrderState.CANCELLED, NOW_US)
    with database.read() as connection:
        assert cancels(connection, 0) == []
