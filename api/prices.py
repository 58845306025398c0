"""Prices: the average over venues, and each venue's newest quote. Open to everybody."""

import time
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from redis import RedisError
from starlette.responses import JSONResponse, Response

from api.legacy import price_error, price_success, source_json
from api.problems import ProblemError, unavailable
from api.services import Services, services
from models.bus.latest import CollectorState, LatestPrice, decode_latest, decode_states
from models.bus.names import COLLECTORS, latest_key
from models.domain.averages import judge, mean
from models.domain.decimals import plain
from models.domain.instruments import Instrument, UnknownSymbolError
from models.store.venues import switches

router = APIRouter(tags=["prices"])

AGE_US_MAX = 60_000_000
SOURCES_MIN = 3


@dataclass(frozen=True)
class Seen:
    """What is known of a pair now: latest prices and collectors by venue, and which venues are on."""

    latest: dict[str, LatestPrice]
    collectors: dict[str, CollectorState]
    enabled: dict[str, bool]
    now_us: int
    silence_us: int

    def connected(self, venue: str) -> bool:
        """Whether the venue's collector is connected and has just said so."""
        state = self.collectors.get(venue)
        return bool(state and state.connected_since_us and self.now_us - state.marked_us <= self.silence_us)


async def look(made: Services, instrument: Instrument) -> Seen:
    """Return what is known of a pair now. Raises ProblemError while prices cannot be read."""
    try:
        pipeline = made.bus.pipeline(transaction=False)
        pipeline.hgetall(latest_key(instrument.symbol))
        pipeline.hgetall(COLLECTORS)
        latest, states = await pipeline.execute()
    except (RedisError, OSError) as error:
        raise unavailable(f"prices cannot be read: {error}") from error

    def read() -> dict[str, bool]:
        with made.database.read() as connection:
            return switches(connection)

    enabled = await run_in_threadpool(read)
    now_us = time.time_ns() // 1000
    return Seen(decode_latest(latest), decode_states(states), enabled, now_us, int(made.settings.silence_s * 1e6))


@router.get("/getAveragePairPrice/{pair:path}")
async def average(pair: str, request: Request) -> Response:
    """Return the mean of the last prices of every venue that is on, lists the pair, is connected and fresh."""
    made = services(request)
    try:
        instrument = made.instruments.resolve(pair)
    except UnknownSymbolError as error:
        return price_error(404, f"Invalid pair {pair}", near=error.near)
    try:
        seen = await look(made, instrument)
    except ProblemError as error:
        return price_error(503, error.detail)
    sources = []
    for venue in sorted(instrument.venues):
        latest = seen.latest.get(venue)
        age_us = seen.now_us - latest.last_time_us if latest and latest.last_time_us is not None else None
        sources.append(
            judge(
                venue,
                latest.last if latest else None,
                age_us,
                enabled=seen.enabled.get(venue, False),
                connected=seen.connected(venue),
                age_us_max=AGE_US_MAX,
            ),
        )
    needed = min(SOURCES_MIN, len(sources))
    missing = [f"{source.venue} ({source.reason})" for source in sources if source.reason is not None]
    shown = [source_json(source) for source in sources]
    if len(sources) - len(missing) < needed:
        message = f"{needed} sources are needed for {instrument.symbol}; missing: {', '.join(missing)}"
        return price_error(503, message, sources=shown)
    return price_success(mean(sources), made.settings.market.value, shown)


@router.get("/quotes/{pair:path}")
async def quotes(pair: str, request: Request) -> Response:
    """Return each venue's newest quote and last price."""
    made = services(request)
    try:
        instrument = made.instruments.resolve(pair)
    except UnknownSymbolError as error:
        raise ProblemError(404, "Not found", str(error), near=error.near) from error
    seen = await look(made, instrument)
    venues = [
        _quote_json(product.venue, product.id, seen)
        for product in sorted(instrument.products, key=lambda product: product.venue)
    ]
    return JSONResponse({"pair": instrument.symbol, "market": made.settings.market.value, "venues": venues})


def _quote_json(venue: str, product_id: str, seen: Seen) -> dict[str, Any]:
    latest = seen.latest.get(venue)
    names = ("bid", "bid_size", "ask", "ask_size", "last")
    values = {name: getattr(latest, name) if latest is not None else None for name in names}
    quote_us = latest.quote_time_us if latest is not None else None
    return {
        "venue": venue,
        "product_id": product_id,
        **{name: None if value is None else plain(value) for name, value in values.items()},
        "live": bool(latest and latest.live),
        "enabled": seen.enabled.get(venue, False),
        "connected": seen.connected(venue),
        "quote_age_ms": None if quote_us is None else max(0, (seen.now_us - quote_us) // 1000),
    }
