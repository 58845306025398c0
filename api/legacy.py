"""Answers in the historical form, for those who come from another service; see docs/coming-from.md."""

import json
from decimal import Decimal
from typing import Any

from starlette.responses import Response

from models.domain.averages import Source
from models.domain.decimals import plain
from models.domain.orders import OrderState
from models.store.rows import OrderRow


def ended_message(order: OrderRow) -> tuple[int, dict[str, Any]]:
    """Return status and message for an order that has ended: filled, or not."""
    if order.state is OrderState.FILLED:
        return 200, {"message": "Order successfully fulfilled"}
    return 400, {"message": "Order not fulfilled"}


def price_success(price: Decimal, market: str, sources: list[dict[str, Any]]) -> Response:
    """Return an average price. The number keeps every digit, so it is written here and not by a float."""
    beside = json.dumps({"market": market, "sources": sources})[1:-1]
    body = f'{{"status": "success", "data": {{"price": {plain(price)}, {beside}}}}}'
    return Response(body, media_type="application/json")


def price_error(status: int, message: str, **more: Any) -> Response:  # noqa: ANN401 -- members of the answer
    """Return why there is no average price."""
    body = json.dumps({"status": "error", "error": {"message": message, **more}})
    headers = {"Retry-After": "1"} if status == 503 else None  # noqa: PLR2004 -- not available now
    return Response(body, status, headers, media_type="application/json")


def source_json(source: Source) -> dict[str, Any]:
    """Return what a venue gave to an average, and why not."""
    price = plain(source.price) if source.price is not None else None
    age_ms = source.age_us // 1000 if source.age_us is not None else None
    return {"venue": source.venue, "price": price, "age_ms": age_ms, "reason": source.reason}
