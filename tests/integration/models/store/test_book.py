from decimal import Decimal

from models.domain.orders import OrderState, Reason, Side, TimeInForce
from models.domain.quotes import Market
from models.store.book import cancels, queued, working
from models.store.database import Database
from models.store.orders import accept, request_cancel
from models.store.outcomes import commit_outcomes
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
