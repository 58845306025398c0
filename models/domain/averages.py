"""Averages of prices over venues, with what each is made of. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

PRECISION = 28  # significant digits of a mean, which has no exact decimal form
_MEAN = Context(prec=PRECISION, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Source:
    """One venue's last price. `reason` says why it is left out; None where it counts."""

    venue: str
    price: Decimal | None
    age_us: int | None
    reason: str | None


def judge(
    venue: str,
    price: Decimal | None,
    age_us: int | None,
    *,
    enabled: bool,
    connected: bool,
    age_us_max: int,
) -> Source:
    """Return a venue's price with the first reason that speaks against it."""
    reason = None
    if not enabled:
        reason = "venue_disabled"
    elif not connected:
        reason = "not_connected"
    elif price is None or age_us is None:
        reason = "no_price_yet"
    elif age_us > age_us_max:
        reason = "too_old"
    return Source(venue, price, age_us, reason)


def mean(sources: Sequence[Source]) -> Decimal:
    """Return the arithmetic mean of the prices that count, to 28 significant digits, half-even.

    Raises ValueError where none counts.
    """
    prices = [source.price for source in sources if source.reason is None and source.price is not None]
    if not prices:
        raise ValueError("no price counts")
    total = Decimal(0)
    for price in prices:
        total = _MEAN.add(total, price)
    return _MEAN.divide(total, Decimal(len(prices)))
