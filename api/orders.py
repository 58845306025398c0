"""Orders: placed, read, listed, cancelled."""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from api import cursors
from api.legacy import ended_message
from api.market import Seen
from api.parsing import read_object
from api.placing import Ticket, read_ticket
from api.problems import ProblemError, bad_field, key_reused, not_found
from api.schemas import LimitOrder, order_json, split_json
from api.services import Services, idempotency_key, services, signed_in
from models.bus.wakeups import new_task_id
from models.domain.decimals import plain
from models.domain.identifiers import uuid7
from models.domain.instruments import Instrument, UnknownSymbolError
from models.domain.orders import OrderState, Reason, Side
from models.domain.shards import shard_of
from models.domain.waiting import Offer, waiting_reason
from models.store.database import StoreUnavailableError
from models.store.events import rfc3339
from models.store.orders import (
    Accepted,
    ClientOrderIdTakenError,
    KeyReusedError,
    NewOrder,
    list_orders,
    order_by_id,
    orders_by_ids,
    request_cancel,
    splits_of,
)
from models.store.owners import Owner
from models.store.rows import OrderRow, SplitRow

router = APIRouter(tags=["orders"])

PLACE = "/order/limit"
WAIT_S_MAX = 30
WAIT_MARGIN_S = 0.5
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d+)", re.IGNORECASE)


def _wait_s(request: Request) -> int | None:
    """Return N of `Prefer: wait=N` (RFC 7240, section 4.3), at most WAIT_S_MAX; None without it."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    return min(int(match[1]), WAIT_S_MAX) if match else None


def _deadline_us(ticket: Ticket, now_us: int, wait_s: int | None, default_us: int) -> int | None:
    """Return when the order ends by itself.

    Without a timeout of its own, an order that is waited for ends a little before the wait does, so
    that "not fulfilled" is final.
    """
    if wait_s:
        default_us = int(max(wait_s / 2, wait_s - WAIT_MARGIN_S) * 1e6)
    return ticket.deadline_us(now_us, default_us)


async def _store(
    request: Request, made: Services, owner: Owner, ticket: Ticket, wait_s: int | None
) -> tuple[Accepted, NewOrder]:
    key = idempotency_key(request)
    now_us = time.time_ns() // 1000
    default_us = int(made.settings.order_timeout.total_seconds() * 1e6)
    shard = shard_of(ticket.instrument.symbol, made.shards)
    order = NewOrder(
        id=uuid7(now_us),
        job_id=uuid7(now_us),
        owner_id=owner.id,
        shard=shard,
        symbol=ticket.instrument.symbol,
        side=ticket.side,
        price=ticket.price,
        size=ticket.size,
        time_in_force=ticket.time_in_force,
        venues=ticket.venues,
        client_order_id=ticket.client_order_id,
        market=made.settings.market.value,
        created_us=now_us,
        deadline_us=_deadline_us(ticket, now_us, wait_s, default_us),
        idempotency_key=key,
        fingerprint=ticket.fingerprint(),
    )
    try:
        return await made.committer.store(order), order
    except KeyReusedError as error:
        raise key_reused(error) from error
    except ClientOrderIdTakenError as error:
        raise bad_field("client_order_id", f"is taken by order {error.order_id}", order_id=error.order_id) from error


@router.post(
    PLACE,
    status_code=202,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/json": {"schema": LimitOrder.model_json_schema()}}},
    },
)
async def place(request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """Accept a limit order, durably, and answer with its job's id.

    With `Prefer: wait=N` the answer comes when the order has ended, within N seconds.
    """
    made = services(request)
    body = await read_object(request, made.settings.body_bytes_max)
    ticket = read_ticket(body, made.instruments)
    wait_s = _wait_s(request)
    accepted, order = await _store(request, made, owner, ticket, wait_s)
    applied: dict[str, str] = {}
    if wait_s:
        applied = {"Preference-Applied": f"wait={wait_s}"} if not made.waiters.full else {}
        ended = await made.waiters.ended(accepted.order_id, wait_s)
        if ended is not None:
            status, answer = ended_message(ended)
            return JSONResponse({**answer, "order": order_json(ended)}, status, headers=applied)
    shown = _accepted_json(order)
    if accepted.existing or wait_s:
        shown = order_json(await run_in_threadpool(_read_one, made, accepted.order_id))
    status_url = f"/jobs/{accepted.job_id}"
    answer = {"job_id": accepted.job_id, "status_url": status_url, "order": shown}
    headers = {"Location": status_url, **applied}
    return Response(orjson.dumps(answer), 202, headers=headers, media_type="application/json")


async def place_directly(request: Request) -> Response:
    """`place` without the framework's own dependencies, which take longer than all that it does itself."""
    return await place(request, await signed_in(request))


def _accepted_json(order: NewOrder) -> dict[str, Any]:
    """Return an order that was just accepted, without reading it again."""
    return {
        "id": order.id,
        "job_id": order.job_id,
        "symbol": order.symbol,
        "side": order.side.value,
        "size": plain(order.size),
        "price": plain(order.price),
        "time_in_force": order.time_in_force.value,
        "venues": list(order.venues) if order.venues else None,
        "client_order_id": order.client_order_id,
        "state": "queued",
        "reason": "queued",
        "filled_size": "0",
        "remaining_size": plain(order.size),
        "avg_price": None,
        "market": order.market,
        "created": rfc3339(order.created_us),
        "deadline": rfc3339(order.deadline_us),
        "ended": None,
    }


def _read_one(made: Services, order_id: str) -> OrderRow:
    with made.database.read() as connection:
        return orders_by_ids(connection, [order_id])[order_id]


@router.get("/orders/{order_id}")
async def read(order_id: str, request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """Return an order with its splits, each with the quote that it came from; an open one says why it waits."""
    made = services(request)

    def look_up() -> tuple[OrderRow, list[SplitRow]]:
        with made.database.read() as connection:
            row = order_by_id(connection, owner.id, order_id)
            if row is None:
                raise not_found("order", order_id)
            return row, splits_of(connection, row.seq)

    row, splits = await run_in_threadpool(look_up)
    [shown] = await waiting(made, [row])
    return JSONResponse({**shown, "splits": [split_json(split) for split in splits]})


async def waiting(made: Services, rows: Sequence[OrderRow]) -> list[dict[str, Any]]:
    """Return orders as answers show them, those that rest with why they wait.

    That is told from the newest prices and from what collectors say, not by the book: where a price that is
    live reaches an order and it rests all the same, what is shown there was taken by others. Nothing is
    said while prices cannot be read, or of a pair that is on no list any more. An order of another market
    waits for that.
    """
    market = made.settings.market.value
    symbols = {row.symbol for row in rows if row.state is OrderState.WORKING}
    known = [instrument for instrument in made.instruments if instrument.symbol in symbols]
    looked = await asyncio.gather(*map(made.market.look, known), return_exceptions=True)
    seen = {instrument.symbol: (instrument, each) for instrument, each in zip(known, looked, strict=True)}
    return [
        {**order_json(row), "reason": Reason.OTHER_MARKET.value}
        if row.market != market and not row.state.ended
        else _with_reason(row, *seen.get(row.symbol, (None, None)))
        for row in rows
    ]


def _with_reason(row: OrderRow, instrument: Instrument | None, seen: Seen | BaseException | None) -> dict[str, Any]:
    shown = order_json(row)
    if row.state is OrderState.WORKING and instrument is not None and isinstance(seen, Seen):
        shown["reason"] = waiting_reason(row.side, row.price, _offers(row, instrument, seen)).value
    elif isinstance(seen, BaseException) and not isinstance(seen, ProblemError | StoreUnavailableError):
        raise seen
    return shown


def _offers(row: OrderRow, instrument: Instrument, seen: Seen) -> Iterator[Offer]:
    for venue in sorted(instrument.venues & frozenset(row.venues or instrument.venues)):
        latest = seen.latest.get(venue)
        price = None if latest is None else latest.bid if row.side is Side.SELL else latest.ask
        live, enabled = bool(latest and latest.live), seen.enabled.get(venue, True)
        # A venue that nobody ever read is not stale.
        connected = seen.connected(venue) or (venue not in seen.collectors and price is None)
        yield Offer(price, live=live, enabled=enabled, connected=connected)


@router.get("/orders")
async def read_all(
    request: Request,
    owner: Annotated[Owner, Depends(signed_in)],
    state: OrderState | None = None,
    symbol: str | None = None,
    client_order_id: str | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Return orders, newest first, in pages: the Link header leads to the next one; open ones say why they wait."""
    made = services(request)
    place_text = cursors.decode(cursor)
    if place_text is not None and not place_text.isdigit():
        raise bad_field("cursor", "is none of ours; take the one of the Link header")
    try:
        canonical = made.instruments.resolve(symbol).symbol if symbol else None
    except UnknownSymbolError as error:
        raise bad_field("symbol", str(error), near=error.near) from error

    def look_up() -> list[OrderRow]:
        with made.database.read() as connection:
            return list_orders(
                connection,
                owner.id,
                state=state,
                symbol=canonical,
                client_order_id=client_order_id,
                before_seq=int(place_text) if place_text else None,
                limit=limit + 1,
            )

    rows = await run_in_threadpool(look_up)
    headers = cursors.next_link(request, cursors.encode(rows[limit - 1].seq)) if len(rows) > limit else {}
    return JSONResponse({"orders": await waiting(made, rows[:limit])}, headers=headers)


@router.delete("/orders/{order_id}", status_code=202)
def cancel(order_id: str, request: Request, owner: Annotated[Owner, Depends(signed_in)]) -> Response:
    """Ask for an order to be cancelled; the book decides whether a fill or the deadline came first."""
    made = services(request)
    row = request_cancel(made.database, owner.id, order_id, time.time_ns() // 1000)
    if row is None:
        raise not_found("order", order_id)
    if row.state.ended:
        raise ProblemError(409, "The order has ended", f"order {order_id} is {row.state}", order=order_json(row))
    made.announcer.announce({row.shard: new_task_id()}, set())
    return JSONResponse({"order": order_json(row)}, 202)
