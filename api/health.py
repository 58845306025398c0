"""Health: whether the process lives, and whether the system can take orders and work them."""

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from redis import RedisError
from sqlalchemy import update
from starlette.responses import JSONResponse, Response

from api.services import Services, services
from models.bus.latest import CollectorState, decode_states
from models.bus.names import COLLECTORS
from models.domain.errors import CrossfillError
from models.store.shards import owned, processes_seen
from models.store.tables import meta
from models.store.venues import switches

router = APIRouter(tags=["health"])

SEEN_US = 6_000_000
Part = dict[str, str]


def _part(status: str, detail: str) -> Part:
    return {"status": status, "detail": detail}


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Say that the process answers."""
    return {"status": "up"}


@router.get("/health/ready")
async def ready(request: Request) -> Response:
    """Say whether orders can be accepted (200 while the database can commit), and how each part is."""
    made = services(request)
    stored = await run_in_threadpool(_stored, made)
    enabled = stored.pop("_enabled", {})
    parts = {**stored, **await _bus(made, enabled)}
    statuses = {part["status"] for part in parts.values()}
    down = parts["database"]["status"] == "down"
    status = "down" if down else "up" if statuses == {"up"} else "degraded"
    body = {"status": status, "market": made.settings.market.value, "parts": parts}
    return JSONResponse(body, 503 if down else 200, headers={"Retry-After": "2"} if down else None)


def _stored(made: Services) -> dict[str, Any]:
    """Return what the database can say: that it commits, and who is alive."""
    try:
        with made.database.write() as connection:
            connection.execute(update(meta).where(meta.c.key == "shards").values(key="shards"))
        with made.database.read() as connection:
            shards = owned(connection)
            workers = processes_seen(connection, "fulfilment", SEEN_US)
            jobs = processes_seen(connection, "jobs", SEEN_US)
            notifiers = processes_seen(connection, "notifier", SEEN_US)
            enabled = switches(connection)
    except CrossfillError as error:
        unknown = _part("down", "not known while the database is down")
        return {"database": _part("down", str(error)), "workers": unknown, "notifier": unknown}
    if not workers:
        working = _part("down", "no fulfilment worker; orders are accepted and wait")
    elif shards < made.shards:
        working = _part("degraded", f"{shards} of {made.shards} shards have an owner")
    elif not jobs:
        working = _part("degraded", f"{len(workers)} for fulfilment, none for jobs")
    else:
        working = _part("up", f"{len(workers)} for fulfilment, {len(jobs)} for jobs; {shards} shards owned")
    notifier = _part("up", "events are pushed") if notifiers else _part("down", "no notifier; GET /events has them")
    return {"database": _part("up", "commits"), "workers": working, "notifier": notifier, "_enabled": enabled}


async def _bus(made: Services, enabled: dict[str, bool]) -> dict[str, Part]:
    try:
        states = decode_states(await made.bus.hgetall(COLLECTORS))
    except (RedisError, OSError) as error:
        lost = _part("down", "not known while Redis is down; orders are accepted and wait for quotes")
        return {"redis": _part("down", f"does not answer: {error}"), "collectors": lost}
    return {"redis": _part("up", "answers"), "collectors": _collectors(made, states, enabled)}


def _collectors(made: Services, states: dict[str, CollectorState], enabled: dict[str, bool]) -> Part:
    now_us, limit_us = time.time_ns() // 1000, made.settings.silence_s * 1e6
    wanted = [venue for venue in made.settings.venue_names if enabled.get(venue, True)]
    alive = [
        venue
        for venue in wanted
        if venue in states and states[venue].connected_since_us and now_us - states[venue].marked_us <= limit_us
    ]
    missing = sorted(set(wanted) - set(alive))
    gaps = ", ".join(f"{venue} {states[venue].gaps}" for venue in alive if states[venue].gaps)
    told = f"; gaps seen: {gaps}" if gaps else ""
    if not missing:
        return _part("up", f"{', '.join(alive)} connected{told}")
    return _part("degraded" if alive else "down", f"not connected: {', '.join(missing)}{told}")
