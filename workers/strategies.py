"""The strategies at work: what each variant sees when candles close."""

import time
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from models.domain.candles import Candle
from models.domain.pasts import known_closes
from models.domain.signals import Signal
from models.domain.strategies import Crosses, Strategy
from models.store.candles import Series, newest_before
from models.store.database import Database
from models.store.pasts import last_closes, read_pasts
from models.store.strategies import current_strategies

FOR_EVER_US = 2**62
LOOK_S = 5.0  # new versions are taken up so often

_Watched = tuple[str, int, str, str, str]  # strategy, version, variant, venue, symbol


class Strategies:
    """The newest version of each strategy, on every series that it follows.

    A series is warmed up with the closes that are stored, oldest first, when its first candle comes: ours, and
    its venue's own where ours are missing. One that began with too few is warmed up anew when more of its past
    is known. Of a version that is replaced or stopped nothing is raised any more; the new one begins with a
    warm-up of its own.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._strategies: Sequence[Strategy] = ()
        self._look_at = 0.0
        self._crosses: dict[_Watched, Crosses] = {}
        self._cold: dict[_Watched, Series] = {}  # those of them that began with too few closes
        self._replaced: dict[_Watched, Crosses] = {}
        self._changed: dict[Series, int] = {}  # when a cold series' past last changed

    @property
    def intervals_s(self) -> frozenset[int]:
        """The intervals that some strategy looks at."""
        return frozenset(strategy.interval_s for strategy in self._strategies)

    def take(self, closed: Iterable[Candle], now_us: int) -> list[Signal]:
        """Return what closed candles raise, in their order. Raises StoreUnavailableError."""
        if time.monotonic() >= self._look_at:
            self._look()
        raised = []
        for candle in closed:
            for strategy in self._strategies:
                if strategy.follows(candle.venue, candle.symbol, candle.interval_s):
                    for variant in strategy.variants:
                        signal = self._crosses_of(strategy, variant, candle).close(candle, now_us)
                        raised += [] if signal is None else [signal]
        return raised

    def forget(self) -> None:
        """Begin anew with what is stored: after a failure nobody knows what was taken."""
        for each in (self._crosses, self._cold, self._replaced):
            each.clear()

    def _look(self) -> None:
        with self._database.read() as connection:
            self._strategies = [row.strategy for row in current_strategies(connection) if row.stopped_us is None]
            if self._cold:
                self._warm_again(connection)
        self._look_at = time.monotonic() + LOOK_S
        known = {(each.name, each.version) for each in self._strategies}
        self._crosses = {watched: each for watched, each in self._crosses.items() if watched[:2] in known}
        self._cold = {watched: series for watched, series in self._cold.items() if watched[:2] in known}
        self._replaced = {watched: each for watched, each in self._replaced.items() if watched[:2] in known}

    def _warm_again(self, connection: Connection) -> None:
        changed = {
            series: row.changed_us
            for market in {series.market for series in self._cold.values()}
            for series, row in read_pasts(connection, market).items()
        }
        for watched, series in list(self._cold.items()):
            if changed.get(series, 0) > self._changed.get(series, 0):
                del self._cold[watched]
                self._replaced[watched] = self._crosses.pop(watched)
        self._changed = changed

    def _crosses_of(self, strategy: Strategy, variant: str, candle: Candle) -> Crosses:
        watched = (strategy.name, strategy.version, variant, candle.venue, candle.symbol)
        crosses = self._crosses.get(watched)
        if crosses is None:
            crosses, needed = Crosses(strategy, variant), strategy.variants[variant].closes_needed
            with self._database.read() as connection:
                stored = _stored(connection, candle, needed)
            for before in stored:
                crosses.close(before, 0, raising=False)
            if known_closes(stored) < needed:
                self._cold[watched] = Series(candle.market, candle.venue, candle.symbol, candle.interval_s)
            if watched in self._replaced:
                crosses.succeed(self._replaced.pop(watched))
            self._crosses[watched] = crosses
        return crosses


def _stored(connection: Connection, candle: Candle, count: int) -> list[Candle]:
    """Return what was stored before a candle; before a revision also what came after its first form."""
    series = Series(candle.market, candle.venue, candle.symbol, candle.interval_s)
    newest = newest_before(connection, series, FOR_EVER_US) if candle.revision else None
    before_us = candle.open_time_us if newest is None else newest.open_time_us + series.interval_us
    return last_closes(connection, series, before_us, count)
