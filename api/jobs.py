"""Jobs and events: what was promised with a 202, and what has happened."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api import cursors
from api.orders import waiting
from api.problems import ProblemError, not_found
from api.schemas import job_json
from api.services import flower_url, services, signed_in
from models.domain.orders import JobState
from models.store.events import as_message, events_after
from models.store.jobs import ORDER_KIND, job_by_id, list_jobs
from models.store.jobs import cancel as cancel_job
from models.store.orders import order_of_job
from models.store.owners import Owner
from models.store.rows import JobRow, OrderRow

router = APIRouter(tags=["jobs"])


@router.get("/jobs/{job_id}")
async def read(job_id: str, request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """Return a job, with the order that it carries; an open one says why it waits."""
    made = services(request)

    def look_up() -> tuple[JobRow, OrderRow | None]:
        with made.database.read() as connection:
            row = job_by_id(connection, owner.id, job_id)
            if row is None:
                raise not_found("job", job_id)
            return row, order_of_job(connection, owner.id, job_id)

    row, order = await run_in_threadpool(look_up)
    carried = {"order": (await waiting(made, [order]))[0]} if order is not None else {}
    return JSONResponse({**job_json(row, flower_url(made)), **carried})


@router.delete("/jobs/{job_id}")
def cancel(job_id: str, request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """End a job that waits or is worked: it fails with the error "cancelled". An order has a DELETE of its own."""
    made = services(request)
    found = cancel_job(made.database, owner.id, job_id)
    if found is None:
        raise not_found("job", job_id)
    row, ended = found
    if row.kind == ORDER_KIND:
        detail = f"job {job_id} carries an order; DELETE /orders/{{id}} asks for its cancel"
        raise ProblemError(409, "The job carries an order", detail)
    if not ended:
        raise ProblemError(409, "The job has ended", f"job {job_id} is {row.state}", state=row.state.value)
    return JSONResponse({"job": job_json(row, flower_url(made))})


@router.get("/jobs")
def read_all(
    request: Request,
    owner: Annotated[Owner, Depends(signed_in)],
    state: JobState | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Return jobs, newest first, in pages: the Link header leads to the next one."""
    with services(request).database.read() as connection:
        rows = list_jobs(connection, owner.id, state=state, before_id=cursors.decode(cursor), limit=limit + 1)
    headers = cursors.next_link(request, cursors.encode(rows[limit - 1].id)) if len(rows) > limit else {}
    return JSONResponse(
        {"jobs": [job_json(row, flower_url(services(request))) for row in rows[:limit]]}, headers=headers
    )


@router.get("/events")
def read_events(
    request: Request,
    owner: Annotated[Owner, Depends(signed_in)],
    after: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> Response:
    """Return events above a number, in order: the same messages that the notifier sends."""
    with services(request).database.read() as connection:
        rows = events_after(connection, owner.id, after, limit)
    last_seq = rows[-1].seq if rows else after
    return JSONResponse({"events": [as_message(row) for row in rows], "last_seq": last_seq})
