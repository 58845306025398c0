from threading import Thread

from models.store.book import load
from models.store.database import Database
from models.store.venues import ensure_venues, next_token, set_enabled, switches


def test_each_connection_takes_a_higher_token(database: Database) -> None:
    """Two collectors of one venue never hold the same token."""
    tokens: list[int] = []

    def run() -> None:
        tokens.extend(next_token(database, "binance") for _ in range(10))

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(tokens) == list(range(1, 21))
    assert next_token(database, "coinbase") == 1


def test_a_venue_is_switched(database: Database) -> None:
    """A venue that was switched off stays off over a restart, and its token stays."""
    assert set_enabled(database, "binance", enabled=False)
    assert not set_enabled(database, "none", enabled=False)
    next_token(database, "binance")
    ensure_venues(database, ["binance", "kraken"])
    with database.read() as connection:
        assert switches(connection) == {"binance": False, "coinbase": True, "kraken": True}
        assert load(connection, 0).disabled == ["binance"]
        assert load(connection, 0).tokens == {"binance": 1, "coinbase": 0, "kraken": 0}
    assert next_token(database, "binance") == 2
