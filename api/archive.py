"""Jobs over past windows, of any length: the volume-weighted average price, and candles made anew.

They are computed from the archive, and what is not in it yet from the bus, by a worker; docs/archive.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from api.averages import accepted, instruments_of, venues_named
from api.parsing import number, read_object, time_us
from api.prices import venues_of
from api.problems import bad_field
from api.schemas import CandlesRequest, VwapRequest
from api.services import idempotency_key, services, signed_in
from models.bus.history import SETTLED_S
from models.bus.wakeups import new_task_id
from models.domain.candles import INTERVALS_S
from models.domain.decimals import plain
from models.domain.identifiers import uuid7
from models.domain.instruments import Instruments
from models.store.events import rfc3339
from models.store.jobs import CANDLES_KIND, VWAP_KIND, NewJob
from models.store.owners import Owner

router = APIRouter(tags=["archive"])

FIELDS = ("pair", "pairs", "venues", "start", "end", "window_s")
DAYS_MAX = 366  # of one window
HOURS_MAX = 100_000  # of all pairs: the parts of one job


@dataclass(frozen=True, slots=True)
class Wanted:
    """A past window of some pairs, [start, end). `venues` None: all."""

    pairs: tuple[str, ...]
    venues: tuple[str, ...] | None
    start_us: int
    end_us: int


def read_window(body: Mapping[str, Any], instruments: Instruments, now_us: int, fields: tuple[str, ...]) -> Wanted:
    """Return the window that a body asks for. Raises ProblemError, which names the field."""
    if unknown := [field for field in body if field not in fields]:
        raise bad_field(unknown[0], "is unknown", allowed=list(fields))
    pairs, venues = instruments_of(body, instruments), venues_named(body)
    for instrument in pairs:
        venues_of(instrument, venues)
    if body.get("start") is None:
        raise bad_field("start", "is missing; give a time as 2026-11-21T12:00:00Z")
    start_us = time_us("start", body["start"])
    field, end_us = _end(body, start_us)
    if start_us < 0:
        raise bad_field("start", f"{rfc3339(start_us)} is before 1970")
    if start_us >= end_us:
        raise bad_field("start", f"{rfc3339(start_us)} is not before the end, {rfc3339(end_us)}")
    if end_us > now_us:
        raise bad_field(field, f"the window ends at {rfc3339(end_us)}, which is in the future")
    if end_us - start_us > DAYS_MAX * 86_400_000_000:
        raise bad_field("start", f"is more than {DAYS_MAX} days before the end")
    if len(pairs) * (end_us - start_us) > HOURS_MAX * 3_600_000_000:
        raise bad_field("pairs", f"pairs times hours are more than {HOURS_MAX}; ask in several jobs")
    return Wanted(tuple(instrument.symbol for instrument in pairs), venues, start_us, end_us)


def _end(body: Mapping[str, Any], start_us: int) -> tuple[str, int]:
    """Return the end of a window and the field that says it."""
    if (body.get("end") is None) is (body.get("window_s") is None):
        raise bad_field("end", "give either `end` or `window_s`")
    if body.get("end") is not None:
        return "end", time_us("end", body["end"])
    window_s = number("window_s", body["window_s"])
    if not 1 <= window_s <= DAYS_MAX * 86_400:
        raise bad_field("window_s", f"{plain(window_s)} is out of range; 1 to {DAYS_MAX * 86_400} seconds")
    return "window_s", start_us + int(window_s * 1_000_000)


def widened(wanted: Wanted, intervals: tuple[str, ...], now_us: int) -> Wanted:
    """Return a window that holds whole candles: from the open time of the first that it touches, to the last's end.

    A candle that has not ended yet is left out.
    """
    lengths_us = [INTERVALS_S[name] * 1_000_000 for name in intervals]
    largest_us, smallest_us = max(lengths_us), min(lengths_us)
    start_us = wanted.start_us // largest_us * largest_us
    end_us = min(-(-wanted.end_us // largest_us) * largest_us, now_us // smallest_us * smallest_us)
    if end_us <= start_us:
        raise bad_field("end", "no candle of this window has ended yet")
    return Wanted(wanted.pairs, wanted.venues, start_us, end_us)


@router.post(
    "/vwap",
    status_code=202,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": VwapRequest.model_json_schema()}}}
    },
)
async def vwap(request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """Accept a job that computes the volume-weighted average price of a past window, by venue and over all of them."""
    made = services(request)
    now_us = made.now_us()
    body = await read_object(request, made.settings.body_bytes_max)
    wanted = read_window(body, made.instruments, now_us, FIELDS)
    return await accepted(made, _job(request, owner, wanted, wanted, now_us))


@router.post(
    "/candles/rebuild",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": CandlesRequest.model_json_schema()}},
        }
    },
)
async def rebuild(request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """Accept a job that makes a past window's candles anew and stores those that differ, as their next revision."""
    made = services(request)
    now_us = made.now_us()
    body = await read_object(request, made.settings.body_bytes_max)
    wanted = read_window(body, made.instruments, now_us, (*FIELDS, "interval", "intervals"))
    intervals = _intervals(body)
    return await accepted(made, _job(request, owner, wanted, widened(wanted, intervals, now_us), now_us, intervals))


def _intervals(body: Mapping[str, Any]) -> tuple[str, ...]:
    if "interval" in body and "intervals" in body:
        raise bad_field("interval", "give either `interval` or `intervals`")
    field = "interval" if "interval" in body else "intervals"
    named = [body["interval"]] if field == "interval" else body.get("intervals", list(INTERVALS_S))
    if not isinstance(named, list) or not named:
        raise bad_field(field, f"must be a list of intervals; {', '.join(INTERVALS_S)}")
    for name in named:
        if not isinstance(name, str) or name not in INTERVALS_S:
            raise bad_field(field, f"{name!r} is unknown; one of {', '.join(INTERVALS_S)}", allowed=list(INTERVALS_S))
    return tuple(name for name in INTERVALS_S if name in named)


def _job(
    request: Request, owner: Owner, asked: Wanted, wanted: Wanted, now_us: int, intervals: tuple[str, ...] | None = None
) -> NewJob:
    kind = VWAP_KIND if intervals is None else CANDLES_KIND
    due_us = max(now_us, wanted.end_us + int(SETTLED_S * 1e6))
    payload: dict[str, Any] = {
        "pairs": list(wanted.pairs),
        "venues": list(wanted.venues) if wanted.venues else None,
        "start": rfc3339(wanted.start_us),
        "end": rfc3339(wanted.end_us),
        "start_us": wanted.start_us,
        "end_us": wanted.end_us,
    }
    if intervals is not None:
        payload["intervals"] = list(intervals)
    return NewJob(
        id=uuid7(now_us),
        owner_id=owner.id,
        kind=kind,
        payload=payload,
        created_us=now_us,
        due_us=due_us,
        task_id=new_task_id() if due_us <= now_us else None,
        idempotency_key=idempotency_key(request),
        # What was asked: which candles have not ended yet is another thing a moment later.
        fingerprint=sha256(msgspec.json.encode([kind, asked, intervals])).hexdigest(),
    )
