"""What a step of the book takes besides quotes and orders, and what it gives.

What it gives are frozen msgspec structs: making a dataclass of the same takes six times as long.
"""

from dataclasses import dataclass
from decimal import Decimal

import msgspec

from models.domain.orders import Order, OrderState, Reason, Side


@dataclass(frozen=True, slots=True)
class VenueSwitch:
    """A venue was switched on or off."""

    venue: str
    enabled: bool


class Split(msgspec.Struct, frozen=True, gc=False):
    """A part of an order that was filled, and the quote that it came from.

    `shown` is what the level showed, `taken_before` what had been taken from it before this split.
    """

    venue: str
    product_id: str
    side: Side
    price: Decimal
    size: Decimal
    token: int
    quote_number: int
    shown: Decimal
    taken_before: Decimal
    exchange_time_us: int | None
    received_time_us: int


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What one step did to one order. `order` is as it was before; `reason` says why it ended unfilled."""

    order: Order
    state: OrderState
    reason: Reason | None
    splits: tuple[Split, ...]
    time_us: int


class Level(msgspec.Struct, frozen=True, gc=False):
    """What was taken from a level, seen from the side of the orders that take it; 0: forget it."""

    venue: str
    product_id: str
    side: Side
    price: Decimal
    taken: Decimal


class StepResult(msgspec.Struct, frozen=True):
    """Outcomes in book order, levels changed since the last result, and whether work is left."""

    outcomes: list[Outcome]
    levels: list[Level]
    more: bool
