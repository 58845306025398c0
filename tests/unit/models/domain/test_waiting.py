"""Why an order waits: each reason, and which one is told."""

from decimal import Decimal

import pytest

from models.domain.orders import Reason, Side
from models.domain.waiting import Offer, waiting_reason


def offer(price: str | None = "10", *, live: bool = True, enabled: bool = True, connected: bool = True) -> Offer:
    return Offer(None if price is None else Decimal(price), live=live, enabled=enabled, connected=connected)


@pytest.mark.parametrize(
    ("offers", "reason"),
    [
        ([], Reason.NO_QUOTE_YET),
        ([offer(None)], Reason.NO_QUOTE_YET),
        ([offer(live=False)], Reason.NOT_LIVE),
        ([offer(connected=False)], Reason.VENUE_STALE),
        ([offer(enabled=False)], Reason.VENUE_DISABLED),
        ([offer("9")], Reason.OUTSIDE_LIMIT),
        ([offer("10")], Reason.TAKEN_BY_OTHERS),
        ([offer(enabled=False), offer("9"), offer(None)], Reason.OUTSIDE_LIMIT),
    ],
)
def test_the_nearest_reason_is_told(offers: list[Offer], reason: Reason) -> None:
    """A seller at 10: the reason of the venue that is nearest to a fill."""
    assert waiting_reason(Side.SELL, Decimal(10), offers) is reason


def test_a_buyer_looks_at_it_from_the_other_side() -> None:
    """An ask above the limit is outside it."""
    assert waiting_reason(Side.BUY, Decimal(10), [offer("11")]) is Reason.OUTSIDE_LIMIT
