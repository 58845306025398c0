"""The analyst: what the trades of all venues come to, as they happen. `python -m workers.analyst`.

It reads what collectors write, and tells averages, candles and every record of the topics; a process beside it
keeps closed candles (workers.keeper). Of several analysts one works and the others stand by.
"""

import gc
import os
import signal
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, setcontext
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import structlog

from models.bus.client import BusUnavailableError, connect
from models.bus.leases import BusLease
from models.bus.names import ANALYST
from models.bus.records import quote_record, ticker_record, trade_records, vwap_records
from models.bus.tape import Batch, Changes, Checkpoint, OvertakenError, Tape
from models.bus.topics import Record, Topics
from models.domain.analysis import PARTS, Analysis, Rules, Told, part_of, series_in
from models.domain.candles import INTERVALS_S, Candle
from models.domain.decimals import EXACT
from models.domain.errors import CrossfillError
from models.domain.instruments import INSTRUMENTS, Instruments
from models.domain.quotes import BusItem, Quote, Trade
from models.domain.vwap import EXACT_SPANS_S, Vwap
from models.logs import configure_logs
from models.metrics import Families, Listener, new_registry
from models.settings import Settings
from models.store.database import Database, StoreUnavailableError
from models.store.listings import instruments_at
from models.store.shards import shards_count
from workers.keeper import KeeperProcess, kafka_of, last_day
from workers.legacy import closes_keys
from workers.metrics import of_analyst

if TYPE_CHECKING:
    from models.bus.kafka import KafkaTopics

GATHER_S = 0.001  # between two turns, so that a burst is one step; meanwhile some of what waits is done
CHORES_S = 0.0003  # when that has passed, no more of it is begun: what it comes to holds up what is told next
BLOCK_MS = 250
LEASE_S = 0.5
# What follows is done a symbol, or a part of them, at a time: all together would hold up the next trades for 20 ms.
KEEP_S = 1.0
OPEN_S = 0.25  # candles that are still made are told so often
TIMED_S = 1.0  # and averages over seconds, minutes and hours
# Of collections of the middle generation, about one a second, until a full one, which takes 70 to 90 ms: hours.
COLLECTIONS = 10_000
STANDBY_S = 0.3
PAUSE_S = 0.2  # after a failure

log = structlog.get_logger()

Past = Callable[[Sequence[str]], Mapping[str, Sequence[Candle]]]  # stored candles of series, by their names

_NAMES = {seconds: name for name, seconds in INTERVALS_S.items()}


@dataclass
class Analysed:
    """What this analyst did, for its metrics."""

    trades: int = 0
    quotes_conflated: int = 0
    candles_closed: int = 0
    duplicates: int = 0
    late: int = 0
    out_of_order: int = 0
    refused: int = 0
    gaps: int = 0
    overtaken: int = 0


class Session:
    """One reading of the tape, from what was kept to the end or the first failure.

    Raises BusUnavailableError and OvertakenError; what was read and not told is read again by the next one.
    """

    def __init__(
        self,
        rules: Rules,
        instruments: Instruments,
        tape: Tape,
        topics: Topics | None,
        past: Past,
        account: Analysed,
        vwap_topic_s: float = 0,
    ) -> None:
        states = tape.begin()
        series = series_in(states)
        try:
            self.analysis = Analysis(rules, instruments, states, tape.windows(series), past(series))
        except (msgspec.DecodeError, KeyError) as error:
            # Of another version. To insist on it would be to fail for ever.
            log.warning("what was kept cannot be read: all series begin anew", reason=repr(error))
            tape.forget()
            account.gaps += 1
            states = {}
            self.analysis = Analysis(rules, instruments)
        self._rules = rules
        self._instruments = {
            (product.venue, product.id): instrument for instrument in instruments for product in instrument.products
        }
        self._tape = tape
        self._topics = topics
        self._account = account
        self._vwap_topic_s = vwap_topic_s
        self._lasts: dict[tuple[str, str], Decimal] = {}  # by product
        self._vwaps: defaultdict[str, dict[str, Vwap]] = defaultdict(dict)  # to tell, by symbol
        self._records: list[Record] = []
        self._candles: dict[str, dict[str, Candle]] = {}  # likewise
        self._checkpoints: list[Checkpoint] = []  # to keep
        self._pending: defaultdict[int, list[Candle]] = defaultdict(list)  # closed, by part
        self._paced: dict[tuple[str, str], Vwap] = {}  # the newest of each series, until it is time for its record
        self._touched: set[str] = set()  # symbols, since their open candles were told
        self._timed: set[str] = set()  # and since their averages over time were
        self._opening: deque[str] = deque()  # symbols whose turn comes: of their open candles,
        self._timing: deque[str] = deque()  # and of their averages over time
        self._keeping: deque[Sequence[int]] = deque()  # parts that are to be kept
        # What waits, and what is done of it, one of each in turn: none waits for ever for the others.
        self._chores: deque[tuple[deque[Any], Callable[[Any], None]]] = deque(
            ((self._opening, self._open), (self._timing, self._time), (self._keeping, self._keep))
        )
        self._everything = not states  # is to be kept, because Redis knows nothing of it
        self._open_at = self._timed_at = self._keep_at = self._paced_at = 0.0

    def turn(self) -> bool:
        """Read what has come, tell what it comes to, and do some of what waits; return whether anything had come."""
        if self._everything:
            self.keep()  # before anything is told: who knows nothing begins with what comes then
        told = self._vwaps or self._candles or self._checkpoints or self._records
        batches = self._tape.read(0 if told else 1 if any(waiting for waiting, _ in self._chores) else BLOCK_MS)
        for batch in batches:
            self._take(batch)
        if batches or told:
            self._tell()
        self._look()
        began = time.monotonic()
        while self._chore() and time.monotonic() < began + CHORES_S:
            pass
        if batches and not any(batch.behind for batch in batches):
            time.sleep(max(0.0, began + GATHER_S - time.monotonic()))
        return bool(batches)

    def keep(self) -> None:
        """Keep what a restart needs. Not while parts have more than was read: what was kept of them is right then."""
        if self._tape.replaying:
            return
        self._keep(range(PARTS))
        self._tape.keep(self._checkpoints)
        self._everything, self._checkpoints = False, []
        self._keeping.clear()

    def _tell(self) -> None:
        records = self._records
        if self._topics is not None:
            self._topics.publish(records)
            records = []
        if not self._tape.publish(Changes(records, self._vwaps, self._candles), self._checkpoints):
            self._everything = True
            self._lost("Redis knows nothing of what was told, or older things only")
        else:
            self._checkpoints = []
        self._records, self._vwaps, self._candles = [], defaultdict(dict), {}

    def _look(self) -> None:
        """Look what is due."""
        now = time.monotonic()
        if now >= self._open_at and not self._opening:
            self._open_at = now + OPEN_S
            self._opening.extend(self._touched)
            self._timed |= self._touched
            self._touched.clear()
        if now >= self._timed_at and not self._timing:
            self._timed_at = now + TIMED_S
            self._timing.extend(self._timed)
        if self._paced and now >= self._paced_at:
            self._paced_at = now + self._vwap_topic_s
            self._records += [record for vwap in self._paced.values() for record in vwap_records(vwap)]
            self._paced.clear()
        if now >= self._keep_at and not self._keeping and not self._tape.replaying:
            self._keep_at = now + KEEP_S
            changed = sorted(self.analysis.changed)
            self._keeping.append([part for part in range(PARTS) if part not in changed])
            self._keeping.extend([part] for part in changed)

    def _chore(self) -> bool:
        """Do one of the things that wait, if any does."""
        for _ in range(len(self._chores)):
            waiting, do = self._chores[0]
            self._chores.rotate(-1)
            if waiting:
                do(waiting.popleft())
                return True
        return False

    def _open(self, symbol: str) -> None:
        """Tell candles that are still made."""
        candles = self.analysis.open_candles(symbol)
        self._candles[symbol] = {f"{candle.venue}:{_NAMES[candle.interval_s]}": candle for candle in candles}

    def _time(self, symbol: str) -> None:
        """Tell averages over time, until they change no more though nothing more comes.

        Trades leave the short windows then. The long ones are told again when the next minute closes.
        """
        vwaps = self.analysis.time_vwaps(symbol)
        self._vwaps[symbol] |= {name_of(vwap): vwap for vwap in vwaps}
        if not any(vwap.points for vwap in vwaps if vwap.window_s in EXACT_SPANS_S):
            self._timed.discard(symbol)

    def _keep(self, parts: Sequence[int]) -> None:
        """Keep what a restart needs of some parts."""
        kept = self.analysis.kept(parts, everything=self._everything)
        pending = [candle for part in parts for candle in self._pending.pop(part, ())]
        self._checkpoints.append(
            Checkpoint(
                parts, self._tape.reached, kept.states, kept.appended, kept.replaced, self._rules.window, pending
            )
        )

    def _take(self, batch: Batch) -> None:
        items: Sequence[BusItem] = batch.items
        if batch.gap:
            self._lost("their stream was shortened before they were read")
        if batch.behind:
            items = newest_quotes(batch.items)
            self._account.quotes_conflated += len(batch.items) - len(items)
        told = self.analysis.apply(items, batch.having)
        for name in ("duplicates", "late", "out_of_order", "refused"):
            setattr(self._account, name, getattr(self.analysis, name))
        for candle in told.closed:
            self._pending[part_of(candle.symbol)].append(candle)
        self._account.candles_closed += len(told.closed)
        self._touched |= {candle.symbol for candle in told.closed}
        for symbol, news in told.news:
            if isinstance(news, Vwap):
                self._vwaps[symbol][news.venue] = news
                self._touched.add(symbol)
            elif isinstance(news, Trade):
                self._lasts[news.venue, news.product_id] = news.price
        # Kafka may not have taken what a killed analyst had given it: there it is told again.
        if self._topics is not None or not batch.published:
            self._records += self._records_of(told)
            self._account.trades += sum(isinstance(news, Trade) for _, news in told.news)

    def _lost(self, reason: str) -> None:
        self._account.gaps += 1
        self.analysis.lost()
        log.warning("batches may be lost", reason=reason)

    def _records_of(self, told: Told) -> Iterator[Record]:
        market = self._rules.market
        for symbol, news in told.news:
            if isinstance(news, Quote):
                product = (news.venue, news.product_id)
                yield quote_record(news, symbol, market)
                yield ticker_record(news, self._instruments[product], self._lasts.get(product))
            elif isinstance(news, Trade):
                yield from trade_records(news, symbol, market)
            elif self._vwap_topic_s:
                self._paced[symbol, news.venue] = news
            else:
                yield from vwap_records(news)


def newest_quotes(items: Sequence[BusItem]) -> list[BusItem]:
    """Return items without the quotes that a newer one of their product follows."""
    last = {(item.venue, item.product_id): item for item in items if isinstance(item, Quote)}
    return [item for item in items if not isinstance(item, Quote) or last[item.venue, item.product_id] is item]


def name_of(vwap: Vwap) -> str:
    """Return the name of an average among its symbol's: `binance`, or over a time `binance:5m`."""
    return vwap.venue if vwap.window_s is None else f"{vwap.venue}:{span_name(vwap.window_s)}"


def span_name(span_s: int) -> str:
    """Return the name of a time (`10s`, `5m`, `4h`, `24h`)."""
    for unit_s, unit in ((3_600, "h"), (60, "m")):
        if span_s >= unit_s and span_s % unit_s == 0:
            return f"{span_s // unit_s}{unit}"
    return f"{span_s}s"


class Analyst:
    """Works the tape while the lease is its own."""

    def __init__(self, lease: BusLease, begin: Callable[[], Session], account: Analysed) -> None:
        self._lease = lease
        self._begin = begin
        self._account = account
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End after the turn at hand."""
        self._stopping.set()

    def run(self) -> None:
        """Work, or stand by while another analyst does, until stopped."""
        setcontext(EXACT)  # in it sums are as exact as elsewhere, and take less (models.domain.vwap)
        standing_by = down = False
        while not self._stopping.is_set():
            try:
                if self._lease.hold():
                    standing_by = False
                    self._session()
                    down = False
                    continue
                if not standing_by:
                    log.info("standing by: another analyst reads the market")
                standing_by = True
                self._stopping.wait(STANDBY_S)
            except OvertakenError as error:
                self._account.overtaken += 1
                log.warning("beginning anew", reason=str(error))
            except (BusUnavailableError, StoreUnavailableError) as error:
                if not down:
                    log.warning("the analysis waits", reason=str(error))
                down = True
                self._stopping.wait(PAUSE_S)
        with suppress(BusUnavailableError):
            self._lease.release()

    def _session(self) -> None:
        session = self._begin()
        log.info("reading the market")
        lease_at = time.monotonic() + LEASE_S
        while not self._stopping.is_set():
            if time.monotonic() >= lease_at:
                if not self._lease.hold():
                    return
                lease_at = time.monotonic() + LEASE_S
            session.turn()
        session.keep()


def analyst_of(
    settings: Settings,
    known: Instruments,
    database: Database,
    topics: Topics | None,
    account: Analysed,
    owner: str,
) -> Analyst:
    """Build the analyst of some pairs from the settings; it connects when it runs.

    `topics`: where they are on Kafka. The lease is `owner`'s, a name that no other process has.
    """
    rules = Rules(settings.market.value, settings.vwap_window)
    reading, writing = (connect(settings.bus, timeout_s=5) for _ in range(2))

    def past(series: Sequence[str]) -> Mapping[str, Sequence[Candle]]:
        found = {}
        with database.read() as connection:
            for name in series:
                # Hundreds of series take longer than the lease lasts, and two analysts would take it from one another.
                if not lease.hold():
                    raise OvertakenError
                found[name] = last_day(connection, rules.market, *name.split("/"))
        return found

    def begin() -> Session:
        with database.read() as connection:
            shards = shards_count(connection)
        market = f"{rules.market}:{settings.sitting}"
        tape = Tape(reading, writing, shards, settings.topic_length, market)
        if tape.forget_others(closes_keys(instrument.symbol for instrument in known)):
            log.info("another market than before: averages begin anew", market=rules.market)
        return Session(rules, known, tape, topics, past, account, settings.vwap_topic_s)

    lease = BusLease(writing, ANALYST, owner)
    return Analyst(lease, begin, account)


def _kafka(settings: Settings) -> "KafkaTopics | None":
    """Return a producer where the topics are on Kafka, and have them made; None where they are Redis streams.

    Raises KafkaOptionsError.
    """
    if settings.kafka is None:
        return None
    from models.bus.kafka import ASK_S, check_options, make_topics, partitions_of  # noqa: PLC0415 -- few need the library

    options = settings.kafka_client
    check_options(options)
    partitions = partitions_of(settings.venue_names, [each.symbol for each in INSTRUMENTS])
    # Nobody waits for it: a cluster that is away makes them by their first use.
    threading.Thread(target=make_topics, args=(settings.kafka, partitions, ASK_S, options), daemon=True).start()
    return kafka_of(settings)


def main() -> None:
    """Analyse until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings.log_level)
    database = Database.open(settings.database, pool_size=2)
    try:
        known = instruments_at(database, settings.market)
    except StoreUnavailableError as error:
        sys.exit(str(error))
    run(settings, known, database)


def run(settings: Settings, known: Instruments, database: Database) -> None:
    """Analyse these pairs until SIGTERM or SIGINT."""
    try:
        account, kafka = Analysed(), _kafka(settings)
    except CrossfillError as error:
        sys.exit(str(error))
    owner = f"{os.getpid()}-{uuid4().hex}"
    analyst, keeper = analyst_of(settings, known, database, kafka, account, owner), KeeperProcess(owner)
    registry = new_registry("analyst", settings)
    registry.register(Families(lambda: of_analyst(account, () if kafka is None else (kafka, keeper))))
    listener = Listener(settings, registry)
    listener.start()
    ended = threading.Event()

    def work() -> None:
        try:
            analyst.run()
        finally:
            ended.set()

    thread = threading.Thread(target=work, name="analyst")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    gc.freeze()  # what the imports made stays
    gc.set_threshold(*gc.get_threshold()[:2], COLLECTIONS)
    keeper.start()
    thread.start()
    # Where it ends unasked it has failed: the process ends with it, and whoever started it starts it again.
    ended.wait()
    analyst.stop()
    thread.join()
    keeper.stop()
    if kafka is not None:
        kafka.close()
    listener.stop()
    database.close()


if __name__ == "__main__":
    main()
