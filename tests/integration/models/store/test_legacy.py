from decimal import Decimal

from sqlalchemy import text

from models.domain.orders import OrderState, Reason
from models.domain.quotes import Market
from models.store.database import Database
from models.store.outcomes import commit_outcomes
from models.store.shards import claim
from tests.integration.models.store.samples import accepted, outcome, split


def test_filled_orders_are_seen_as_the_older_service_had_them(database: Database) -> None:
    """Only filled ones, at their average price, each split with the number of its quote."""
    (lease,) = claim(database, "owner", 1, 60_000_000)
    filled, partly = accepted(database), accepted(database)
    parts = [split("4", "0.0001", quote_number=41), split("6", "0.0002", quote_number=42)]
    outcomes = [
        outcome(filled, OrderState.FILLED, *parts),
        outcome(partly, OrderState.EXPIRED, split("1"), reason=Reason.DEADLINE),
    ]
    commit_outcomes(database, lease, 7, outcomes, [], market=Market.SIMULATED)
    with database.read() as connection:
        (order,) = connection.execute(text("SELECT * FROM fulfilled_orders")).all()
        splits = connection.execute(text("SELECT * FROM fulfilled_order_splits ORDER BY update_id")).all()
    assert order._fields == ("id", "created_at", "symbol", "quantity", "price")
    assert (order.id, order.symbol) == (filled.id, "LTCBTC")
    assert str(order.created_at).startswith("2026-09-21 14:13:20.123456")
    assert (Decimal(order.quantity), Decimal(order.price)) == (Decimal(10), Decimal("0.00016"))
    assert splits[0]._fields == ("id", "order_id", "update_id", "quantity", "price")
    assert [(row.id, row.order_id, row.update_id) for row in splits] == [
        ("0-1-7-0", filled.id, 41),
        ("0-1-7-1", filled.id, 42),
    ]
    assert [(Decimal(row.quantity), Decimal(row.price)) for row in splits] == [
        (Decimal(4), Decimal("0.0001")),
        (Decimal(6), Decimal("0.0002")),
    ]
