"""What every venue's REST candles come to: how they are asked for, and what of an answer is believed.

AnswerError
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from exchanges.protocol import check_level
from models.domain.errors import CrossfillError
from models.domain.pasts import PastCandle

SECOND_US = 1_000_000


class AnswerError(CrossfillError):
    """A venue's answer is none that can be used. `crowded`: it says that it is asked too often."""

    def __init__(self, problem: str, *, crowded: bool = False) -> None:
        super().__init__(problem)
        self.crowded = crowded


@dataclass(frozen=True)
class Past:
    """How one venue tells closed candles.

    `names`: its names of the intervals, in seconds, that it has. `page`: an answer holds so many at most, and where
    `newest_only` always the newest ones. `pause_s`: between two requests. `request` makes the path of candles with
    start <= open time < end from (product, interval in seconds, start, end, now), all times in microseconds;
    `parse` returns what an answer says, in any order.
    """

    own_url: str
    names: Mapping[int, str]
    page: int
    pause_s: float
    request: Callable[[str, int, int, int, int], str]
    parse: Callable[[bytes], list[PastCandle]]
    newest_only: bool = False


def read_past(past: Past, body: bytes, interval_s: int, start_us: int, end_us: int) -> list[PastCandle]:
    """Return the candles with start <= open time < end that an answer tells, oldest first, each once.

    Raises AnswerError, and believes nothing, where one of them is none.
    """
    interval_us = interval_s * SECOND_US
    try:
        told = past.parse(body)
        for candle in told:
            _check(candle, interval_us)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError) as error:
        raise AnswerError(f"the answer is not what it should be: {str(error) or repr(error)}") from error
    by_time = {candle.open_time_us: candle for candle in told}
    if len(by_time) < len(told):
        raise AnswerError("the answer is not what it should be: two candles have one time")
    return [by_time[time_us] for time_us in sorted(by_time) if start_us <= time_us < end_us]


def _check(candle: PastCandle, interval_us: int) -> None:
    for price in (candle.open, candle.high, candle.low, candle.close):
        check_level(price, candle.volume)
    if candle.quote_volume is not None:
        check_level(candle.close, candle.quote_volume)
    # Some venues round what they sum up, none its prices.
    if not candle.low <= min(candle.open, candle.close) <= max(candle.open, candle.close) <= candle.high:
        raise ValueError(f"no candle: {candle.open}, {candle.high}, {candle.low}, {candle.close}")
    if candle.open_time_us % interval_us or (candle.trades is not None and candle.trades < 0):
        raise ValueError(f"no candle of {interval_us // SECOND_US} s: it opens at {candle.open_time_us} us")
