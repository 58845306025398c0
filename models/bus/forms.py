"""What is told of averages, candles and signals, as JSON: on topics, in rooms and in answers.

Numbers are texts in plain notation, times integers of microseconds since the epoch.
"""

from typing import Any

from models.bus.topics import Kind
from models.domain.candles import INTERVALS_S, Candle
from models.domain.decimals import plain
from models.domain.signals import Signal
from models.domain.vwap import Vwap

INTERVAL_NAMES = {seconds: name for name, seconds in INTERVALS_S.items()}


def vwap_form(told: Vwap) -> dict[str, Any]:
    """Return an average; `vwap` is None where nothing was traded."""
    value = told.value  # divided once
    return {
        "type": Kind.VWAP.value,
        "venue": told.venue,
        "pair": told.symbol,
        "vwap": None if value is None else plain(value),
        "window": told.window,
        "points": told.points,
        "size": plain(told.size),
        "from_us": told.from_us,
        "until_us": told.until_us,
        "market": told.market,
    }


def candle_form(told: Candle) -> dict[str, Any]:
    """Return a candle; `vwap` is None where nothing was traded."""
    average = told.vwap  # divided once
    return {
        "type": Kind.CANDLE.value,
        "venue": told.venue,
        "pair": told.symbol,
        "interval": INTERVAL_NAMES[told.interval_s],
        "open_time_us": told.open_time_us,
        "open": plain(told.open),
        "high": plain(told.high),
        "low": plain(told.low),
        "close": plain(told.close),
        "volume": plain(told.volume),
        "quote_volume": plain(told.quote_volume),
        "vwap": None if average is None else plain(average),
        "taker_buy_volume": plain(told.taker_buy_volume),
        "trades": told.trades,
        "revision": told.revision,
        "incomplete": told.incomplete,
        "closed": told.closed,
        "market": told.market,
    }


def signal_form(told: Signal) -> dict[str, Any]:
    """Return a signal."""
    return {
        "type": Kind.SIGNAL.value,
        "strategy": told.strategy,
        "version": told.version,
        "variant": told.variant,
        "venue": told.venue,
        "pair": told.symbol,
        "interval": INTERVAL_NAMES[told.interval_s],
        "open_time_us": told.open_time_us,
        "cross": told.cross.value,
        "close": plain(told.close),
        "fast": plain(told.fast),
        "slow": plain(told.slow),
        "raised_us": told.raised_us,
        "market": told.market,
    }
