"""Audit of stored averages: each is made again from the sources that its job's result names. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from models.domain.audit import Violation
from models.domain.averages import OF_TRADES, Method
from models.domain.decimals import plain
from models.domain.sources import COVERAGE_MIN, Consolidated, LeftOut, Seen, Source, consolidate

# What an average's sources did not name before the audit was written, and the methods that need it.
LATER = {Method.VOTES: "half_spread", Method.VOLUME_DECAY: "last_trade_age_us"}


def recomputable(result: Mapping[str, Any]) -> bool:
    """Say whether an average's values follow from its stored sources alone.

    Two methods are made of the trades themselves, which are not stored; of these the sources are
    checked, their weights and who was left out, and not the value.
    """
    method = Method(result["method"])
    return method not in OF_TRADES and all(
        LATER[method] in source for part in result["parts"] for source in part["sources"] if method in LATER
    )


def check_average(job_id: str, payload: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield what does not hold of a stored average. Raises ValueError, KeyError and the like where it is none."""
    subject = f"job {job_id}"
    for name in ("method", "input", "start", "end"):
        if payload[name] != result[name]:
            sentence = f"{subject} was asked for the {name} {payload[name]}, and has {result[name]}"
            yield Violation(f"average.{name}", subject, sentence)
    pairs = [part["pair"] for part in result["parts"]]
    if pairs != payload["pairs"]:
        yield Violation("average.pairs", subject, f"{subject} was asked for {payload['pairs']}, and has {pairs}")
    for part in result["parts"]:
        yield from _check_part(f"{subject}, {part['pair']}", payload, Method(result["method"]), part)


def _check_part(
    subject: str, payload: Mapping[str, Any], method: Method, part: Mapping[str, Any]
) -> Iterator[Violation]:
    sources: Sequence[Mapping[str, Any]] = part["sources"]
    known = method not in OF_TRADES and (method not in LATER or all(LATER[method] in each for each in sources))
    # The weights of what is made of trades are shares of what was traded, as are those of `volume_weighted`.
    made = consolidate(
        Method.VOLUME_WEIGHTED if method in OF_TRADES else method,
        [_seen(source) for source in sources],
        sources_min=min(payload["min_sources"], len(sources)),
        age_us_max=None,
        coverage_min=COVERAGE_MIN,
    )
    found: dict[str, Any] = {}
    if known:
        found = {"value": _text(made.value), "problem": made.problem}
        if made.confidence is not None:
            found["confidence"] = plain(made.confidence)
    for name, right in found.items():
        if part.get(name) != right:
            sentence = f"{subject} has the {name} {part.get(name)}; its sources make {right}"
            yield Violation(f"average.{name}", subject, sentence)
    yield from _check_sources(subject, method, made, sources, known=known)


def _check_sources(
    subject: str, method: Method, made: Consolidated, sources: Sequence[Mapping[str, Any]], *, known: bool
) -> Iterator[Violation]:
    for source, stored in zip(made.sources, sources, strict=True):
        right: dict[str, Any] = {"reason": source.reason}
        if known or (method in OF_TRADES and made.value is not None):
            right |= _shown(source)
        for name, value in right.items():
            if stored[name] != value:
                sentence = f"{subject} has the {name} {stored[name]} for {stored['venue']}; it must be {value}"
                yield Violation(f"average.source.{name}", subject, sentence)


def _shown(source: Source) -> dict[str, Any]:
    return {"adjusted_price": _text(source.adjusted_price), "weight": plain(source.weight)}


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _seen(source: Mapping[str, Any]) -> Seen:
    # Whether the venue was on is known from the reason alone.
    return Seen(
        source["venue"],
        source["product_id"],
        None if source["raw_price"] is None else Decimal(source["raw_price"]),
        None,
        None,
        source["reason"] != LeftOut.VENUE_DISABLED,
        Decimal(source["volume"]),
        source.get("last_trade_age_us"),
        Decimal(source.get("half_spread") or 0),
        coverage=Decimal(source["coverage"]),
    )
