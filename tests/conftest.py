"""Fixtures that every test may ask for. Servers are real, private to the run, and on free ports."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import redis
from pytest_socket import disable_socket, enable_socket

from tests.services import MARKET_DATA, market_data, running_postgres, running_valkey


@pytest.fixture(autouse=True)
def _sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Unit tests run with sockets off."""
    if "unit" not in request.path.parts:
        yield
        return
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture(scope="session")
def _valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as url:
        yield url


@pytest.fixture
def redis_url(_valkey_url: str) -> str:
    """The URL of a private, empty Redis-compatible server."""
    with redis.Redis.from_url(_valkey_url) as client:
        client.flushall()
    return _valkey_url


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite database."""
    from models.store.schema import migrate  # noqa: PLC0415 -- unit tests need no database

    url = f"sqlite:///{tmp_path / 'crossfill.db'}"
    migrate(url)
    return url


@pytest.fixture(scope="session")
def _postgres_server() -> Iterator[str]:
    # Not under pytest's own folder, which only its owner may enter: the server may run as another user.
    folder = Path(tempfile.mkdtemp(prefix="crossfill-postgres-"))
    try:
        with running_postgres(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(_postgres_server: str) -> str:
    """The URL of a fresh, migrated PostgreSQL database."""
    from models.store.schema import migrate  # noqa: PLC0415 -- unit tests need no database

    name = f"test_{uuid4().hex}"
    with psycopg.connect(_postgres_server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = _postgres_server.removesuffix("/postgres") + f"/{name}"
    migrate(url)
    return url


@pytest.fixture
def recordings(record_property: Callable[[str, object], None]) -> Path:
    """The folder of recorded exchange traffic; the test is skipped, and counted, where it is absent."""
    folder = market_data()
    if folder is None:
        record_property(MARKET_DATA, "absent")
        pytest.skip("no recorded market data: set CROSSFILL_MARKET_DATA to a folder that has it")
    record_property(MARKET_DATA, "recorded")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests ran on real recordings, on synthetic ones, and not at all."""
    counts = Counter(
        value
        for outcome in ("passed", "failed", "skipped")
        for report in terminalreporter.getreports(outcome)
        for key, value in report.user_properties
        if key == MARKET_DATA
    )
    terminalreporter.write_line(
        f"market data: {counts['recorded']} tests on real recordings, {counts['synthetic']} on sessions recorded "
        f"from the seeded simulator, {counts['absent']} not run for want of recordings",
    )
