"""Signals, newest first. Open to everybody."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from api import cursors
from api.prices import resolve
from api.problems import bad_field
from api.schemas import signal_json
from api.services import services
from models.store.signals import read_signals

router = APIRouter(tags=["strategies"])

PARAMETERS = ("pair", "strategy", "variant", "limit", "cursor")


@router.get("/signals")
def read_all(
    request: Request,
    pair: Annotated[str | None, Query(description="of this pair only")] = None,
    strategy: Annotated[str | None, Query(description="of this strategy only, in all of its versions")] = None,
    variant: Annotated[str | None, Query(description="of this variant only, as `a`")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
) -> Response:
    """Return what the strategies said, newest first, in pages: the Link header and `next_cursor` lead on."""
    for name in request.query_params:
        if name not in PARAMETERS:
            raise bad_field(name, "is unknown", allowed=list(PARAMETERS))
    made = services(request)
    symbol = None if pair is None else resolve(made.instruments, pair).symbol
    place = cursors.decode(cursor)
    if place is not None and not (place.isascii() and place.isdecimal() and len(place) < 20):  # noqa: PLR2004 -- the digits of 64 bits
        raise bad_field("cursor", "is none of ours; take `next_cursor` of the page before")
    with made.database.read() as connection:
        rows = read_signals(
            connection,
            made.settings.market.value,
            limit + 1,
            symbol=symbol,
            strategy=strategy,
            variant=variant,
            before_id=None if place is None else int(place),
        )
    next_cursor = cursors.encode(rows[limit - 1].id) if len(rows) > limit else None
    headers = {} if next_cursor is None else cursors.next_link(request, next_cursor)
    shown = [signal_json(row.signal) for row in rows[:limit]]
    answer = {"signals": shown, "next_cursor": next_cursor}
    if not shown and place is None:
        asked = " of what is asked for" if (pair, strategy, variant) != (None, None, None) else ""
        answer["problem"] = f"no signal{asked} was raised yet in the {made.settings.market} market"
    return JSONResponse(answer, headers=headers)
