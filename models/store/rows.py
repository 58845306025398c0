"""Rows as the rest of the house sees them: frozen, with the domain's types."""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from sqlalchemy import Row

from models.domain.orders import JobState, OrderState, Reason, Side, TimeInForce
from models.domain.records import AuditedSplit

# An average has no exact decimal form; it is shown with 28 significant digits, half-even.
_AVERAGE = Context(prec=28, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order as the database has it."""

    seq: int
    id: str
    job_id: str
    owner_id: str
    shard: int
    symbol: str
    side: Side
    price: Decimal
    size: Decimal
    time_in_force: TimeInForce
    venues: tuple[str, ...] | None
    client_order_id: str | None
    state: OrderState
    reason: Reason | None
    filled_size: Decimal
    filled_value: Decimal
    avg_price: Decimal | None  # size-weighted mean of the splits, to 28 significant digits; None without any
    market: str
    created_us: int
    deadline_us: int | None
    cancel_us: int | None
    ended_us: int | None

    @property
    def remaining_size(self) -> Decimal:
        """What is not filled."""
        return self.size - self.filled_size


def average(value: Decimal, size: Decimal) -> Decimal | None:
    """Return value / size to 28 significant digits, half-even; None where the size is 0."""
    return _AVERAGE.divide(value, size).normalize() if size else None


SplitRow = AuditedSplit  # it is what the audit reads, too


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as the database has it."""

    id: str
    owner_id: str
    kind: str
    state: JobState
    task_id: str | None
    attempts: int
    created_us: int
    ended_us: int | None
    due_us: int
    payload: dict[str, Any]
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: str | None


def order_row(row: Row[Any]) -> OrderRow:
    """Build an OrderRow from a row of the table `orders`."""
    values = dict(row._mapping)  # noqa: SLF001 -- the documented name
    values["side"] = Side(values["side"])
    values["time_in_force"] = TimeInForce(values["time_in_force"])
    values["state"] = OrderState(values["state"])
    values["reason"] = Reason(values["reason"]) if values["reason"] else None
    values["venues"] = tuple(values["venues"].split(",")) if values["venues"] else None
    return OrderRow(**values)


def split_row(row: Row[Any]) -> SplitRow:
    """Build a SplitRow from a row of the table `splits`."""
    return SplitRow(**{**row._mapping, "side": Side(row.side)})  # noqa: SLF001 -- the documented name
