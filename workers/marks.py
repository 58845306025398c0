"""Which marks count: one that lay about on its way says nothing of now. Pure."""

from dataclasses import dataclass
from math import inf

from models.domain.quotes import Mark

WINDOW_US = 30_000_000


@dataclass
class _Pace:
    """How far marks of a connection were behind this clock, at the least, in two windows one after the other."""

    token: int
    began_us: int
    least: float = inf
    before: float = inf

    def behind(self, behind_us: int, now_us: int) -> float:
        if now_us - self.began_us >= WINDOW_US:
            self.began_us, self.before, self.least = now_us, self.least, inf
        self.least = min(self.least, behind_us)
        return behind_us - min(self.least, self.before)


class Marks:
    """Tells how late marks are in the reader's own time, though collectors made them by their machines' clocks.

    A mark is late by what it is further behind than the promptest of its connection within the last half
    minute or more: clocks that differ change nothing, and one that is set is forgotten in a minute.
    """

    def __init__(self, late_us_max: float) -> None:
        self._late_us_max = late_us_max
        self._paces: dict[str, _Pace] = {}

    def counts(self, mark: Mark, now_us: int) -> bool:
        """Say whether a mark that is read now is on time."""
        pace = self._paces.get(mark.venue)
        if pace is None or mark.token > pace.token:
            pace = self._paces[mark.venue] = _Pace(mark.token, now_us)
        elif mark.token < pace.token:
            return False
        return pace.behind(now_us - mark.marked_time_us, now_us) < self._late_us_max
