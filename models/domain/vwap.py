"""Volume-weighted average prices of the last trades and of the last seconds, exact whatever has passed through.

Every window here is the difference of two running totals, of price times size and of size. A trade adds to
them and what they were is kept beside it; nothing is ever taken away from them. So no window drifts, and a long
one costs what a short one does. The totals only grow, and 200 digits hold those of more trades than will ever be
made; decimal.Inexact is raised where they do not, which takes a price or a size of fifty digits.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal, getcontext
from enum import Enum
from itertools import islice
from math import inf
from operator import attrgetter

import msgspec

from models.domain.averages import PRECISION, quotient
from models.domain.candles import Candle
from models.domain.decimals import EXACT
from models.domain.errors import CrossfillError
from models.domain.history import Print

WINDOW_MAX = 1_000_000  # trades; each takes 0.7 KB
# Numbers follow times at every venue, to the millisecond or so; a simulator or a sandbox that restarts begins anywhere.
ANEW_US = 1_000_000
EXACT_SPANS_S = (1, 10, 60)
SECONDS_SPANS_S = (300, 900, 3_600)
MINUTES_SPANS_S = (14_400, 86_400)
SPANS_S = EXACT_SPANS_S + SECONDS_SPANS_S + MINUTES_SPANS_S
SECOND_US, MINUTE_US = 1_000_000, 60_000_000
NOTHING = Decimal(0)


class WindowError(CrossfillError):
    """A window that is no whole number of trades, or too small or too large a one."""

    def __init__(self, window: object) -> None:
        super().__init__(f"a window is a whole number of trades from 1 to {WINDOW_MAX}, not {window!r}")
        self.window = window


class Vwap(msgspec.Struct, frozen=True, gc=False):
    """The last trades of a pair, at one venue or (candles.EVERY_VENUE) at all.

    At most `window` of them, or those of the last `window_s` seconds, and then `window` is 0. `size` is in the
    base asset, `quote_volume` the exact sum of price times size; both are None-free: 0 where `points` is 0.
    The span is from the oldest to the newest trade's time; where a window of time is made of slots, from
    the beginning of its oldest slot in which something was traded.
    """

    venue: str
    symbol: str
    window: int
    points: int
    size: Decimal
    quote_volume: Decimal
    from_us: int | None
    until_us: int | None
    market: str
    window_s: int | None = None

    @property
    def value(self) -> Decimal | None:
        """The average to 28 significant digits, half-even; None where nothing was traded."""
        return quotient(self.quote_volume, self.size) if self.size else None


class Became(Enum):
    """What became of a trade. ADDED and OUT_OF_ORDER are in the window, the others changed nothing."""

    ADDED = "added"
    OUT_OF_ORDER = "out_of_order"
    DUPLICATE = "duplicate"
    LATE = "late"


# The module's own names, because Python 3.11 looks the members of an enum up by a descriptor.
ADDED, OUT_OF_ORDER, DUPLICATE, LATE = Became


class _Entry(msgspec.Struct, frozen=True, gc=False):
    # A trade in a window, and the totals with it. `number` is its id, or infinite where arrival is the order.
    number: float
    time_us: int
    trade_id: str
    price: Decimal
    size: Decimal
    quote_total: Decimal
    size_total: Decimal


# What is before the first trade of a window.
_BEGINNING = _Entry(-1, 0, "", NOTHING, NOTHING, NOTHING, NOTHING)
_fma, _add, _subtract = EXACT.fma, EXACT.add, EXACT.subtract
_divide = Context(prec=PRECISION, rounding=ROUND_HALF_EVEN).divide  # averages.quotient without a call, 0.1 us
_number_of = attrgetter("number")


class _Window:
    # The entries are those of the window and the one before it, whose totals are taken from the newest one's.

    __slots__ = ("_entries", "_newest", "window")

    def __init__(self, window: int) -> None:
        if type(window) is not int or not 1 <= window <= WINDOW_MAX:
            raise WindowError(window)
        self.window = window
        self._newest = _BEGINNING
        self._entries: deque[_Entry] = deque([_BEGINNING], window + 1)

    @property
    def points(self) -> int:
        """How many trades are in it."""
        return len(self._entries) - 1

    @property
    def size(self) -> Decimal:
        """What they traded, in the base asset."""
        return _subtract(self._newest.size_total, self._entries[0].size_total)

    @property
    def quote_volume(self) -> Decimal:
        """The sum of price times size."""
        return _subtract(self._newest.quote_total, self._entries[0].quote_total)

    @property
    def value(self) -> Decimal | None:
        """The average to 28 significant digits, half-even; None where nothing was traded."""
        oldest, newest = self._entries[0], self._newest
        if getcontext() is EXACT:  # then the operators are exact, in half of the time
            quote, size = newest.quote_total - oldest.quote_total, newest.size_total - oldest.size_total
        else:
            quote = _subtract(newest.quote_total, oldest.quote_total)
            size = _subtract(newest.size_total, oldest.size_total)
        return _divide(quote, size) if size else None

    @property
    def from_us(self) -> int | None:
        """The time of the first trade in it, or of the last one where that is earlier; None: there is none."""
        return min(self._entries[1].time_us, self._newest.time_us) if len(self._entries) > 1 else None

    @property
    def until_us(self) -> int | None:
        """The time of the last trade in it, or of the first one where that is later; None: there is none."""
        return max(self._entries[1].time_us, self._newest.time_us) if len(self._entries) > 1 else None

    def trades(self) -> list[Print]:
        """Return the trades in it, oldest first: a window made of them goes on as this one would."""
        return [
            Print(entry.time_us, entry.trade_id, entry.price, entry.size) for entry in islice(self._entries, 1, None)
        ]

    def vwap(self, venue: str, symbol: str, market: str) -> Vwap:
        """Return it as it is told."""
        span = self.from_us, self.until_us
        return Vwap(venue, symbol, self.window, self.points, self.size, self.quote_volume, *span, market)

    def _put(self, number: float, trade: Print | _Entry) -> None:
        newest = self._newest
        quote_total = _fma(trade.price, trade.size, newest.quote_total)
        size_total = _add(newest.size_total, trade.size)
        entry = _Entry(number, trade.time_us, trade.trade_id, trade.price, trade.size, quote_total, size_total)
        self._newest = entry
        self._entries.append(entry)


class MergedVwap(_Window):
    """The last trades of several series together, in the order in which they are added.

    It is fed what each series' own window took; raises WindowError. `trades` are those of one that was.
    """

    __slots__ = ()

    def __init__(self, window: int, trades: Iterable[Print] = ()) -> None:
        super().__init__(window)
        for trade in trades:
            self._put(inf, trade)

    def add(self, price: Decimal, size: Decimal, time_us: int) -> None:
        """Add a trade."""
        newest = self._newest
        if getcontext() is EXACT:  # then the operators are exact, in half of the time
            quote_total = newest.quote_total + price * size
            size_total = newest.size_total + size
        else:
            quote_total = _fma(price, size, newest.quote_total)
            size_total = _add(newest.size_total, size)
        self._newest = entry = _Entry(inf, time_us, "", price, size, quote_total, size_total)
        self._entries.append(entry)


class SlidingVwap(_Window):
    """The last trades of one series, at most `window` of them, each once; raises WindowError.

    While the ids of all of its trades are numbers, the window holds the highest ones, in their order: that is how
    six venues number the trades of a product. While one of them is none (or absent: None or ""), it holds those
    that came last, and knows a duplicate by the ids that it holds. `trades` are those of one that was. Of what was
    added, out of order, a duplicate or late it counts how many there were; the counters begin at 0. A lower number that
    was traded more than ANEW_US after the highest one says that the venue counts anew: the window begins with it.

    An update costs the same in a window of any size. One out of order costs that of each trade after it, too.
    """

    __slots__ = ("_ids", "_unnumbered", "duplicates", "late", "out_of_order")

    def __init__(self, window: int, trades: Iterable[Print] = ()) -> None:
        super().__init__(window)
        self.out_of_order = self.duplicates = self.late = 0
        self._ids: set[str] | None = None
        self._unnumbered = 0
        self._load(list(trades)[-window:])

    @property
    def highest(self) -> float:
        """The highest id in it; infinite where arrival is the order, -1 where there is none."""
        return self._newest.number

    def add(self, price: Decimal, size: Decimal, time_us: int, trade_id: str | None) -> Became:
        """Add a trade and return what became of it.

        Where the trades are also kept elsewhere, one at a time (RPUSH, LTRIM), what is kept must be replaced by
        `trades()` after one that is OUT_OF_ORDER. It is the faster, by 0.1 us, and the value by 0.2, in a thread whose
        context is models.domain.decimals.EXACT (`setcontext`); what comes of it is the same in any.
        """
        newest = self._newest
        try:
            number = int(trade_id)  # type: ignore[arg-type] # None raises, as it should
        except (TypeError, ValueError):
            return self._arrive(Print(time_us, trade_id or "", price, size))
        if number <= newest.number:
            return self._misplaced(number, Print(time_us, str(trade_id), price, size))
        if getcontext() is EXACT:  # then the operators are exact, in half of the time
            quote_total = newest.quote_total + price * size
            size_total = newest.size_total + size
        else:
            quote_total = _fma(price, size, newest.quote_total)
            size_total = _add(newest.size_total, size)
        self._newest = entry = _Entry(number, time_us, trade_id, price, size, quote_total, size_total)  # type: ignore[arg-type] # no None comes here
        self._entries.append(entry)
        return ADDED

    def _misplaced(self, number: int, trade: Print) -> Became:
        if self._ids is not None:
            return self._arrive(trade)
        if trade.time_us > self._newest.time_us + ANEW_US:
            self._load([trade])
            self.out_of_order += 1
            return OUT_OF_ORDER
        entries = self._entries
        place = bisect_left(entries, number, 1, key=_number_of)
        if place < len(entries) and entries[place].number == number:
            self.duplicates += 1
            return DUPLICATE
        if len(entries) > self.window:
            if place == 1:
                self.late += 1
                return LATE
            entries.popleft()
            place -= 1
        above = [entries.pop() for _ in range(len(entries) - place)]
        self._newest = entries[-1]
        self._put(number, trade)
        for entry in reversed(above):
            self._put(entry.number, entry)
        self.out_of_order += 1
        return OUT_OF_ORDER

    def _arrive(self, trade: Print) -> Became:
        if self._ids is None:
            self._ids = {entry.trade_id for entry in islice(self._entries, 1, None)}
        if trade.trade_id in self._ids:
            self.duplicates += 1
            return DUPLICATE
        leaving = self._entries[1].trade_id if len(self._entries) > self.window else None
        self._put(inf, trade)
        if trade.trade_id:
            self._ids.add(trade.trade_id)
        self._unnumbered += not _is_number(trade.trade_id)
        if leaving is not None:
            self._ids.discard(leaving)
            self._unnumbered -= not _is_number(leaving)
            if not self._unnumbered:
                self._load(self.trades())
        return ADDED

    def _load(self, trades: Sequence[Print]) -> None:
        self._unnumbered = sum(not _is_number(trade.trade_id) for trade in trades)
        self._ids = {trade.trade_id for trade in trades if trade.trade_id} if self._unnumbered else None
        self._newest = _BEGINNING
        self._entries = deque([_BEGINNING], self.window + 1)
        if self._unnumbered:
            for trade in trades:
                self._put(inf, trade)
        else:
            for trade in sorted(trades, key=lambda trade: int(trade.trade_id)):
                self._put(int(trade.trade_id), trade)


def _is_number(trade_id: str) -> bool:
    try:
        int(trade_id)
    except ValueError:
        return False
    return True


class _Totals(msgspec.Struct, frozen=True, gc=False, array_like=True):
    quote: Decimal
    size: Decimal
    points: int


class _Sum(msgspec.Struct, frozen=True, gc=False):
    totals: _Totals
    from_us: int | None
    until_us: int | None


_unpack = msgspec.msgpack.Decoder(_Totals).decode
_pack = msgspec.msgpack.Encoder().encode


class _Marks:
    # For each slot in which something was traded: when it begins, and the totals before its first trade. Packed ones
    # take 0.13 KB instead of 0.31, and 1 us more at the beginning of a slot.

    __slots__ = ("packed", "span_us", "step_us", "times", "totals")

    def __init__(self, step_us: int, spans_s: Sequence[int], *, packed: bool) -> None:
        self.step_us = step_us
        self.span_us = spans_s[-1] * SECOND_US
        self.times = array("q")
        self.totals: list[_Totals | bytes] = []
        self.packed = packed

    def __getitem__(self, place: int) -> _Totals:
        totals = self.totals[place]
        return totals if isinstance(totals, _Totals) else _unpack(totals)

    def mark(self, time_us: int, before: _Totals) -> None:
        slot_us = time_us - time_us % self.step_us
        if not self.times or slot_us > self.times[-1]:
            self.times.append(slot_us)
            self.totals.append(_pack(before) if self.packed else before)

    def mark_late(self, time_us: int, quote: Decimal, size: Decimal) -> None:
        slot_us = time_us - time_us % self.step_us
        place = bisect_right(self.times, slot_us)
        if not place or self.times[place - 1] != slot_us:
            before = self[place]  # there is a later one, of the newest trade
            self.times.insert(place, slot_us)
            self.totals.insert(place, _pack(before) if self.packed else before)
            place += 1
        for later in range(place, len(self.times)):
            totals = _more(self[later], quote, size, 1)
            self.totals[later] = _pack(totals) if self.packed else totals

    def forget(self, newest_us: int) -> None:
        gone = bisect_left(self.times, newest_us - self.span_us)
        del self.times[:gone], self.totals[:gone]


def _more(totals: _Totals, quote: Decimal, size: Decimal, points: int) -> _Totals:
    return _Totals(_add(totals.quote, quote), _add(totals.size, size), totals.points + points)


class TimeWindows:
    """What one series traded in each of the last SPANS_S seconds.

    Up to a minute exact to the trade: those not older than so many seconds. Above, whole slots of a second (to an
    hour) or of a minute (to a day) that begin in it, and the one that is still made: it begins up to a slot late.

    It is fed each trade of the series once, also one that came too late for a window of trades; one that is older
    than a day, by the newest trade's time, is counted in `late` and else counts for nothing. An update costs the same
    whatever was traded (0.8 us; a second's first one 5, because what is too old is cleared away then); one with a time
    before that of the newest trade costs 0.6 us for each later one of the last minute, too.

    `candles`: what was stored of the last day by the second and by the minute, also those that are still made. A
    minute counts as much as its own candle says or as its seconds do, whichever knows more trades; of several
    revisions the last one counts. The windows up to a minute are exact to the trade again a minute later.

    Memory: 0.67 MB where something was traded in every second of a day, 0.2 GB for 300 such series, and 0.3 KB for
    each trade of the last minute (measured; 0.48 GB before the totals of slots were packed).
    """

    __slots__ = ("_by_trade", "_levels", "_newest_us", "_next_second_us", "_totals", "late")

    def __init__(self, candles: Iterable[Candle] = ()) -> None:
        self._by_trade = _Marks(1, EXACT_SPANS_S, packed=False)
        self._levels = (
            self._by_trade,
            _Marks(SECOND_US, SECONDS_SPANS_S, packed=True),
            _Marks(MINUTE_US, MINUTES_SPANS_S, packed=True),
        )
        self._totals = _Totals(NOTHING, NOTHING, 0)
        self._newest_us = self._next_second_us = 0
        self.late = 0
        for time_us, totals in _pieces(candles):
            self._open(time_us)
            self._totals = _more(self._totals, totals.quote, totals.size, totals.points)

    def add(self, price: Decimal, size: Decimal, time_us: int) -> None:
        """Add a trade. Its time must not be ahead of the clock, for what is too old is told by the newest trade."""
        if time_us < self._newest_us:
            self._add_late(price, size, time_us)
            return
        totals = self._totals
        if time_us >= self._next_second_us:
            self._open(time_us)
        elif time_us > self._newest_us:
            self._newest_us = time_us
            self._by_trade.times.append(time_us)
            self._by_trade.totals.append(totals)
        self._totals = _Totals(_fma(price, size, totals.quote), _add(totals.size, size), totals.points + 1)

    def sums(self, now_us: int) -> list[_Sum]:
        """Return what was traded in each of SPANS_S before a time, or before the newest trade if that is later."""
        now_us = max(now_us, self._newest_us)
        found = []
        for marks, spans_s in zip(self._levels, (EXACT_SPANS_S, SECONDS_SPANS_S, MINUTES_SPANS_S), strict=True):
            for span_s in spans_s:
                place = bisect_left(marks.times, now_us - span_s * SECOND_US)
                if place == len(marks.times):
                    found.append(_Sum(_Totals(NOTHING, NOTHING, 0), None, None))
                    continue
                before, totals = marks[place], self._totals
                since = _Totals(
                    _subtract(totals.quote, before.quote),
                    _subtract(totals.size, before.size),
                    totals.points - before.points,
                )
                found.append(_Sum(since, marks.times[place], self._newest_us))
        return found

    def _open(self, time_us: int) -> None:
        self._newest_us = time_us
        self._next_second_us = time_us - time_us % SECOND_US + SECOND_US
        for marks in self._levels:
            marks.mark(time_us, self._totals)
            marks.forget(time_us)

    def _add_late(self, price: Decimal, size: Decimal, time_us: int) -> None:
        if time_us < self._newest_us - SPANS_S[-1] * SECOND_US:
            self.late += 1
            return
        quote = EXACT.multiply(price, size)
        for marks in self._levels:
            marks.mark_late(time_us, quote, size)
        self._totals = _more(self._totals, quote, size, 1)


def time_vwaps(venue: str, symbol: str, market: str, windows: Iterable[TimeWindows], now_us: int) -> list[Vwap]:
    """Return the averages of each of SPANS_S: of one series, or of several together (candles.EVERY_VENUE).

    Several are joined here, where they are read, and not trade by trade: venues' clocks and lines differ, so that
    their trades together are out of the order of time as a rule.
    """
    told = [each.sums(now_us) for each in windows]
    found = []
    for place, span_s in enumerate(SPANS_S):
        sums = [each[place] for each in told]
        totals = _Totals(NOTHING, NOTHING, 0)
        for each in sums:
            totals = _more(totals, each.totals.quote, each.totals.size, each.totals.points)
        from_us = min((each.from_us for each in sums if each.from_us is not None), default=None)
        until_us = max((each.until_us for each in sums if each.until_us is not None), default=None)
        found.append(
            Vwap(venue, symbol, 0, totals.points, totals.size, totals.quote, from_us, until_us, market, span_s)
        )
    return found


def _pieces(candles: Iterable[Candle]) -> Iterator[tuple[int, _Totals]]:
    # What is known by the second, and before it, at a minute's beginning, what only the minute's candle knows.
    by_minute: dict[int, list[Candle]] = {}
    minutes: dict[int, _Totals] = {}
    last = {(each.interval_s, each.open_time_us): each for each in sorted(candles, key=attrgetter("revision"))}
    for (interval_s, open_us), candle in sorted(last.items()):
        if interval_s == MINUTE_US // SECOND_US:
            minutes[open_us] = _Totals(candle.quote_volume, candle.volume, candle.trades)
        elif interval_s == 1:
            by_minute.setdefault(open_us - open_us % MINUTE_US, []).append(candle)
    for minute_us in sorted(minutes.keys() | by_minute.keys()):
        seconds = by_minute.get(minute_us, [])
        rest = minutes.get(minute_us, _Totals(NOTHING, NOTHING, 0))
        for second in seconds:
            rest = _more(rest, -second.quote_volume, -second.volume, -second.trades)
        if rest.points > 0:
            yield minute_us, rest
        for second in seconds:
            if second.trades:
                yield second.open_time_us, _Totals(second.quote_volume, second.volume, second.trades)
