"""Closed candles on their way from the analyst to the database, and the signals that they raise; each is told once.

They wait on the bus until the database has them. What is told of them is told in the transaction that forgets
them there, so whoever is killed, and when, nothing is left out and nothing is told twice. One keeper works, that of the
analyst who does; another one that did knows nothing of what this one took, and begins anew.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal

import redis
import structlog
from sqlalchemy import Connection

from models.bus.analysis import tell_signal
from models.bus.history import CHUNK_S, LATE_S, read_candles
from models.bus.records import candle_records, signal_record
from models.bus.tape import Pending
from models.bus.topics import Topics, tell
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle, VenueCandle
from models.domain.decimals import plain
from models.domain.errors import CrossfillError
from models.domain.signals import Signal
from models.store.candles import Check, Series, note_checks, upsert_candles
from models.store.candles import read_candles as stored_candles
from models.store.database import Database
from models.store.signals import insert_signals
from workers.legacy import tell_closes
from workers.strategies import Strategies

AT_ONCE = 500
LOOK_S = 0.2
PAUSE_S = 1.0  # after a failure
MINUTE_S = INTERVALS_S["1m"]
DAY_US = INTERVALS_S["1d"] * 1_000_000
HOUR_US = INTERVALS_S["1h"] * 1_000_000
CHECK_S = 5.0
CHECKS_MAX = 10_000
# By then what a venue tells of a minute that is over has come, and is in the history.
TOLD_S = CHUNK_S + LATE_S

log = structlog.get_logger()


class Keeper:
    """Stores what the analyst closed, compares it with what venues tell themselves, and tells it."""

    def __init__(
        self,
        client: redis.Redis,
        database: Database,
        topics: Topics | None,
        topic_length: int,
        pending: Pending,
        leads: Callable[[], bool],
    ) -> None:
        self._client = client
        self._pending = pending
        self._leads = leads
        self._database = database
        self._topics = topics
        self._topic_length = topic_length
        self._strategies = Strategies(database)
        self._sure = False  # that all that is stored and does not wait any more was told, and taken by this one
        self._stopping = threading.Event()
        self._unchecked: deque[tuple[float, Candle]] = deque(maxlen=CHECKS_MAX)
        self._check_at = 0.0

    def stop(self) -> None:
        """End after what waits now."""
        self._stopping.set()

    def run(self) -> None:
        """Keep until stopped; what waits then is kept first."""
        down = False
        while True:
            stopping = self._stopping.is_set()
            try:
                # What waits at the end is for who kept before: nobody else need claim it then.
                while (self._sure if stopping else self._leads()) and self.keep():
                    pass
                if time.monotonic() >= self._check_at:
                    self._check_at = time.monotonic() + CHECK_S
                    self._check()
                down = False
            except CrossfillError as error:
                self._sure = False
                if not down:
                    log.warning("candles wait to be stored", reason=str(error))
                down = True
                self._stopping.wait(PAUSE_S)
            if stopping:
                return
            self._stopping.wait(LOOK_S)

    def keep(self) -> bool:
        """Store and tell what waits, a part of it; return whether more may wait."""
        if not self._pending.claim() or not self._sure:
            self._sure = False
            self._strategies.forget()
        with self._pending.taken(AT_ONCE) as (closed, telling):
            signals = self._kept(closed)
            records = [record for candle in closed for record in candle_records(candle)]
            records += map(signal_record, signals)
            if self._topics is not None:
                self._topics.publish(records)
            else:
                tell(telling, records, self._topic_length)
            for signal in signals:
                tell_signal(telling, signal)
            tell_closes(telling, closed, self._strategies.intervals_s)
        self._sure = True
        due = time.monotonic() + TOLD_S
        self._unchecked.extend((due, candle) for candle in closed if _comparable(candle))
        return len(closed) == AT_ONCE

    def _kept(self, closed: Sequence[Candle]) -> list[Signal]:
        """Store candles and what they raise; return the signals that nobody was told of yet."""
        upsert_candles(self._database, closed)
        raised = self._strategies.take(closed, time.time_ns() // 1000)
        new = insert_signals(self._database, raised)
        # What was stored before somebody was killed, or the bus went away, has not been told: the candle still waits.
        return new if self._sure else raised

    def _check(self) -> None:
        """Compare minutes with the venues' own candles of them, where these tell any."""
        due: dict[str, list[Candle]] = {}
        while self._unchecked and self._unchecked[0][0] <= time.monotonic():
            _, candle = self._unchecked.popleft()
            due.setdefault(candle.symbol, []).append(candle)
        now_us = time.time_ns() // 1000
        checks = []
        for symbol, candles in due.items():
            # By our clock: a replayed market has one of its own.
            told = read_candles(self._client, symbol, now_us - 4 * MINUTE_S * 1_000_000, now_us)
            newest = {(each.venue, each.open_time_us): each for each in told if each.interval_s == MINUTE_S}
            for candle in candles:
                theirs = newest.get((candle.venue, candle.open_time_us))
                if theirs is not None and theirs.closed is not False:
                    checks.append(_compared(candle, theirs))
        note_checks(self._database, checks)


def _comparable(candle: Candle) -> bool:
    return (
        candle.interval_s == MINUTE_S
        and candle.venue != EVERY_VENUE
        and candle.trades > 0
        and not candle.incomplete
        and candle.revision == 0
    )


def _compared(ours: Candle, theirs: VenueCandle) -> Check:
    series = Series(ours.market, ours.venue, ours.symbol, ours.interval_s)
    different = {
        name: {"ours": _text(getattr(ours, name)), "venue": _text(getattr(theirs, name))}
        for name in ("open", "high", "low", "close", "volume", "quote_volume", "trades")
        if not _same(getattr(ours, name), getattr(theirs, name))
    }
    if not different:
        return Check(series, 1)
    told = {"open_time_us": ours.open_time_us, **different}
    return Check(series, 1, 1, told, time.time_ns() // 1000)


def _same(ours: Decimal | int, theirs: Decimal | int | None) -> bool:
    """Say whether two figures agree, to the last digit that the venue gives: it rounds what it sums up."""
    if isinstance(ours, Decimal) and isinstance(theirs, Decimal):
        return abs(ours - theirs) < Decimal(1).scaleb(int(theirs.as_tuple().exponent))
    return theirs is None or ours == theirs


def _text(value: Decimal | int) -> str | int:
    return plain(value) if isinstance(value, Decimal) else value


def last_day(connection: Connection, market: str, venue: str, symbol: str) -> list[Candle]:
    """Return what is stored of a series' last day by the minute, and of its last hour by the second."""
    found = []
    for name, span_us in (("1s", HOUR_US), ("1m", DAY_US)):
        series = Series(market, venue, symbol, INTERVALS_S[name])
        newest = stored_candles(connection, series, 0, 2**62, 1, newest_first=True)
        if newest:
            until_us = newest[0].open_time_us + 1
            found += stored_candles(connection, series, until_us - span_us, until_us, 10_000)
    return found
