"""`crossfill price` and `watch`."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.remote import remote

REFRESH_S = 0.5


def price(
    pair: Annotated[str, typer.Argument(help="The pair, as LTCBTC or LTC-BTC.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False,
) -> None:
    """Print the average of the venues' last prices, with what it is made of."""
    # Floats would lose digits of the price, so the number is read as its text.
    answer = remote().call("GET", f"/getAveragePairPrice/{quote(pair)}")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    data = answer["data"]
    typer.echo(f"{data['price']}  [{data['market']}]")
    for source in data["sources"]:
        age = "" if source["age_ms"] is None else f", {source['age_ms'] / 1000:.1f} s old"
        left_out = f"  left out: {source['reason']}" if source["reason"] else ""
        typer.echo(f"  {source['venue']:<10} {source['price'] or '-'}{age}{left_out}")


def watch(
    pair: Annotated[str, typer.Argument(help="The pair, as LTCBTC or LTC-BTC.")],
    *,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
) -> None:
    """Show the live quotes of all venues until Ctrl-C."""
    from rich.console import Console  # noqa: PLC0415 -- slow to load
    from rich.live import Live  # noqa: PLC0415 -- likewise

    found, path = remote(), f"/quotes/{quote(pair)}"
    if once:
        Console().print(_table(found.call("GET", path)))
        return
    try:
        with Live(_table(found.call("GET", path)), auto_refresh=False) as live:
            while True:
                time.sleep(REFRESH_S)
                live.update(_table(found.call("GET", path)), refresh=True)
    except KeyboardInterrupt:
        return


def _table(answer: dict[str, Any]) -> Any:  # noqa: ANN401 -- Rich is loaded only where it is shown
    from rich.table import Table  # noqa: PLC0415 -- slow to load

    title = f"{answer['pair']}, {answer['market']} market"
    table = Table("venue", "bid size", "bid", "ask", "ask size", "last", "age", "", title=title)
    for venue in answer["venues"]:
        notes = [
            note
            for note, holds in (
                ("off", not venue["enabled"]),
                ("not connected", not venue["connected"]),
                ("not live", not venue["live"]),
            )
            if holds
        ]
        age = "" if venue["quote_age_ms"] is None else f"{venue['quote_age_ms']} ms"
        values = (venue[name] or "-" for name in ("bid_size", "bid", "ask", "ask_size", "last"))
        table.add_row(venue["venue"], *values, age, ", ".join(notes))
    return table
