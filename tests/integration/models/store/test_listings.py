import time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from threading import Thread

import pytest
from sqlalchemy.exc import IntegrityError

from models.domain.instruments import INSTRUMENTS, Instruments, Listed, Product
from models.domain.quotes import Market
from models.store.database import Database
from models.store.listings import instruments, instruments_at, replace_listings


def listed(symbol: str, name: str, tick: str, lot: str, least: str = "0.5", *, trading: bool = True) -> Listed:
    base, quote = symbol.split("-")
    return Listed(base, quote, Product("coinbase", name, Decimal(tick), Decimal(lot), Decimal(least)), trading)


ALL = [
    listed(instrument.symbol, product.id, str(product.tick), str(product.lot))
    for instrument in INSTRUMENTS
    for product in instrument.books
    if product.venue == "coinbase"
]


def stored(database: Database) -> Instruments:
    with database.read() as connection:
        return instruments(connection)


def at_coinbase(made: Instruments, symbol: str) -> list[tuple[str, str, str, str]]:
    return [
        (each.id, f"{each.tick.normalize():f}", f"{each.lot.normalize():f}", f"{each.min_size.normalize():f}")
        for each in made[symbol].products
        if each.venue == "coinbase"
    ]


def test_without_lists_it_is_the_bundle(database: Database) -> None:
    """A fresh database changes nothing."""
    assert list(stored(database)) == list(INSTRUMENTS)


def test_a_list_refreshes_the_bundle(database: Database) -> None:
    """Exact numbers, in live markets only; evidence is the day on which the list was had."""
    replace_listings(
        database,
        "coinbase",
        [
            *(each for each in ALL if each.symbol != "LTC-BTC"),
            listed("LTC-BTC", "LTC-BTC", "0.0000001", "0.0000000001", "0.0123456789"),
            listed("DOGE-USD", "DOGE-USD", "0.00000000012", "3"),
        ],
    )
    made = stored(database)
    assert at_coinbase(made, "LTC-BTC") == [("LTC-BTC", "0.0000001", "0.0000000001", "0.0123456789")]
    assert at_coinbase(made, "DOGE-USD") == [("DOGE-USD", "0.00000000012", "3", "0.5")]
    assert at_coinbase(made, "BTC-USD") == [("BTC-USD", "0.01", "0.00000001", "0.5")]
    days = {datetime.fromtimestamp(time.time() - back, UTC).date().isoformat() for back in (0, 60)}
    (evidence,) = (each.evidence for each in made["BTC-USD"].products if each.venue == "coinbase")
    assert evidence in {f"listed by the venue on {day}" for day in days}
    others = [each for each in made["BTC-USD"].products if each.venue != "coinbase"]
    assert others == [each for each in INSTRUMENTS["BTC-USD"].products if each.venue != "coinbase"]
    assert list(instruments_at(database, Market.LIVE)) == list(made)
    assert instruments_at(database, Market.SIMULATED) is INSTRUMENTS
    assert instruments_at(database, Market.REPLAY) is INSTRUMENTS


def test_steps_stay_the_finest_that_were_traded_in(database: Database) -> None:
    """Also of a product that left the list, or came back; only what traded counts."""
    replace_listings(database, "coinbase", [*ALL, listed("DOGE-USD", "DOGE-USD", "1E-9", "1E-9", trading=False)])
    assert stored(database)["DOGE-USD"].tick == INSTRUMENTS["DOGE-USD"].tick
    fine = [*ALL[1:], listed("BTC-USD", "BTC-USD", "0.002", "1E-9")]
    replace_listings(database, "coinbase", fine)
    assert at_coinbase(stored(database), "BTC-USD") == [("BTC-USD", "0.002", "0.000000001", "0.5")]
    replace_listings(database, "coinbase", [each for each in ALL if each.symbol != "BTC-USD"])
    gone = stored(database)
    assert at_coinbase(gone, "BTC-USD") == []
    assert (gone["BTC-USD"].tick, gone["BTC-USD"].lot) == (Decimal("0.002"), Decimal("1E-9"))
    replace_listings(database, "coinbase", [listed("BTC-USD", "BTC-USD", "0.003", "1", "7")])
    back = stored(database)
    assert at_coinbase(back, "BTC-USD") == [("BTC-USD", "0.001", "0.000000001", "7")]
    assert at_coinbase(back, "ETH-USD") == []


def test_a_venue_s_list_leaves_the_others_alone(database: Database) -> None:
    """Each has its own rows."""
    replace_listings(database, "coinbase", ALL[:1])
    kraken = [replace(each, product=replace(each.product, venue="kraken", id="X/Y")) for each in ALL[:1]]
    replace_listings(database, "kraken", kraken)
    made = stored(database)
    assert [each.venue for each in made["ETH-USD"].books] == ["okx"]
    assert [each.venue for each in made["BTC-USD"].books] == ["coinbase", "okx"]


def test_a_list_that_cannot_be_stored_changes_nothing(database: Database) -> None:
    """It is one transaction."""
    replace_listings(database, "coinbase", ALL[:2])
    before = list(stored(database))
    broken = replace(ALL[-1], base=None)  # type: ignore[arg-type] # on purpose
    with pytest.raises(IntegrityError):
        replace_listings(database, "coinbase", [*ALL[2:-1], broken])
    assert list(stored(database)) == before


def test_two_that_store_the_same_list_at_once(database: Database) -> None:
    """Afterwards it is there once."""

    def run() -> None:
        for _ in range(5):
            replace_listings(database, "coinbase", ALL)

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert all(at_coinbase(stored(database), each.symbol) for each in ALL)
