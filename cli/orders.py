"""`crossfill order`, `orders`, `cancel`."""

import json
from decimal import Decimal
from queue import Empty
from typing import Annotated, Any, Self
from urllib.parse import quote, urlencode

import typer

from cli.remote import Remote, fail, listening, remote

WHY_S = 2.0  # without news for so long, the order is asked why it waits
ENDS = {"order.filled", "order.expired", "order.cancelled", "order.rejected"}


def order(  # noqa: PLR0913 -- one argument an option
    symbol: Annotated[str, typer.Argument(help="The pair, as LTCBTC or LTC-BTC.")],
    size: Annotated[str, typer.Argument(help="How much of the first of the pair.")],
    price: Annotated[str, typer.Argument(help="The limit: the least a sale must bring, the most a purchase may cost.")],
    *,
    side: Annotated[str, typer.Option(help="buy or sell.")] = "sell",
    venue: Annotated[list[str] | None, typer.Option(help="Only this venue; may be given more than once.")] = None,
    tif: Annotated[str, typer.Option(help="GTD, GTC, IOC or FOK.")] = "GTD",
    timeout: Annotated[str | None, typer.Option(help="Seconds until a GTD order expires.")] = None,
    client_order_id: Annotated[str | None, typer.Option(help="A name of your own, used once.")] = None,
    follow: Annotated[bool, typer.Option(help="Follow the order to its end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Place a limit order and follow it until it ends."""
    body: dict[str, Any] = {"symbol": symbol, "order_size": size, "price": price, "side": side, "time_in_force": tif}
    given = {"venues": venue, "timeout_s": timeout, "client_order_id": client_order_id}
    body.update({key: value for key, value in given.items() if value})
    found = remote()
    if not follow:
        placed = found.call("POST", "/order/limit", body)
        typer.echo(json.dumps(placed) if as_json else f"order {placed['order']['id']} is {placed['order']['state']}")
        return
    if not _follow(found, body, as_json=as_json):
        raise typer.Exit(1)


def _follow(found: Remote, body: dict[str, Any], *, as_json: bool) -> bool:
    """Place an order, show what happens to it, and return whether it was filled."""
    cursor: int | None = None
    with listening(found, lambda: cursor) as incoming:
        placed = found.call("POST", "/order/limit", body)["order"]
        show = _Lines() if as_json else _Bar(placed)
        with show:
            try:
                while True:
                    try:
                        name, message = incoming.get(timeout=WHY_S)
                    except Empty:
                        show.waiting((found.peek(f"/orders/{placed['id']}") or {}).get("reason"))
                        continue
                    cursor = message.get("seq", cursor)
                    if name == "resync":
                        fail("the connection was lost for too long; `crossfill orders` shows how it ended")
                    if message.get("order_id") != placed["id"]:
                        continue
                    show.event(message)
                    if name in ENDS:
                        return bool(name == "order.filled")
            except KeyboardInterrupt:
                typer.echo(f"the order goes on; `crossfill cancel {placed['id']}` ends it", err=True)
                return True


class _Lines:
    """Prints events as JSON."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def event(self, message: dict[str, Any]) -> None:
        typer.echo(json.dumps(message))

    def waiting(self, reason: str | None) -> None:
        """The lines are events, and that is none."""


class _Bar:
    """A progress bar of the filled size, with a line a split above it."""

    def __init__(self, placed: dict[str, Any]) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 -- slow to load

        self._size = Decimal(placed["size"])
        self._why: str | None = None
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[filled]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns)
        title = f"{placed['side']} {placed['size']} {placed['symbol']} at {placed['price']} [{placed['market']}]"
        self._progress.print(f"order {placed['id']}, until {placed['deadline'] or 'cancelled'}", markup=False)
        filled = f"0 of {placed['size']}"
        self._task = self._progress.add_task(title.replace("[", r"\["), total=float(self._size), filled=filled)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def event(self, message: dict[str, Any]) -> None:
        from cli.events import line  # noqa: PLC0415 -- only this shows lines

        self._progress.print(line(message), markup=False, highlight=False, soft_wrap=True)
        if "filled_size" in message:
            filled = message["filled_size"]
            self._progress.update(self._task, completed=float(filled), filled=f"{filled} of {self._size}")

    def waiting(self, reason: str | None) -> None:
        """Say why the order waits, when that changes."""
        if reason is not None and reason != self._why:
            self._progress.print(f"waits: {reason}", markup=False, highlight=False)
        self._why = reason


def orders(
    *,
    state: Annotated[str | None, typer.Option(help="queued, working, filled, expired, cancelled or rejected.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this pair.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List your orders, newest first."""
    query = {key: value for key, value in {"state": state, "symbol": symbol, "limit": limit}.items() if value}
    rows = remote().call("GET", f"/orders?{urlencode(query)}")["orders"]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load
    from rich.table import Table  # noqa: PLC0415 -- likewise

    table = Table("order", "symbol", "side", "size", "limit", "state", "filled", "average", "market")
    for row in rows:
        state_text = row["state"] + (f" ({row['reason']})" if row["reason"] not in (None, row["state"]) else "")
        filled = (row["filled_size"], row["avg_price"] or "", row["market"])
        table.add_row(row["id"], row["symbol"], row["side"], row["size"], row["price"], state_text, *filled)
    Console().print(table)


def cancel(order_id: Annotated[str, typer.Argument(help="The order's id.")]) -> None:
    """Ask for an order to be cancelled."""
    answer = remote().call("DELETE", f"/orders/{quote(order_id, safe='')}")
    typer.echo(f"order {order_id} will be cancelled (it is {answer['order']['state']} now)")
