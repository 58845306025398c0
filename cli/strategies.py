"""`crossfill strategies` and `crossfill strategy`."""

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.remote import fail, remote
from cli.tables import plain_table

Json = Annotated[bool, typer.Option("--json", help="The answer as it is.")]

strategy = typer.Typer(help="One strategy: what it would have brought, and new versions of it.", no_args_is_help=True)


def strategies(*, as_json: Json = False) -> None:
    """List the strategies: what each looks at, and its variants."""
    answer = remote().call("GET", "/strategies")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    table = plain_table("strategy", "version", "candles", "variants", "warm", "pairs")
    for each in answer["strategies"]:
        variants = [f"{name}: {_variant(variant)}" for name, variant in each["variants"].items()]
        candles = f"{each['venue']} {each['interval']}"
        version = f"{each['version']}, stopped" if each["stopped"] else str(each["version"])
        warm = "\n".join(f"{name}: {of['warm']} of {of['series']}" for name, of in each["warm"].items())
        pairs = ", ".join(each["pairs"] or ["all"])
        table.add_row(each["name"], version, candles, "\n".join(variants), warm, pairs)
    Console().print(table)


def _variant(variant: dict[str, Any]) -> str:
    seed = f", seed {variant['seed']}" if variant["seed"] else ""
    return f"{variant['kind'].upper()} {variant['fast']}/{variant['slow']}{seed}"


@strategy.command(name="put")
def put(
    name: Annotated[str, typer.Argument(help="The strategy, a new one or one that is there.")],
    file: Annotated[Path, typer.Argument(help="Its configuration as JSON, as for PUT /strategies/NAME.")],
) -> None:
    """Make a strategy, or a new version of it; the same configuration again makes none."""
    try:
        given = json.loads(file.read_text("utf-8"), parse_float=str)
    except json.JSONDecodeError as error:
        fail(f"{file}, line {error.lineno}, column {error.colno}: {error.msg[0].lower()}{error.msg[1:]}")
    except (OSError, ValueError, RecursionError) as error:
        fail(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}")
    row = remote().call("PUT", f"/strategies/{quote(name, safe='')}", given)
    typer.echo(f"{row['name']} {row['version']}, of {row['created']}")


@strategy.command(name="delete")
def delete(name: Annotated[str, typer.Argument(help="The strategy.")]) -> None:
    """Stop a strategy: it raises nothing any more. What it raised stays; a put makes its next version."""
    row = remote().call("DELETE", f"/strategies/{quote(name, safe='')}")
    typer.echo(f"{row['name']} {row['version']} is stopped, since {row['stopped']}")


@strategy.command(name="warmth")
def warmth(
    name: Annotated[str, typer.Argument(help="The strategy, as golden-cross.")], *, as_json: Json = False
) -> None:
    """Show how many closes each variant knows of those that warm its averages up, and why no more."""
    answer = remote().call("GET", f"/strategies/{quote(name, safe='')}/warmth")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    title = f"{answer['strategy']} {answer['version']}, {answer['interval']}, {answer['market']} market"
    table = plain_table("variant", "pair", "venue", "closes", "of", "not told", title=title)
    for each in answer["warmth"]:
        closes = "not counted yet" if each["closes"] is None else str(each["closes"])
        reasons = "\n".join(f"{venue}: {reason}" for venue, reason in each["problems"].items())
        table.add_row(each["variant"], each["pair"], each["venue"], closes, str(each["needed"]), reasons)
    console = Console()
    console.print(table)
    if answer.get("problem"):
        console.print(answer["problem"], markup=False)


@strategy.command(name="report")
def report(
    name: Annotated[str, typer.Argument(help="The strategy, as golden-cross.")],
    *,
    version: Annotated[int | None, typer.Option(help="A version of it; the newest where none is given.")] = None,
    pair: Annotated[str | None, typer.Option(help="Of its signals for this pair only.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a strategy's variants by what followed their signals, and say what that shows."""
    given = {key: value for key, value in {"version": version, "pair": pair}.items() if value is not None}
    answer = remote().call("GET", f"/strategies/{quote(name, safe='')}/report?{urlencode(given)}")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    console, of = Console(), answer["strategy"]
    since = f" since {answer['since']}" if answer["since"] else ""
    count = f"{answer['signals']} signal{'' if answer['signals'] == 1 else 's'}"
    title = (
        f"{of['name']} {of['version']}, {answer['pair'] or 'all pairs'}, {of['interval']}, {answer['market']} market: "
    )
    table = plain_table(
        *("variant", "crosses", "bars", "counted", "left out", "return", "95 %", "drawdown"),
        title=f"{title}{count}{since}, in basis points",
    )
    for variant in answer["variants"]:
        head = (variant["variant"], f"{variant['golden']} g, {variant['death']} d")
        drawdown = variant["drawdown_max_bps"] or "-"
        for each in variant["returns"]:
            counted = f"{each['signals']} in {each['stretches']}"
            left_out = str(each["pending"] + each["missing"])
            table.add_row(*head, str(each["bars"]), counted, left_out, *_estimate(each["estimate"]), drawdown)
            head, drawdown = ("", ""), ""
    console.print(table)
    for each in answer["differences"]:
        mean, reach = _estimate(each["estimate"])
        shown = "" if mean == "-" else f" {mean} bps [{reach}]:"
        bars = f"{each['bars']} bar{'' if each['bars'] == 1 else 's'}"
        console.print(f"{each['first']} less {each['second']} after {bars}:{shown} {each['verdict']}", markup=False)


def _estimate(estimate: dict[str, Any]) -> tuple[str, str]:
    if estimate["mean_bps"] is None:
        return "-", ""
    ends = "" if estimate["low_bps"] is None else f"{estimate['low_bps']} to {estimate['high_bps']}"
    return estimate["mean_bps"], ends
