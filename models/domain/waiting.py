"""Why an open order is not filled now, as far as the newest quotes of its venues tell. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from models.domain.orders import Reason, Side

# The reason nearest to a fill is the one that is told.
NEAREST_FIRST = (
    Reason.TAKEN_BY_OTHERS,
    Reason.OUTSIDE_LIMIT,
    Reason.NOT_LIVE,
    Reason.VENUE_STALE,
    Reason.VENUE_DISABLED,
    Reason.NO_QUOTE_YET,
)


@dataclass(frozen=True, slots=True)
class Offer:
    """What one venue shows to an order: the price that it would get, None where there is none."""

    price: Decimal | None
    live: bool
    enabled: bool
    connected: bool


def nearest(reasons: Iterable[Reason]) -> Reason:
    """Return the reason that is nearest to a fill; `no_quote_yet` where there is none."""
    found = set(reasons)
    return next((reason for reason in NEAREST_FIRST if reason in found), Reason.NO_QUOTE_YET)


def waiting_reason(side: Side, limit: Decimal, offers: Iterable[Offer]) -> Reason:
    """Return why an order with this limit waits, from what each of its venues shows."""
    return nearest(_reason(side, limit, offer) for offer in offers)


def _reason(side: Side, limit: Decimal, offer: Offer) -> Reason:
    if not offer.enabled:
        return Reason.VENUE_DISABLED
    if not offer.connected:
        return Reason.VENUE_STALE
    if offer.price is None:
        return Reason.NO_QUOTE_YET
    if not offer.live:
        return Reason.NOT_LIVE
    crosses = offer.price >= limit if side is Side.SELL else offer.price <= limit
    return Reason.TAKEN_BY_OTHERS if crosses else Reason.OUTSIDE_LIMIT
