from threading import Thread

from models.store.database import Database
from models.store.strategies import StrategyRow, current_strategies, put_strategy, read_strategy, strategy_versions

FAST = {"interval": "1h", "variants": {"a": {"kind": "sma", "fast": 50, "slow": 200}}}
FASTER = {"interval": "1m", "variants": {"a": {"kind": "ema", "fast": 5, "slow": 20, "seed": "sma"}}}


def test_a_new_configuration_is_a_new_version(database: Database) -> None:
    """The same one again is the version that it has, and an older one taken up again is a new one."""
    first = put_strategy(database, "cross", FAST)
    assert (first.name, first.version, first.config) == ("cross", 1, FAST)
    assert put_strategy(database, "cross", dict(reversed(FAST.items()))) == first
    second = put_strategy(database, "cross", FASTER)
    third = put_strategy(database, "cross", FAST)
    other = put_strategy(database, "another", FAST)
    assert (second.version, third.version, other.version) == (2, 3, 1)
    with database.read() as connection:
        assert current_strategies(connection) == [other, third]
        assert strategy_versions(connection, "cross") == [first, second, third]
        assert read_strategy(connection, "cross") == third
        assert read_strategy(connection, "cross", 2) == second
        assert read_strategy(connection, "cross", 4) is None
        assert read_strategy(connection, "nothing") is None
        assert strategy_versions(connection, "nothing") == []


def test_two_who_put_at_once_have_a_version_each(database: Database) -> None:
    """Versions are numbered without a hole and none is written over."""
    made: list[StrategyRow] = []

    def run(start: int) -> None:
        made.extend(put_strategy(database, "cross", {"n": number}) for number in range(start, start + 20))

    threads = [Thread(target=run, args=(start,)) for start in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with database.read() as connection:
        assert strategy_versions(connection, "cross") == sorted(made, key=lambda row: row.version)
    assert sorted(row.version for row in made) == list(range(1, 41))
