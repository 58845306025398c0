"""Price jobs: an average over a window of time, asked for with a POST and worked by a queue."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api.parsing import number, read_object, text, time_us, word
from api.prices import SOURCES_MIN, listed, sources_min, venues_of
from api.problems import ProblemError, bad_field, key_reused, not_found
from api.schemas import AverageRequest, job_json
from api.services import Services, flower_url, idempotency_key, services, signed_in
from models.bus.history import KEPT_S, SETTLED_S
from models.bus.wakeups import new_task_id
from models.domain.averages import Method
from models.domain.decimals import plain
from models.domain.identifiers import uuid7
from models.domain.instruments import Instrument, Instruments, UnknownSymbolError
from models.domain.orders import JobState
from models.domain.sources import Input
from models.store.events import rfc3339
from models.store.jobs import AVERAGE_KIND, NewJob, create, job_by_id
from models.store.orders import KeyReusedError
from models.store.owners import Owner
from models.store.rows import JobRow

router = APIRouter(tags=["prices"])

FIELDS = ("pair", "pairs", "method", "input", "venues", "min_sources", "window_s", "start")
PAIRS_MAX = 100
WINDOW_S_MAX = KEPT_S
AHEAD_S_MAX = 86_400
COLUMNS = (
    *("pair", "start", "end", "method", "input", "value", "problem", "venue", "product_id", "raw_price"),
    *("adjusted_price", "weight", "coverage", "samples", "volume", "trades", "incomplete", "reason"),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An average as it was asked for. `start_us` None: now."""

    instruments: tuple[Instrument, ...]
    method: Method
    input: Input
    venues: tuple[str, ...] | None
    sources_min: int | None
    window_us: int
    start_us: int | None

    def fingerprint(self) -> str:
        """Return a hash of what was asked: equal for bodies that mean the same."""
        parts: list[object] = [
            "average",
            [instrument.symbol for instrument in self.instruments],
            self.method,
            self.input,
        ]
        parts += [self.venues, self.sources_min, self.window_us, self.start_us]
        return sha256(msgspec.json.encode(parts)).hexdigest()


def read_wanted(body: Mapping[str, Any], instruments: Instruments) -> Wanted:
    """Return the average that a body asks for. Raises ProblemError, which names the field."""
    for field in body:
        if field not in FIELDS:
            raise bad_field(field, "is unknown", allowed=list(FIELDS))
    if "window_s" not in body:
        raise bad_field("window_s", "is missing; give the length of the window in seconds")
    window_s = number("window_s", body["window_s"])
    if not 1 <= window_s <= WINDOW_S_MAX:
        raise bad_field("window_s", f"{plain(window_s)} is out of range; 1 to {WINDOW_S_MAX} seconds")
    pairs = instruments_of(body, instruments)
    chosen = venues_named(body)
    needed = None
    if body.get("min_sources") is not None:
        wanted = number("min_sources", body["min_sources"])
        if wanted < 1 or wanted != wanted.to_integral_value():
            raise bad_field("min_sources", f"{plain(wanted)} is not a whole number of at least 1")
        needed = int(wanted)
    for instrument in pairs:
        sources_min(needed, len(listed(instrument, venues_of(instrument, chosen))))
    return Wanted(
        pairs,
        word("method", body.get("method") or Method.CLAMPED_MEAN, Method),
        word("input", body.get("input") or Input.MID, Input),
        chosen,
        needed,
        int(window_s * 1_000_000),
        _start_us(body.get("start") or "now"),
    )


def instruments_of(body: Mapping[str, Any], instruments: Instruments) -> tuple[Instrument, ...]:
    """Return the pairs that a body names, as `pair` or `pairs`. Raises ProblemError, which names the field."""
    if ("pair" in body) is ("pairs" in body):
        raise bad_field("pair", "give either `pair` or `pairs`")
    field = "pair" if "pair" in body else "pairs"
    named = [body["pair"]] if field == "pair" else body["pairs"]
    if not isinstance(named, list) or not 1 <= len(named) <= PAIRS_MAX:
        raise bad_field("pairs", f"must be a list of 1 to {PAIRS_MAX} pairs")
    found = {}
    for name in named:
        try:
            instrument = instruments.resolve(text(field, name, 32))
        except UnknownSymbolError as error:
            raise bad_field(field, str(error), near=error.near) from error
        found[instrument.symbol] = instrument
    return tuple(found.values())


def venues_named(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the venues that a body names, or None for all of them. Raises ProblemError."""
    venues = body.get("venues")
    if venues is not None and (not isinstance(venues, list) or not venues):
        raise bad_field("venues", "must be a list of venues, or left out for all of them")
    return None if venues is None else tuple(sorted({str(venue) for venue in venues}))


def _start_us(value: object) -> int | None:
    return None if value == "now" else time_us("start", value, 'give "now" or')


@router.post(
    "/prices/average",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": AverageRequest.model_json_schema()}},
        },
    },
)
async def ask(request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """Accept a job that averages prices over a window, past or to come, and answer with its id.

    What the bus keeps no longer comes from the archive; of what is in neither, the result says so.
    """
    made = services(request)
    wanted = read_wanted(await read_object(request, made.settings.body_bytes_max), made.instruments)
    now_us = made.now_us()
    start_us = now_us if wanted.start_us is None else wanted.start_us
    if start_us > now_us + AHEAD_S_MAX * 1_000_000:
        raise bad_field("start", f"is more than {AHEAD_S_MAX} s ahead")
    key = idempotency_key(request)
    due_us = max(now_us, start_us + wanted.window_us + int(SETTLED_S * 1e6))
    new = NewJob(
        id=uuid7(now_us),
        owner_id=owner.id,
        kind=AVERAGE_KIND,
        payload={
            "pairs": [instrument.symbol for instrument in wanted.instruments],
            "method": wanted.method.value,
            "input": wanted.input.value,
            "venues": list(wanted.venues) if wanted.venues else None,
            "min_sources": wanted.sources_min if wanted.sources_min is not None else SOURCES_MIN,
            "start": rfc3339(start_us),
            "end": rfc3339(start_us + wanted.window_us),
            "start_us": start_us,
            "end_us": start_us + wanted.window_us,
        },
        created_us=now_us,
        due_us=due_us,
        task_id=new_task_id() if due_us <= now_us else None,
        idempotency_key=key,
        fingerprint=wanted.fingerprint(),
    )
    return await accepted(made, new)


async def accepted(made: Services, new: NewJob) -> Response:
    """Store a job, wake a worker where it is due, and return the answer. Raises ProblemError."""
    try:
        row = await run_in_threadpool(create, made.database, new)
    except KeyReusedError as error:
        raise key_reused(error) from error
    if row.task_id is not None and row.id == new.id:
        made.announcer.announce({}, set(), row.task_id)
    status_url = f"/jobs/{row.id}"
    answer = {"job_id": row.id, "status_url": status_url, "job": job_json(row, flower_url(made))}
    return JSONResponse(answer, 202, headers={"Location": status_url})


@router.get("/jobs/{job_id}/result")
async def result(
    job_id: str,
    request: Request,
    owner: Annotated[Owner, Depends(signed_in)],
    format: str | None = None,  # noqa: A002 -- the parameter's public name
) -> Response:
    """Return a job's result as JSON, or where that is asked for (`format`, Accept) as CSV, a line a source."""
    made = services(request)

    def look_up() -> JobRow | None:
        with made.database.read() as connection:
            return job_by_id(connection, owner.id, job_id)

    row = await run_in_threadpool(look_up)
    if row is None:
        raise not_found("job", job_id)
    if row.state is not JobState.DONE or row.result is None:
        detail = f"job {job_id} is {row.state}" + (f": {row.error}" if row.error else "")
        raise ProblemError(409, "There is no result yet", detail, state=row.state.value)
    asked = format or ("csv" if "text/csv" in request.headers.get("accept", "") else "json")
    if asked not in ("json", "csv"):
        raise bad_field("format", f"{asked!r} is unknown; json or csv", allowed=["json", "csv"])
    if asked == "json" or "parts" not in row.result:
        return JSONResponse(row.result)
    return Response(as_csv(row.result), media_type="text/csv; charset=utf-8")


def as_csv(averaged: Mapping[str, Any]) -> str:
    """Return an average's result as CSV, a line a source; a number is its exact text."""
    written = io.StringIO()
    lines = csv.DictWriter(written, COLUMNS, extrasaction="ignore", lineterminator="\r\n")
    lines.writeheader()
    common = {name: averaged[name] for name in ("start", "end", "method", "input")}
    for part in averaged["parts"]:
        for source in part["sources"] or [{}]:
            row = {**source, **common, **{name: part.get(name) for name in ("pair", "value", "problem")}}
            if "incomplete" in source:
                row["incomplete"] = str(source["incomplete"]).lower()  # as in the JSON
            lines.writerow(row)
    return written.getvalue()
