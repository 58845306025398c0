"""The `crossfill` command. Each noun has a file; heavy imports wait until a command needs them."""

import typer

from cli import (
    archive,
    audit,
    candles,
    consume,
    events,
    instruments,
    orders,
    prices,
    replay,
    sessions,
    signals,
    status,
    strategies,
    up,
    venues,
    vwap,
)

app = typer.Typer(
    help="Queue-backed jobs for crypto orders and prices. Orders are on paper: nothing is sent to an exchange.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(up.up)
app.command(name="order")(orders.order)
app.command(name="orders")(orders.orders)
app.command()(orders.cancel)
app.command(name="events")(events.events)
app.command()(prices.price)
app.command()(prices.average)
app.command()(prices.watch)
app.command(name="candles")(candles.candles)
app.command()(archive.rebuild)
app.command(name="signals")(signals.signals)
app.command(name="strategies")(strategies.strategies)
app.add_typer(strategies.strategy, name="strategy")
app.command(name="consume")(consume.consume)
app.command(name="vwap")(vwap.vwap)
app.command(name="instruments")(instruments.instruments)
app.command(name="venues")(venues.venues)
app.command()(venues.venue)
app.command()(sessions.record)
app.command(name="replay")(replay.play)
app.add_typer(audit.audit, name="audit")
app.command(name="status")(status.status)
app.command()(status.doctor)
