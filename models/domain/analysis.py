"""What the trades of all venues come to, as they happen: averages, candles and signals. Pure.

The same items in the same order come to the same, however often it was begun again from what it kept.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from models.domain.candles import EVERY_VENUE, GRACE_US, Candle, CandleMaker, MakerState
from models.domain.history import Print
from models.domain.instruments import Instruments
from models.domain.quotes import EVERY_PRODUCT, BusItem, Mark, Quote, Trade
from models.domain.vwap import Became, MergedVwap, SlidingVwap, Vwap

SILENCE_US = 3_000_000  # a venue without a mark for so long may have told something that nobody heard
QUIET_US = 2_000_000  # for a trade to arrive; what a venue did not tell by then did not happen
_SECOND_US = 1_000_000

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
    """What has changed since it was last asked for, encoded, by the names that begin it again.

    `appended` are trades that came into the windows; a window in `replaced` is all new.
    """

    states: dict[str, bytes] = field(default_factory=dict)
    appended: dict[str, list[bytes]] = field(default_factory=dict)
    replaced: dict[str, list[bytes]] = field(default_factory=dict)


class _Venue(msgspec.Struct, array_like=True):
    # Times are by our clock but `clock_us`, which is the venue's own.
    token: int = 0
    heard_us: int = 0
    clock_us: int = 0
    ahead_us: int = 0  # our clock less the venue's, by its newest trade
    told_us: int = 0  # the second up to which its candles were closed


_encode = msgspec.msgpack.Encoder().encode
_maker_state = msgspec.msgpack.Decoder(MakerState)
_venue_state = msgspec.msgpack.Decoder(_Venue)
_print = msgspec.msgpack.Decoder(Print)
_SERIES, _VENUES = "series/", "venue/"


class Series:
    """The trades of a pair at one venue, or (EVERY_VENUE) at all of them together."""

    def __init__(self, venue: str, symbol: str, sliding: SlidingVwap | MergedVwap, maker: CandleMaker) -> None:
        self.venue, self.symbol = venue, symbol
        self.sliding = sliding
        self.maker = maker
        self.changed = True
        self.fresh: list[Print] = []  # taken since it was kept
        self.disordered = False  # what was kept of the window cannot be appended to

    @property
    def name(self) -> str:
        """Its name among all of them."""
        return series_name(self.venue, self.symbol)


def series_name(venue: str, symbol: str) -> str:
    """Return the name of a series, under which its state and its window are kept."""
    return f"{venue}/{symbol}"


class Analysis:
    """All series of some symbols, and when each venue was heard.

    `states` and `windows` are what was kept: by name, and of each series' window its trades, oldest first.
    """

    def __init__(
        self,
        rules: Rules,
        instruments: Instruments,
        states: Mapping[str, bytes] | None = None,
        windows: Mapping[str, Sequence[bytes]] | None = None,
    ) -> None:
        self._rules = rules
        self._symbols = {
            (product.venue, product.id): instrument.symbol
            for instrument in instruments
            for product in instrument.products
        }
        self.series: dict[tuple[str, str], Series] = {}  # by venue and symbol
        self._venues: defaultdict[str, _Venue] = defaultdict(_Venue)
        self._changed_venues: set[str] = set()
        self.duplicates = self.late = 0
        for name, state in (states or {}).items():
            if name.startswith(_VENUES):
                self._venues[name.removeprefix(_VENUES)] = _venue_state.decode(state)
            elif name.startswith(_SERIES):
                venue, _, symbol = name.removeprefix(_SERIES).partition("/")
                trades = [_print.decode(text) for text in (windows or {}).get(series_name(venue, symbol), ())]
                series = self._begin(venue, symbol, _maker_state.decode(state), trades)
                series.changed = False

    def apply(self, items: Iterable[BusItem]) -> Told:
        """Take what collectors said, in their order, and return what it comes to."""
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

    def lost(self) -> None:
        """Say that something may have been said since the venues were last heard that never comes here."""
        for venue in self._venues.values():
            venue.heard_us = min(venue.heard_us, max(0, venue.heard_us - SILENCE_US))
            venue.token = -abs(venue.token) or -1

    def kept(self, *, everything: bool = False) -> Kept:
        """Return what has changed since the last call, or all of it, to begin again with."""
        kept = Kept()
        for series in self.series.values():
            if everything or series.disordered:
                kept.replaced[series.name] = [_encode(trade) for trade in series.sliding.trades()]
            elif series.fresh:
                kept.appended[series.name] = [_encode(trade) for trade in series.fresh]
            if everything or series.changed:
                kept.states[_SERIES + series.name] = _encode(series.maker.state)
            series.fresh, series.changed, series.disordered = [], False, False
        for venue in self._venues if everything else self._changed_venues:
            kept.states[_VENUES + venue] = _encode(self._venues[venue])
        self._changed_venues = set()
        return kept

    def _begin(self, venue: str, symbol: str, state: MakerState, trades: Sequence[Print] = ()) -> Series:
        rules = self._rules
        window = MergedVwap if venue == EVERY_VENUE else SlidingVwap
        maker = CandleMaker(venue, symbol, rules.market, state, grace_us=rules.grace_us)
        series = self.series[venue, symbol] = Series(venue, symbol, window(rules.window, trades), maker)
        return series

    def _trade(self, trade: Trade, told: Told) -> None:
        venue = trade.venue
        symbol = self._symbols.get((venue, trade.product_id))
        if symbol is None or trade.before:
            return
        known = self._hear(venue, trade.token, trade.received_time_us)
        time_us = trade.received_time_us if trade.exchange_time_us is None else trade.exchange_time_us
        if time_us >= known.clock_us:
            known.clock_us, known.ahead_us = time_us, trade.received_time_us - time_us
        series = self.series.get((venue, symbol)) or self._begin(venue, symbol, MakerState(time_us))
        merged = self.series.get((EVERY_VENUE, symbol)) or self._begin(EVERY_VENUE, symbol, MakerState(time_us))
        price, size = trade.price, trade.size
        assert isinstance(series.sliding, SlidingVwap)
        assert isinstance(merged.sliding, MergedVwap)
        became = series.sliding.add(price, size, time_us, trade.trade_id)
        if became is _DUPLICATE:
            self.duplicates += 1
            return
        if became is _LATE:
            # Newer ones were taken, so it was missed (which a mark says) or, far more often, comes again.
            self.late += 1
            return
        series.disordered = series.disordered or became is _OUT_OF_ORDER
        merged.sliding.add(price, size, time_us)
        made = Print(time_us, trade.trade_id, price, size)
        for each in (series, merged):
            each.fresh.append(made)
            each.changed = True
            each.maker.trade(price, size, trade.taker_side, time_us)
        market = self._rules.market
        told.news += (
            (symbol, trade),
            (symbol, series.sliding.vwap(venue, symbol, market)),
            (symbol, merged.sliding.vwap(EVERY_VENUE, symbol, market)),
        )

    def _hear(self, name: str, token: int, time_us: int) -> _Venue:
        """Note that a venue was heard; where it could not be for a while, trades may be missing."""
        venue = self._venues[name]
        self._changed_venues.add(name)
        # An older connection may go on beside the new one for a while: its trades are trades.
        if token > venue.token or time_us - venue.heard_us > SILENCE_US:
            if venue.heard_us:
                self._missed(name, venue.heard_us, time_us, None)
            venue.token = max(token, venue.token)
        venue.heard_us = max(venue.heard_us, time_us)
        return venue

    def _mark(self, mark: Mark) -> None:
        known = self._venues[mark.venue]
        if mark.token < known.token:
            return
        since_us = known.heard_us
        self._hear(mark.venue, mark.token, mark.marked_time_us)
        if mark.missed:
            # The mark before may have been written while the first of them were missed.
            products = None if EVERY_PRODUCT in mark.missed else mark.missed
            self._missed(mark.venue, min(since_us, mark.marked_time_us - _SECOND_US), mark.marked_time_us, products)
        if known.clock_us:
            known.clock_us = max(known.clock_us, mark.marked_time_us - known.ahead_us - QUIET_US)

    def _missed(self, venue: str, from_us: int, until_us: int, products: Iterable[str] | None) -> None:
        symbols = None if products is None else {self._symbols.get((venue, product)) for product in products}
        ahead_us = self._venues[venue].ahead_us
        for (name, symbol), series in list(self.series.items()):
            if name == venue and (symbols is None or symbol in symbols):
                for each in (series, self.series[EVERY_VENUE, symbol]):
                    each.maker.missed(from_us - ahead_us, until_us - ahead_us)
                    each.changed = True

    def _close(self, told: Told) -> None:
        """Close what the clocks have passed, once a second of each venue's clock."""
        moved = {name: venue for name, venue in self._venues.items() if venue.clock_us - venue.told_us >= _SECOND_US}
        if not moved:
            return
        for name, venue in moved.items():
            venue.told_us = venue.clock_us - venue.clock_us % _SECOND_US
            self._changed_venues.add(name)
        touched = set()
        for (name, symbol), series in self.series.items():
            if name in moved:
                touched.add(symbol)
                self._advance(series, moved[name].clock_us, told)
        for symbol in touched:
            clocks = [self._venues[name].clock_us for name in self._venues if (name, symbol) in self.series]
            self._advance(self.series[EVERY_VENUE, symbol], max(clocks), told)

    @staticmethod
    def _advance(series: Series, clock_us: int, told: Told) -> None:
        closed = series.maker.advance(clock_us)
        if closed:
            series.changed = True
            told.closed += closed
