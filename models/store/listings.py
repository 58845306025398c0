"""Listings: what the venues' own lists of instruments said last. They refresh the bundled table of a live market."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, RowMapping, select
from sqlalchemy.dialects import postgresql, sqlite

from models.domain.instruments import INSTRUMENTS, Instruments, Listed, Product, common_step
from models.domain.quotes import Market
from models.store.database import Database, now_us
from models.store.tables import listings


def replace_listings(database: Database, venue: str, listed: Iterable[Listed]) -> None:
    """Put a venue's list in the place of its former one.

    Steps stay the finest that the venue has traded in, because orders may have been accepted in them;
    for the same reason a product that left the list stays, and does not trade.
    """
    with database.write() as connection:
        mine = select(listings).where(listings.c.venue == venue).order_by(listings.c.product_id).with_for_update()
        before = {row["product_id"]: row for row in connection.execute(mine).mappings()}
        seen_us = now_us(connection)
        rows: dict[str, dict[str, Any]] = {name: {**row, "trading": False} for name, row in before.items()}
        for each in listed:
            rows[each.product.id] = _row(each, before.get(each.product.id), seen_us)
        if rows:
            _write(connection, [rows[product_id] for product_id in sorted(rows)])


def _write(connection: Connection, rows: list[dict[str, Any]]) -> None:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    upsert = dialect.insert(listings)
    changed = {column.name: upsert.excluded[column.name] for column in listings.c if not column.primary_key}
    connection.execute(upsert.on_conflict_do_update(index_elements=["venue", "product_id"], set_=changed), rows)


def _row(listed: Listed, before: RowMapping | None, seen_us: int) -> dict[str, Any]:
    product = listed.product
    traded = {"tick": product.tick, "lot": product.lot} if listed.usable else {}

    def finest(name: str) -> Decimal:
        return common_step([traded.get(name, Decimal(0)), before[name] if before is not None else Decimal(0)])

    return {
        "venue": product.venue,
        "product_id": product.id,
        "base": listed.base,
        "quote": listed.quote,
        "tick": finest("tick"),
        "lot": finest("lot"),
        "min_size": product.min_size if listed.usable else Decimal(0),
        "trading": listed.usable,
        "seen_us": seen_us,
    }


def instruments(connection: Connection) -> Instruments:
    """Return the bundled pairs, refreshed by the lists that are stored.

    For a live market only: the simulator, and so a replay, speaks the bundled table. See instruments_at.
    """
    query = select(listings).order_by(listings.c.venue, listings.c.product_id)
    return INSTRUMENTS.refreshed(_listed(row) for row in connection.execute(query).mappings())


def instruments_at(database: Database, market: Market) -> Instruments:
    """Return the pairs of a market: the bundled ones, refreshed where it is live. Raises StoreUnavailableError."""
    if market is not Market.LIVE:
        return INSTRUMENTS
    with database.read() as connection:
        return instruments(connection)


def _listed(row: Mapping[Any, Any]) -> Listed:
    date = datetime.fromtimestamp(row["seen_us"] / 1e6, UTC).date().isoformat()
    evidence = f"listed by the venue on {date}"
    product = Product(row["venue"], row["product_id"], row["tick"], row["lot"], row["min_size"], evidence=evidence)
    return Listed(row["base"], row["quote"], product, row["trading"])
