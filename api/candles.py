"""Candles, from the record and, the one that is still made, from the bus. Open to everybody."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from fastapi import Query as QueryParameters
from fastapi.concurrency import run_in_threadpool
from msgspec import structs
from pydantic import BaseModel, Field
from redis import RedisError
from sqlalchemy import Connection
from starlette.responses import Response

from api import cursors
from api.parsing import time_us
from api.prices import resolve
from api.problems import bad_field
from api.schemas import INTERVAL_NAMES, candle_json, told_json
from api.services import Services, services
from models.bus.analysis import decode_candles
from models.bus.names import open_candles_key
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle
from models.domain.instruments import Instrument
from models.domain.pasts import PastCandle
from models.store.candles import Check, Series, check_of, filled, newest_before, read_candles
from models.store.events import rfc3339
from models.store.pasts import read_pasts, read_told

router = APIRouter(tags=["candles"])

LIMIT_MAX = 1_000
DIGITS_MAX = 18  # of a time in microseconds
COLUMNS = (
    *("open_time", "open", "high", "low", "close", "volume", "quote_volume", "vwap", "taker_buy_volume"),
    *("trades", "revision", "incomplete", "closed"),
)
# A candle closes, and is stored, some seconds after its end by the market's clock: before that nobody can say that
# nothing was traded in it.
SETTLED_US = 10_000_000
_EVER_US = 1 << 62
_ONWARD, _BACK = "n", "b"  # how a cursor's pages follow each other: from `start` on, or back from the end


@dataclass(frozen=True, slots=True)
class Wanted:
    """The candles that are asked for; `onward`: from the start on, and otherwise the last ones before the end."""

    series: Series
    start_us: int
    end_us: int
    limit: int
    fill: bool
    onward: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Candles, oldest first, where the next page begins (or, going back, ends), and why there are none."""

    candles: Sequence[Candle | PastCandle]
    next_us: int | None
    check: Check | None
    problem: str | None


def venue_of(instrument: Instrument, venue: str) -> str:
    """Return a venue that trades a pair, or EVERY_VENUE. Raises ProblemError, which lists them."""
    allowed = [EVERY_VENUE, *sorted(product.venue for product in instrument.books)]
    if venue not in allowed:
        problem = f"{venue!r} has no trades of {instrument.symbol}; one of {', '.join(allowed)}"
        raise bad_field("venue", problem, allowed=allowed)
    return venue


def interval_of(interval: str) -> int:
    """Return the seconds of an interval. Raises ProblemError, which lists them."""
    if interval not in INTERVALS_S:
        allowed = list(INTERVALS_S)
        raise bad_field("interval", f"{interval!r} is unknown; one of {', '.join(allowed)}", allowed=allowed)
    return INTERVALS_S[interval]


class Query(BaseModel):
    """What may be asked for."""

    venue: str = Field(default=EVERY_VENUE, description="a venue, or `all` for the trades of all of them together")
    interval: str = Field(default="1m", description=f"one of {', '.join(INTERVALS_S)}; days begin at midnight UTC")
    start: str | None = Field(default=None, description="the first open time, RFC 3339; without it: the last candles")
    end: str | None = Field(default=None, description="all open times are before this; without it: up to now")
    limit: int = Field(default=100, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(default=None, description="`next_cursor` of the page before")
    fill: bool = Field(default=True, description="whether candles in which nothing was traded are made")
    format: str = Field(default="json", description="json or csv")
    source: str = Field(
        default="ours", description="ours, of trades; or venue: what it told of its past, where we asked"
    )


@router.get("/candles/{pair:path}")
async def read(pair: str, request: Request, query: Annotated[Query, QueryParameters()]) -> Response:
    """Return a series' candles, oldest first: the newest revision of each, and the one that is still made.

    From `start` on, or without it the last ones before `end`; the Link header, and `next_cursor`, lead to the
    next page. One in which nothing was traded has the close before it four times (`fill=false` leaves it out).
    `checked` says how ours compare with the venue's own. CSV has the same columns; why it is empty is in the header
    Crossfill-Problem.
    """
    for name in request.query_params:
        if name not in Query.model_fields:
            raise bad_field(name, "is unknown", allowed=list(Query.model_fields))
    if query.format not in ("json", "csv"):
        raise bad_field("format", f"{query.format!r} is unknown; json or csv", allowed=["json", "csv"])
    if query.source not in ("ours", "venue"):
        raise bad_field("source", f"{query.source!r} is unknown; ours or venue", allowed=["ours", "venue"])
    if query.source == "venue" and query.venue == EVERY_VENUE:
        raise bad_field("venue", "must be one that tells its own candles: all of them together tell none")
    made = services(request)
    instrument = resolve(made.instruments, pair)
    market = made.settings.market.value
    series = Series(market, venue_of(instrument, query.venue), instrument.symbol, interval_of(query.interval))
    wanted = _wanted(series, query)
    ours = query.source == "ours"
    still, minute, clock_us, problem = (
        await _still_made(made, series, query.interval) if ours else (None, None, 0, None)
    )

    def look_up() -> Page:
        with made.database.read() as connection:
            return page_of(connection, wanted, still, minute, clock_us) if ours else told_page_of(connection, wanted)

    page = await run_in_threadpool(look_up)
    problem = problem or page.problem
    next_cursor = (
        None if page.next_us is None else cursors.encode(f"{_ONWARD if wanted.onward else _BACK}{page.next_us}")
    )
    headers = {} if next_cursor is None else cursors.next_link(request, next_cursor)
    shown = [candle_json(each) if isinstance(each, Candle) else told_json(each) for each in page.candles]
    if query.format == "csv":
        if problem is not None:  # a line more would be none of the table
            headers = {**headers, "Crossfill-Problem": " ".join(problem.split()).encode("ascii", "replace").decode()}
        return Response(as_csv(shown), media_type="text/csv; charset=utf-8", headers=headers)
    answer = {
        "pair": instrument.symbol,
        "venue": query.venue,
        "interval": query.interval,
        "market": market,
        "source": query.source,
        "candles": shown,
        "next_cursor": next_cursor,
        "checked": None if page.check is None else _check_json(page.check),
        **({} if problem is None else {"problem": problem}),
    }
    return Response(orjson.dumps(answer), media_type="application/json", headers=headers)


def _wanted(series: Series, query: Query) -> Wanted:
    start_us = 0 if query.start is None else max(0, time_us("start", query.start))
    end_us = _EVER_US if query.end is None else time_us("end", query.end)
    if start_us >= end_us:
        if query.start is None:
            raise bad_field("end", f"{query.end} is before the first candles that there may be")
        raise bad_field("start", f"{query.start} is not before the end, {query.end}")
    onward, place = query.start is not None, cursors.decode(query.cursor)
    if place is not None:
        letter, number = place[:1], place[1:]
        if letter not in (_ONWARD, _BACK) or not (number.isascii() and number.isdecimal()) or len(number) > DIGITS_MAX:
            raise bad_field("cursor", "is none of ours; take `next_cursor` of the page before")
        onward = letter == _ONWARD
        if onward:
            start_us = max(start_us, int(number))
        else:
            end_us = min(end_us, int(number))
    return Wanted(series, start_us, end_us, query.limit, query.fill, onward)


async def _still_made(
    made: Services, series: Series, interval: str
) -> tuple[Candle | None, Candle | None, int, str | None]:
    """Return the candle that is still made, its minute, how far the market's clock is, and what is wrong with the bus.

    What is stored is shown all the same. The market's own clock is told by the second that is still made: it
    is not ours, in a replay or where nobody makes candles just now.
    """
    names = [f"{series.venue}:{name}" for name in (interval, "1m", "1s")]
    try:
        fields = await made.bus.hmget(open_candles_key(series.symbol), names)
    except (RedisError, OSError) as error:
        return None, None, 0, f"the candle that is still made cannot be read: {error}"
    told = decode_candles({name.encode(): text for name, text in zip(names, fields, strict=True) if text is not None})
    mine = {name: candle for name, candle in told.items() if candle.market == series.market}
    clock_us = max((candle.open_time_us for candle in mine.values()), default=0)
    return mine.get(names[0]), mine.get(names[1]), clock_us, None


def page_of(connection: Connection, wanted: Wanted, still: Candle | None, minute: Candle | None, clock_us: int) -> Page:
    """Return a page from the record and the candle that is still made; of seconds also their minute that is."""
    series, interval_us = wanted.series, wanted.series.interval_us
    # Open times lie on a grid, and so do the ends of what is asked for from here on.
    start_us, end_us = (-(-time_us // interval_us) * interval_us for time_us in (wanted.start_us, wanted.end_us))
    newest = newest_before(connection, series, _EVER_US)
    # Up to here it is known what was traded; nothing is made up beyond.
    known_us = 0 if newest is None else newest.open_time_us + interval_us
    if still is not None and still.open_time_us < known_us:
        still = None
    elif still is not None and newest is not None:
        settled_us = (clock_us - SETTLED_US) // interval_us * interval_us
        known_us = max(known_us, min(still.open_time_us, settled_us))
    check = check_of(connection, series)
    last = [still] if still is not None and start_us <= still.open_time_us < end_us else []
    until_us = min(end_us, known_us)
    next_us: int | None = None
    if wanted.onward:
        found = [*_closed(connection, wanted, start_us, until_us, still), *last]
        if len(found) > wanted.limit:
            next_us = found[wanted.limit].open_time_us
        found = found[: wanted.limit]
    elif wanted.fill:
        first_us = max(start_us, until_us - (wanted.limit - len(last)) * interval_us)
        found = [*_closed(connection, wanted, first_us, until_us, still), *last]
        if first_us > start_us and newest_before(connection, series, first_us) is not None:
            next_us = first_us
    else:
        rows = read_candles(connection, series, start_us, end_us, wanted.limit + 1, newest_first=True)
        found = [*rows[::-1], *last]
        if len(found) > wanted.limit:
            found = found[-wanted.limit :]
            next_us = found[0].open_time_us
    shown = _doubted(connection, series, found, minute) if series.interval_s == 1 else found
    return Page(shown, next_us, check, None if found else _why_none(connection, series, newest or still))


def told_page_of(connection: Connection, wanted: Wanted) -> Page:
    """Return a page of what the venue told of its past."""
    series, count = wanted.series, wanted.limit + 1
    found = read_told(connection, series, wanted.start_us, wanted.end_us, count, newest_first=not wanted.onward)
    more, found = found[wanted.limit :], found[: wanted.limit]
    if wanted.onward:
        next_us = more[0].open_time_us if more else None
    else:
        next_us = found[-1].open_time_us if more else None
        found = found[::-1]
    row = read_pasts(connection, series.market).get(series)
    problem = None
    if not found:
        asked = "was asked for" if row is not None and row.until_us else "was not asked for"
        reason = f": {row.problem}" if row is not None and row.problem else ""
        what = f"{INTERVAL_NAMES[series.interval_s]} candles of {series.symbol}"
        problem = f"{series.venue} told none of them in this range; it {asked} {what}{reason}"
    return Page(found, next_us, check_of(connection, series), problem)


def _closed(connection: Connection, wanted: Wanted, start_us: int, until_us: int, still: Candle | None) -> list[Candle]:
    """Return the closed candles with start <= open time < until, at most one more than a page has."""
    count = wanted.limit + 1
    # Also the first one beyond the end, where there are so few: what is empty before it goes by it.
    made: Iterable[Candle] = read_candles(connection, wanted.series, start_us, _EVER_US, count)
    if wanted.fill:
        before = newest_before(connection, wanted.series, start_us)
        neighbours = [each for each in (before, *made, still) if each is not None]
        made = filled(neighbours, wanted.series.interval_us, start_us)
    return list(islice(takewhile(lambda candle: candle.open_time_us < until_us, made), count))


def _doubted(connection: Connection, series: Series, seconds: Sequence[Candle], still: Candle | None) -> list[Candle]:
    """Return seconds, those without trades incomplete where their minute is: nothing is stored of one of them."""
    if all(second.trades or second.incomplete for second in seconds):
        return list(seconds)
    minutes = series._replace(interval_s=INTERVALS_S["1m"])
    length_us, end_us = minutes.interval_us, seconds[-1].open_time_us + 1
    start_us = seconds[0].open_time_us // length_us * length_us
    # Also the ones before and after, by which what is empty between them goes.
    told = read_candles(connection, minutes, start_us, _EVER_US, (end_us - start_us) // length_us + 2)
    before = newest_before(connection, minutes, start_us)
    made = filled([each for each in (before, *told, still) if each is not None], length_us, start_us)
    shown = takewhile(lambda minute: minute.open_time_us < end_us, made)
    doubtful = {minute.open_time_us for minute in shown if minute.incomplete}
    return [
        structs.replace(second, incomplete=True)
        if not second.trades and second.open_time_us // length_us * length_us in doubtful
        else second
        for second in seconds
    ]


def _why_none(connection: Connection, series: Series, newest: Candle | None) -> str:
    where = "over all venues" if series.venue == EVERY_VENUE else f"at {series.venue}"
    what = f"{INTERVAL_NAMES[series.interval_s]} candle of {series.symbol} {where}"
    if newest is None:
        return f"there is no {what} yet"
    first = (read_candles(connection, series, 0, _EVER_US, 1) or [newest])[0]
    return (
        f"there is no {what} in this range; the first one opened at {rfc3339(first.open_time_us)}, "
        f"the last one at {rfc3339(newest.open_time_us)}"
    )


def _check_json(check: Check) -> dict[str, Any]:
    return {
        "compared": check.compared,
        "differing": check.differing,
        "last_difference": check.difference,
        "last_difference_time": rfc3339(check.difference_us),
    }


def as_csv(shown: Iterable[dict[str, Any]]) -> str:
    """Return candles as CSV; a number is its exact text, true and false are as in the JSON."""
    written = io.StringIO()
    lines = csv.DictWriter(written, COLUMNS, lineterminator="\r\n")
    lines.writeheader()
    for row in shown:
        lines.writerow({**row, **{name: str(row[name]).lower() for name in ("incomplete", "closed")}})
    return written.getvalue()
