"""Venues: how each one is read, and whether its prices count."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from redis import RedisError
from starlette.responses import JSONResponse, Response

from api.market import Seen
from api.parsing import read_object
from api.problems import ProblemError, bad_field, unavailable
from api.services import Services, admin, services
from models.bus.latest import CollectorState, LatestPrice, decode_latest
from models.bus.names import latest_key
from models.bus.wakeups import new_task_id
from models.store.owners import Owner
from models.store.venues import ensure_venues, set_enabled

router = APIRouter(tags=["venues"])


@router.get("/venues")
async def read_all(request: Request) -> Response:
    """Return how each venue is: connection, quotes, rates, gaps, and why its prices do not count."""
    made = services(request)
    states, enabled = await made.market.venues()
    latest = await _latest(made)
    shown = [_venue_json(made, venue, states, enabled, latest) for venue in made.instruments.venues]
    return JSONResponse({"market": made.settings.market.value, "venues": shown})


@router.patch("/venues/{venue}")
async def switch(venue: str, request: Request, _admin: Annotated[Owner, Depends(admin)]) -> Response:
    """Switch a venue on or off, at once: off, its prices leave every average and its quotes fill nothing."""
    made = services(request)
    if venue not in made.instruments.venues:
        known = list(made.instruments.venues)
        raise ProblemError(404, "Not found", f"there is no venue {venue!r}; one of {', '.join(known)}", near=known)
    body = await read_object(request, made.settings.body_bytes_max)
    for field in body:
        if field != "enabled":
            raise bad_field(field, "is unknown", allowed=["enabled"])
    if not isinstance(body.get("enabled"), bool):
        given = json.dumps(body["enabled"]) if "enabled" in body else "nothing"
        raise bad_field("enabled", f"{given} is neither true nor false")

    def write() -> None:
        ensure_venues(made.database, [venue])
        set_enabled(made.database, venue, enabled=body["enabled"])

    await run_in_threadpool(write)
    made.market.switched()
    # The books look at the switches when they are woken, and once a second anyway.
    made.announcer.announce({shard: new_task_id() for shard in range(made.shards)}, set())
    states, enabled = await made.market.venues()
    return JSONResponse(_venue_json(made, venue, states, enabled, await _latest(made)))


async def _latest(made: Services) -> dict[str, dict[str, LatestPrice]]:
    symbols = [instrument.symbol for instrument in made.instruments]
    try:
        pipeline = made.bus.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.hgetall(latest_key(symbol))
        answers = await pipeline.execute()
    except (RedisError, OSError) as error:
        raise unavailable(f"prices cannot be read: {error}") from error
    return {symbol: decode_latest(fields) for symbol, fields in zip(symbols, answers, strict=True)}


def _venue_json(
    made: Services,
    venue: str,
    states: Mapping[str, CollectorState],
    enabled: Mapping[str, bool],
    latest: Mapping[str, Mapping[str, LatestPrice]],
) -> dict[str, Any]:
    seen = Seen({}, states, enabled, made.now_us(), made.silence_us)
    state, on = states.get(venue), enabled.get(venue, True)
    connected, age_us = seen.connected(venue), seen.connection_age_us(venue)
    reason = None
    if not on:
        reason = "venue_disabled"
    elif state is None:
        reason = "no_collector"
    elif not connected:
        reason = "not_connected"
    return {
        "venue": venue,
        "enabled": on,
        "state": "connected" if connected else "down",
        "reason": reason,
        "connection_age_ms": None if age_us is None else age_us // 1000,
        "token": state.token if state else None,
        "messages": state.messages if state else 0,
        "messages_per_s": state.messages_per_s if state and connected else 0,
        "gaps": state.gaps if state else 0,
        "reconnects": state.reconnects if state else 0,
        "conflated": state.conflated if state else 0,
        "trades_lost": state.trades_lost if state else 0,
        "silent_streams": state.silent_streams if state else [],
        "pairs": [
            {
                "pair": instrument.symbol,
                "product_id": product.id,
                "price_only": product.price_only,
                "quote_age_ms": _age_ms(latest[instrument.symbol].get(venue), seen.now_us, index=product.price_only),
            }
            for instrument in made.instruments
            for product in instrument.products
            if product.venue == venue
        ],
    }


def _age_ms(price: LatestPrice | None, now_us: int, *, index: bool) -> int | None:
    time_us = None if price is None else price.last_time_us if index else price.quote_time_us
    return None if time_us is None else max(0, (now_us - time_us) // 1000)
