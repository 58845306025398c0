"""Orders, splits and outcomes to write."""

from decimal import Decimal
from itertools import count
from typing import Any

import msgspec

from models.domain.identifiers import uuid7
from models.domain.orders import Order, OrderState, Reason, Side, TimeInForce
from models.domain.outcomes import Outcome, Split
from models.store.book import queued
from models.store.database import Database
from models.store.orders import Accepted, NewOrder, accept

NOW_US = 1_790_000_000_123_456
_numbers = count(1)


def new_order(**values: Any) -> NewOrder:
    """Return an order to accept: ann sells 10 LTC at 0.0001 BTC or better."""
    given = {
        "id": uuid7(NOW_US),
        "job_id": uuid7(NOW_US),
        "owner_id": "ann",
        "shard": 0,
        "symbol": "LTC-BTC",
        "side": Side.SELL,
        "price": Decimal("0.0001"),
        "size": Decimal(10),
        "time_in_force": TimeInForce.GTD,
        "venues": None,
        "client_order_id": None,
        "market": "simulated",
        "created_us": NOW_US,
        "deadline_us": NOW_US + 30_000_000,
        "idempotency_key": None,
        "fingerprint": "f",
        "task_id": None,
    }
    return NewOrder(**{**given, **values})


def accepted(database: Database, **values: Any) -> Order:
    """Accept one order and return it as the book takes it."""
    answer = accept(database, [new_order(**values)])[0]
    assert isinstance(answer, Accepted)
    with database.read() as connection:
        return next(order for order in queued(connection, 0, 10_000) if order.id == answer.order_id)


def split(size: str, price: str = "0.0001", **values: Any) -> Split:
    """Return a part that a Binance quote filled."""
    given = {
        "venue": "binance",
        "product_id": "LTCBTC",
        "side": Side.SELL,
        "price": Decimal(price),
        "size": Decimal(size),
        "token": 1,
        "quote_number": next(_numbers),
        "shown": Decimal(100),
        "taken_before": Decimal(0),
        "exchange_time_us": None,
        "received_time_us": NOW_US,
    }
    return Split(**{**given, **values})


def outcome(order: Order, state: OrderState, *splits: Split, reason: Reason | None = None) -> Outcome:
    """Return what a step did to an order."""
    return Outcome(order, state, reason, splits, NOW_US + 1_000_000)


def after(done: Outcome) -> Order:
    """Return the order of an outcome as the book has it afterwards."""
    size = sum((each.size for each in done.splits), done.order.filled_size)
    value = sum((each.size * each.price for each in done.splits), done.order.filled_value)
    return msgspec.structs.replace(done.order, state=done.state, filled_size=size, filled_value=value)
