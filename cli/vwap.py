"""`crossfill vwap`: sliding averages of Coinbase's trades, without queue, database or Redis."""

import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.ending import ending
from cli.remote import fail

if TYPE_CHECKING:
    from models.settings import Settings

WINDOW = 200
_PRODUCT = re.compile(r"[A-Z0-9]+-[A-Z0-9]+")


def vwap(
    products: Annotated[list[str] | None, typer.Argument(help="Coinbase's products, as BTC-USD ETH-USD.")] = None,
    *,
    window: Annotated[int | None, typer.Option(help=f"How many trades are averaged ({WINDOW}).")] = None,
    live: Annotated[bool, typer.Option("--live", help="Read the real exchange.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many lines.")] = None,
) -> None:
    """Print the volume-weighted average of the last trades of each product, with each trade, until Ctrl-C."""
    import structlog  # noqa: PLC0415 -- the help needs none of it

    from cli.averaging import Averaging  # noqa: PLC0415 -- likewise
    from cli.legacy import FILE, Config, Publisher, read  # noqa: PLC0415 -- likewise
    from models.domain.errors import CrossfillError  # noqa: PLC0415 -- likewise
    from models.settings import Settings  # noqa: PLC0415 -- likewise

    try:
        config = read(Path(os.environ[FILE])) if os.environ.get(FILE) else Config()
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger(config.log_level or logging.WARNING),
            logger_factory=structlog.PrintLoggerFactory(typer.get_text_stream("stderr")),
        )
        address, simulated = _address(Settings(), config.ws_url, live=live)
        listed = [_product(name, simulated=simulated) for name in products or config.products]
        if not listed:
            fail("name a product, as BTC-USD")
        size = WINDOW if config.max_size is None else config.max_size
        averaging = Averaging(address, list(dict.fromkeys(listed)), size if window is None else window)
        publisher = Publisher(config)
        try:
            for product, text in averaging.run(ending(), publisher.tick, must_begin=simulated):
                typer.echo(f"[{product}] {text}")
                publisher.tell(product, text)
                if count is not None and (count := count - 1) == 0:
                    return
        finally:
            publisher.close()
    except CrossfillError as error:
        fail(str(error))
    except KeyboardInterrupt:  # before it began, or for the second time
        return


def _address(settings: "Settings", told: str | None, *, live: bool) -> tuple[str, bool]:
    """Return where Coinbase is, and whether that is the simulator that runs from this folder."""
    from exchanges.coinbase.protocol import OWN_URL, VENUE  # noqa: PLC0415 -- the help needs none of it

    named = settings.venue_urls.get(VENUE) or told
    if live or named is not None:
        return (OWN_URL if live else str(named)), False
    ports = settings.home / "ports.json"
    port = json.loads(ports.read_text()).get(VENUE) if ports.exists() else None
    if port is None:
        fail("nobody serves Coinbase here: start a simulated market with `make run`, or read the real one with --live")
    typer.echo("the simulator's market: these are not today's prices (--live has them)", err=True)
    return f"ws://127.0.0.1:{port}", True


def _product(name: str, *, simulated: bool) -> str:
    """Return the venue's name of a product. One that is not known here may still be one of the real venue."""
    from exchanges.coinbase.protocol import VENUE  # noqa: PLC0415 -- the help needs none of it
    from models.domain.instruments import INSTRUMENTS, UnknownSymbolError  # noqa: PLC0415 -- likewise

    known = {instrument.symbol: product for product, instrument in INSTRUMENTS.products_of(VENUE).items()}
    try:
        symbol = INSTRUMENTS.resolve(name).symbol
        problem = f"Coinbase does not list {symbol}; it lists {', '.join(sorted(known))}"
    except UnknownSymbolError as error:
        symbol, problem = name, str(error)
    if symbol in known:
        return known[symbol]
    if simulated or not _PRODUCT.fullmatch(name):
        fail(problem)
    return name
