"""Tables that fit a terminal of eighty columns, and numbers that fit a table."""

from decimal import Decimal
from typing import Any

DIGITS = 10  # of a number in a table; the JSON has all of them


def short(number: str | None) -> str:
    """Return a number rounded for a table; nothing for None."""
    if number is None:
        return ""
    value = Decimal(number)
    if len(value.normalize().as_tuple().digits) <= DIGITS:
        return number
    return format(round(value, max(0, DIGITS - 1 - value.adjusted())), "f")


def plain_table(*columns: str, title: str | None = None) -> Any:  # noqa: ANN401 -- Rich is loaded only where it is shown
    """Return a table without walls."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 -- slow to load
    from rich.table import Table  # noqa: PLC0415 -- likewise

    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), title_justify="left", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place < len(columns) - 1, overflow="ellipsis" if place else "fold")
    return table
