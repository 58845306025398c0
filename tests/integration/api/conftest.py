"""The API with servers of its own, signed in."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.settings import Settings
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards
from models.store.venues import ensure_venues
from tests.integration.api.serving import serving


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with an owner and one shard."""
    opened = Database.open(database_url)
    fix_shards(opened, 1)
    ensure_venues(opened, ["binance", "coinbase"])
    ensure_owner(opened, "local", "admin", "secret")
    ensure_owner(opened, "other", "user", "another")
    yield opened
    opened.close()


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that name the test's own servers."""
    monkeypatch.setenv("CROSSFILL_DATABASE_URL", database_url)
    monkeypatch.setenv("CROSSFILL_BROKER_URL", redis_url)
    monkeypatch.setenv("CROSSFILL_HOME", str(tmp_path))
    return Settings()


@pytest.fixture
def client(settings: Settings, database: Database) -> Iterator[httpx.Client]:
    """A client that is signed in."""
    with serving(settings) as made:
        yield made
