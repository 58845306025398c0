"""Moving averages of closing prices: simple and exponential ones, of any length.

LengthError
"""

from collections import deque
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import msgspec

from models.domain.averages import quotient
from models.domain.decimals import WIDE
from models.domain.errors import CrossfillError

LENGTH_MAX = 5_000


class Kind(StrEnum):
    """How a moving average weighs closes: all of its length alike, or newer ones more."""

    SMA = "sma"
    EMA = "ema"


class Seed(StrEnum):
    """What an exponential average begins with: the mean of its first `length` closes, or the first close."""

    SMA = "sma"
    FIRST = "first"


class LengthError(CrossfillError):
    """A moving average of so many closes is not made."""

    def __init__(self, length: object) -> None:
        super().__init__(f"the length of a moving average is a whole number from 1 to {LENGTH_MAX:,}, not {length!r}")
        self.length = length


def length_checked(length: object) -> int:
    """Return a length as it is. Raises LengthError unless it is from 1 to LENGTH_MAX."""
    if not isinstance(length, int) or isinstance(length, bool) or not 1 <= length <= LENGTH_MAX:
        raise LengthError(length)
    return length


class AveragesState(msgspec.Struct, array_like=True):
    """What moving averages know: the newest closes, oldest first, and what `count` closes before them gave."""

    closes: list[Decimal] = []
    count: int = 0
    before: list[Decimal] = []


class Averages(Protocol):
    """Moving averages of one series of closes, one for each of some lengths."""

    def add(self, close: Decimal) -> None:
        """Take the next close."""

    def replace(self, back: int, close: Decimal) -> None:
        """Put another close in the place of one before: 0 is the newest. Raises IndexError where it is gone."""

    @property
    def values(self) -> tuple[Decimal | None, ...]:
        """The averages, to 28 significant digits; None where there are too few closes."""

    @property
    def state(self) -> AveragesState:
        """What a restart needs."""


class SimpleAverages:
    """The means of the last closes: sums are exact whatever has passed through, and divided when they are asked for.

    Raises LengthError.
    """

    def __init__(self, lengths: Sequence[int], state: AveragesState | None = None) -> None:
        self._lengths = tuple(map(length_checked, lengths))
        self._closes: deque[Decimal] = deque(maxlen=max(self._lengths))
        self._sums = [Decimal(0)] * len(self._lengths)
        for close in state.closes if state else ():
            self.add(close)

    def add(self, close: Decimal) -> None:
        """Take the next close."""
        closes = self._closes
        for place, length in enumerate(self._lengths):
            total = WIDE.add(self._sums[place], close)
            self._sums[place] = WIDE.subtract(total, closes[-length]) if len(closes) >= length else total
        closes.append(close)

    def replace(self, back: int, close: Decimal) -> None:
        """Put another close in the place of one before: 0 is the newest. Raises IndexError where it is gone."""
        change = WIDE.subtract(close, self._closes[-1 - back])
        self._closes[-1 - back] = close
        for place, length in enumerate(self._lengths):
            if back < length:
                self._sums[place] = WIDE.add(self._sums[place], change)

    @property
    def values(self) -> tuple[Decimal | None, ...]:
        """The averages, to 28 significant digits; None where there are fewer closes than the length."""
        have = len(self._closes)
        return tuple(
            quotient(total, Decimal(length)) if have >= length else None
            for total, length in zip(self._sums, self._lengths, strict=True)
        )

    @property
    def state(self) -> AveragesState:
        """What a restart needs: as many closes as the longest average."""
        return AveragesState(list(self._closes))


class ExponentialAverages:
    """Exponential averages: each close moves one by k = 2 / (length + 1) of the way to it.

    With Seed.SMA there is one from the `length`-th close on, with Seed.FIRST from the first. Every step is
    rounded once, half-even, to 28 significant digits: since a step keeps less than all of the error before
    it, the value is never more than (length + 1) / 4 units of the last digit off. The last `revisable`
    closes can be replaced. Raises LengthError.
    """

    def __init__(
        self, lengths: Sequence[int], seed: Seed, state: AveragesState | None = None, *, revisable: int = 1
    ) -> None:
        assert revisable >= 1
        self._lengths, self._seed = tuple(map(length_checked, lengths)), seed
        self._revisable = revisable
        state = state or AveragesState(before=[Decimal(0)] * len(self._lengths))
        self._closes, self._count, self._before = deque(state.closes), state.count, list(state.before)
        self._now = self._before
        self._fold()

    def add(self, close: Decimal) -> None:
        """Take the next close."""
        self._now = self._stepped(self._now, self._count + len(self._closes), close)
        self._closes.append(close)
        if len(self._closes) > self._revisable:
            self._before = self._stepped(self._before, self._count, self._closes.popleft())
            self._count += 1

    def replace(self, back: int, close: Decimal) -> None:
        """Put another close in the place of one before: 0 is the newest. Raises IndexError where it is gone."""
        self._closes[-1 - back] = close
        self._fold()

    @property
    def values(self) -> tuple[Decimal | None, ...]:
        """The averages, to 28 significant digits; None where there are too few closes for the seed."""
        have = self._count + len(self._closes)
        return tuple(
            value if have >= (length if self._seed is Seed.SMA else 1) else None
            for value, length in zip(self._now, self._lengths, strict=True)
        )

    @property
    def state(self) -> AveragesState:
        """What a restart needs: a value for each length, and the closes that can be replaced."""
        return AveragesState(list(self._closes), self._count, list(self._before))

    def _fold(self) -> None:
        self._now = self._before
        for count, close in enumerate(self._closes, self._count):
            self._now = self._stepped(self._now, count, close)

    def _stepped(self, values: Iterable[Decimal], count: int, close: Decimal) -> list[Decimal]:
        return [self._step(value, count, close, length) for value, length in zip(values, self._lengths, strict=True)]

    def _step(self, value: Decimal, count: int, close: Decimal, length: int) -> Decimal:
        # Until the seed is there, the value is the sum of what came.
        if self._seed is Seed.SMA and count < length:
            total = WIDE.add(value, close)
            return total if count < length - 1 else quotient(total, Decimal(length))
        if count == 0:
            return close
        return quotient(WIDE.fma(value, length - 1, WIDE.add(close, close)), Decimal(length + 1))
