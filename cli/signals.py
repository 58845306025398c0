"""`crossfill signals`."""

import json
from typing import Annotated
from urllib.parse import urlencode

import typer

from cli.remote import remote
from cli.tables import plain_table, short


def signals(
    *,
    pair: Annotated[str | None, typer.Option(help="Of this pair only.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Of this strategy only.")] = None,
    variant: Annotated[str | None, typer.Option(help="Of this variant only, as a.")] = None,
    limit: Annotated[int, typer.Option(help="So many at most.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False,
) -> None:
    """Print what the strategies said, newest first."""
    given = {"pair": pair, "strategy": strategy, "variant": variant, "limit": limit}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    answer = remote().call("GET", f"/signals?{query}")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    if not answer["signals"]:
        typer.echo(answer["problem"])
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    table = plain_table("raised, UTC", "pair", "signal", "strategy", "candle", "close")
    for signal in answer["signals"]:
        table.add_row(
            signal["raised"][5:19].replace("T", " "),
            signal["pair"],
            signal["cross"].replace("_", " "),
            f"{signal['strategy']} {signal['version']}{signal['variant']}",
            f"{signal['venue']} {signal['interval']}",
            short(signal["close"]),
        )
    Console().print(table)
