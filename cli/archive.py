"""Jobs over the past from the command line: `crossfill average --method vwap`, and `crossfill rebuild`."""

import json
from typing import Annotated, Any

import typer

from cli.following import followed
from cli.remote import fail, remote
from cli.sessions import moment, seconds
from cli.tables import plain_table, short


def rebuild(
    pairs: Annotated[list[str], typer.Argument(help="The pair, or several of them.")],
    *,
    start: Annotated[str, typer.Option(help="A time as 2026-11-21T12:00:00Z, or how long ago: -2h.")],
    window: Annotated[str, typer.Option(help="The length of the window: 5m, 1h.")] = "1h",
    interval: Annotated[list[str] | None, typer.Option(help="Only this one; may be given more than once.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The job as it is.")] = False,
) -> None:
    """Make a past window's candles anew from its trades; those that differ become revisions."""
    body: dict[str, Any] = {"pairs": pairs, "start": moment("--start", start)}
    body |= {"window_s": str(seconds("--window", window))} | ({"intervals": interval} if interval else {})
    found = remote()
    job = followed(found.call, found.call("POST", "/candles/rebuild", body)["job"], quiet=as_json)
    if as_json:
        typer.echo(json.dumps(job))
    if job["state"] == "failed":
        fail(f"the job failed: {job['error']}")
    if as_json:
        return
    result = job["result"]
    typer.echo(
        f"{', '.join(result['pairs'])}, {result['start']} to {result['end']}, {', '.join(result['intervals'])}: "
        f"{result['candles']} candles made anew, {result['written']} of them differed and were stored"
    )
    for note in _notes(result, result["problem"]):
        typer.echo(note)


def show_vwap(result: dict[str, Any]) -> None:
    """Print the volume-weighted averages of a job."""
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    console = Console()
    for part in result["parts"]:
        table = plain_table("venue", "vwap", "volume", "trades", "seen", "note")
        for venue in part["venues"]:
            seen = f"{100 * float(venue['coverage']):.1f} %"  # shown, not money
            traded = (short(venue["vwap"]) or "-", short(venue["size"]), str(venue["points"]))
            table.add_row(venue["venue"], *traded, seen, "trades may be missing" if venue["incomplete"] else "")
        console.print(f"{part['pair']} {part['vwap'] or '-'}", markup=False)
        console.print(f"[vwap of trades, {result['start']} to {result['end']}, {result['market']}]", markup=False)
        console.print(table)
    for note in _notes(result, *(part["problem"] for part in result["parts"])):
        console.print(note, markup=False)


def _notes(result: dict[str, Any], *problems: str | None) -> list[str]:
    broken = [f"left out, because it cannot be read: {path}" for path in result["files_broken"]]
    return [*filter(None, dict.fromkeys(problems)), *broken]
