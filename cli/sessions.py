"""`crossfill record`: an exchange's traffic into a file that `crossfill up --replay` plays."""

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.remote import fail

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def seconds(option: str, text: str) -> float:
    """Return a duration in seconds; end with a sentence where it is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        fail(f"{option} {text}: give a number and s, m or h, as in 30s, 5m, 1h")
    return float(match[1]) * _SECONDS[match[2]]


def moment(option: str, text: str) -> str:
    """Return a time as it was given, or for one as -5m what it was so long ago, RFC 3339."""
    if not text.startswith("-"):
        return text
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds(option, text[1:])))


def record(
    venue: Annotated[str, typer.Argument(help="The venue, as binance.")],
    pairs: Annotated[list[str], typer.Argument(help="The pairs, as BTC-USDT.")],
    *,
    duration: Annotated[str, typer.Option("--for", help="How long: 30s, 5m, 1h.")] = "5m",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
) -> None:
    """Record what a venue says, frame by frame."""
    from models.domain.errors import CrossfillError  # noqa: PLC0415 -- the help needs none of it
    from workers.recorder import record as write  # noqa: PLC0415 -- likewise

    length_s = seconds("--for", duration)
    try:
        file = write(venue, pairs, length_s, out)
    except (CrossfillError, OSError) as error:
        fail(str(error))
    typer.echo(f"written to {file}")
