"""Answers in the historical form, for those who come from another service; see docs/coming-from.md."""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from starlette.responses import Response

from models.domain.decimals import plain
from models.domain.orders import OrderState
from models.domain.sources import Source
from models.store.rows import OrderRow


def ended_message(order: OrderRow) -> tuple[int, dict[str, Any]]:
    """Return status and message for an order that has ended: filled, or not."""
    if order.state is OrderState.FILLED:
        return 200, {"message": "Order successfully fulfilled"}
    return 400, {"message": "Order not fulfilled"}


def price_success(price: Decimal, market: str, sources: Sequence[Source]) -> Response:
    """Return an average price. The number keeps every digit, so it is written here and not by a float."""
    beside = json.dumps({"market": market, "sources": [_source_json(source) for source in sources]})[1:-1]
    body = f'{{"status": "success", "data": {{"price": {plain(price)}, {beside}}}}}'
    return Response(body, media_type="application/json")


def price_error(
    status: int,
    message: str,
    *,
    sources: Sequence[Source] | None = None,
    **more: Any,  # noqa: ANN401 -- members of the answer
) -> Response:
    """Return why there is no average price."""
    if sources is not None:
        more["sources"] = [_source_json(source) for source in sources]
    body = json.dumps({"status": "error", "error": {"message": message, **more}})
    headers = {"Retry-After": "1"} if status == 503 else None  # noqa: PLR2004 -- not available now
    return Response(body, status, headers, media_type="application/json")


def _source_json(source: Source) -> dict[str, Any]:
    seen = source.seen
    return {
        "venue": seen.venue,
        "price": plain(seen.price) if seen.price is not None else None,
        "age_ms": seen.quote_age_us // 1000 if seen.quote_age_us is not None else None,
        "reason": source.reason,
    }
