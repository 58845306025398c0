"""docs/events.md shows what is really sent: each example has the keys that the code writes."""

import json
import re
from decimal import Decimal
from typing import Any

import pytest

from models.domain.events import EventType
from models.domain.orders import Order, OrderState, Reason, Side, TimeInForce
from models.domain.outcomes import Outcome, Split
from models.domain.quotes import Market
from models.store.events import EventRow, NewEvent, as_message
from models.store.jobs import ClaimedJob, _progressed
from models.store.orders import NewOrder, _accepted_event
from models.store.outcomes import _Written
from models.store.shards import Lease
from tests.services import ROOT

EXAMPLES: list[dict[str, Any]] = [
    json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", (ROOT / "docs/events.md").read_text(), re.DOTALL)
]


def _message(event: NewEvent) -> dict[str, Any]:
    row = EventRow(event.owner_id, 1, event.type, 1, event.job_id, event.order_id, event.payload)
    return json.loads(json.dumps(as_message(row)))  # type: ignore[no-any-return] # what was just written


def _sent() -> dict[str, dict[str, Any]]:
    """Return a real message of each type."""
    word, size, price = TimeInForce.GTC, Decimal(2), Decimal("0.0001")
    new = NewOrder("o", "j", "me", 0, "LTC-BTC", Side.SELL, price, size, word, None, None, "simulated", 1, 9, None, "")
    order = Order(1, "o", "j", "me", "LTC-BTC", Side.SELL, price, size, word, None, 9)
    split = Split("binance", "LTCBTC", Side.SELL, price, size, 1, 1, size, Decimal(0), None, 1)
    outcomes = [
        Outcome(order, OrderState.WORKING, None, (), 1),
        Outcome(order, OrderState.FILLED, None, (split,), 1),
        Outcome(order, OrderState.EXPIRED, Reason.DEADLINE, (), 1),
        Outcome(order, OrderState.CANCELLED, Reason.CANCELLED, (), 1),
        Outcome(order, OrderState.REJECTED, Reason.INSTRUMENT_GONE, (), 1),
    ]
    events = [_accepted_event(new)]
    for outcome in outcomes:
        events += _Written(outcome, Lease(0, "owner", 1), 0, Market.SIMULATED, Decimal(0)).events()
    events.append(_progressed(ClaimedJob("j", "me", "average", {}, 1, "w"), {"done": 1, "parts": 2}))
    return {event.type.value: _message(event) for event in events}


def test_every_event_has_an_example() -> None:
    """No more and no fewer than the code knows."""
    assert sorted(example["type"] for example in EXAMPLES) == sorted(EventType)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["type"])
def test_an_example_is_what_is_sent(example: dict[str, Any]) -> None:
    """The same keys with values of the same kind."""
    sent = _sent()[example["type"]]
    assert example.keys() == sent.keys()
    for key, value in sent.items():
        assert isinstance(example[key], type(value) | None) or value is None, key
