"""One notifier for the tests of a module: rooms end with their clients, and Redis is emptied for each test."""

from collections.abc import Iterator

import pytest
import redis

from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from tests.integration.notifier.test_server import running_notifier


@pytest.fixture(scope="module")
def home_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Database]]:
    url = f"sqlite:///{tmp_path_factory.mktemp('notifier') / 'crossfill.db'}"
    migrate(url)
    opened = Database.open(url)
    fix_shards(opened, 1)
    ensure_owner(opened, "local", "admin", "secret")
    ensure_owner(opened, "other", "user", "another")
    yield url, opened
    opened.close()


@pytest.fixture(scope="module")
def database(home_database: tuple[str, Database]) -> Database:
    """A database with two owners."""
    return home_database[1]


@pytest.fixture(scope="module")
def address(
    home_database: tuple[str, Database], _valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a running notifier."""
    with running_notifier(home_database[0], _valkey_url, tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture
def bus(redis_url: str) -> Iterator[redis.Redis]:
    """The notifier's Redis, emptied."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
