from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from models.domain.signals import Cross, Signal
from models.store.database import Database
from models.store.signals import insert_signals, read_signals

HOUR_US = 3_600_000_000
SIGNAL = Signal(
    *("golden-cross", 1, "a", "all", "BTC-USDT", 3_600, 497_222 * HOUR_US, Cross.GOLDEN),
    *(Decimal("63508.21246562233476760748024"), Decimal("63500.5"), Decimal("63500.4"), 497_223 * HOUR_US, "simulated"),
)


def read(database: Database, limit: int = 100, **wanted: Any) -> list[Signal]:
    with database.read() as connection:
        return [row.signal for row in read_signals(connection, "simulated", limit, **wanted)]


def test_a_signal_is_stored_once(database: Database) -> None:
    """Whoever raises it again is told that it is not new, whatever else it says; the first one stays."""
    assert insert_signals(database, []) == []
    assert insert_signals(database, [SIGNAL]) == [SIGNAL]
    later = replace(SIGNAL, raised_us=SIGNAL.raised_us + 1, close=Decimal(1))
    second = replace(SIGNAL, variant="b", cross=Cross.DEATH)
    assert insert_signals(database, [later, second, second]) == [second]
    assert insert_signals(database, [second, later]) == []
    assert read(database) == [second, SIGNAL]


def test_each_part_of_its_identity_makes_another_signal(database: Database) -> None:
    """Markets never mix either."""
    parts = {"strategy": "s", "version": 2, "variant": "b", "venue": "okx", "symbol": "ETH-USD", "interval_s": 60}
    others = [replace(SIGNAL, **{name: value}) for name, value in {**parts, "open_time_us": 0}.items()]
    live = replace(SIGNAL, market="live")
    assert insert_signals(database, [SIGNAL, *others, live]) == [SIGNAL, *others, live]
    assert read(database) == [*others[::-1], SIGNAL]


def test_signals_are_read_newest_first_by_what_is_wanted(database: Database) -> None:
    """Page by page."""
    made = [
        replace(
            SIGNAL, open_time_us=hour * HOUR_US, variant="ab"[hour % 2], symbol=("BTC-USDT", "ETH-USDT")[hour % 3 == 0]
        )
        for hour in range(300)
    ]
    assert insert_signals(database, made) == made
    assert read(database, 2) == made[:-3:-1]
    assert read(database, 1_000, variant="a", symbol="ETH-USDT") == made[::6][::-1]
    assert read(database, strategy="other") == []
    assert read(database, version=2) == []
    assert len(read(database, strategy="golden-cross", version=1)) == 100
    with database.read() as connection:
        first = read_signals(connection, "simulated", 7)
        assert read(database, 293, before_id=first[-1].id) == made[292::-1]
