"""Jobs over past windows: VWAP and candles, an hour of a pair at a time, from the archive and what is still on the bus.

A job may be longer than a task: after some seconds it is put back with what it has so far, and whoever is free goes
on. What it has so far is written as it grows, so one that is killed goes on from there too.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

import msgspec
import redis

from models.archive.files import Archive
from models.archive.layout import EARLY_MS, LATE_MS, Entry, Kind, Series
from models.archive.reading import read_spans
from models.archive.rows import Rows
from models.bus.history import chunks_after, entry_range, numbered_spans
from models.domain.averages import quotient
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle
from models.domain.decimals import EXACT, plain
from models.domain.history import Span, lived
from models.domain.instruments import Instruments
from models.settings import Settings
from models.store.candles import Series as CandleSeries
from models.store.candles import read_candles, upsert_candles
from models.store.database import Database
from models.store.events import rfc3339
from models.store.jobs import CANDLES_KIND, ClaimedJob
from workers.bars import Bar, Bars, joined

HOUR_US = 3_600_000_000
TURN_S = 15.0  # far below a task's time limit; the other jobs wait for no longer
REPORT_S = 0.5  # what a job has so far is written no more often
PAGE = 500
ROWS = 500  # candles that one transaction stores
NO_TRADE = "nothing was traded in this time, or it is not in the archive"

Progress = dict[str, Any]
Take = Callable[["SoFar", "Source", str, int, int], None]


@dataclass(frozen=True)
class Window:
    """What a job asks for. Candles are those of `intervals_s`, smallest first."""

    pairs: tuple[str, ...]
    venues: tuple[str, ...] | None
    start_us: int
    end_us: int
    intervals_s: tuple[int, ...] = ()

    def hours(self) -> list[tuple[str, int, int]]:
        """Return pair, start and end of each part that is worked at once, in order."""
        return [
            (pair, max(hour_us, self.start_us), min(hour_us + HOUR_US, self.end_us))
            for pair in self.pairs
            for hour_us in range(self.start_us // HOUR_US * HOUR_US, self.end_us, HOUR_US)
        ]


def window_of(payload: Mapping[str, Any]) -> Window:
    """Return what a job's payload asks for."""
    intervals = sorted(INTERVALS_S[name] for name in payload.get("intervals", ()))
    venues = tuple(payload["venues"]) if payload["venues"] else None
    return Window(tuple(payload["pairs"]), venues, payload["start_us"], payload["end_us"], tuple(intervals))


class Sum(msgspec.Struct):
    """What was traded of a pair at one venue so far, and how much of the time was seen."""

    points: int = 0
    size: Decimal = Decimal(0)
    quote_volume: Decimal = Decimal(0)
    from_us: int | None = None
    until_us: int | None = None
    lived_us: int = 0
    incomplete: bool = False

    def add(self, bar: Bar) -> None:
        """Take in the trades of a later time."""
        with localcontext(EXACT):
            self.points += bar.trades
            self.size += bar.volume
            self.quote_volume += bar.quote_volume
        self.from_us = bar.from_us if self.from_us is None else min(self.from_us, bar.from_us)
        self.until_us = bar.until_us if self.until_us is None else max(self.until_us, bar.until_us)


class Growing(msgspec.Struct, array_like=True):
    """A candle longer than an hour, as far as it has come."""

    interval_s: int
    bar: Bar
    incomplete: bool


class SoFar(msgspec.Struct):
    """What a job has when it is put back."""

    sums: dict[str, dict[str, Sum]] = {}  # by pair and venue
    growing: list[Growing] = []
    candles: int = 0
    written: int = 0
    broken: list[str] = []


@dataclass
class Source:
    """Where trades and spans are read: the archive, and the bus for what is not in it yet."""

    archive: Archive
    bus: redis.Redis
    instruments: Instruments
    market: str
    bars: Bars
    _last: dict[tuple[str, str], Entry | None] = field(default_factory=dict)

    def close(self) -> None:
        """Give back what DuckDB holds."""
        self.bars.close()

    def products(self, window: Window, pair: str) -> dict[str, str]:
        """Return the product of each venue that is asked for and lists the pair."""
        wanted, listed = window.venues, self.instruments.resolve(pair).products
        return {each.venue: each.id for each in listed if wanted is None or each.venue in wanted}

    def tail(self, pair: str, venues: Sequence[str], start_us: int, end_us: int) -> dict[str, Rows]:
        """Return the trades around a time that are on the bus and not in the archive, by venue.

        Raises BusUnavailableError and ArchiveError.
        """
        for venue in venues:
            if (pair, venue) not in self._last:
                self._last[pair, venue] = self.archive.last(Series(Kind.TRADES, venue, pair))
        first, last_ms = max(0, start_us // 1000 - EARLY_MS), end_us // 1000 + LATE_MS
        archived = [last for venue in venues if (last := self._last[pair, venue]) is not None]
        if len(archived) == len(venues) and min(archived).ms >= last_ms:
            return {}
        rows = {venue: Rows(Kind.TRADES) for venue in venues}
        after = f"{first}-0".encode()
        while page := chunks_after(self.bus, pair, after, PAGE):
            after = page[-1][0]
            for number, chunk in page:
                entry = Entry.read(number)
                if entry.ms > last_ms:
                    return rows
                if chunk is None or chunk.venue not in rows or chunk.market not in ("", self.market):
                    continue
                last = self._last[pair, chunk.venue]
                if last is None or entry > last:
                    rows[chunk.venue].add(entry, chunk)
        return rows

    def spans(self, venue: str, start_us: int, end_us: int) -> list[Span]:
        """Return when a venue's connections lived around a time. Raises BusUnavailableError and ArchiveError."""
        found = read_spans(self.archive, venue, *entry_range(start_us, end_us), self.bars.broken)
        for number, span in numbered_spans(self.bus, venue, start_us, end_us):
            if span.market in ("", self.market):
                found[Entry.read(number)] = span
        return list(found.values())


def holes_of(spans: Sequence[Span], product_id: str, start_us: int, end_us: int) -> tuple[int, list[tuple[int, int]]]:
    """Return for how long connections lived in [start, end), and in which parts of it trades may be missing. Pure."""
    pieces = sorted((begin, end) for _, begin, end in lived(spans, start_us, end_us))
    holes, at = [], start_us
    for begin, end in pieces:
        if begin > at:
            holes.append((at, begin))
        at = max(at, end)
    if at < end_us:
        holes.append((at, end_us))
    gaps = [
        (max(span.from_us, start_us), min(span.until_us, end_us))
        for span in spans
        if product_id in span.gaps and span.from_us < end_us and span.until_us > start_us
    ]
    return sum(end - begin for begin, end in pieces), holes + gaps


def work(
    window: Window,
    source: Source,
    take: Take,
    before: Progress | None,
    report: Callable[[Progress], None],
) -> tuple[SoFar, Progress | None]:
    """Work the hours that are left; return what there is, and how far it is where the turn is over before the end."""
    hours, begun_at = window.hours(), time.monotonic()
    until, told_at = begun_at + TURN_S, begun_at
    done = (before or {}).get("done", 0)
    so_far = msgspec.convert((before or {}).get("so_far", {}), SoFar)
    for pair, start_us, end_us in hours[done:]:
        take(so_far, source, pair, start_us, end_us)
        done += 1
        so_far.broken = sorted({*so_far.broken, *source.bars.broken})
        now = time.monotonic()
        if done < len(hours) and (now >= until or now >= told_at + REPORT_S):
            progress = {"done": done, "parts": len(hours), "so_far": _json(so_far)}
            if now >= until:
                return so_far, progress
            report(progress)
            told_at = now
    return so_far, None


def _json(so_far: SoFar) -> Any:  # noqa: ANN401 -- as JSON has it
    return msgspec.json.decode(msgspec.json.encode(so_far))


def vwap_hour(window: Window) -> Take:
    """Return what takes an hour of a pair into a job's sums."""

    def take(so_far: SoFar, source: Source, pair: str, start_us: int, end_us: int) -> None:
        products = source.products(window, pair)
        sums = so_far.sums.setdefault(pair, {})
        venues = sorted(products)
        for bar in source.bars.of(pair, venues, (start_us, end_us), source.tail(pair, venues, start_us, end_us)):
            sums.setdefault(bar.venue, Sum()).add(bar)
        for venue, product_id in products.items():
            lived_us, holes = holes_of(source.spans(venue, start_us, end_us), product_id, start_us, end_us)
            known = sums.setdefault(venue, Sum())
            known.lived_us += lived_us
            known.incomplete |= bool(holes)

    return take


def vwap_json(window: Window, so_far: SoFar, market: str) -> dict[str, Any]:
    """Return the result of a VWAP job: each pair's value over all venues, and each venue's. Pure."""
    length_us = window.end_us - window.start_us

    def shown(known: Sum, lived_us: int) -> dict[str, Any]:
        return {
            "vwap": plain(quotient(known.quote_volume, known.size)) if known.size else None,
            "points": known.points,
            "size": plain(known.size),
            "quote_volume": plain(known.quote_volume),
            "from": rfc3339(known.from_us),
            "until": rfc3339(known.until_us),
            "coverage": plain(quotient(Decimal(lived_us), Decimal(length_us))),
            "incomplete": known.incomplete,
        }

    parts = []
    for pair in window.pairs:
        sums, merged = so_far.sums.get(pair, {}), Sum()
        for known in sums.values():
            if known.from_us is not None and known.until_us is not None:
                bar = Bar("", 0, known.points, known.size, known.quote_volume, known.from_us, known.until_us)
                merged.add(bar)
            merged.incomplete |= known.incomplete
        venues = [{"venue": venue, **shown(sums[venue], sums[venue].lived_us)} for venue in sorted(sums)]
        least_us = min((known.lived_us for known in sums.values()), default=0)
        problem = None if merged.points else NO_TRADE
        parts.append({"pair": pair, **shown(merged, least_us), "problem": problem, "venues": venues})
    times = {"start": rfc3339(window.start_us), "end": rfc3339(window.end_us)}
    return {**times, "market": market, "parts": parts, "files_broken": so_far.broken}


def vwap_told(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an event tells of a VWAP job: the values, not what they are made of."""
    head = {name: result[name] for name in ("start", "end", "market")}
    return {**head, "values": {part["pair"]: part["vwap"] for part in result["parts"]}}


def candles_hour(window: Window, store: Database) -> Take:
    """Return what makes an hour's candles of a pair, and stores those that are whole."""
    smallest_us = window.intervals_s[0] * 1_000_000

    def take(so_far: SoFar, source: Source, pair: str, start_us: int, end_us: int) -> None:
        if start_us == window.start_us:
            so_far.growing = []  # of the pair before
        products = source.products(window, pair)
        venues = sorted(products)
        tail = source.tail(pair, venues, start_us, end_us)
        step_us = min(smallest_us, HOUR_US)
        bars = source.bars.of(pair, venues, (start_us, end_us), tail, step_us)
        holes = {}
        for venue, product_id in products.items():
            _, holes[venue] = holes_of(source.spans(venue, start_us, end_us), product_id, start_us, end_us)
        holes[EVERY_VENUE] = [hole for each in holes.values() for hole in each]
        made = []
        for venue in (*venues, EVERY_VENUE) if window.venues is None else venues:
            mine = bars if venue == EVERY_VENUE else [bar for bar in bars if bar.venue == venue]
            for interval_s in window.intervals_s:
                grown = _grown(so_far, venue, interval_s, start_us, end_us, mine, holes[venue])
                made += [_candle(each, pair, source.market) for each in grown]
        so_far.candles += len(made)
        so_far.written += _store(store, made)

    return take


def _grown(
    so_far: SoFar,
    venue: str,
    interval_s: int,
    start_us: int,
    end_us: int,
    bars: Sequence[Bar],
    holes: Sequence[tuple[int, int]],
) -> list[Growing]:
    """Return a series' candles that end in an hour, and keep the one that does not."""
    interval_us = interval_s * 1_000_000
    by_start: dict[int, list[Bar]] = {}
    for bar in bars:
        by_start.setdefault(bar.start_us // interval_us * interval_us, []).append(bar)
    missing = {
        place * interval_us for begin, end in holes for place in range(begin // interval_us, -(-end // interval_us))
    }
    if interval_us > HOUR_US:
        return _grown_long(so_far, venue, interval_s, (start_us, end_us), by_start, missing)
    ended = [at for at in sorted(by_start) if at + interval_us <= end_us]
    made = ((at, joined(by_start[at], venue, at)) for at in ended)
    return [Growing(interval_s, bar, at in missing) for at, bar in made if bar is not None]


def _grown_long(
    so_far: SoFar,
    venue: str,
    interval_s: int,
    hour_us: tuple[int, int],
    by_start: Mapping[int, list[Bar]],
    missing: set[int],
) -> list[Growing]:
    interval_us = interval_s * 1_000_000
    at = hour_us[0] // interval_us * interval_us
    held = [each for each in so_far.growing if (each.bar.venue, each.interval_s) == (venue, interval_s)]
    so_far.growing = [each for each in so_far.growing if each not in held]
    bars = [each.bar for each in held if each.bar.trades]
    if (later := joined(by_start.get(at, ()), venue, at)) is not None:
        # Numbers count within an hour: the later hour's are behind.
        later.first, later.last = hour_us[0], hour_us[0] + 1
        bars.append(later)
    bar = joined(bars, venue, at)
    if bar is None:
        bar = Bar(venue, at, 0, Decimal(0), Decimal(0), hour_us[0], hour_us[0], first=hour_us[0], last=hour_us[0])
    grown = Growing(interval_s, bar, at in missing or any(each.incomplete for each in held))
    if hour_us[1] < at + interval_us:
        so_far.growing.append(grown)
        return []
    return [grown] if grown.bar.trades else []


def _candle(grown: Growing, pair: str, market: str) -> Candle:
    bar = grown.bar
    prices = (bar.open, bar.high, bar.low, bar.close)
    volumes = (bar.volume, bar.quote_volume, bar.taker_buy_volume)
    series = (bar.venue, pair, grown.interval_s)
    return Candle(*series, bar.start_us, *prices, *volumes, bar.trades, market, incomplete=grown.incomplete)


def _store(store: Database, made: Sequence[Candle]) -> int:
    """Store candles that differ from what is stored, as the next revision of it; return how many were written.

    One in which trades may be missing never takes the place of one in which none are. Raises StoreUnavailableError.
    """
    new: list[Candle] = []
    series: dict[CandleSeries, list[Candle]] = {}
    for candle in made:
        key = CandleSeries(candle.market, candle.venue, candle.symbol, candle.interval_s)
        series.setdefault(key, []).append(candle)
    with store.read() as connection:
        for key, mine in series.items():
            end_us = mine[-1].open_time_us + 1
            stored = {
                each.open_time_us: each
                for each in read_candles(connection, key, mine[0].open_time_us, end_us, len(mine) + 10_000)
            }
            for candle in mine:
                before = stored.get(candle.open_time_us)
                if before is None:
                    new.append(candle)
                elif candle != msgspec.structs.replace(before, revision=0) and before.incomplete >= candle.incomplete:
                    new.append(msgspec.structs.replace(candle, revision=before.revision + 1))
    return sum(upsert_candles(store, new[place : place + ROWS]) for place in range(0, len(new), ROWS))


def candles_json(window: Window, so_far: SoFar, market: str) -> dict[str, Any]:
    """Return the result of a rebuild. Pure."""
    names = {seconds: name for name, seconds in INTERVALS_S.items()}
    return {
        "start": rfc3339(window.start_us),
        "end": rfc3339(window.end_us),
        "market": market,
        "pairs": list(window.pairs),
        "intervals": [names[seconds] for seconds in window.intervals_s],
        "candles": so_far.candles,
        "written": so_far.written,
        "problem": None if so_far.candles else NO_TRADE,
        "files_broken": so_far.broken,
    }


def worked(
    claimed: ClaimedJob,
    store: Database,
    bus: redis.Redis,
    settings: Settings,
    instruments: Instruments,
    report: Callable[[Progress], None],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Work a turn of a job: return its result and what its owner is told of it, or how far it is and None.

    Raises what the store, the bus and the archive raise, and UnknownSymbolError for a pair that is gone.
    """
    window, market = window_of(claimed.payload), settings.market.value
    candles = claimed.kind == CANDLES_KIND
    take = candles_hour(window, store) if candles else vwap_hour(window)
    with closing(source_of(settings, bus, instruments)) as source:
        so_far, left = work(window, source, take, claimed.progress, report)
    if left is not None:
        return left, None
    if candles:
        result = candles_json(window, so_far, market)
        return result, result
    result = vwap_json(window, so_far, market)
    return result, vwap_told(result)


def source_of(settings: Settings, bus: redis.Redis, instruments: Instruments) -> Source:
    """Return where jobs read; its `bars` must be closed."""
    archive = Archive(settings.archive, settings.market.value)
    return Source(
        archive, bus, instruments, settings.market.value, Bars(archive, settings.home / "duckdb" / str(os.getpid()))
    )
