"""The made-up past: what every asset was worth before the market began, and since, and the venues' candles of it.

Any moment can be asked for: a value is the start times a noise of several scales, each a curve between points that are
drawn from the seed and their own time. So one seed has one past, whatever is asked for in which order, and hours agree
with their minutes. It ends where the live prices begin.
"""

import http
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qs, urlsplit

STEP_US = 60_000_000
# Lengths of the curves, from a minute to 45 days, each so much longer than the one before.
SCALES_US = tuple(STEP_US * 4**power for power in range(9))
REMEMBERED_MAX = 200_000  # points, and values
MINUTES_MAX = 10_000  # of what was since the beginning: a week


class Past:
    """What assets were worth at any time. `volatilities` are the standard deviations of a time of `tick_us`."""

    def __init__(
        self, seed: int, starts: Mapping[str, float], volatilities: Callable[[str], float], start_us: int, tick_us: int
    ) -> None:
        self._seed, self._starts, self._volatilities = seed, starts, volatilities
        self._start_us, self._tick_us = start_us, tick_us
        self._points: dict[tuple[str, int, int], float] = {}
        self._values: dict[tuple[str, int], float] = {}
        self._minutes: list[int] = []
        self._since: list[dict[str, float]] = []

    def note(self, values: Mapping[str, float], time_us: int) -> None:
        """Remember what assets are worth now, the latest of each minute."""
        minute_us = time_us - time_us % STEP_US
        if self._minutes and self._minutes[-1] >= minute_us:
            return
        self._minutes.append(minute_us)
        self._since.append(dict(values))
        if len(self._minutes) > MINUTES_MAX:
            del self._minutes[0], self._since[0]

    def value(self, asset: str, time_us: int) -> float:
        """Return what an asset was worth, in US dollars."""
        if time_us > self._start_us and (place := bisect_right(self._minutes, time_us)):
            return self._since[place - 1][asset]
        key = asset, min(time_us, self._start_us)
        if key not in self._values:
            if len(self._values) >= REMEMBERED_MAX:
                self._values.clear()
            noise = self._noise(*key) - self._noise(asset, self._start_us)
            self._values[key] = self._starts[asset] * math.exp(noise)
        return self._values[key]

    def chance(self, *of: object) -> float:
        """Return a number from 0 to 1 that is drawn for this."""
        drawn = blake2b(repr((self._seed, *of)).encode(), digest_size=8).digest()
        return int.from_bytes(drawn) / 2**64

    def _noise(self, asset: str, time_us: int) -> float:
        volatility = self._volatilities(asset)
        if not volatility:
            return 0.0
        total = 0.0
        for length_us in SCALES_US:
            place, rest = divmod(time_us, length_us)
            part = rest / length_us
            point = self._point(asset, length_us, place)
            curve = point + (self._point(asset, length_us, place + 1) - point) * part
            total += curve * volatility * math.sqrt(length_us / self._tick_us)
        return total

    def _point(self, asset: str, length_us: int, place: int) -> float:
        key = asset, length_us, place
        if key not in self._points:
            if len(self._points) >= REMEMBERED_MAX:
                self._points.clear()
            self._points[key] = self.chance(*key) * 2 - 1
        return self._points[key]


@dataclass(frozen=True)
class Answer:
    """What a venue answers a request over HTTP with."""

    body: Any
    status: int = http.HTTPStatus.OK


class ParameterError(ValueError):
    """A parameter of a request that a venue refuses."""


@dataclass(frozen=True)
class Asked:
    """A request: its path and its parameters."""

    path: str
    given: Mapping[str, str]

    def number(self, name: str, otherwise: int | None = None) -> int:
        """Return a parameter that is a whole number. Raises ParameterError where it is none."""
        text = self.given.get(name, "" if otherwise is None else str(otherwise))
        if not (text.isascii() and text.isdigit() and len(text) <= 18):  # noqa: PLR2004 -- 64 bits
            raise ParameterError(f"{name} must be a whole number")
        return int(text)


def asked(target: str) -> Asked:
    """Return what a request's target asks for."""
    parts = urlsplit(target)
    return Asked(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
