"""Closing prices in the lists that another service kept, for those who come from it; see docs/coming-from.md."""

from collections.abc import Iterable
from typing import Any

from models.bus.forms import INTERVAL_NAMES
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle
from models.domain.decimals import plain

LENGTHS = (50, 200)


def closes_keys(symbols: Iterable[str]) -> list[str]:
    """Return the keys of all lists that there may be."""
    return [_key(symbol, name, length) for symbol in symbols for name in INTERVALS_S for length in LENGTHS]


def tell_closes(pipeline: Any, closed: Iterable[Candle], intervals_s: Iterable[int]) -> None:  # noqa: ANN401 -- redis's pipelines carry no types
    """Append the closes of all venues' candles of some intervals to `BTCUSDT:1h:ma50` and `:ma200`, within a pipeline.

    Each list holds as many as its average is made of, the newest last. A revision changes none of them.
    """
    wanted = frozenset(intervals_s)
    for candle in closed:
        if candle.venue == EVERY_VENUE and candle.interval_s in wanted and not candle.revision:
            for length in LENGTHS:
                key = _key(candle.symbol, INTERVAL_NAMES[candle.interval_s], length)
                pipeline.rpush(key, plain(candle.close))
                pipeline.ltrim(key, -length, -1)


def _key(symbol: str, interval: str, length: int) -> str:
    return f"{symbol.replace('-', '')}:{interval}:ma{length}"
