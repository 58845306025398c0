"""Every test of the store runs on both databases."""

from collections.abc import Iterator

import pytest

from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import ensure_venues, fix_shards


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database."""
    url: str = request.getfixturevalue("database_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture
def database(any_url: str) -> Iterator[Database]:
    """A database with the owners `ann` and `bob`, two venues and one shard."""
    database = Database.open(any_url)
    fix_shards(database, 1)
    ensure_venues(database, ["binance", "coinbase"])
    ensure_owner(database, "ann", "admin", "token of ann")
    ensure_owner(database, "bob", "user", "token of bob")
    yield database
    database.close()
