"""Prices: consolidated over venues by ten methods, and each venue's newest quote. Open to everybody."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from api.legacy import price_error, price_success
from api.market import Seen
from api.problems import ProblemError, bad_field, respond
from api.schemas import consolidated_json
from api.services import Services, services
from models.domain.averages import TRADE_WINDOWS_S, Fill, Method
from models.domain.decimals import EXACT, plain
from models.domain.instruments import Instrument, Instruments, Product, UnknownSymbolError
from models.domain.sources import Consolidated, Conversion, Input, consolidate
from models.domain.sources import Seen as SeenProduct
from models.store.events import rfc3339

router = APIRouter(tags=["prices"])

LEGACY_AGE_US_MAX = 60_000_000
SOURCES_MIN = 3  # by default, where so many venues list a pair
AGE_S_MAX = 10.0
ALL = "all"
PARAMETERS = ("method", "input", "venues", "min_sources", "max_age_s", "convert")


@dataclass(frozen=True)
class Question:
    """What is asked of a pair's price. `venues` None: every source; `convert`: quote currencies to take along."""

    instrument: Instrument
    input: Input
    venues: frozenset[str] | None
    convert: tuple[str, ...]
    sources_min: int
    age_us_max: int | None


def resolve(instruments: Instruments, pair: str) -> Instrument:
    """Return the instrument of a path's pair. Raises ProblemError with near matches."""
    try:
        return instruments.resolve(pair)
    except UnknownSymbolError as error:
        raise ProblemError(404, "Not found", str(error), near=error.near) from error


def venues_of(instrument: Instrument, text: str | Sequence[str] | None) -> frozenset[str] | None:
    """Return the venues that are named, joined by commas or as a list. Raises ProblemError."""
    if text is None:
        return None
    named = [name.strip() for name in (text.split(",") if isinstance(text, str) else text)]
    allowed = sorted(product.venue for product in instrument.products)
    for name in named:
        if name not in allowed:
            problem = f"{name!r} has no price of {instrument.symbol}; these have: {', '.join(allowed)}"
            raise bad_field("venues", problem, allowed=allowed)
    return frozenset(named)


def listed(instrument: Instrument, venues: frozenset[str] | None) -> list[Product]:
    """Return an instrument's products at these venues, sorted by venue."""
    chosen = [product for product in instrument.products if venues is None or product.venue in venues]
    return sorted(chosen, key=lambda product: product.venue)


def sources_min(wanted: int | None, available: int) -> int:
    """Return how many sources are needed. Raises ProblemError where there are not so many."""
    if wanted is not None and wanted > available:
        raise bad_field("min_sources", f"{wanted} is more than the {available} sources that there are")
    return min(SOURCES_MIN, available) if wanted is None else wanted


@router.get("/prices/{pair:path}")
async def price(
    pair: str,
    request: Request,
    method: Annotated[Method | str, Query(description=f"one of {', '.join(Method)}, or {ALL}")] = Method.CLAMPED_MEAN,
    input: Input = Input.MID,  # noqa: A002 -- the parameter's public name
    venues: str | None = None,
    min_sources: Annotated[int | None, Query(ge=1)] = None,
    max_age_s: Annotated[float, Query(gt=0, le=3_600)] = AGE_S_MAX,
    convert: str | None = None,
) -> Response:
    """Return a pair's price over venues and what it is made of; 503 with the same sources where it is withheld."""
    for name in request.query_params:
        if name not in PARAMETERS:
            raise bad_field(name, "is unknown", allowed=list(PARAMETERS))
    made = services(request)
    instrument = resolve(made.instruments, pair)
    chosen = venues_of(instrument, venues)
    others = _conversions(made, instrument, convert)
    available = len(listed(instrument, chosen)) + sum(len(listed(other, chosen)) for other, _ in others)
    question = Question(
        instrument,
        input,
        chosen,
        tuple(other.quote for other, _ in others),
        sources_min(min_sources, available),
        int(max_age_s * 1e6),
    )
    if method == ALL:
        answers = {each.value: await consolidated(made, question, each) for each in Method}
        shown = {name: consolidated_json(answer) for name, answer in answers.items()}
        return JSONResponse({**_head(made, question), "methods": shown})
    if method not in list(Method):
        allowed = [*Method, ALL]
        raise bad_field("method", f"{method!r} is unknown; one of {', '.join(allowed)}", allowed=allowed)
    answer = await consolidated(made, question, Method(method))
    head = {**_head(made, question), "method": str(method)}
    if answer.value is None:
        assert answer.problem is not None
        headers = {"Retry-After": "1"}
        more = {**head, **consolidated_json(answer)}
        return respond(ProblemError(503, "The price is withheld", answer.problem, headers=headers, **more))
    return Response(orjson.dumps({**head, **consolidated_json(answer)}), media_type="application/json")


def _head(made: Services, question: Question) -> dict[str, Any]:
    return {
        "pair": question.instrument.symbol,
        "input": question.input.value,
        "time": rfc3339(time.time_ns() // 1000),
        "market": made.settings.market.value,
        "min_sources": question.sources_min,
    }


def _conversions(made: Services, instrument: Instrument, text: str | None) -> list[tuple[Instrument, Instrument]]:
    """Return the pairs in other currencies that are to be taken along, each with the index that converts it.

    Raises ProblemError.
    """
    found = []
    for name in (text or "").upper().split(","):
        quote = name.strip()
        if not quote or quote == instrument.quote:
            continue
        try:
            found.append(
                (
                    made.instruments[f"{instrument.base}-{quote}"],
                    made.instruments[f"{quote}-{instrument.quote}"],
                )
            )
        except KeyError as error:
            problem = f"there is no {error.args[0]}, so prices in {quote} cannot be taken along"
            raise bad_field("convert", problem) from error
    return found


async def consolidated(made: Services, question: Question, method: Method) -> Consolidated:
    """Return the answer to a question by one method. Raises ProblemError while prices cannot be read."""
    market, instrument = made.market, question.instrument
    seen = await market.look(instrument)
    fills = await market.fills(instrument) if method in TRADE_WINDOWS_S else []
    products = _seen(instrument, question, seen, fills, method)
    for quote in question.convert:
        other = made.instruments[f"{instrument.base}-{quote}"]
        index = made.instruments[f"{quote}-{instrument.quote}"]
        conversion = await _conversion(made, index, question.age_us_max)
        more = await market.fills(other) if method in TRADE_WINDOWS_S else []
        fills = [*fills, *more]
        by = (index.symbol, conversion)
        products += _seen(other, question, await market.look(other), more, method, by)
    key = (f"{instrument.symbol}+{'+'.join(question.convert)}", question.input)
    answer = consolidate(
        method,
        products,
        sources_min=question.sources_min,
        age_us_max=question.age_us_max,
        out=market.out.get(key, frozenset()),
        fills=fills,
        now_us=seen.now_us,
    )
    # Half a choice of venues says nothing of the others.
    if question.venues is None:
        market.out[key] = answer.out
    return answer


async def _conversion(made: Services, index: Instrument, age_us_max: int | None) -> Conversion | None:
    needed = min(SOURCES_MIN, len(index.products))
    question = Question(index, Input.MID, None, (), needed, age_us_max)
    answer = await consolidated(made, question, Method.CLAMPED_MEAN)
    return None if answer.value is None else Conversion(index.symbol, answer.value)


def _seen(
    instrument: Instrument,
    question: Question,
    seen: Seen,
    fills: Sequence[Fill],
    method: Method,
    convert: tuple[str, Conversion | None] | None = None,
) -> list[SeenProduct]:
    made = []
    earliest_us = seen.now_us - TRADE_WINDOWS_S.get(method, 0) * 1_000_000
    for product in listed(instrument, question.venues):
        value, time_us, confidence = _price(seen, product, question.input)
        mine = [fill for fill in fills if fill.venue == product.venue and fill.time_us >= earliest_us]
        made.append(
            SeenProduct(
                product.venue,
                product.id,
                value,
                None if time_us is None else max(0, seen.now_us - time_us),
                seen.connection_age_us(product.venue),
                seen.enabled.get(product.venue, True),
                sum((fill.size for fill in mine), Decimal(0)),
                seen.now_us - mine[-1].time_us if mine else None,
                confidence,
                convert[0] if convert else None,
                convert[1] if convert else None,
            )
        )
    return made


def _price(seen: Seen, product: Product, wanted: Input) -> tuple[Decimal | None, int | None, Decimal]:
    """Return a product's price, its time, and half of its spread."""
    latest = seen.latest.get(product.venue)
    if latest is None:
        return None, None, Decimal(0)
    if wanted is Input.LAST or (product.price_only and wanted is Input.MID):
        return latest.last, latest.last_time_us, Decimal(0)
    bid, ask, time_us = latest.bid, latest.ask, latest.quote_time_us
    half = Decimal(0) if bid is None or ask is None else EXACT.multiply(EXACT.subtract(ask, bid), Decimal("0.5"))
    if wanted is Input.BID:
        return bid, time_us, half
    if wanted is Input.ASK:
        return ask, time_us, half
    return None if bid is None or ask is None else EXACT.add(bid, half), time_us, half


@router.get("/getAveragePairPrice/{pair:path}")
async def average(pair: str, request: Request) -> Response:
    """Return the mean of the last prices of every venue that is on, lists the pair, is connected and fresh."""
    made = services(request)
    try:
        instrument = made.instruments.resolve(pair)
    except UnknownSymbolError as error:
        return price_error(404, f"Invalid pair {pair}", near=error.near)
    try:
        seen = await made.market.look(instrument)
    except ProblemError as error:
        return price_error(503, error.detail)
    needed = min(SOURCES_MIN, len(instrument.venues))
    question = Question(instrument, Input.LAST, instrument.venues, (), needed, LEGACY_AGE_US_MAX)
    answer = consolidate(
        Method.MEAN,
        _seen(instrument, question, seen, (), Method.MEAN),
        sources_min=needed,
        age_us_max=LEGACY_AGE_US_MAX,
        deviation_max=None,
    )
    if answer.value is None:
        missing = ", ".join(f"{each.seen.venue} ({each.reason})" for each in answer.sources if each.reason is not None)
        message = f"{needed} sources are needed for {instrument.symbol}; missing: {missing}"
        return price_error(503, message, sources=answer.sources)
    return price_success(answer.value, made.settings.market.value, answer.sources)


@router.get("/quotes/{pair:path}")
async def quotes(pair: str, request: Request) -> Response:
    """Return each venue's newest quote and last price."""
    made = services(request)
    instrument = resolve(made.instruments, pair)
    seen = await made.market.look(instrument)
    venues = [_quote_json(product, seen) for product in listed(instrument, None)]
    return JSONResponse({"pair": instrument.symbol, "market": made.settings.market.value, "venues": venues})


def _quote_json(product: Product, seen: Seen) -> dict[str, Any]:
    latest = seen.latest.get(product.venue)
    names = ("bid", "bid_size", "ask", "ask_size", "last")
    values = {name: getattr(latest, name) if latest is not None else None for name in names}
    quote_us = latest.quote_time_us if latest is not None else None
    return {
        "venue": product.venue,
        "product_id": product.id,
        **{name: None if value is None else plain(value) for name, value in values.items()},
        "live": bool(latest and latest.live),
        "price_only": product.price_only,
        "enabled": seen.enabled.get(product.venue, True),
        "connected": seen.connected(product.venue),
        "quote_age_ms": None if quote_us is None else max(0, (seen.now_us - quote_us) // 1000),
    }
