"""`crossfill instruments`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.remote import remote
from cli.tables import plain_table


def instruments(
    pair: Annotated[str | None, typer.Argument(help="The pair, as LTCBTC or LTC-BTC; none: all of them.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False,
) -> None:
    """List the pairs, or one pair's products: where it is traded, in which steps, and how that is known."""
    answer = remote().call("GET", "/instruments" if pair is None else f"/instruments/{quote(pair)}")
    if as_json:
        typer.echo(json.dumps(answer))
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    Console().print(_pairs(answer) if pair is None else _products(answer))


def _pairs(answer: dict[str, Any]) -> Any:  # noqa: ANN401 -- Rich is loaded only where it is shown
    table = plain_table("pair", "tick", "lot", "venues", title=f"{answer['market']} market")
    for each in answer["instruments"]:
        venues = (_venue(product) for product in each["products"])
        table.add_row(each["pair"], each["tick"], each["lot"], ", ".join(venues))
    return table


def _products(answer: dict[str, Any]) -> Any:  # noqa: ANN401 -- likewise
    title = f"{answer['pair']}, steps {answer['tick']} and {answer['lot']}, {answer['market']} market"
    table = plain_table("venue", "product", "tick", "lot", "least size", "evidence", title=title)
    for product in answer["products"]:
        steps = (product[name] or "-" for name in ("tick", "lot", "min_size"))
        table.add_row(_venue(product), product["product_id"], *steps, product["evidence"])
    return table


def _venue(product: dict[str, Any]) -> str:
    return f"{product['venue']} (index)" if product["price_only"] else str(product["venue"])
