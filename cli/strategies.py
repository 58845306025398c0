"""`crossfill strategies` and `crossfill strategy`."""

import json
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from cli.remote import remote
from cli.tables import plain_table

Json = Annotated[bool, typer.Option("--json", help="The answer as it is.")]

strategy = typer.Typer(help="What one strategy would have brought.", no_args_is_help=True)


@strategy.callback()
def _group() -> None:
    """Make `report` a name, also while it is the only one."""


def strategies(*, as_json: Json = False) -> None:
    """List the strategies: what each looks at, and its variants."""
    answer = remote().call("GET", "/strategies")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    table = plain_table("strategy", "version", "candles", "variants", "pairs")
    for each in answer["strategies"]:
        variants = [f"{name}: {_variant(variant)}" for name, variant in each["variants"].items()]
        candles = f"{each['venue']} {each['interval']}"
        table.add_row(
            each["name"], str(each["version"]), candles, "\n".join(variants), ", ".join(each["pairs"] or ["all"])
        )
    Console().print(table)


def _variant(variant: dict[str, Any]) -> str:
    seed = f", seed {variant['seed']}" if variant["seed"] else ""
    return f"{variant['kind'].upper()} {variant['fast']}/{variant['slow']}{seed}"


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
        *("variant", "golden", "death", "bars", "signals", "stretches", "pending", "missing", "return", "95 %"),
        *("drawdown",),
        title=f"{title}{count}{since}, returns in basis points",
    )
    for variant in answer["variants"]:
        head = (variant["variant"], str(variant["golden"]), str(variant["death"]))
        for each in variant["returns"]:
            numbers = (str(each[name]) for name in ("bars", "signals", "stretches", "pending", "missing"))
            drawdown = (variant["drawdown_max_bps"] or "-") if head[0] else ""
            table.add_row(*head, *numbers, *_estimate(each["estimate"]), drawdown)
            head = ("", "", "")
    console.print(table)
    for each in answer["differences"]:
        mean, reach = _estimate(each["estimate"])
        shown = "" if mean == "-" else f" {mean} bps [{reach}]:"
        console.print(
            f"{each['first']} less {each['second']} after {each['bars']} bars:{shown} {each['verdict']}", markup=False
        )


def _estimate(estimate: dict[str, Any]) -> tuple[str, str]:
    if estimate["mean_bps"] is None:
        return "-", ""
    ends = "" if estimate["low_bps"] is None else f"{estimate['low_bps']} to {estimate['high_bps']}"
    return estimate["mean_bps"], ends
