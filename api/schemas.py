"""What answers look like. Prices and sizes are texts, times RFC 3339 in UTC; JSON numbers would lose digits."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.domain.decimals import plain
from models.domain.orders import OrderState, Reason
from models.store.events import rfc3339
from models.store.rows import JobRow, OrderRow, SplitRow


class LimitOrder(BaseModel):
    """The body of POST /order/limit. Numbers may be JSON numbers or texts; either is taken exactly."""

    model_config = ConfigDict(extra="forbid")

    symbol: str = Field(examples=["LTCBTC"])
    order_size: str | float = Field(examples=[1000])
    price: str | float = Field(examples=[0.0001])
    side: str = Field(default="sell", examples=["sell", "buy"])
    venues: list[str] | None = Field(default=None, examples=[["binance"]])
    time_in_force: str = Field(default="GTD", examples=["GTD", "GTC", "IOC", "FOK"])
    timeout_s: str | float | None = Field(default=None, examples=[30])
    client_order_id: str | None = None


def order_json(row: OrderRow) -> dict[str, Any]:
    """Return an order as every answer shows it."""
    waiting = Reason.QUEUED.value if row.state is OrderState.QUEUED else None
    return {
        "id": row.id,
        "job_id": row.job_id,
        "symbol": row.symbol,
        "side": row.side.value,
        "size": plain(row.size),
        "price": plain(row.price),
        "time_in_force": row.time_in_force.value,
        "venues": list(row.venues) if row.venues else None,
        "client_order_id": row.client_order_id,
        "state": row.state.value,
        "reason": row.reason.value if row.reason else waiting,
        "filled_size": plain(row.filled_size),
        "remaining_size": plain(row.remaining_size),
        "avg_price": plain(row.avg_price) if row.avg_price is not None else None,
        "market": row.market,
        "created": rfc3339(row.created_us),
        "deadline": rfc3339(row.deadline_us),
        "ended": rfc3339(row.ended_us),
    }


def split_json(row: SplitRow) -> dict[str, Any]:
    """Return a split with the quote that it came from."""
    return {
        "id": row.id,
        "venue": row.venue,
        "product_id": row.product_id,
        "price": plain(row.price),
        "size": plain(row.size),
        "fee": plain(row.fee),
        "token": row.token,
        "quote_number": row.quote_number,
        "shown": plain(row.shown),
        "taken_before": plain(row.taken_before),
        "exchange_time": rfc3339(row.exchange_time_us),
        "received_time": rfc3339(row.received_time_us),
        "time": rfc3339(row.created_us),
        "market": row.market,
    }


def job_json(row: JobRow, flower_url: str) -> dict[str, Any]:
    """Return a job, with a link to the Celery task that carried it (Flower's memory is short)."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state.value,
        "created": rfc3339(row.created_us),
        "ended": rfc3339(row.ended_us),
        "payload": row.payload,
        "result": row.result,
        "error": row.error,
        "task_id": row.task_id,
        "task_url": f"{flower_url}/task/{row.task_id}" if row.task_id else None,
    }
