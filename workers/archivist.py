"""The archivist: writes the history on the bus to the archive from time to time. `python -m workers.archivist`.

It keeps no position but the names of the files that it has written: whenever it is killed, what is not in a file
is read again. Two of them write everything twice, which whoever reads the archive sees by the entries' numbers.
"""

import gc
import signal
import sys
import threading
import time
from collections import Counter as Tallied
from collections.abc import Iterator

import redis
import structlog
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from models.archive.compaction import compact_day
from models.archive.files import Archive
from models.archive.layout import DAY_MS, LATE_MS, Entry, Kind, Series, day_of
from models.archive.rows import Rows
from models.bus.client import connect
from models.bus.history import chunks_after, spans_after, symbols_kept, venues_kept
from models.domain.errors import CrossfillError
from models.domain.history import Chunk, Span
from models.logs import configure_logs
from models.metrics import Families, Listener, new_registry
from models.settings import Settings

PAGE = 200  # entries that are read at once
ROWS_MAX = 50_000  # are held before they are written
RETRY_S = 30.0
TIDY_MS = 3_600_000
START = b"0-0"

log = structlog.get_logger()


class Archivist:
    """Copies what is on the bus of one market into its archive."""

    def __init__(self, client: redis.Redis, archive: Archive, days_kept: int) -> None:
        self._client = client
        self._archive = archive
        self._days_kept = days_kept
        self._stopping = threading.Event()
        self._last: dict[Series, Entry | None] = {}  # the last entry in the archive
        self._read: dict[str, bytes] = {}  # up to where a stream has been read, by its name here
        self._tidied: set[tuple[Series, str]] = set()
        self._tidy_ms = 0
        self._failing = False
        self.counts: Tallied[str] = Tallied()
        self.rows: Tallied[str] = Tallied({kind.value: 0 for kind in Kind})
        self.done_at = time.monotonic()

    def stop(self) -> None:
        """End, after what there is has been written."""
        self._stopping.set()

    def run(self, every_s: float) -> None:
        """Archive from time to time, until stopped, and once more then."""
        while True:
            whole = self.attempt()
            if self._stopping.wait(every_s if whole else min(every_s, RETRY_S)):
                break
        self.attempt()

    def attempt(self) -> bool:
        """Archive what is there, and say whether that could be done; the log says it once."""
        try:
            self.turn()
            self.tidy(time.time_ns() // 1_000_000)
        except CrossfillError as error:
            self.counts["failures"] += 1
            if not self._failing:
                log.warning("nothing can be archived; it is tried again", error=str(error))
            self._failing = True
            return False
        if self._failing:
            log.info("the archive is written again")
        self._failing, self.done_at = False, time.monotonic()
        return True

    def turn(self) -> None:
        """Archive every entry that is not in the archive yet. Raises ArchiveError and BusUnavailableError."""
        for symbol in symbols_kept(self._client):
            gathered = _Gathered()
            after = self._read.get(symbol, START)
            while page := chunks_after(self._client, symbol, after, PAGE):
                for number, chunk in page:
                    self._take(gathered, symbol, Entry.read(number), chunk)
                after = page[-1][0]
                if gathered.count >= ROWS_MAX:
                    self._write(gathered)
                    self._read[symbol] = after
            self._write(gathered)
            self._read[symbol] = after
        for venue in venues_kept(self._client):
            gathered, name = _Gathered(), f"spans:{venue}"
            after = self._read.get(name, START)
            while page_ := spans_after(self._client, venue, after, PAGE):
                for number, span in page_:
                    self._take(gathered, None, Entry.read(number), span)
                after = page_[-1][0]
            self._write(gathered)
            self._read[name] = after

    def _take(self, gathered: "_Gathered", pair: str | None, entry: Entry, told: Chunk | Span | None) -> None:
        if told is None:
            self.counts["unreadable"] += 1
            return
        if told.market != self._archive.market:
            return  # a Redis that was there before knows another market's
        kinds = (Kind.SPANS,) if isinstance(told, Span) else (Kind.TRADES, Kind.QUOTES)
        for kind in kinds:
            series = Series(kind, told.venue, pair)
            if series not in self._last:
                self._last[series] = self._archive.last(series)
            last = self._last[series]
            if last is None or entry > last:
                gathered.add(series, entry, told)

    def _write(self, gathered: "_Gathered") -> None:
        """Write what was gathered, a file for each series and day, the older day first."""
        for (series, _), (rows, first, last) in gathered.taken().items():
            self.counts["refused"] += rows.refused
            if len(rows):
                self._archive.write(series, rows.table(), first, last)
                self.counts["files"] += 1
                self.rows[series.kind.value] += len(rows)
            self._last[series] = last

    def tidy(self, now_ms: int) -> None:
        """Once an hour delete what is older than it is kept, and make one file of many. Raises ArchiveError."""
        if now_ms - self._tidy_ms < TIDY_MS:
            return
        if self._days_kept:
            self._archive.delete_before(day_of(now_ms - self._days_kept * DAY_MS))
        finished = day_of(now_ms - LATE_MS)
        for series in (each for kind in Kind for each in self._archive.series(kind)):
            for day in self._archive.days(series):
                if self._stopping.is_set():
                    return
                if (series, day) in self._tidied:
                    continue
                for name in compact_day(self._archive, series, day, hourly=day >= finished, now_ms=now_ms):
                    self.counts["broken"] += 1
                    log.warning("a file of the archive is broken", file=name)
                if day < finished:
                    self._tidied.add((series, day))
        self._tidy_ms = now_ms

    def collect(self) -> Iterator[Metric]:
        """Yield what was done, as metrics."""
        rows = CounterMetricFamily("crossfill_archive_rows", "Rows written to the archive.", labels=["kind"])
        for kind, count in self.rows.items():
            rows.add_metric([kind], count)
        yield rows
        for name, told in _TOLD.items():
            yield CounterMetricFamily(f"crossfill_archive_{name}", told, value=self.counts[name])
        age = GaugeMetricFamily("crossfill_archive_age_seconds", "Time since all that there was has been archived.")
        age.add_metric([], time.monotonic() - self.done_at)
        yield age


_TOLD = {
    "files": "Files written to the archive.",
    "failures": "Turns that could not be done: the archive or the bus could not be reached, or the disk was full.",
    "refused": "Rows left out because a price or a size has more digits than one can have.",
    "unreadable": "Entries of the bus that could not be decoded.",
    "broken": "Times that a file was found which cannot be read.",
}


class _Gathered:
    """Rows that are not written yet, by series and day, with the range of their entries."""

    def __init__(self) -> None:
        self._by_file: dict[tuple[Series, str], tuple[Rows, Entry, Entry]] = {}
        self.count = 0

    def add(self, series: Series, entry: Entry, told: Chunk | Span) -> None:
        key = series, day_of(entry.ms)
        rows, first, _ = self._by_file.get(key) or (Rows(series.kind), entry, entry)
        before = len(rows) + rows.refused
        if isinstance(told, Span):
            rows.add_span(entry, told)
        else:
            rows.add(entry, told)
        added = len(rows) + rows.refused - before
        if added:
            self._by_file[key] = rows, first, entry
            self.count += added

    def taken(self) -> dict[tuple[Series, str], tuple[Rows, Entry, Entry]]:
        taken, self._by_file, self.count = self._by_file, {}, 0
        return taken


def main() -> None:
    """Run the archivist until SIGTERM or SIGINT."""
    settings = Settings()
    configure_logs(settings.log_level)
    if len(sys.argv) > 1:
        sys.exit("usage: python -m workers.archivist; the environment says where (docs/archive.md)")
    archive = Archive(settings.archive, settings.market.value)
    archivist = Archivist(connect(settings.bus), archive, settings.archive_days)
    registry = new_registry("archivist", settings)
    registry.register(Families(archivist.collect))
    listener = Listener(settings, registry)
    listener.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: archivist.stop())
    gc.freeze()
    archivist.run(settings.archive_every_s)
    listener.stop()


if __name__ == "__main__":
    main()
