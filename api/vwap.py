"""Sliding averages of the last trades, as the analyst told them last. Open to everybody."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from redis import RedisError
from starlette.responses import JSONResponse, Response

from api.prices import resolve
from api.problems import bad_field, unavailable
from api.schemas import vwap_json
from api.services import services
from models.bus.analysis import decode_vwaps
from models.bus.names import vwap_key
from models.domain.candles import EVERY_VENUE
from models.domain.vwap import WINDOW_MAX, Vwap
from models.store.events import rfc3339

router = APIRouter(tags=["vwap"])

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_TIME = re.compile(rf"\d{{1,6}}[{''.join(_UNITS_S)}]", re.ASCII)


@router.get("/vwap/{pair:path}")
async def read(
    pair: str,
    request: Request,
    window: Annotated[
        str | None, Query(description="a number of trades, or a time as 5m; without it: the number of trades kept")
    ] = None,
) -> Response:
    """Return a pair's volume-weighted average price at each venue, and over all of them in `merged`.

    `points` is the number of trades in it, `size` their sum in the base asset, `from` and `until` the times
    of the oldest and the newest. `windows` lists those that are kept; POST /vwap takes any.
    """
    for name in request.query_params:
        if name != "window":
            raise bad_field(name, "is unknown", allowed=["window"])
    if window is not None:
        _check_form(window)
    made = services(request)
    instrument = resolve(made.instruments, pair)
    try:
        told = decode_vwaps(await made.bus.hgetall(vwap_key(instrument.symbol)))
    except (RedisError, OSError) as error:
        raise unavailable(f"averages cannot be read: {error}") from error
    market = made.settings.market.value
    by_window: dict[int | str, dict[str, Vwap]] = {}
    for name, vwap in told.items():
        venue, _, time = name.partition(":")
        if vwap.market == market:
            by_window.setdefault(time or vwap.window, {})[venue] = vwap
    kept = sorted(by_window, key=_length)
    head = {"pair": instrument.symbol, "market": market, "time": rfc3339(made.now_us()), "windows": kept}
    if not kept:
        problem = f"nothing was traded of {instrument.symbol} since this market is read"
        return JSONResponse({**head, "window": None, "merged": None, "venues": [], "problem": problem})
    chosen = _chosen(window, kept)
    shown = {venue: vwap_json(venue, vwap, chosen) for venue, vwap in sorted(by_window[chosen].items())}
    merged = shown.pop(EVERY_VENUE, None)
    return JSONResponse({**head, "window": chosen, "merged": merged, "venues": list(shown.values())})


def _length(window: int | str) -> tuple[bool, int]:
    """Sort numbers of trades before times, and each by what it is."""
    if isinstance(window, int):
        return False, window
    return True, int(window[:-1]) * _UNITS_S[window[-1]]


def _check_form(window: str) -> None:
    right = f"give a number of trades, 1 to {WINDOW_MAX}, or a time such as 5m"
    if _WHOLE.fullmatch(window):
        if not 1 <= int(window) <= WINDOW_MAX:
            raise bad_field("window", f"{window} is out of range; {right}")
    elif not _TIME.fullmatch(window) or not int(window[:-1]):
        raise bad_field("window", f"{window!r} is no window; {right}")


def _chosen(window: str | None, kept: list[int | str]) -> int | str:
    if window is None:
        return kept[0]
    asked = _length(int(window) if _WHOLE.fullmatch(window) else window)
    by_length = {_length(each): each for each in kept}  # 60s is 1m
    if asked not in by_length:
        allowed = [str(each) for each in kept]
        problem = f"{window} is not kept; one of {', '.join(allowed)} is, and POST /vwap takes any"
        raise bad_field("window", problem, allowed=allowed)
    return by_length[asked]
