"""`crossfill events`: what happens, as it happens."""

import json
from typing import Annotated, Any

import typer

from cli.remote import fail, listening, remote


def events(
    *,
    after: Annotated[int | None, typer.Option(min=0, help="Begin after this number; 0 for all that is kept.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print your events, past (--after) and present, until Ctrl-C."""
    cursor = after
    with listening(remote(), lambda: cursor, ready=False) as incoming:
        try:
            while True:
                name, message = incoming.get()
                if name == "resync":
                    typer.echo(f"events before {message['oldest']} are no longer kept; read the orders anew", err=True)
                elif name == "refused":
                    fail(f"the notifier refuses: {message['reason']}")
                elif "seq" in message:
                    cursor = message["seq"]
                    typer.echo(json.dumps(message) if as_json else line(message))
                elif name == "ready":
                    cursor = message["last_seq"]
                    typer.echo("listening; Ctrl-C ends", err=True)
        except KeyboardInterrupt:
            return


def line(message: dict[str, Any]) -> str:
    """Return an event as one line for people."""
    clock = message["time"][11:23]
    head = f"{message['seq']:>6}  {clock}  {message['type']:<15} {message['order_id'] or message['job_id']}"
    market = "" if message.get("market") == "live" else f"  [{message.get('market')}]"
    return f"{head}  {_what(message)}{market}"


def _what(message: dict[str, Any]) -> str:
    kind = message["type"]
    if kind == "order.accepted":
        return f"{message['side']} {message['size']} {message['symbol']} at {message['price']}"
    if kind == "order.split":
        return f"{message['size']} at {message['price']} on {message['venue']}, {message['remaining_size']} left"
    if kind == "order.working":
        return f"{message['remaining_size']} left"
    if kind.startswith("job."):
        return str(message.get("result", {}).get("state", ""))
    average = f" at {message['avg_price']} on average" if message.get("avg_price") else ""
    reason = f" ({message['reason']})" if message.get("reason") else ""
    return f"{message['filled_size']} filled{average}{reason}"
