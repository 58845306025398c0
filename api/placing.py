"""From the body of POST /order/limit to a validated order: pure, but for the time that is handed in."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec

from api.parsing import number, text, word
from api.problems import bad_field
from models.domain.decimals import plain
from models.domain.instruments import Instrument, Instruments, StepError, UnknownSymbolError
from models.domain.orders import Side, TimeInForce

FIELDS = ("symbol", "order_size", "price", "side", "venues", "time_in_force", "timeout_s", "client_order_id")
REQUIRED = ("symbol", "order_size", "price")
CLIENT_ORDER_ID_MAX = 64
TIMEOUT_S_MAX = 86_400


@dataclass(frozen=True, slots=True)
class Ticket:
    """An order as it was asked for, in canonical form. `timeout_us` is None where the body names none."""

    instrument: Instrument
    side: Side
    size: Decimal
    price: Decimal
    venues: tuple[str, ...] | None
    time_in_force: TimeInForce
    timeout_us: int | None
    client_order_id: str | None

    def deadline_us(self, accepted_us: int, default_us: int) -> int | None:
        """Return when the order ends by itself: after its own timeout or the default; None where it does not."""
        if self.time_in_force is TimeInForce.GTC:
            return None
        return accepted_us + (default_us if self.timeout_us is None else self.timeout_us)

    def fingerprint(self) -> str:
        """Return a hash of what was asked: equal for bodies that mean the same, `1e-4` and `"0.0001"` alike."""
        parts: list[object] = [self.instrument.symbol, self.side, plain(self.size), plain(self.price), self.venues]
        parts += [self.time_in_force, self.timeout_us, self.client_order_id]
        return sha256(msgspec.json.encode(parts)).hexdigest()


def read_ticket(body: Mapping[str, Any], instruments: Instruments) -> Ticket:
    """Return the order that a body asks for. Raises ProblemError, which names the field."""
    for field in body:
        if field not in FIELDS:
            raise bad_field(field, "is unknown", allowed=list(FIELDS))
    for field in REQUIRED:
        if field not in body:
            raise bad_field(field, "is missing")
    try:
        instrument = instruments.resolve(text("symbol", body["symbol"], 32))
    except UnknownSymbolError as error:
        raise bad_field("symbol", str(error), near=error.near) from error
    time_in_force = word("time_in_force", body.get("time_in_force") or TimeInForce.GTD, TimeInForce)
    size, price = number("order_size", body["order_size"]), number("price", body["price"])
    try:
        instrument.scale_size(size)
        instrument.scale_price(price)
    except StepError as error:
        raise bad_field(error.field, str(error).removeprefix(f"{error.field} "), step=plain(error.step)) from error
    client_order_id = body.get("client_order_id")
    return Ticket(
        instrument=instrument,
        # Left out it sells, as this endpoint always did.
        side=word("side", body.get("side") or Side.SELL, Side),
        size=size,
        price=price,
        venues=_venues(body.get("venues"), instrument),
        time_in_force=time_in_force,
        timeout_us=_timeout(body.get("timeout_s"), time_in_force),
        client_order_id=None
        if client_order_id is None
        else text("client_order_id", client_order_id, CLIENT_ORDER_ID_MAX),
    )


def _venues(value: object, instrument: Instrument) -> tuple[str, ...] | None:
    if value is None:
        return None
    allowed = sorted(instrument.venues)
    if not isinstance(value, list) or not value:
        raise bad_field("venues", "must be a list of venues, or left out for all of them", allowed=allowed)
    for venue in value:
        if venue not in allowed:
            problem = f"{venue!r} does not list {instrument.symbol}; it is listed by {', '.join(allowed)}"
            raise bad_field("venues", problem, allowed=allowed)
    return tuple(sorted(set(value)))


def _timeout(value: object, time_in_force: TimeInForce) -> int | None:
    if value is None:
        return None
    if time_in_force is not TimeInForce.GTD:
        raise bad_field("timeout_s", f"goes with GTD only, and the order is {time_in_force}")
    seconds = number("timeout_s", value)
    if not 1 <= seconds <= TIMEOUT_S_MAX:
        raise bad_field("timeout_s", f"{plain(seconds)} is out of range; 1 to {TIMEOUT_S_MAX} seconds")
    return int(seconds * 1_000_000)
