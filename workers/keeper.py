"""Closed candles on their way from the analyst to the database, and the signals that they raise; each is told once.

A process that the analyst starts and that ends with it: within the analyst's own, what it does with hundreds of candles
a second held up trades for 10 ms at a time.

They wait on the bus until the database has them. What is told of them is told in the transaction that forgets
them there, so whoever is killed, and when, nothing is left out and nothing is told twice. One keeper works, that of the
analyst who does; another one that did knows nothing of what this one took, and begins anew.
"""

import os
import signal
import socket
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from subprocess import Popen
from typing import TYPE_CHECKING
from uuid import uuid4

import redis
import structlog
from sqlalchemy import Connection

from models.bus.analysis import tell_signal
from models.bus.client import connect
from models.bus.history import CHUNK_S, LATE_S, read_candles
from models.bus.leases import BusLease
from models.bus.names import ANALYST
from models.bus.records import candle_records, signal_record
from models.bus.tape import Pending
from models.bus.topics import Topics, tell
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle, VenueCandle
from models.domain.decimals import plain
from models.domain.errors import CrossfillError
from models.domain.signals import Signal
from models.logs import configure_logs
from models.settings import Settings
from models.store.candles import Check, Series, note_checks, upsert_candles
from models.store.candles import read_candles as stored_candles
from models.store.database import Database
from models.store.signals import insert_signals
from workers.legacy import tell_closes
from workers.strategies import Strategies

if TYPE_CHECKING:
    from models.bus.kafka import KafkaTopics

AT_ONCE = 500
LOOK_S = 0.2
PAUSE_S = 1.0  # after a failure
MINUTE_S = INTERVALS_S["1m"]
DAY_US = INTERVALS_S["1d"] * 1_000_000
HOUR_US = INTERVALS_S["1h"] * 1_000_000
END_S = 5.0  # for what waits, once the analyst ends
TELL_S = 1.0
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


class KeeperProcess:
    """The keeper of an analyst, whose lease is `owner`'s, as a process; started again whenever it ends unasked."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._stopping = threading.Event()
        self._line: socket.socket | None = None
        self._process: Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="keeper")
        self._before = self._now = (0, 0)

    @property
    def sent(self) -> int:
        """How many records Kafka has taken of it."""
        return self._before[0] + self._now[0]

    @property
    def lost(self) -> int:
        """How many did not reach it."""
        return self._before[1] + self._now[1]

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End it when it has kept what waits, or after END_S."""
        self._stopping.set()
        self._ask()
        self._thread.join(END_S)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            ours, theirs = socket.socketpair()
            with ours:
                with theirs:
                    command = [sys.executable, "-m", "workers.keeper", self._owner]
                    self._process = Popen(command, stdin=theirs.fileno())  # noqa: S603 -- the command is ours
                self._line = ours
                if self._stopping.is_set():
                    self._ask()
                for line in ours.makefile("rb"):
                    sent, lost = map(int, line.split())
                    self._now = sent, lost
                status = self._process.wait()
                self._line = None
            self._before, self._now = (self.sent, self.lost), (0, 0)
            if not self._stopping.is_set():
                log.warning("the keeper ended; it is started again", status=status)
                self._stopping.wait(PAUSE_S)

    def _ask(self) -> None:
        line = self._line
        if line is not None:
            with suppress(OSError):  # it has just ended by itself
                line.sendall(b".")


def kafka_of(settings: Settings) -> "KafkaTopics | None":
    """Return a producer where the topics are on Kafka; None where they are Redis streams."""
    if settings.kafka is None:
        return None
    from models.bus.kafka import KafkaTopics  # noqa: PLC0415 -- few need the library

    return KafkaTopics(settings.kafka, options=settings.kafka_client)


def main() -> None:
    """Keep for the analyst at the other end of standard input, a socket, until it says so or is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # also a terminal's, which the analyst gets too; it says when to end
    if len(sys.argv) != 2 or not stat.S_ISSOCK(os.fstat(0).st_mode):  # noqa: PLR2004 -- its name and one word
        sys.exit("the keeper is started by the analyst (python -m workers.analyst), and by nobody else")
    owner, settings = sys.argv[1], Settings()
    configure_logs(settings.log_level)
    database, topics = Database.open(settings.database, pool_size=2), kafka_of(settings)
    client = connect(settings.bus, timeout_s=5)
    pending = Pending(client, f"{os.getpid()}-{uuid4().hex}")
    leads = BusLease(client, ANALYST, owner).held
    keeper = Keeper(client, database, topics, settings.topic_length, pending, leads)
    with socket.socket(fileno=os.dup(0)) as line:
        threading.Thread(target=_attend, args=(line, keeper, topics), daemon=True).start()
        keeper.run()
    if topics is not None:
        topics.close()
    database.close()


def _attend(line: socket.socket, keeper: Keeper, topics: "KafkaTopics | None") -> None:
    """Tell the analyst what Kafka took, and listen to it."""
    told = (0, 0)
    line.settimeout(TELL_S)
    while True:
        with suppress(TimeoutError):
            try:
                asked = line.recv(1)
            except ConnectionError:
                asked = b""
            if not asked:
                os._exit(1)  # the analyst is gone: what waits is the next one's
            keeper.stop()
            return
        if topics is not None and (now := (topics.sent, topics.lost)) != told:
            told = now
            with suppress(OSError):
                line.sendall(b"%d %d\n" % now)


if __name__ == "__main__":
    main()
