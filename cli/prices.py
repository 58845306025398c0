"""`crossfill price`, `average` and `watch`."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli import rooms
from cli.archive import show_vwap
from cli.following import followed
from cli.remote import fail, remote
from cli.tables import plain_table, short

REFRESH_S = 0.5
VWAP = "vwap"
ALL = "all"

Pair = Annotated[str, typer.Argument(help="The pair, as LTCBTC or LTC-BTC.")]
Method = Annotated[str, typer.Option(help="How to average; `all` shows every method side by side.")]
Input = Annotated[str, typer.Option(help="What is averaged: last, mid, bid or ask.")]
Venue = Annotated[list[str] | None, typer.Option(help="Only this venue; may be given more than once.")]
Json = Annotated[bool, typer.Option("--json", help="The answer as it is.")]


def price(
    pair: Pair,
    *,
    method: Method = "clamped_mean",
    source: Annotated[str, typer.Option("--input", help="What is averaged: last, mid, bid or ask.")] = "mid",
    venue: Venue = None,
    min_sources: Annotated[int | None, typer.Option(help="Withhold the price below so many sources.")] = None,
    max_age: Annotated[float | None, typer.Option(help="Leave out prices older than so many seconds.")] = None,
    convert: Annotated[str | None, typer.Option(help="Take along prices in these currencies, as USDT,USDC.")] = None,
    as_json: Json = False,
) -> None:
    """Print a pair's price over all venues, with what it is made of."""
    given = {
        "method": method,
        "input": source,
        "venues": ",".join(venue) if venue else None,
        "min_sources": min_sources,
        "max_age_s": max_age,
        "convert": convert,
    }
    query = urlencode({key: value for key, value in given.items() if value is not None})
    # A price that is withheld comes with its sources: they are what the user wants to see then.
    answer = remote().call("GET", f"/prices/{quote(pair)}?{query}", also=(503,))
    if as_json:
        typer.echo(json.dumps(answer))
    elif "pair" not in answer:
        fail(str(answer.get("detail")))
    else:
        _show(answer)
    if answer.get("status") == 503:  # noqa: PLR2004 -- not available now
        raise typer.Exit(1)


def _show(answer: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    console = Console()
    if "methods" in answer:
        console.print(_methods(answer))
        sources = next(iter(answer["methods"].values()))["sources"]
    else:
        value = answer["value"] or f"withheld: {answer['problem']}"
        console.print(f"{value}  [{answer['method']} of {answer['input']}, {answer['market']}]", markup=False)
        sources = answer["sources"]
    console.print(_sources(sources))


def _methods(answer: dict[str, Any]) -> Any:  # noqa: ANN401 -- Rich is loaded only where it is shown
    venues = [source["venue"] for source in next(iter(answer["methods"].values()))["sources"]]
    title = f"{answer['pair']}, {answer['input']}, {answer['market']} market: weights by venue"
    table = plain_table("method", "value", *venues, title=title)
    for name, made in answer["methods"].items():
        shares = [
            source["reason"] or f"{100 * float(source['weight']):.1f} %" for source in made["sources"]
        ]  # shown, not money
        table.add_row(name, short(made["value"]) or "withheld", *shares)
    return table


def _sources(sources: list[dict[str, Any]]) -> Any:  # noqa: ANN401 -- likewise
    table = plain_table("venue", "price", "as used", "weight", "age", "connected", "left out")
    for source in sources:
        ages = [
            "" if source[name] is None else f"{source[name] / 1000:.1f} s"
            for name in ("quote_age_ms", "connection_age_ms")
        ]
        raw, converted = short(source["raw_price"]) or "-", source.get("conversion")
        if converted is not None:
            raw += f" x {converted['pair']}"
        weight = f"{100 * float(source['weight']):.1f} %"  # shown, not money
        table.add_row(source["venue"], raw, short(source["adjusted_price"]), weight, *ages, source["reason"] or "")
    return table


def average(
    pairs: Annotated[list[str], typer.Argument(help="The pair, or several of them for one job with parts.")],
    *,
    window: Annotated[str, typer.Option(help="The length of the window: 60s, 5m, 1h.")] = "60s",
    start: Annotated[str, typer.Option(help="now, a time as 2026-11-21T12:00:00Z, or how long ago: -5m.")] = "now",
    method: Annotated[str, typer.Option(help="How to average; vwap: the trades of a past window.")] = "clamped_mean",
    source: Annotated[str, typer.Option("--input", help="What is averaged: last, mid, bid or ask.")] = "mid",
    venue: Venue = None,
    follow: Annotated[bool, typer.Option(help="Follow the job to its end.")] = True,
    as_json: Json = False,
) -> None:
    """Ask for an average over a window of time, as a job, and follow it until it is done."""
    from cli.sessions import moment, seconds  # noqa: PLC0415 -- only this needs it

    of_trades = method == VWAP
    body: dict[str, Any] = {"window_s": str(seconds("--window", window))}
    if of_trades:
        start = f"-{window}" if start == "now" else start  # it is of the past
    else:
        body |= {"method": method, "input": source}
    body |= {"pair": pairs[0]} if len(pairs) == 1 else {"pairs": pairs}
    body |= {"start": moment("--start", start)} | ({"venues": venue} if venue else {})
    found = remote()
    job = found.call("POST", "/vwap" if of_trades else "/prices/average", body)["job"]
    if follow:
        job = followed(found.call, job, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(job))
    elif not follow:
        typer.echo(f"job {job['id']} is due at {job['due']}")
    elif job["state"] == "done":
        (show_vwap if of_trades else _show_result)(job["result"])
    if job["state"] == "failed":
        fail(f"the job failed: {job['error']}")


def _show_result(result: dict[str, Any]) -> None:
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    console = Console()
    head = f"{result['method']} of {result['input']}, {result['start']} to {result['end']}, {result['market']}"
    for part in result["parts"]:
        table = plain_table("venue", "mean", "as used", "weight", "seen", "volume", "trades", "note")
        for source in part["sources"]:
            shares = [f"{100 * float(source[name]):.1f} %" for name in ("weight", "coverage")]  # shown, not money
            notes = [source["reason"] or "", "trades were missed" if source["incomplete"] else ""]
            prices = (short(source["raw_price"]) or "-", short(source["adjusted_price"]))
            traded = (short(source["volume"]), str(source["trades"]))
            table.add_row(source["venue"], *prices, *shares, *traded, ", ".join(filter(None, notes)))
        value = part["value"] or f"withheld: {part['problem']}"
        console.print(f"{part['pair']} {value}", markup=False)
        console.print(f"[{head}]", markup=False, style="dim")
        console.print(table)


def watch(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="PAIR | ROOM...",
            help="A pair, or rooms: price:PAIR, vwap:PAIR, candle:PAIR:1m, signal:PAIR.",
        ),
    ],
    *,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Of rooms: one JSON object a line.")] = False,
) -> None:
    """Show the live quotes of all venues, or what rooms of market data tell, until Ctrl-C."""
    if any(":" in target for target in targets):
        rooms.follow(targets, once=once, as_json=as_json)
        return
    if len(targets) > 1:
        fail("name one pair, or rooms as price:BTC-USDT")
    [pair] = targets
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
    title = f"{answer['pair']}, {answer['market']} market"
    table = plain_table("venue", "bid size", "bid", "ask", "ask size", "last", "age", "", title=title)
    for venue in answer["venues"]:
        notes = [
            note
            for note, holds in (
                ("off", not venue["enabled"]),
                ("not connected", not venue["connected"]),
                ("an index", venue["price_only"]),
                ("not live", not venue["live"] and not venue["price_only"]),
            )
            if holds
        ]
        age = "" if venue["quote_age_ms"] is None else f"{venue['quote_age_ms']} ms"
        values = (venue[name] or "-" for name in ("bid_size", "bid", "ask", "ask_size", "last"))
        table.add_row(venue["venue"], *values, age, ", ".join(notes))
    return table
