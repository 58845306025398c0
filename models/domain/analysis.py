"""What the trades of all venues come to, as they happen: averages, candles and signals. Pure.

The same items in the same order come to the same, however often it was begun again from what it kept. That may be
kept a part of the symbols at a time: who begins again gives it the items from the oldest part on, and says of each
which parts have it already.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Inexact
from math import inf
from zlib import crc32

import msgspec

from models.domain.candles import EVERY_VENUE, GRACE_US, Candle, CandleMaker, MakerState, Settled
from models.domain.history import Print
from models.domain.instruments import Instruments
from models.domain.quotes import EVERY_PRODUCT, BusItem, Mark, Quote, Trade
from models.domain.vwap import Became, MergedVwap, SlidingVwap, TimeWindows, Vwap, time_vwaps

SILENCE_US = 3_000_000  # a venue without a mark for so long may have told something that nobody heard
QUIET_US = 2_000_000  # for a trade to arrive; what a venue did not tell by then did not happen
AHEAD_MAX_US = 60_000_000  # a trade that is made so much later than it comes is made when it comes
PARTS = 64  # of the symbols
_SECOND_US = 1_000_000
# What ends with a second closes in the first third of the next one, each part in its slot: hundreds of series that
# close at once would hold up the trades behind them for 20 ms.
_SLOT_US = 20_000
_SLOTS = 16
_SECOND_SLOTS = _SECOND_US // _SLOT_US

GAPS_MAX = 100  # of a series' ids; the oldest are forgotten, and what comes of them is left out

_ADDED, _OUT_OF_ORDER, _DUPLICATE, _LATE = Became
News = Trade | Quote | Vwap


@dataclass(frozen=True)
class Rules:
    """Of which market it is, how many trades a window holds, and how long after its end a candle closes."""

    market: str
    window: int
    grace_us: int = GRACE_US


@dataclass
class Told:
    """What items came to, in order: quotes, trades as they were taken, and averages as they changed, by symbol."""

    news: list[tuple[str, News]] = field(default_factory=list)
    closed: list[Candle] = field(default_factory=list)


@dataclass
class Kept:
    """What has changed in some parts since they were last asked for, encoded, by the names that begin it again.

    `appended` are trades that came into the windows; a window in `replaced` is all new.
    """

    parts: Collection[int] = ()
    states: dict[str, bytes] = field(default_factory=dict)
    appended: dict[str, list[bytes]] = field(default_factory=dict)
    replaced: dict[str, list[bytes]] = field(default_factory=dict)


class _Venue(msgspec.Struct, array_like=True):
    # `heard_us` is by our clock, the other times are by the venue's own.
    token: int = 0
    heard_us: int = 0
    clock_us: int = 0  # up to which it has told everything
    marked_us: int = 0  # the newest mark
    told_us: int = 0  # up to which its candles were closed
    ahead_us: int = 0  # our clock less the venue's, by its newest trade
    lost: bool = False  # it said something since that never came here


_encode = msgspec.msgpack.Encoder().encode
_maker_state = msgspec.msgpack.Decoder(MakerState)
_settled = msgspec.msgpack.Decoder(Settled)
_venues_state = msgspec.msgpack.Decoder(tuple[int, dict[str, _Venue]])  # in which turn they were kept, and they
_gaps = msgspec.msgpack.Decoder(list[tuple[int, int]])
_print = msgspec.msgpack.Decoder(Print)
_SERIES, _SETTLED, _VENUES, _GAPS = "series/", "settled/", "venues/", "gaps/"


class Gaps:
    """The ids between those that were taken, as ranges of which nothing was: what comes with one of them is new.

    It remembers what a window of the last trades does not: venues number the trades of a product one by one, so that
    there are gaps only while something is late, or where something is lost. `ranges` are those of one that was, and
    `highest` is the highest id that was taken then, or infinite where ids are no numbers, as SlidingVwap has it.
    """

    __slots__ = ("_due", "changed", "ranges")

    def __init__(self, highest: float = inf, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._due = highest + 1  # the id that leaves no gap
        self.ranges = list(ranges)
        self.changed = False

    def advance(self, highest: float) -> None:
        """Say what the highest id is after a trade."""
        due, self._due = self._due, highest + 1
        if highest == due or highest == due - 1:
            return
        if due < highest < inf:
            self.ranges.append((int(due), int(highest) - 1))
            del self.ranges[:-GAPS_MAX]
        else:  # the venue counts anew, or ids are no numbers any more
            self.ranges = []
        self.changed = True

    def fill(self, number: int) -> bool:
        """Take an id out of the gap that it is in; return whether it was in one."""
        place = bisect_right(self.ranges, (number, inf)) - 1
        if place < 0 or not self.ranges[place][0] <= number <= self.ranges[place][1]:
            return False
        first, last = self.ranges[place]
        parts = ((first, number - 1), (number + 1, last))
        self.ranges[place : place + 1] = [part for part in parts if part[0] <= part[1]]
        del self.ranges[:-GAPS_MAX]
        self.changed = True
        return True


class Series:
    """The trades of a pair at one venue, or (EVERY_VENUE) at all of them together."""

    def __init__(self, venue: str, symbol: str, sliding: SlidingVwap | MergedVwap, maker: CandleMaker) -> None:
        self.venue, self.symbol = venue, symbol
        self.sliding = sliding
        self.maker = maker
        self.gaps = Gaps()
        self.windows = TimeWindows()  # of a venue's own trades; those of all venues are joined where they are read
        self.changed = True
        self.settlings = -1  # of the maker, when they were kept last
        self.fresh: list[Print] = []  # taken since it was kept
        self.disordered = not sliding.points  # what was kept of the window cannot be appended to

    @property
    def name(self) -> str:
        """Its name among all of them."""
        return series_name(self.venue, self.symbol)


def series_in(states: Iterable[str]) -> list[str]:
    """Return the names of the series of which states were kept, by the states' names."""
    return [name.removeprefix(_SERIES) for name in states if name.startswith(_SERIES)]


def series_name(venue: str, symbol: str) -> str:
    """Return the name of a series, under which its state and its window are kept."""
    return f"{venue}/{symbol}"


def part_of(symbol: str) -> int:
    """Return which part of all symbols one belongs to."""
    return crc32(symbol.encode()) % PARTS


class Analysis:
    """All series of some symbols, and when each venue was heard.

    `states` and `windows` are what was kept: by name, and of each series' window its trades, oldest first. `past`
    are each series' candles of the last day, as far as they were stored.
    """

    def __init__(
        self,
        rules: Rules,
        instruments: Instruments,
        states: Mapping[str, bytes] | None = None,
        windows: Mapping[str, Sequence[bytes]] | None = None,
        past: Mapping[str, Sequence[Candle]] | None = None,
    ) -> None:
        self._rules = rules
        self._symbols = {
            (product.venue, product.id): instrument.symbol
            for instrument in instruments
            for product in instrument.products
        }
        self._series: defaultdict[str, dict[str, Series]] = defaultdict(dict)  # by symbol and venue
        kept = (name.partition("/")[2] for name in series_in(states or {}))
        self._parts = {symbol: part_of(symbol) for symbol in sorted({*self._symbols.values(), *kept})}
        self._of_part: list[list[str]] = [[] for _ in range(PARTS)]
        for symbol, part in self._parts.items():
            self._of_part[part].append(symbol)
        self._having: Collection[int] = ()  # parts that have what is applied
        self.changed: set[int] = set()  # parts, since they were kept
        self.duplicates = self.late = self.out_of_order = self.refused = 0
        # Each part was kept with what was known of the venues then; reading goes on where the oldest was kept.
        venues = [_venues_state.decode(states[f"{_VENUES}{part}"]) for part in range(PARTS)] if states else [(0, {})]
        self._turn = max(turn for turn, _ in venues)
        self._venues = defaultdict(_Venue, min(venues, key=lambda each: each[0])[1])
        for kept_as, state in (states or {}).items():
            if kept_as.startswith(_SERIES):
                venue, _, symbol = kept_as.removeprefix(_SERIES).partition("/")
                name = series_name(venue, symbol)
                trades = [_print.decode(text) for text in (windows or {}).get(name, ())]
                settled = _settled.decode((states or {})[_SETTLED + name])
                series = self._begin(venue, symbol, _maker_state.decode(state), settled, trades)
                if isinstance(series.sliding, SlidingVwap) and trades:
                    ranges = (states or {}).get(_GAPS + name)
                    series.gaps = Gaps(series.sliding.highest, () if ranges is None else _gaps.decode(ranges))
                series.windows = TimeWindows((*(past or {}).get(name, ()), *series.maker.open_candles()))
                series.changed, series.settlings = False, series.maker.settlings

    def apply(self, items: Iterable[BusItem], having: Collection[int] = ()) -> Told:
        """Take what collectors said, in their order, and return what it comes to.

        The parts in `having` were kept after it: they stay as they are, and nothing is told of their trades.
        """
        self._having = having
        told = Told()
        for item in items:
            if isinstance(item, Quote):
                symbol = self._symbols.get((item.venue, item.product_id))
                if symbol is not None:
                    told.news.append((symbol, item))
            elif isinstance(item, Trade):
                self._trade(item, told)
            else:
                self._mark(item)
        self._close(told)
        return told

    def open_candles(self, symbol: str) -> list[Candle]:
        """Return a symbol's candles that are still made, of each venue and of all."""
        return [candle for series in self._series[symbol].values() for candle in series.maker.open_candles()]

    def time_vwaps(self, symbol: str) -> list[Vwap]:
        """Return a symbol's averages over the last seconds, minutes and hours, of each venue and of all."""
        market, now = self._rules.market, {}
        venues = [series for series in self._series[symbol].values() if series.venue != EVERY_VENUE]
        found: list[Vwap] = []
        for series in venues:
            now[series.venue] = self._venues[series.venue].clock_us
            found += time_vwaps(series.venue, symbol, market, [series.windows], now[series.venue])
        if venues:
            windows = [series.windows for series in venues]
            found += time_vwaps(EVERY_VENUE, symbol, market, windows, max(now.values()))
        return found

    def lost(self) -> None:
        """Say that something may have been said since the venues were last heard that never comes here."""
        for venue in self._venues.values():
            venue.lost = True

    def kept(self, parts: Collection[int] = range(PARTS), *, everything: bool = False) -> Kept:
        """Return what of some parts has changed since they were kept, or all of it, to begin again with."""
        self._turn += 1
        venues = _encode((self._turn, self._venues))
        kept = Kept(parts, {f"{_VENUES}{part}": venues for part in parts})
        symbols = [symbol for part in parts for symbol in self._of_part[part] if symbol in self._series]
        for series in (each for symbol in symbols for each in self._series[symbol].values()):
            if everything or series.disordered:
                kept.replaced[series.name] = [_encode(trade) for trade in series.sliding.trades()]
            elif series.fresh:
                kept.appended[series.name] = [_encode(trade) for trade in series.fresh]
            if everything or series.changed or series.settlings != series.maker.settlings:
                kept.states[_SERIES + series.name] = _encode(series.maker.state)
            if everything or series.settlings != series.maker.settlings:
                kept.states[_SETTLED + series.name] = _encode(series.maker.settled)
            if everything or series.gaps.changed:
                kept.states[_GAPS + series.name] = _encode(series.gaps.ranges)
            series.settlings, series.gaps.changed = series.maker.settlings, False
            series.fresh, series.changed, series.disordered = [], False, False
        self.changed.difference_update(parts)
        return kept

    def _begin(
        self,
        venue: str,
        symbol: str,
        state: MakerState,
        settled: Settled | None = None,
        trades: Sequence[Print] = (),
    ) -> Series:
        rules = self._rules
        window = MergedVwap if venue == EVERY_VENUE else SlidingVwap
        maker = CandleMaker(venue, symbol, rules.market, state, settled, grace_us=rules.grace_us)
        series = self._series[symbol][venue] = Series(venue, symbol, window(rules.window, trades), maker)
        return series

    def _trade(self, trade: Trade, told: Told) -> None:
        venue = trade.venue
        symbol = self._symbols.get((venue, trade.product_id))
        if symbol is None or trade.before:
            return
        time_us = trade.received_time_us if trade.exchange_time_us is None else trade.exchange_time_us
        if time_us > trade.received_time_us + AHEAD_MAX_US:
            time_us = trade.received_time_us
        known = self._hear(venue, trade.token, trade.received_time_us, time_us)
        if time_us >= known.clock_us:
            known.clock_us, known.ahead_us = time_us, trade.received_time_us - time_us
        part = self._parts[symbol]
        if part in self._having:
            return
        self.changed.add(part)
        of_symbol = self._series[symbol]
        series = of_symbol.get(venue) or self._begin(venue, symbol, MakerState(time_us))
        merged = of_symbol.get(EVERY_VENUE) or self._begin(EVERY_VENUE, symbol, MakerState(time_us))
        price, size = trade.price, trade.size
        assert isinstance(series.sliding, SlidingVwap)
        assert isinstance(merged.sliding, MergedVwap)
        try:
            became = series.sliding.add(price, size, time_us, trade.trade_id)
        except Inexact:  # of hundreds of digits, which no market has; nothing was added
            self.refused += 1
            return
        if became is _DUPLICATE:
            self.duplicates += 1
            return
        if became is _LATE:
            # Newer ones have filled the window. Far more often than it is late it comes again.
            self.late += 1
            if series.gaps.fill(int(trade.trade_id)):
                self._count(trade, time_us, (series, merged), None)
                told.news.append((symbol, trade))
            return
        if became is _OUT_OF_ORDER:
            self.out_of_order += 1
            series.disordered = True
            series.gaps.fill(int(trade.trade_id))
        series.gaps.advance(series.sliding.highest)
        merged.sliding.add(price, size, time_us)
        self._count(trade, time_us, (series, merged), Print(time_us, trade.trade_id, price, size))
        market = self._rules.market
        told.news += (
            (symbol, trade),
            (symbol, series.sliding.vwap(venue, symbol, market)),
            (symbol, merged.sliding.vwap(EVERY_VENUE, symbol, market)),
        )

    @staticmethod
    def _count(trade: Trade, time_us: int, counted: tuple[Series, Series], made: Print | None) -> None:
        # What goes by a trade's time has each once; `made` is what the windows of trades took, if they did.
        price, size, side = trade.price, trade.size, trade.taker_side
        counted[0].windows.add(price, size, time_us)
        for each in counted:
            if made is not None:
                each.fresh.append(made)
            each.changed = True
            each.maker.trade(price, size, side, time_us)

    def _hear(self, name: str, token: int, heard_us: int, venue_us: int) -> _Venue:
        """Note that a venue was heard, by our clock and by its own; after a time without, trades may be missing."""
        venue = self._venues[name]
        # An older connection may go on beside the new one for a while: its trades are trades.
        if token > venue.token or venue.lost or heard_us - venue.heard_us > SILENCE_US:
            if venue.clock_us:
                self._missed(name, venue.clock_us, venue_us, None)
            venue.token, venue.lost = max(token, venue.token), False
        venue.heard_us = max(venue.heard_us, heard_us)
        return venue

    def _mark(self, mark: Mark) -> None:
        known = self._venues[mark.venue]
        if mark.token < known.token:
            return
        now_us = mark.marked_time_us - known.ahead_us
        self._hear(mark.venue, mark.token, mark.marked_time_us, now_us)
        if mark.missed:
            # Since the mark before, or since shortly before it, if that was written meanwhile.
            products = None if EVERY_PRODUCT in mark.missed else mark.missed
            self._missed(mark.venue, min(known.marked_us, now_us - _SECOND_US), now_us, products)
        known.marked_us = now_us
        if known.clock_us:
            known.clock_us = max(known.clock_us, now_us - QUIET_US)

    def _missed(self, venue: str, from_us: int, until_us: int, products: Iterable[str] | None) -> None:
        symbols = None if products is None else {self._symbols.get((venue, product)) for product in products}
        for symbol, of_symbol in self._series.items():
            part = self._parts[symbol]
            if venue in of_symbol and (symbols is None or symbol in symbols) and part not in self._having:
                self.changed.add(part)
                for series in (of_symbol[venue], of_symbol[EVERY_VENUE]):
                    series.maker.missed(from_us, until_us)
                    series.changed = True

    def _close(self, told: Told) -> None:
        """Close what the clocks have passed, once a second of each venue's clock, each part in its slot of it."""
        moved: defaultdict[int, set[str]] = defaultdict(set)  # by slot: venues whose clocks have passed it
        for name, venue in self._venues.items():
            slots = range(venue.told_us // _SLOT_US + 1, venue.clock_us // _SLOT_US + 1)
            if slots:
                venue.told_us = venue.clock_us
                for slot in slots[:_SECOND_SLOTS]:
                    moved[slot % _SECOND_SLOTS].add(name)
        for part in range(PARTS) if moved else ():
            if part % _SLOTS in moved and part not in self._having:
                for symbol in self._of_part[part]:
                    if symbol in self._series:
                        self._advance(symbol, moved[part % _SLOTS], told)

    def _advance(self, symbol: str, venues: set[str], told: Told) -> None:
        of_symbol = self._series[symbol]
        if venues.isdisjoint(of_symbol):
            return
        clocks_us = {name: self._venues[name].clock_us for name in of_symbol if name != EVERY_VENUE}
        latest_us = max(clocks_us.values())
        for name, series in of_symbol.items():
            if name in venues or name == EVERY_VENUE:
                closed = series.maker.advance(clocks_us.get(name, latest_us))
                told.closed += closed
                series.changed = series.changed or bool(closed)
                if series.settlings != series.maker.settlings:
                    self.changed.add(self._parts[symbol])
