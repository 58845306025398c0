from threading import Thread

from msgspec.structs import replace

from models.domain.moving_averages import Kind, Seed
from models.domain.strategies import GOLDEN_CROSS, Strategy, Variant
from models.store.database import Database
from models.store.strategies import (
    StrategyRow,
    current_strategies,
    ensure_strategy,
    put_strategy,
    read_version,
    strategy_versions,
)

SLOW = Strategy("cross", {"a": Variant(Kind.SMA, 50, 200), "b": Variant(Kind.EMA, 50, 200, Seed.FIRST)})
FAST = Strategy("cross", {"x": Variant(Kind.EMA, 5, 20, Seed.SMA)}, interval="1m", venue="okx", pairs=("BTC-USD",))


def test_a_new_configuration_is_a_new_version(database: Database) -> None:
    """The same one again is the version that it has, and an older one taken up again is a new one."""
    first = put_strategy(database, replace(SLOW, version=77))
    assert first.strategy == SLOW
    reordered = replace(SLOW, variants=dict(reversed(SLOW.variants.items())))
    assert put_strategy(database, reordered) == first
    second = put_strategy(database, FAST)
    third = put_strategy(database, SLOW)
    other = put_strategy(database, replace(FAST, name="another"))
    assert [each.strategy for each in (second, third)] == [replace(FAST, version=2), replace(SLOW, version=3)]
    with database.read() as connection:
        assert current_strategies(connection) == [other, third]
        assert strategy_versions(connection, "cross") == [first, second, third]
        assert read_version(connection, "cross") == third
        assert read_version(connection, "cross", 2) == second
        assert read_version(connection, "cross", 4) is None
        assert read_version(connection, "nothing") is None
        assert strategy_versions(connection, "nothing") == []


def test_a_default_never_replaces_what_was_put(database: Database) -> None:
    """It is put where there is none of its name."""
    ensure_strategy(database, GOLDEN_CROSS)
    ensure_strategy(database, GOLDEN_CROSS)
    mine = put_strategy(database, replace(FAST, name=GOLDEN_CROSS.name))
    ensure_strategy(database, GOLDEN_CROSS)
    with database.read() as connection:
        assert current_strategies(connection) == [mine]
        assert strategy_versions(connection, GOLDEN_CROSS.name)[0].strategy == GOLDEN_CROSS


def test_two_who_put_at_once_have_a_version_each(database: Database) -> None:
    """Versions are numbered without a hole and none is written over."""
    made: list[StrategyRow] = []

    def run(start: int) -> None:
        wanted = [replace(SLOW, variants={"a": Variant(Kind.SMA, 1, start + number)}) for number in range(20)]
        made.extend(put_strategy(database, each) for each in wanted)

    threads = [Thread(target=run, args=(start,)) for start in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with database.read() as connection:
        assert strategy_versions(connection, "cross") == sorted(made, key=lambda row: row.strategy.version)
    assert sorted(row.strategy.version for row in made) == list(range(1, 41))
