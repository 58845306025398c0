"""Each rule of what the analyst made of the market finds what breaks it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace as with_changes

from models.domain.candles import Candle
from models.domain.quotes import Trade
from tests.chaos.market import Seen, Telling, candles_right, signals_told, told_once, trades_told

SYMBOL = "LTC-BTC"
MINUTE_US = 60_000_000


def _trade(number: int, time_us: int, price: str = "2") -> Trade:
    return Trade("binance", "LTCBTC", 1, str(number), Decimal(price), Decimal(3), "buy", time_us, time_us)


def _candle(open_us: int, price: str, trades: int) -> Candle:
    volume = Decimal(3 * trades)
    figures = (*(Decimal(price),) * 4, volume, volume * Decimal(price), volume)
    return Candle("binance", SYMBOL, 60, open_us, *figures, trades, "simulated")


def _telling(at_ms: int, *what: Any, **value: Any) -> Telling:
    return Telling(at_ms, what[0], what, {"incomplete": False, **value})


SIGNAL = ("signal", "chaos", 1, "a", "all", SYMBOL, "1s", 7)


@dataclass
class Case:
    """Three trades in three minutes of which the second was quiet, and what came of them; Redis forgot at 50 s."""

    trades: list[Trade] = field(
        default_factory=lambda: [_trade(1, 10), _trade(1, 10), _trade(2, 20), _trade(3, 2 * MINUTE_US, "5")]
    )
    candles: list[Candle] = field(default_factory=lambda: [_candle(0, "2", 2), _candle(2 * MINUTE_US, "5", 1)])
    tellings: list[Telling] = field(
        default_factory=lambda: [
            *(_telling(at, "trade", "binance", "LTCBTC", str(at), time) for at, time in ((1, 10), (2, 20))),
            _telling(3, "trade", "binance", "LTCBTC", "3", 2 * MINUTE_US),
            _telling(4, "candle", "binance", SYMBOL, "1m", 0, 0, close="2"),
            _telling(50_001, "candle", "binance", SYMBOL, "1m", 0, 0, close="2"),
            _telling(5, *SIGNAL),
        ]
    )
    raised: dict[tuple[Any, ...], int] = field(default_factory=lambda: {SIGNAL: 4_000})

    def found(self) -> list[str]:
        """Return what the rules find."""
        seen = Seen(tellings=self.tellings, forgot_ms=[50_000])
        seen.trades[SYMBOL] += enumerate(self.trades)
        found = [*candles_right(self.candles, {SYMBOL: self.trades}), *told_once(seen), *trades_told(seen)]
        return [*found, *signals_told(self.raised, seen)]


def _wrong_volume(case: Case) -> None:
    case.candles[0] = with_changes(case.candles[0], volume=Decimal(5))


def _trade_left_out_of_a_quiet_minute(case: Case) -> None:
    case.trades.insert(3, _trade(9, MINUTE_US + 1))
    case.tellings.insert(2, _telling(2, "trade", "binance", "LTCBTC", "9", MINUTE_US + 1))


def _trade_told_twice(case: Case) -> None:
    case.tellings.append(case.tellings[0])


def _trade_never_told(case: Case) -> None:
    del case.tellings[1]


def _revision_told_twice(case: Case) -> None:
    case.tellings.append(replace(case.tellings[3], at_ms=9))


def _revision_told_otherwise(case: Case) -> None:
    case.tellings[4] = replace(case.tellings[4], value={"incomplete": False, "close": "3"})


def _signal_told_twice(case: Case) -> None:
    case.tellings.append(replace(case.tellings[5], at_ms=9))


def _signal_not_stored(case: Case) -> None:
    case.raised.clear()


def _signal_never_told(case: Case) -> None:
    case.raised[(*SIGNAL[:-1], 8)] = 9_000


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_wrong_volume, "was traded"),
        (_trade_left_out_of_a_quiet_minute, "was traded"),
        (_trade_told_twice, "was told twice"),
        (_trade_never_told, "was never told, and later ones were"),
        (_revision_told_twice, "was told twice"),
        (_revision_told_otherwise, "and as"),
        (_signal_told_twice, "was told twice"),
        (_signal_not_stored, "is not stored"),
        (_signal_never_told, "is stored and was never told"),
    ],
)
def test_what_breaks_a_rule_is_found(spoil: Callable[[Case], None], sentence: str) -> None:
    """A case that keeps every rule breaks exactly one when it is spoilt."""
    case = Case()
    assert case.found() == []
    spoil(case)
    [found] = case.found()
    assert sentence in found


def test_what_says_that_it_may_be_incomplete_is_not_judged() -> None:
    """Nor is what lies before it, of which nobody knows whether it was quiet."""
    case = Case()
    _trade_left_out_of_a_quiet_minute(case)
    case.candles[1] = with_changes(case.candles[1], incomplete=True, volume=Decimal(1))
    assert case.found() == []


def test_what_redis_forgot_may_be_told_again_or_never() -> None:
    """A record whose telling it has forgotten; a signal that was raised just before."""
    case = Case()
    case.tellings.append(replace(case.tellings[5], at_ms=60_000))
    case.raised[(*SIGNAL[:-1], 8)] = 49_999_000
    assert case.found() == []
