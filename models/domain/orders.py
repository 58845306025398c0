"""Orders and jobs: their words, their states, and which moves between states are legal."""

from decimal import Decimal
from enum import StrEnum

import msgspec

from models.domain.errors import CrossfillError


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class TimeInForce(StrEnum):
    """GTD ends at its deadline, GTC never by itself, IOC and FOK in the step that places them."""

    GTD = "GTD"
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class OrderState(StrEnum):
    QUEUED = "queued"
    WORKING = "working"
    FILLED = "filled"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def ended(self) -> bool:
        """Whether no further move is legal."""
        return not _ORDER_MOVES[self]


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Reason(StrEnum):
    """Why an order ended, or (the second group) why it still waits."""

    DEADLINE = "deadline"
    IOC = "ioc"
    FOK = "fok"
    CANCELLED = "cancelled"  # asked for by the owner
    INSTRUMENT_GONE = "instrument_gone"
    STEP_FAILED = "step_failed"

    QUEUED = "queued"
    OTHER_MARKET = "other_market"  # than the one that runs: its own must run again
    NO_QUOTE_YET = "no_quote_yet"
    NOT_LIVE = "not_live"
    OUTSIDE_LIMIT = "outside_limit"
    TAKEN_BY_OTHERS = "taken_by_others"
    VENUE_STALE = "venue_stale"
    VENUE_DISABLED = "venue_disabled"


_ORDER_MOVES: dict[OrderState, frozenset[OrderState]] = {
    OrderState.QUEUED: frozenset(
        {
            OrderState.WORKING,
            OrderState.FILLED,
            OrderState.EXPIRED,
            OrderState.CANCELLED,
            OrderState.REJECTED,
        },
    ),
    OrderState.WORKING: frozenset(
        {OrderState.FILLED, OrderState.EXPIRED, OrderState.CANCELLED},
    ),
    OrderState.FILLED: frozenset(),
    OrderState.EXPIRED: frozenset(),
    OrderState.CANCELLED: frozenset(),
    OrderState.REJECTED: frozenset(),
}


class IllegalTransitionError(CrossfillError):
    """An order was asked to make a move that its state does not allow."""

    def __init__(self, order_id: str, before: OrderState, after: OrderState) -> None:
        super().__init__(f"order {order_id} is {before} and cannot become {after}")
        self.order_id = order_id
        self.before = before
        self.after = after


def check_transition(order_id: str, before: OrderState, after: OrderState) -> None:
    """Raise IllegalTransitionError unless the order may move from `before` to `after`."""
    if after not in _ORDER_MOVES[before]:
        raise IllegalTransitionError(order_id, before, after)


def job_state_of(order_state: OrderState) -> JobState:
    """Return the state of the job that carries an order: an expired order is a done job."""
    if order_state is OrderState.QUEUED:
        return JobState.QUEUED
    if order_state is OrderState.WORKING:
        return JobState.RUNNING
    return JobState.FAILED if order_state is OrderState.REJECTED else JobState.DONE


class Order(msgspec.Struct, frozen=True, gc=False):
    """A limit order as the book takes it: accepted, validated, with what it got so far.

    A frozen msgspec struct: a dataclass of so many fields takes 3 us to make, this 0.1, and each order is made
    again with each fill. `seq` is the accept sequence (priority within a price). `venues` is None for every venue that
    lists the symbol. `deadline_us` is None for GTC.
    """

    seq: int
    id: str
    job_id: str
    owner_id: str
    symbol: str
    side: Side
    price: Decimal
    size: Decimal
    time_in_force: TimeInForce
    venues: frozenset[str] | None
    deadline_us: int | None
    state: OrderState = OrderState.QUEUED
    filled_size: Decimal = Decimal(0)
    filled_value: Decimal = Decimal(0)  # sum of price * size over the splits so far
