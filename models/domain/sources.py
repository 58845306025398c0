"""Sources of a consolidated price: which venues' prices count, why the others do not, and what comes of it.

`consolidate` is the one function that computes a value and its provenance. It is pure: the newest
prices, the trades and the time are its arguments, and so is what was left out before, because a source
that fell out for deviation comes back later than it went.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from models.domain.averages import Candidate, Fill, Method, average, median, quotient
from models.domain.decimals import EXACT

# A source so far from the median of all is left out, and comes back below half of it (CF Benchmarks,
# potentially erroneous data parameter of the CME CF Real Time Indices, since 2020-09-14).
DEVIATION_MAX = Decimal("0.05")
COVERAGE_MIN = Decimal("0.8")  # the part of a window that must have been seen of a source


class Input(StrEnum):
    """Which of a venue's prices is averaged."""

    LAST = "last"
    MID = "mid"
    BID = "bid"
    ASK = "ask"


class LeftOut(StrEnum):
    """Why a source does not count, in the order in which the reasons are looked at."""

    VENUE_DISABLED = "venue_disabled"
    NOT_CONNECTED = "not_connected"
    NO_PRICE_YET = "no_price_yet"
    TOO_OLD = "too_old"
    NO_CONVERSION = "no_conversion"
    DEVIATES = "deviates"
    COVERAGE = "coverage"  # of a window: too little of it was seen
    NO_VOLUME = "no_volume"  # a method that weighs by volume, and nothing was traded


@dataclass(frozen=True, slots=True)
class Conversion:
    """Another index that a price was multiplied with, because the venue's pair is in another currency."""

    pair: str
    price: Decimal


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of one venue's product. Ages are None where there is nothing that could have one.

    `convert_by` names the pair whose price turns this one's currency into the one that is asked for;
    `conversion` is that price, None where it is withheld.
    """

    venue: str
    product_id: str
    price: Decimal | None
    quote_age_us: int | None
    connection_age_us: int | None
    enabled: bool = True
    volume: Decimal = Decimal(0)
    last_trade_age_us: int | None = None
    confidence: Decimal = Decimal(0)
    convert_by: str | None = None
    conversion: Conversion | None = None
    coverage: Decimal | None = None  # of a window: the part of it that was seen


@dataclass(frozen=True, slots=True)
class Source:
    """One venue's part in a consolidated price. `reason` is None where it counts.

    `adjusted_price` is what the method used: converted, clamped. `weight` is its share, 0 to 1.
    """

    seen: Seen
    adjusted_price: Decimal | None
    weight: Decimal
    reason: LeftOut | None


@dataclass(frozen=True, slots=True)
class Consolidated:
    """A value with its sources; None where it is withheld, `problem` says why then.

    `out` are the products that deviate: hand them to the next call.
    """

    value: Decimal | None
    sources: tuple[Source, ...]
    out: frozenset[tuple[str, str]]
    confidence: Decimal | None = None
    problem: str | None = None


def consolidate(  # noqa: PLR0913 -- a pure function of all that it depends on
    method: Method,
    seen: Sequence[Seen],
    *,
    sources_min: int,
    age_us_max: int | None,
    out: Collection[tuple[str, str]] = (),
    fills: Sequence[Fill] = (),
    now_us: int = 0,
    window_us: int | None = None,
    coverage_min: Decimal = Decimal(0),
    deviation_max: Decimal | None = DEVIATION_MAX,
) -> Consolidated:
    """Return the consolidated price of what is seen, or why there is none.

    `age_us_max` None does not ask for ages; `coverage_min` is the part of a window that must be seen;
    `deviation_max` None leaves nobody out for deviation. `window_us`: see models.domain.averages.
    """
    judged = [(each, _reason(each, age_us_max, coverage_min)) for each in seen]
    usable = [(each, _converted(each)) for each, reason in judged if reason is None]
    left_out = frozenset() if deviation_max is None else _deviating(usable, frozenset(out), deviation_max)
    judged = [
        (each, LeftOut.DEVIATES if reason is None and _key(each) in left_out else reason) for each, reason in judged
    ]
    counted = [each for each, reason in judged if reason is None]
    if len(counted) < sources_min:
        missing = ", ".join(f"{each.venue} ({reason})" for each, reason in judged if reason is not None)
        needed = "1 source is" if sources_min == 1 else f"{sources_min} sources are"
        problem = f"{needed} needed, {len(counted)} can be used" + (f"; left out: {missing}" if missing else "")
        return Consolidated(None, _sources(judged), left_out, problem=problem)
    candidates = [_candidate(each) for each in counted]
    try:
        made = average(method, candidates, _converted_fills(fills, counted), now_us, window_us)
    except ValueError as error:
        return Consolidated(None, _sources(judged), left_out, problem=f"{method} has nothing to go by: {error}")
    used = dict(zip(map(_key, counted), zip(made.adjusted, made.weights, strict=True), strict=True))
    sources = tuple(
        Source(source.seen, *used[_key(source.seen)], None) if source.reason is None else source
        for source in _sources(judged)
    )
    return Consolidated(made.value, sources, left_out, made.confidence)


def _key(seen: Seen) -> tuple[str, str]:
    return seen.venue, seen.product_id


def _reason(seen: Seen, age_us_max: int | None, coverage_min: Decimal) -> LeftOut | None:
    if not seen.enabled:
        return LeftOut.VENUE_DISABLED
    if seen.coverage is not None:
        if seen.price is None or seen.coverage < coverage_min:
            return LeftOut.COVERAGE
    elif seen.connection_age_us is None:
        return LeftOut.NOT_CONNECTED
    elif seen.price is None or seen.quote_age_us is None:
        return LeftOut.NO_PRICE_YET
    elif age_us_max is not None and seen.quote_age_us > age_us_max:
        return LeftOut.TOO_OLD
    return LeftOut.NO_CONVERSION if seen.convert_by is not None and seen.conversion is None else None


def _converted(seen: Seen) -> Decimal:
    assert seen.price is not None
    return seen.price if seen.conversion is None else _product(seen.price, seen.conversion.price)


def _product(price: Decimal, factor: Decimal) -> Decimal:
    return quotient(EXACT.multiply(price, factor), Decimal(1))


def _deviating(
    usable: Sequence[tuple[Seen, Decimal]],
    out: frozenset[tuple[str, str]],
    deviation_max: Decimal,
) -> frozenset[tuple[str, str]]:
    """Return those that are too far from the median; who was out must come nearer than half of the limit."""
    trusted = [price for each, price in usable if _key(each) not in out] or [price for _, price in usable]
    if not trusted:
        return frozenset()
    centre = median(trusted)
    return frozenset(
        _key(each)
        for each, price in usable
        if abs(price - centre) > abs(centre) * (deviation_max / 2 if _key(each) in out else deviation_max)
    )


def _candidate(seen: Seen) -> Candidate:
    confidence = seen.confidence if seen.conversion is None else _product(seen.confidence, seen.conversion.price)
    return Candidate(seen.venue, seen.product_id, _converted(seen), seen.volume, seen.last_trade_age_us, confidence)


def _converted_fills(fills: Sequence[Fill], counted: Sequence[Seen]) -> Sequence[Fill]:
    """Return trades in the currency that is asked for; those of products that are not counted go."""
    factors = {_key(each): each.conversion for each in counted}
    made = []
    for fill in fills:
        key = (fill.venue, fill.product_id)
        if key in factors:
            conversion = factors[key]
            made.append(fill if conversion is None else replace(fill, price=_product(fill.price, conversion.price)))
    return made


def _sources(judged: Sequence[tuple[Seen, LeftOut | None]]) -> tuple[Source, ...]:
    return tuple(
        Source(each, None if each.price is None else _converted(each), Decimal(0), reason) for each, reason in judged
    )
