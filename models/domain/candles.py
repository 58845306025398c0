"""Candles: what was traded in an interval of time, and how they are made of trades."""

from collections.abc import Iterator
from decimal import Decimal

import msgspec

from models.domain.averages import quotient
from models.domain.decimals import WIDE

EVERY_VENUE = "all"  # the venue of what is made of all venues' trades
INTERVALS_S = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "4h": 14_400, "1d": 86_400}

GRACE_US = 2_000_000  # a candle closes so long after its end, by the trades' clock
# A trade may be so much older than the clock and still revise what is closed; the venues that send trades again after
# a reconnection do it within seconds.
LATE_MAX_US = 10_000_000
# A clock that leaps further, after an outage or by a venue's mistake, makes no candles for the time between.
GAP_MAX_US = 3_600_000_000
SPANS_MAX = 16  # of time in which trades may be missing; beyond it the two oldest become one

_SECOND_US = 1_000_000
_INTERVALS_US = tuple(seconds * _SECOND_US for seconds in INTERVALS_S.values())
_LARGER_US = _INTERVALS_US[1:]  # each a multiple of the one before it
_MINUTE_US = _LARGER_US[0]
_ZERO = Decimal(0)
_plus, _product_and_sum = WIDE.add, WIDE.fma


class Candle(msgspec.Struct, frozen=True, gc=False):
    """What was traded of a pair in [open time, open time + interval), at one venue or (EVERY_VENUE) at all.

    `volume` and `taker_buy_volume` are in the base asset; `quote_volume` is the exact sum of price times size.
    One without trades has the close before it four times. `revision` is 0 when the candle is closed, and one
    more each time that late trades changed it, or the news that some are missing. `incomplete`: trades of it
    may be missing. Days begin at midnight UTC. `closed` is False only for the one that is still made.
    """

    venue: str
    symbol: str
    interval_s: int
    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    taker_buy_volume: Decimal
    trades: int
    market: str
    revision: int = 0
    incomplete: bool = False
    closed: bool = True

    @property
    def vwap(self) -> Decimal | None:
        """The volume-weighted average price, to 28 significant digits; None where nothing was traded."""
        return quotient(self.quote_volume, self.volume) if self.volume else None


class VenueCandle(msgspec.Struct, frozen=True, gc=False, tag="candle", array_like=True):
    """One product's candle as its venue tells it, so far or (`closed`) for good.

    `volume` is in the base asset and `quote_volume` in the quote asset; that, the number of trades and
    whether it is closed are None where the venue does not say. The interval begins at `open_time_us`.
    """

    venue: str
    product_id: str
    token: int
    interval_s: int
    open_time_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None
    trades: int | None
    closed: bool | None
    received_time_us: int


class Bar(msgspec.Struct, gc=False, array_like=True):
    """What is known of one interval. `revision` is that of the candle that was told of it, -1 before the first."""

    start_us: int
    incomplete: bool = False
    trades: int = 0
    open: Decimal = _ZERO
    high: Decimal = _ZERO
    low: Decimal = _ZERO
    close: Decimal = _ZERO
    volume: Decimal = _ZERO
    quote_volume: Decimal = _ZERO
    taker_buy_volume: Decimal = _ZERO
    first_us: int = 0
    last_us: int = 0
    revision: int = -1


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Bar).decode


class Settled(msgspec.Struct, array_like=True):
    """What a CandleMaker knows that changes only when something closes, or is late or missed."""

    larger: list[Bar] = []  # the open one of each larger interval: what its closed parts held
    # Closed ones by interval, in order of time, as far back as a trade may be late; each is encoded when it is
    # closed, because all of this is written once a second.
    kept: list[dict[int, bytes]] = []
    changed: set[tuple[int, int]] = set()  # (place of the interval, start) of kept ones that are to be told again
    spans_us: list[tuple[int, int]] = []  # in which trades may be missing


class MakerState(msgspec.Struct, array_like=True):
    """What a CandleMaker knows that changes with every trade. A series begins with `MakerState(begun_us)`.

    Its trades are complete from `begun_us` on, which is the time of the first unless more is known. `late`
    counts the trades that revised what was closed, `dropped` those that came too late for it.
    """

    begun_us: int
    clock_us: int = 0
    closed_us: int = 0  # every second before it is closed
    seconds: dict[int, Bar] = {}  # open ones
    close: Decimal | None = None  # of the newest trade in a closed second
    close_us: int = 0
    late: int = 0
    dropped: int = 0


class CandleMaker:
    """Make the candles of one series of trades, in all intervals; larger ones of smaller ones, exactly.

    A candle is closed when the clock is `grace_us` past its end, and is never opened again. A trade that comes
    later changes it and every larger closed one that holds it, and the next `advance` tells them again, each
    with the next revision: once, however many late trades came meanwhile. Where a late trade becomes the last
    before candles without trades, these are revised too. A trade is dropped when its second is closed and it is
    more than `late_max_us` behind the clock, or from before the beginning.

    Open and close go by the trades' own times, and among equal ones by arrival. Once there was a trade, an
    interval without any has a candle; but not a second, which has none (and revision 0 if a late trade is its
    first). After a leap of the clock by more than GAP_MAX_US there is none for the time between, what
    overlaps it is incomplete, and the close before is forgotten. The first candle of each interval is
    incomplete unless it begins when the series does.

    For a restart, write `state` after trades, and `settled` with it whenever `settlings` has changed. Both are
    the maker's own and change with it: encode them at once. A maker made of them goes on as this one would.
    """

    # With thousands of series most of the time goes into fetching their objects from memory: slots save a seventh.
    __slots__ = (
        "_due_us",
        "_from_us",
        "_grace_us",
        "_late_max_us",
        "_market",
        "_second",
        "_symbol",
        "_until_us",
        "_venue",
        "settled",
        "settlings",
        "state",
    )

    def __init__(
        self,
        venue: str,
        symbol: str,
        market: str,
        state: MakerState,
        settled: Settled | None = None,
        *,
        grace_us: int = GRACE_US,
        late_max_us: int = LATE_MAX_US,
    ) -> None:
        assert 0 <= grace_us <= late_max_us
        self._venue, self._symbol, self._market = venue, symbol, market
        self._grace_us, self._late_max_us = grace_us, late_max_us
        self.state = state
        self.settled = settled or self._begin()
        self.settlings = 0
        self._second: Bar | None = None  # of the last trade, from here until there
        self._from_us = self._until_us = 0
        self._due_us = 0  # a lower clock closes nothing, and nothing is to be told again
        self._look_ahead()

    def trade(self, price: Decimal, size: Decimal, taker_side: str, time_us: int) -> None:
        """Take a trade, in the order of arrival. The caller leaves out those whose time is nonsense."""
        if not self._from_us <= time_us < self._until_us or self._second is None:
            self._second = self._second_at(time_us)
            if self._second is None:
                self._late(price, size, taker_side, time_us)
                return
            self._from_us = self._second.start_us
            self._until_us = self._from_us + _SECOND_US
        _add(self._second, price, size, taker_side, time_us)

    def advance(self, clock_us: int) -> list[Candle]:
        """Set the trades' clock, which never goes back; return revisions, then what is closed, in order of time.

        What closes at the same time comes smallest first. The clock is the highest trade time of the series'
        venues, or where they are quiet the time until which they are known to have told everything.
        """
        state, settled = self.state, self.settled
        if clock_us < self._due_us:
            state.clock_us = max(state.clock_us, clock_us)
            return []
        clock_us = max(state.clock_us, clock_us)
        leapt = clock_us - state.clock_us > GAP_MAX_US
        if leapt:
            self.missed(state.clock_us, clock_us)
        state.clock_us = clock_us
        state.closed_us = max(state.closed_us, _floor(clock_us - self._grace_us, _SECOND_US))
        told = self._revisions() if settled.changed else []
        for start_us in sorted(state.seconds):
            if start_us >= state.closed_us:
                break
            if settled.larger[0].start_us + _MINUTE_US <= start_us:
                self._roll(start_us, leapt=leapt, told=told)
            bar = state.seconds.pop(start_us)
            _merge(settled.larger[0], bar)
            state.close, state.close_us = bar.close, bar.last_us
            told.append(self._told(0, bar))
            settled.kept[0][start_us] = _encode(bar)
        if settled.larger[0].start_us + _MINUTE_US <= state.closed_us:
            self._roll(state.closed_us, leapt=leapt, told=told)
            self._forget()
        seconds, limit_us = settled.kept[0], clock_us - self._late_max_us - _SECOND_US
        while seconds and (oldest_us := next(iter(seconds))) <= limit_us:
            del seconds[oldest_us]
        self.settlings += 1
        if self._from_us < state.closed_us:
            self._second = None
        self._look_ahead()
        return told

    def missed(self, from_us: int, until_us: int) -> None:
        """Mark candles that overlap a span of time incomplete: trades of it may be missing.

        It may lie in the future. Of the past it reaches what a late trade would.
        """
        if from_us >= until_us:
            return
        settled = self.settled
        open_ones = [(_SECOND_US, bar) for bar in self.state.seconds.values()]
        for length_us, bar in (*open_ones, *zip(_LARGER_US, settled.larger, strict=True)):
            if bar.start_us < until_us and bar.start_us + length_us > from_us:
                bar.incomplete = True
        for place, (length_us, kept) in enumerate(zip(_INTERVALS_US, settled.kept, strict=True)):
            for start_us in [each for each in kept if each < until_us and each + length_us > from_us]:
                bar = _decode(kept[start_us])
                if not bar.incomplete:
                    bar.incomplete = True
                    kept[start_us] = _encode(bar)
                    if bar.revision >= 0:
                        self._change(place, start_us)
        settled.spans_us = list(_joined(sorted([*settled.spans_us, (from_us, until_us)])))
        while len(settled.spans_us) > SPANS_MAX:
            (from_us, _), (_, until_us), *others = settled.spans_us
            settled.spans_us = [(from_us, until_us), *others]
        self.settlings += 1

    def open_candles(self) -> list[Candle]:
        """Return what is known of each interval's newest candle, smallest first; none before the first trade."""
        state, settled = self.state, self.settled
        newest_us = max(state.clock_us, *state.seconds, 0)
        waiting = [(0, bar) for bar in state.seconds.values()]
        waiting += [(place, bar) for place, bar in enumerate(settled.larger, 1) if bar.trades]
        before = state.close, state.close_us
        made, candles = Bar(0), []
        for place, length_us in enumerate(_INTERVALS_US):
            start_us = _floor(newest_us, length_us)
            for each in [each for each in waiting if each[0] <= place and each[1].start_us >= start_us]:
                _merge(made, each[1])
                waiting.remove(each)
            if not made.trades:
                close = max([before, *((bar.close, bar.last_us) for at, bar in waiting if not at)], key=_time)[0]
                if close is None:
                    continue
                made.open = made.high = made.low = made.close = close
            made.start_us, made.incomplete = start_us, self._missing(start_us, length_us)
            if place and settled.larger[place - 1].start_us == start_us:
                made.incomplete = settled.larger[place - 1].incomplete
            candles.append(self._candle(place, made, False))  # noqa: FBT003 -- see there
        return candles

    def _begin(self) -> Settled:
        state = self.state
        state.clock_us = state.begun_us
        state.closed_us = _floor(state.begun_us - self._grace_us, _SECOND_US)
        starts_us = [_floor(state.closed_us, each) for each in _LARGER_US]
        larger = [Bar(start_us, incomplete=start_us < state.begun_us) for start_us in starts_us]
        return Settled(larger, [{} for _ in _INTERVALS_US], spans_us=[(0, state.begun_us)])

    def _second_at(self, time_us: int) -> Bar | None:
        start_us = time_us - time_us % _SECOND_US
        state, due_us = self.state, start_us + _SECOND_US + self._grace_us
        bar = state.seconds.get(start_us)
        if bar is None and start_us >= state.closed_us and due_us > state.clock_us:
            bar = state.seconds[start_us] = self._bar_at(start_us, _SECOND_US)
            self._due_us = min(self._due_us, due_us)
        return bar

    def _late(self, price: Decimal, size: Decimal, taker_side: str, time_us: int) -> None:
        state, settled = self.state, self.settled
        if time_us < max(state.begun_us, state.clock_us - self._late_max_us):
            state.dropped += 1
            return
        state.late += 1
        for place, length_us in enumerate(_INTERVALS_US):
            start_us = _floor(time_us, length_us)
            if place and settled.larger[place - 1].start_us == start_us:
                # It is open, and larger ones will have the trade from it.
                _add(settled.larger[place - 1], price, size, taker_side, time_us)
                break
            bar = self._kept(place, start_us)
            _add(bar, price, size, taker_side, time_us)
            settled.kept[place][start_us] = _encode(bar)
            self._change(place, start_us)
            if place and bar.last_us == time_us:
                self._carry(place, bar)
        if state.close is None or time_us >= state.close_us:
            state.close, state.close_us = price, time_us

    def _carry(self, place: int, bar: Bar) -> None:
        # The candles without trades that follow a changed close have it too.
        length_us = _INTERVALS_US[place]
        for start_us in range(bar.start_us + length_us, self.settled.larger[place - 1].start_us, length_us):
            after = self._kept(place, start_us)
            if after.trades:
                break
            after.open = after.high = after.low = after.close = bar.close
            self.settled.kept[place][start_us] = _encode(after)
            self._change(place, start_us)

    def _revisions(self) -> list[Candle]:
        settled, told = self.settled, []
        for place, start_us in sorted(settled.changed):
            bar = _decode(settled.kept[place][start_us])
            told.append(self._told(place, bar))
            settled.kept[place][start_us] = _encode(bar)
        settled.changed.clear()
        return told

    def _roll(self, until_us: int, *, leapt: bool, told: list[Candle]) -> None:
        state, larger = self.state, self.settled.larger
        while larger[0].start_us + _MINUTE_US <= until_us:
            boundary_us = _floor(until_us, _MINUTE_US) if leapt else larger[0].start_us + _MINUTE_US
            for place, length_us in enumerate(_LARGER_US, 1):
                bar = larger[place - 1]
                if bar.start_us + length_us > boundary_us:
                    break
                if bar.trades and place < len(_LARGER_US):
                    _merge(larger[place], bar)
                elif not bar.trades and state.close is not None:
                    bar.open = bar.high = bar.low = bar.close = state.close
                if bar.trades or state.close is not None:
                    told.append(self._told(place, bar))
                self.settled.kept[place][bar.start_us] = _encode(bar)
                larger[place - 1] = self._bar_at(_floor(boundary_us, length_us), length_us)
            if leapt:
                state.close = None

    def _forget(self) -> None:
        settled, limit_us = self.settled, self.state.clock_us - self._late_max_us
        for length_us, kept in zip(_LARGER_US, settled.kept[1:], strict=True):
            while kept and (oldest_us := next(iter(kept))) + length_us <= limit_us:
                del kept[oldest_us]
        if settled.spans_us:
            # A late trade may still be the first of a second.
            second_us = _floor(limit_us, _SECOND_US)
            settled.spans_us = [span for span in settled.spans_us if span[1] > second_us]

    def _look_ahead(self) -> None:
        next_us = self.settled.larger[0].start_us + _MINUTE_US
        if self.state.seconds:
            next_us = min(next_us, min(self.state.seconds) + _SECOND_US)
        self._due_us = 0 if self.settled.changed else next_us + self._grace_us

    def _change(self, place: int, start_us: int) -> None:
        self.settled.changed.add((place, start_us))
        self.settlings += 1
        self._due_us = 0

    def _kept(self, place: int, start_us: int) -> Bar:
        kept = self.settled.kept[place]
        if start_us not in kept:
            # Seconds are kept if they have trades; larger ones always, but those that the clock leapt over.
            kept[start_us] = _encode(self._bar_at(start_us, _INTERVALS_US[place]))
            self.settled.kept[place] = dict(sorted(kept.items()))
        return _decode(kept[start_us])

    def _bar_at(self, start_us: int, length_us: int) -> Bar:
        return Bar(start_us, self._missing(start_us, length_us))

    def _missing(self, start_us: int, length_us: int) -> bool:
        spans_us = self.settled.spans_us
        return bool(spans_us) and any(start_us < span[1] and start_us + length_us > span[0] for span in spans_us)

    def _told(self, place: int, bar: Bar) -> Candle:
        bar.revision += 1
        return self._candle(place, bar, True)  # noqa: FBT003 -- what closes a second does so thousands of times in one

    def _candle(self, place: int, bar: Bar, closed: bool) -> Candle:  # noqa: FBT001 -- likewise
        return Candle(
            self._venue,
            self._symbol,
            _INTERVALS_US[place] // _SECOND_US,
            bar.start_us,
            bar.open,
            bar.high,
            bar.low,
            bar.close,
            bar.volume,
            bar.quote_volume,
            bar.taker_buy_volume,
            bar.trades,
            self._market,
            bar.revision if closed else 0,
            bar.incomplete,
            closed,
        )


def _floor(time_us: int, length_us: int) -> int:
    return time_us - time_us % length_us


def _time(close: tuple[Decimal | None, int]) -> int:
    return close[1]


def _joined(spans: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    from_us, until_us = spans[0]
    for start_us, end_us in spans[1:]:
        if start_us > until_us:
            yield from_us, until_us
            from_us = start_us
        until_us = max(until_us, end_us)
    yield from_us, until_us


def _add(bar: Bar, price: Decimal, size: Decimal, taker_side: str, time_us: int) -> None:
    bar.volume = _plus(bar.volume, size)
    bar.quote_volume = _product_and_sum(price, size, bar.quote_volume)
    if taker_side == "buy":
        bar.taker_buy_volume = _plus(bar.taker_buy_volume, size)
    if not bar.trades:
        bar.open = bar.high = bar.low = bar.close = price
        bar.first_us = bar.last_us = time_us
        bar.trades = 1
        return
    bar.trades += 1
    if price > bar.high:
        bar.high = price
    elif price < bar.low:
        bar.low = price
    if time_us >= bar.last_us:
        bar.close, bar.last_us = price, time_us
    elif time_us < bar.first_us:
        bar.open, bar.first_us = price, time_us


def _merge(whole: Bar, part: Bar) -> None:
    # Their trades have different times, so there are no ties.
    if not whole.trades:
        whole.volume, whole.quote_volume = part.volume, part.quote_volume
        whole.taker_buy_volume, whole.trades = part.taker_buy_volume, part.trades
        whole.open, whole.high, whole.low, whole.close = part.open, part.high, part.low, part.close
        whole.first_us, whole.last_us = part.first_us, part.last_us
        return
    whole.volume = _plus(whole.volume, part.volume)
    whole.quote_volume = _plus(whole.quote_volume, part.quote_volume)
    whole.taker_buy_volume = _plus(whole.taker_buy_volume, part.taker_buy_volume)
    whole.trades += part.trades
    whole.high = max(whole.high, part.high)
    whole.low = min(whole.low, part.low)
    if part.last_us > whole.last_us:
        whole.close, whole.last_us = part.close, part.last_us
    if part.first_us < whole.first_us:
        whole.open, whole.first_us = part.open, part.first_us
