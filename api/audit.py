"""The heads of the audit log, for whoever keeps them elsewhere."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api.services import services, signed_in
from models.domain.records import Head
from models.store.audit import heads
from models.store.events import rfc3339
from models.store.owners import Owner

router = APIRouter(tags=["audit"])


@router.get("/audit/head")
async def head(request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:  # noqa: ARG001 -- signed in is enough
    """Return the last record's number, hash and time of each shard's chain; number 0 where there is none yet."""
    made = services(request)

    def look_up() -> list[Head]:
        with made.database.read() as connection:
            return heads(connection)

    found = await run_in_threadpool(look_up)
    rows = [
        {"shard": each.shard, "number": each.number, "hash": each.hash, "time": rfc3339(each.time_us)} for each in found
    ]
    return JSONResponse({"heads": rows})
