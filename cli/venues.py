"""`crossfill venues` and `venue`."""

import json
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.remote import remote
from cli.tables import plain_table


class Switch(StrEnum):
    """On or off."""

    ON = "on"
    OFF = "off"


def venues(*, as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False) -> None:
    """List the venues: how each is read, and why its prices do not count."""
    answer = remote().call("GET", "/venues")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    columns = ("venue", "state", "since", "pairs", "oldest", "msgs/s", "gaps", "reconnects", "note")
    table = plain_table(*columns, title=f"{answer['market']} market")
    for venue in answer["venues"]:
        table.add_row(*_row(venue))
    Console().print(table)


def _row(venue: dict[str, Any]) -> tuple[str, ...]:
    since, ages = venue["connection_age_ms"], [pair["quote_age_ms"] for pair in venue["pairs"]]
    known = [age for age in ages if age is not None]
    notes = [venue["reason"] or ""]
    if venue["silent_streams"]:
        notes.append(f"{len(venue['silent_streams'])} streams never spoke")
    return (
        venue["venue"],
        venue["state"],
        "" if since is None else f"{since / 1000:.0f} s",
        f"{len(known)} of {len(ages)}",
        f"{max(known) / 1000:.1f} s" if known else "",
        str(venue["messages_per_s"]),
        str(venue["gaps"]),
        str(venue["reconnects"]),
        ", ".join(filter(None, notes)),
    )


def venue(
    switch: Annotated[Switch, typer.Argument(help="on or off.")],
    name: Annotated[str, typer.Argument(help="The venue, as binance.")],
) -> None:
    """Switch a venue on or off, at once: off, its prices leave every average and its quotes fill nothing."""
    answer = remote().call("PATCH", f"/venues/{quote(name, safe='')}", {"enabled": switch is Switch.ON})
    typer.echo(f"{answer['venue']} is {'on' if answer['enabled'] else 'off'}")
