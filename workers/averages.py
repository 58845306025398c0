"""Averages over windows: what a price job computes, from the history on the bus and before that from the archive."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import redis

from models.archive.files import Archive
from models.archive.layout import Entry
from models.archive.reading import read_chunks, read_spans
from models.bus.history import entry_range, kept_from_ms, numbered_chunks, numbered_spans
from models.bus.names import history_stream, spans_stream
from models.domain.averages import Fill, Method
from models.domain.decimals import EXACT, plain
from models.domain.history import Chunk, Sample, Span, WindowMean, fills_of, price_of, window_mean
from models.domain.instruments import Instrument, Instruments, Product
from models.domain.sources import COVERAGE_MIN, Consolidated, Input, Seen, Source, consolidate

HALF = Decimal("0.5")


@dataclass(frozen=True)
class AverageWanted:
    """A price job's payload."""

    pairs: tuple[str, ...]
    method: Method
    input: Input
    venues: frozenset[str] | None
    sources_min: int
    start: str
    end: str
    start_us: int
    end_us: int


def wanted_of(payload: Mapping[str, Any]) -> AverageWanted:
    """Return what a job's payload asks for."""
    return AverageWanted(
        tuple(payload["pairs"]),
        Method(payload["method"]),
        Input(payload["input"]),
        frozenset(payload["venues"]) if payload["venues"] else None,
        payload["min_sources"],
        payload["start"],
        payload["end"],
        payload["start_us"],
        payload["end_us"],
    )


def compute(
    wanted: AverageWanted,
    instruments: Instruments,
    bus: redis.Redis,
    archive: Archive,
    enabled: Mapping[str, bool],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Return the result of a price job; `progress` hears of each part but the last.

    For each venue the time-weighted mean of the input over the window, then the method over venues;
    each part says what it is made of. Raises BusUnavailableError,
    ArchiveError where the bus begins later, and UnknownSymbolError for a pair that is gone.
    """
    parts, broken = [], set[str]()
    spans: dict[str, list[Span]] = {}
    for done, pair in enumerate(wanted.pairs, 1):
        instrument = instruments.resolve(pair)
        chunks = _chunks(bus, archive, pair, wanted, broken)
        for product in instrument.products:
            if product.venue not in spans:
                spans[product.venue] = _spans(bus, archive, product.venue, wanted, broken)
        parts.append(part_of(wanted, instrument, chunks, spans, enabled))
        if done < len(wanted.pairs):
            progress(done, len(wanted.pairs))
    return {
        "method": wanted.method.value,
        "input": wanted.input.value,
        "start": wanted.start,
        "end": wanted.end,
        "market": archive.market,
        "parts": parts,
        **({"files_broken": sorted(broken)} if broken else {}),
    }


def _chunks(bus: redis.Redis, archive: Archive, pair: str, wanted: AverageWanted, broken: set[str]) -> list[Chunk]:
    numbered = numbered_chunks(bus, pair, wanted.start_us, wanted.end_us)
    found = {Entry.read(number): chunk for number, chunk in numbered if chunk.market in ("", archive.market)}
    first_ms, last_ms = entry_range(wanted.start_us, wanted.end_us)
    if wanted.start_us // 1000 < kept_from_ms(bus, history_stream(pair)):
        found = read_chunks(archive, pair, first_ms, last_ms, broken) | found
    return list(found.values())


def _spans(bus: redis.Redis, archive: Archive, venue: str, wanted: AverageWanted, broken: set[str]) -> list[Span]:
    numbered = numbered_spans(bus, venue, wanted.start_us, wanted.end_us)
    found = {Entry.read(number): span for number, span in numbered if span.market in ("", archive.market)}
    first_ms, last_ms = entry_range(wanted.start_us, wanted.end_us)
    if wanted.start_us // 1000 < kept_from_ms(bus, spans_stream(venue)):
        found = read_spans(archive, venue, first_ms, last_ms, broken) | found
    return list(found.values())


def told_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event tells of a result: the values, not what they are made of."""
    head = {name: result[name] for name in ("method", "input", "start", "end", "market")}
    return {**head, "values": {part["pair"]: part["value"] for part in result["parts"]}}


def part_of(
    wanted: AverageWanted,
    instrument: Instrument,
    chunks: Iterable[Chunk],
    spans: Mapping[str, Iterable[Span]],
    enabled: Mapping[str, bool],
) -> dict[str, Any]:
    """Return one pair's average over the window, with its sources. Pure."""
    chunks = list(chunks)
    products = [each for each in instrument.products if wanted.venues is None or each.venue in wanted.venues]
    fills = fills_of(chunks, wanted.start_us, wanted.end_us)
    seen, means = [], {}
    for product in sorted(products, key=lambda each: each.venue):
        mine = [chunk for chunk in chunks if (chunk.venue, chunk.product_id) == (product.venue, product.id)]
        mean = means[product.venue] = _mean(mine, spans[product.venue], wanted, wanted.input)
        traded = [fill for fill in fills if fill.venue == product.venue]
        with localcontext(EXACT):
            volume = sum((fill.size for fill in traded), Decimal(0))
        half_spread = window_mean(mine, spans[product.venue], wanted.start_us, wanted.end_us, _half_spread)
        seen.append(
            Seen(
                product.venue,
                product.id,
                mean.value,
                None,
                None,
                enabled.get(product.venue, True),
                volume,
                wanted.end_us - traded[-1].time_us if traded else None,
                half_spread.value or Decimal(0),
                coverage=mean.coverage,
            )
        )
    answer = consolidate(
        wanted.method,
        seen,
        sources_min=min(wanted.sources_min, len(seen)),
        age_us_max=None,
        fills=fills,
        now_us=wanted.end_us,
        window_us=wanted.end_us - wanted.start_us,
        coverage_min=COVERAGE_MIN,
    )
    return _part_json(instrument, answer, fills, means, _touched(products, spans, wanted))


def _mean(chunks: Iterable[Chunk], spans: Iterable[Span], wanted: AverageWanted, source: Input) -> WindowMean:
    return window_mean(chunks, spans, wanted.start_us, wanted.end_us, lambda sample: price_of(sample, source))


def _half_spread(sample: Sample) -> Decimal | None:
    return None if sample.bid is None or sample.ask is None else (sample.ask - sample.bid) * HALF


def _touched(products: Iterable[Product], spans: Mapping[str, Iterable[Span]], wanted: AverageWanted) -> frozenset[str]:
    """Return the venues of which trades were missed while the window lasted."""
    return frozenset(
        product.venue
        for product in products
        for span in spans[product.venue]
        if product.id in span.gaps and span.from_us < wanted.end_us and span.until_us > wanted.start_us
    )


def _part_json(
    instrument: Instrument,
    answer: Consolidated,
    fills: Iterable[Fill],
    means: Mapping[str, WindowMean],
    touched: frozenset[str],
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for fill in fills:
        counts[fill.venue] = counts.get(fill.venue, 0) + 1

    def shown(source: Source) -> dict[str, Any]:
        seen = source.seen
        return {
            "venue": seen.venue,
            "product_id": seen.product_id,
            "raw_price": None if seen.price is None else plain(seen.price),
            "adjusted_price": None if source.adjusted_price is None else plain(source.adjusted_price),
            "weight": plain(source.weight),
            "coverage": plain(means[seen.venue].coverage),
            "samples": means[seen.venue].samples,
            "volume": plain(seen.volume),
            "trades": counts.get(seen.venue, 0),
            "last_trade_age_us": seen.last_trade_age_us,
            "half_spread": plain(seen.confidence),
            "incomplete": seen.venue in touched,
            "reason": source.reason,
        }

    part: dict[str, Any] = {
        "pair": instrument.symbol,
        "value": None if answer.value is None else plain(answer.value),
        "problem": answer.problem,
        "incomplete": any(source.seen.venue in touched for source in answer.sources if source.reason is None),
        "sources": [shown(source) for source in answer.sources],
    }
    return part if answer.confidence is None else {**part, "confidence": plain(answer.confidence)}
