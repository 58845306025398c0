"""What closed candles raise once their strategy is stopped."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from models.domain.candles import EVERY_VENUE, Candle
from models.domain.moving_averages import Kind
from models.domain.strategies import Strategy, Variant
from models.store.database import Database
from models.store.strategies import put_strategy, stop_strategy
from workers.strategies import Strategies

QUICK = Strategy("quick", {"a": Variant(Kind.SMA, 2, 5)}, interval="1m")
CLOSES = (5, 4, 3, 2, 1, 10, 10, 1, 1, 10, 10, 1, 1)  # a cross at every other one from the sixth on


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()


def candles() -> Iterator[Candle]:
    """Yield candles of these closes, again and again."""
    minute = 0
    while True:
        for close in CLOSES:
            prices = (Decimal(close),) * 4
            yield Candle(EVERY_VENUE, "LTC-BTC", 60, minute * 60_000_000, *prices, *prices[:3], 1, "simulated")
            minute += 1


def test_a_stopped_strategy_raises_nothing_until_it_is_put_again(database: Database) -> None:
    """Then it is the next version that does."""
    strategies, market = Strategies(database), candles()

    def raised() -> set[int]:
        strategies._look_at = 0
        return {signal.version for _ in range(2) for signal in strategies.take([next(market) for _ in CLOSES], 0)}

    put_strategy(database, QUICK)
    assert raised() == {1}
    stop_strategy(database, "quick")
    assert raised() == set()
    assert strategies.intervals_s == frozenset()
    put_strategy(database, QUICK)
    assert raised() == {2}
