"""Strategies: what signals are made by, in versions. Open to everybody; an admin puts new ones."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from api.parsing import NumberText, read_object
from api.prices import resolve
from api.problems import ProblemError, bad_field
from api.schemas import StrategyRequest
from api.services import Services, admin, services
from models.domain.candles import EVERY_VENUE
from models.domain.instruments import UnknownSymbolError
from models.domain.pasts import followed
from models.domain.quotes import Market
from models.domain.report import CONFIDENCE, report
from models.domain.signals import Signal
from models.domain.strategies import Strategy, StrategyError, read_strategy
from models.store.candles import Series, filled, newest_before, read_candles
from models.store.events import rfc3339
from models.store.owners import Owner
from models.store.pasts import PastRow, read_pasts
from models.store.signals import read_signals
from models.store.strategies import StrategyRow, current_strategies, put_strategy, stop_strategy, strategy_versions

router = APIRouter(tags=["strategies"])

Version = Annotated[int | None, Query(ge=1, description="a version of it; without it: the newest")]
# Of one report: what some tenths of a second can read.
SIGNALS_MAX = 10_000
CLOSES_MAX = 50_000
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)


@router.get("/strategies")
def read_all(request: Request) -> Response:
    """Return every strategy in its newest version, by name, and how many of its series each variant is warm on."""
    made = services(request)
    with made.database.read() as connection:
        rows = current_strategies(connection)
        pasts = read_pasts(connection, made.settings.market.value)
    listed = []
    for row in rows:
        warm = {name: {"warm": 0, "series": 0} for name in row.strategy.variants}
        for each in _warmth(made, row.strategy, pasts):
            warm[each["variant"]]["warm"] += each["closes"] == each["needed"]
            warm[each["variant"]]["series"] += 1
        listed.append({**strategy_json(row), "warm": warm})
    return JSONResponse({"strategies": listed})


@router.get("/strategies/{name}")
def read_one(name: str, request: Request, version: Version = None) -> Response:
    """Return a strategy, with the numbers of all of its versions. A version never changes."""
    chosen, rows = version_of(services(request), name, version)
    numbers = [
        {"version": row.strategy.version, "created": rfc3339(row.created_us), "stopped": rfc3339(row.stopped_us)}
        for row in rows
    ]
    return JSONResponse({**strategy_json(chosen), "versions": numbers})


@router.get("/strategies/{name}/warmth")
def read_warmth(name: str, request: Request) -> Response:
    """Return how many closes each variant of the newest version knows for each pair, of those that warm it up.

    They are counted every five minutes, or once an interval; `closes` is null before. `problems` say by venue why
    it tells nothing of its past.
    """
    made = services(request)
    row, _ = version_of(made, name, None)
    with made.database.read() as connection:
        pasts = read_pasts(connection, made.settings.market.value)
    answer = {
        "strategy": row.strategy.name,
        "version": row.strategy.version,
        "market": made.settings.market.value,
        "interval": row.strategy.interval,
        "warmth": _warmth(made, row.strategy, pasts),
    }
    if made.settings.market is Market.REPLAY:
        answer["problem"] = "a recording has no past: averages are warmed up with its own candles alone"
    return JSONResponse(answer)


def _warmth(made: Services, strategy: Strategy, pasts: Mapping[Series, PastRow]) -> list[dict[str, Any]]:
    market = made.settings.market.value
    series = [Series(market, *each) for each in followed([strategy], made.instruments, made.settings.venue_names)]
    problems: dict[str, dict[str, str]] = {}
    for each in series:
        row = pasts.get(each)
        if row is not None and row.problem is not None:
            problems.setdefault(each.symbol, {})[each.venue] = row.problem
    return [
        {
            "variant": name,
            "pair": each.symbol,
            "venue": each.venue,
            "closes": min(row.closes, variant.closes_needed) if (row := pasts.get(each)) is not None else None,
            "needed": variant.closes_needed,
            "problems": problems.get(each.symbol, {}),
        }
        for name, variant in strategy.variants.items()
        for each in series
        if each.venue == strategy.venue
    ]


@router.get("/strategies/{name}/report")
def read_report(
    name: str,
    request: Request,
    version: Version = None,
    pair: Annotated[str | None, Query(description="of its signals for this pair only")] = None,
) -> Response:
    """Compare a strategy's variants: what their signals would have brought after 1, 5 and 20 bars, before fees.

    Returns are in basis points, long after a golden cross and short after a death cross, each with the numbers
    of signals and of stretches of time that it is made of and a 95 % interval. `differences` says in a sentence
    what is shown, and it is seldom much. `since`: older signals are left out, for want of room in one answer.
    """
    made = services(request)
    row, _ = version_of(made, name, version)
    symbol = None if pair is None else resolve(made.instruments, pair).symbol
    with made.database.read() as connection:
        signals, since_us, closes = _said(connection, made, row.strategy, symbol)
    answer = {
        "strategy": strategy_json(row),
        "market": made.settings.market.value,
        "pair": symbol,
        "signals": len(signals),
        "since": rfc3339(since_us),
        "confidence": CONFIDENCE,
        **msgspec.to_builtins(report(row.strategy, signals, closes)),
    }
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _said(
    connection: Connection, made: Services, strategy: Strategy, symbol: str | None
) -> tuple[list[Signal], int | None, dict[str, list[tuple[int, Decimal]]]]:
    """Return signals, since when where there are older ones that are left out, and the closes of their pairs."""
    market, interval_us = made.settings.market.value, strategy.interval_s * 1_000_000
    rows = read_signals(
        connection,
        market,
        SIGNALS_MAX + 1,
        symbol=symbol,
        strategy=strategy.name,
        version=strategy.version,
    )
    said = [row.signal for row in rows]
    of_pair = {each.symbol: Series(market, strategy.venue, each.symbol, strategy.interval_s) for each in said}
    newest = [newest_before(connection, series, made.now_us()) for series in of_pair.values()]
    end_us = max((candle.open_time_us + interval_us for candle in newest if candle is not None), default=0)
    earliest_us = end_us - CLOSES_MAX // max(1, len(of_pair)) * interval_us
    if len(said) > SIGNALS_MAX:
        earliest_us = max(earliest_us, said[-1].open_time_us + interval_us)
    since_us = earliest_us if any(signal.open_time_us < earliest_us for signal in said) else None
    said = [signal for signal in said if signal.open_time_us >= earliest_us]
    closes = {}
    for symbol_said, series in of_pair.items():
        first_us = min((signal.open_time_us for signal in said if signal.symbol == symbol_said), default=end_us)
        candles = filled(read_candles(connection, series, first_us, end_us, CLOSES_MAX), interval_us)
        # One in which nothing is known to have been traded has no close of its own.
        closes[symbol_said] = [(one.open_time_us, one.close) for one in candles if one.trades or not one.incomplete]
    return said, since_us, closes


@router.put(
    "/strategies/{name}",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": StrategyRequest.model_json_schema()}},
        },
    },
)
async def put(name: str, request: Request, _admin: Annotated[Owner, Depends(admin)]) -> Response:
    """Make a new version of a strategy, or a new strategy; the same configuration again makes none.

    Signals of its older versions stay, and none is raised by them any more.
    """
    made = services(request)
    wanted = _wanted(made, name, await read_object(request, made.settings.body_bytes_max))
    row = await run_in_threadpool(put_strategy, made.database, wanted)
    return JSONResponse(strategy_json(row))


@router.delete("/strategies/{name}")
def stop(name: str, request: Request, _admin: Annotated[Owner, Depends(admin)]) -> Response:
    """Stop a strategy: within seconds it raises nothing any more. Its versions and signals stay on record.

    A PUT of the same name goes on with the next version. One that is stopped already stays so.
    """
    made = services(request)
    version_of(made, name, None)
    row = stop_strategy(made.database, name)
    assert row is not None
    return JSONResponse(strategy_json(row))


def version_of(made: Services, name: str, version: int | None) -> tuple[StrategyRow, list[StrategyRow]]:
    """Return a version of a strategy, and all of them. Raises ProblemError with 404, which says what there is."""
    with made.database.read() as connection:
        rows = strategy_versions(connection, name)
        if not rows:
            known = [row.strategy.name for row in current_strategies(connection)]
            there = f"there are {', '.join(known)}" if known else "there is none yet"
            raise ProblemError(404, "Not found", f"there is no strategy {name!r}; {there}", near=known)
    newest = rows[-1].strategy.version
    if version is not None and version > newest:
        raise ProblemError(404, "Not found", f"there is no version {version} of {name!r}; the newest is {newest}")
    return rows[newest - 1 if version is None else version - 1], rows


def strategy_json(row: StrategyRow) -> dict[str, Any]:
    """Return a version of a strategy."""
    strategy = row.strategy
    return {
        "name": strategy.name,
        "version": strategy.version,
        "created": rfc3339(row.created_us),
        "stopped": rfc3339(row.stopped_us),
        "interval": strategy.interval,
        "venue": strategy.venue,
        "pairs": None if strategy.pairs is None else list(strategy.pairs),
        "variants": {
            name: {
                "kind": variant.kind.value,
                "fast": variant.fast,
                "slow": variant.slow,
                "seed": None if variant.seed is None else variant.seed.value,
            }
            for name, variant in strategy.variants.items()
        },
    }


def _wanted(made: Services, name: str, body: Mapping[str, Any]) -> Strategy:
    for field in body:
        if field not in StrategyRequest.model_fields:
            raise bad_field(field, "is unknown", allowed=list(StrategyRequest.model_fields))
    given = _numbers({**body, "name": name})
    if isinstance(given.get("pairs"), list):
        given["pairs"] = [_symbol(made, place, pair) for place, pair in enumerate(given["pairs"])]
    try:
        wanted = read_strategy(given)
    except StrategyError as error:
        raise bad_field(error.field, error.problem) from error
    allowed = [EVERY_VENUE, *made.instruments.venues]
    if wanted.venue not in allowed:
        raise bad_field("venue", f"{wanted.venue!r} is unknown; one of {', '.join(allowed)}", allowed=allowed)
    return wanted


def _symbol(made: Services, place: int, pair: object) -> object:
    if not isinstance(pair, str):
        return pair
    try:
        return made.instruments.resolve(pair).symbol
    except UnknownSymbolError as error:
        raise bad_field(f"pairs[{place}]", str(error), near=error.near) from error


def _numbers(given: Any) -> Any:  # noqa: ANN401 -- JSON
    """Return JSON whose whole numbers are numbers; what else is given as one stays its text, and is none of ours."""
    if isinstance(given, dict):
        return {name: _numbers(value) for name, value in given.items()}
    if isinstance(given, list):
        return [_numbers(value) for value in given]
    return int(given) if isinstance(given, NumberText) and _WHOLE.fullmatch(given) else given
