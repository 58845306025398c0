"""`crossfill candles`."""

import json
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.remote import remote
from cli.sessions import moment
from cli.tables import plain_table, short

SHOWN = {"1s": slice(5, 19), "1d": slice(0, 10)}  # of an open time; of others month, day and minute


def candles(  # noqa: PLR0913 -- one argument an option
    pair: Annotated[str, typer.Argument(help="The pair, as BTCUSDT or BTC-USDT.")],
    *,
    interval: Annotated[str, typer.Option(help="1s, 1m, 5m, 15m, 1h, 4h or 1d.")] = "1m",
    venue: Annotated[str, typer.Option(help="A venue, or all for the trades of all of them together.")] = "all",
    start: Annotated[str | None, typer.Option(help="A time as 2026-11-21T12:00:00Z, or how long ago: -2h.")] = None,
    end: Annotated[str | None, typer.Option(help="Likewise; candles open before it.")] = None,
    limit: Annotated[int, typer.Option(help="So many at most: from the start on, or else the last ones.")] = 30,
    fill: Annotated[bool, typer.Option(help="Make the candles in which nothing was traded.")] = True,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, with all digits and columns.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False,
) -> None:
    """Print a pair's candles, oldest first; the last one may still be made."""
    ends = {name: moment(f"--{name}", text) for name, text in {"start": start, "end": end}.items() if text is not None}
    given = {"interval": interval, "venue": venue, "limit": limit, "fill": str(fill).lower(), **ends}
    path = f"/candles/{quote(pair)}?{urlencode(given)}"
    if as_csv:
        text, problem = remote().call("GET", f"{path}&format=csv", read=_csv)
        typer.echo(text, nl=False)
        if problem is not None:
            typer.echo(f"crossfill: {problem}", err=True)
        return
    answer = remote().call("GET", path)
    if as_json:
        typer.echo(json.dumps(answer))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    console = Console()
    if answer["candles"]:
        console.print(_table(answer))
    for note in filter(None, (answer.get("problem"), _checked(answer["checked"]))):
        console.print(note, markup=False)


def _csv(answer: Any) -> tuple[str, str | None]:  # noqa: ANN401 -- urlopen's answer is typed as a file alone
    return answer.read().decode(), answer.headers["Crossfill-Problem"]


def _table(answer: dict[str, Any]) -> Any:  # noqa: ANN401 -- Rich is loaded only where it is shown
    title = f"{answer['pair']}, {answer['interval']}, {answer['venue']}, {answer['market']} market"
    names = ("open", "high", "low", "close", "volume")
    table = plain_table("UTC", *names, "trades", title=title)
    part = SHOWN.get(answer["interval"], slice(5, 16))
    for candle in answer["candles"]:
        notes = [
            str(candle["trades"]),
            "" if candle["closed"] else "still made",
            "incomplete" if candle["incomplete"] else "",
            f"revision {candle['revision']}" if candle["revision"] else "",
        ]
        opened = candle["open_time"][part].replace("T", " ")
        table.add_row(opened, *(short(candle[name]) for name in names), ", ".join(filter(None, notes)))
    return table


def _checked(checked: dict[str, Any] | None) -> str | None:
    if checked is None:
        return None
    return f"{checked['compared']} compared with the venue's own, {checked['differing']} of them differ"
