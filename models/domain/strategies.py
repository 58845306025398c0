"""Strategies: named, versioned configurations whose variants run side by side, and the crosses that they see.

StrategyError
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from models.domain.candles import EVERY_VENUE, INTERVALS_S, LATE_MAX_US, Candle
from models.domain.errors import CrossfillError
from models.domain.moving_averages import (
    Averages,
    AveragesState,
    ExponentialAverages,
    Kind,
    LengthError,
    Seed,
    SimpleAverages,
    length_checked,
)
from models.domain.signals import Cross, Signal

VARIANTS_MAX = 8
VERSION_MAX = 1_000_000
PAIRS_MAX = 1_000
# After so many lengths, exp(-8) or 0.03 % of what an exponential average began with is left in it.
SETTLED_LENGTHS = 5

_NAME = (r"[a-z0-9][a-z0-9_-]{0,63}", "golden-cross: small letters, digits, - and _")
_PAIR = (r"[A-Z0-9]{1,32}-[A-Z0-9]{1,32}", "BTC-USD")
_Kinds = TypeVar("_Kinds", Kind, Seed)


class StrategyError(CrossfillError):
    """A strategy's configuration is wrong in one field (`variants.a.fast`)."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"the strategy's {field} {problem}" if field else f"a strategy {problem}")
        self.field, self.problem = field, problem


class Variant(msgspec.Struct, frozen=True):
    """Two moving averages of closes, a faster and a slower one. `seed` is None for simple ones."""

    kind: Kind
    fast: int
    slow: int
    seed: Seed | None = None

    @property
    def closes_needed(self) -> int:
        """How many stored closes warm it up.

        A simple average needs its own length. An exponential one never forgets what it began with; five times
        its length leaves a three-thousandth of it. With fewer it works too, from `slow` closes on.
        """
        return self.slow if self.seed is None else SETTLED_LENGTHS * self.slow

    def averages(self, state: AveragesState | None, revisable: int) -> Averages:
        """Return its averages, the faster one first; the last `revisable` closes can be replaced."""
        lengths = (self.fast, self.slow)
        if self.seed is None:
            return SimpleAverages(lengths, state)
        return ExponentialAverages(lengths, self.seed, state, revisable=revisable)


class Strategy(msgspec.Struct, frozen=True):
    """What its variants look at: closed candles of an interval, at a venue or EVERY_VENUE, of all pairs or some.

    Its form in JSON is that of the fields: `msgspec.to_builtins` writes what `read_strategy` reads.
    """

    name: str
    variants: dict[str, Variant]
    version: int = 1
    interval: str = "1h"
    venue: str = EVERY_VENUE
    pairs: tuple[str, ...] | None = None

    @property
    def interval_s(self) -> int:
        """The interval in seconds."""
        return INTERVALS_S[self.interval]

    def follows(self, venue: str, symbol: str, interval_s: int) -> bool:
        """Tell whether it looks at these candles."""
        wanted = self.pairs is None or symbol in self.pairs
        return wanted and venue == self.venue and interval_s == self.interval_s


GOLDEN_CROSS = Strategy("golden-cross", {"a": Variant(Kind.SMA, 50, 200), "b": Variant(Kind.EMA, 50, 200, Seed.SMA)})


class CrossesState(msgspec.Struct, array_like=True):
    """What Crosses know."""

    averages: AveragesState
    closes: int = 0
    recent: list[tuple[int, int]] = []  # (open time, revision) of the candles whose close may still be replaced
    side: int = 0  # 1: the faster average was above when they last differed, -1: below, 0: not known yet
    signalled_us: int | None = None  # open time of the latest signal's candle
    told: int = 0  # the side that was told last, where the averages are not on it and were not since


class Crosses:
    """See where a variant's averages cross, on one series of closed candles.

    The faster average rising above the slower one is a golden cross, falling below it a death cross. Equal
    averages are neither, and leave the side as it was: to touch and turn back is nothing, to touch and go
    through is one cross. The first side that is known, when there are `slow` closes, is no cross.

    Candles come in order. One that was there already changes nothing; a higher revision's close takes the
    old one's place and raises nothing, the next candle is judged with it. A candle without trades is a close as any.
    """

    def __init__(self, strategy: Strategy, variant: str, state: CrossesState | None = None) -> None:
        self._strategy, self._name, self._variant = strategy, variant, strategy.variants[variant]
        # A late trade changes candles no further back than it may be late.
        self._revisable = LATE_MAX_US // (strategy.interval_s * 1_000_000) + 1
        self._averages = self._variant.averages(state.averages if state else None, self._revisable)
        state = state or CrossesState(AveragesState())
        self._closes, self._recent = state.closes, list(state.recent)
        self._side, self._signalled_us, self._told = state.side, state.signalled_us, state.told

    def close(self, candle: Candle, raised_us: int, *, raising: bool = True) -> Signal | None:
        """Take a closed candle; return the signal that it raises. With `raising` False (to warm up) none."""
        if self._recent and candle.open_time_us <= self._recent[-1][0]:
            self._revise(candle)
            return None
        self._averages.add(candle.close)
        self._recent = [*self._recent, (candle.open_time_us, candle.revision)][-self._revisable :]
        self._closes += 1
        fast, slow = self._averages.values
        if self._closes < self._variant.slow or fast is None or slow is None or fast == slow:
            return None
        before, self._side = self._side, 1 if fast > slow else -1
        told_already = self._side == self._told
        self._told = 0 if told_already else self._told
        if (
            told_already
            or before in (0, self._side)
            or not raising
            or candle.open_time_us <= (self._signalled_us or -1)
        ):
            return None
        self._signalled_us = candle.open_time_us
        return Signal(
            strategy=self._strategy.name,
            version=self._strategy.version,
            variant=self._name,
            venue=candle.venue,
            symbol=candle.symbol,
            interval_s=candle.interval_s,
            open_time_us=candle.open_time_us,
            cross=Cross.GOLDEN if self._side > 0 else Cross.DEATH,
            close=candle.close,
            fast=fast,
            slow=slow,
            raised_us=raised_us,
            market=candle.market,
        )

    def signalled(self, open_time_us: int) -> None:
        """Note that a signal was raised at a candle; none is raised again at it or before."""
        self._signalled_us = max(self._signalled_us or 0, open_time_us)

    def succeed(self, before: "Crosses") -> None:
        """Take the place of one that knew fewer closes: the cross that it told last is not told again.

        With more closes the averages may cross a candle later; that they come to the side that was told is no news.
        """
        state = before.state
        self._signalled_us, last = state.signalled_us, state.told or state.side
        if self._signalled_us is not None and last != self._side:
            self._told = last

    @property
    def state(self) -> CrossesState:
        """What a restart needs: the slower simple average's closes, or of an exponential one a few numbers."""
        return CrossesState(
            self._averages.state, self._closes, self._recent, self._side, self._signalled_us, self._told
        )

    def _revise(self, candle: Candle) -> None:
        for back, (open_time_us, revision) in enumerate(reversed(self._recent)):
            if open_time_us == candle.open_time_us and revision < candle.revision:
                self._averages.replace(back, candle.close)
                self._recent[-1 - back] = open_time_us, candle.revision


def read_strategy(given: object) -> Strategy:
    """Return the strategy that a JSON object describes. Raises StrategyError, which names the field.

    Whether there is such a venue or pair is for the caller to know.
    """
    fields = _object(given, "", Strategy.__struct_fields__)
    variants = _object(fields.get("variants"), "variants", None)
    if not 1 <= len(variants) <= VARIANTS_MAX:
        raise StrategyError("variants", f"must be 1 to {VARIANTS_MAX}, and there are {len(variants)}")
    interval = fields.get("interval", "1h")
    if interval not in list(INTERVALS_S):
        raise StrategyError("interval", f"must be one of {', '.join(INTERVALS_S)}, not {interval!r}")
    version = fields.get("version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= VERSION_MAX:
        raise StrategyError("version", f"must be a whole number from 1 to {VERSION_MAX:,}, not {version!r}")
    return Strategy(
        _text(fields.get("name"), "name", _NAME),
        {_text(name, f"variants.{name}", _NAME): _variant(each, f"variants.{name}") for name, each in variants.items()},
        version,
        interval,
        _text(fields.get("venue", EVERY_VENUE), "venue", _NAME),
        _pairs(fields.get("pairs")),
    )


def _variant(given: object, at: str) -> Variant:
    fields = _object(given, at, Variant.__struct_fields__)
    kind = _one_of(Kind, fields.get("kind"), f"{at}.kind")
    fast, slow = (_length(fields.get(name), f"{at}.{name}") for name in ("fast", "slow"))
    if fast >= slow:
        raise StrategyError(f"{at}.fast", f"must be less than slow, and {fast} is not less than {slow}")
    seed = fields.get("seed")
    if kind is Kind.EMA:
        return Variant(kind, fast, slow, _one_of(Seed, Seed.SMA if seed is None else seed, f"{at}.seed"))
    if seed is not None:
        raise StrategyError(f"{at}.seed", "is for exponential averages only")
    return Variant(kind, fast, slow)


def _length(given: object, field: str) -> int:
    try:
        return length_checked(given)
    except LengthError as error:
        raise StrategyError(field, f"is wrong: {error}") from error


def _pairs(given: object) -> tuple[str, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list | tuple) or not 1 <= len(given) <= PAIRS_MAX:
        raise StrategyError("pairs", f"must be a list of 1 to {PAIRS_MAX:,} pairs, or null for all")
    return tuple(_text(pair, f"pairs[{place}]", _PAIR) for place, pair in enumerate(given))


def _object(given: object, field: str, known: tuple[str, ...] | None) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise StrategyError(field, "must be a JSON object")
    for name in given:
        if known is not None and name not in known:
            raise StrategyError(f"{field}.{name}" if field else str(name), f"is none of {', '.join(known)}")
    return given


def _text(given: object, field: str, form: tuple[str, str]) -> str:
    pattern, example = form
    if not isinstance(given, str) or not re.fullmatch(pattern, given, re.ASCII):
        raise StrategyError(field, f"must look like {example}, not {given!r}")
    return given


def _one_of(kinds: type[_Kinds], given: object, field: str) -> _Kinds:
    if not isinstance(given, str) or given not in list(kinds):
        raise StrategyError(field, f"must be one of {', '.join(kinds)}, not {given!r}")
    return kinds(given)
