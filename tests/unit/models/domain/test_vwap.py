"""Sliding averages: published and recorded ones at every step, and whatever order trades come in."""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, Decimal, getcontext, setcontext
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchanges.binance.protocol import Binance
from exchanges.coinbase.protocol import Coinbase
from models.domain.candles import EVERY_VENUE, Candle
from models.domain.decimals import EXACT
from models.domain.history import Print
from models.domain.quotes import Trade
from models.domain.vwap import (
    ANEW_US,
    EXACT_SPANS_S,
    MINUTE_US,
    SECOND_US,
    SECONDS_SPANS_S,
    SPANS_S,
    WINDOW_MAX,
    Became,
    MergedVwap,
    SlidingVwap,
    TimeWindows,
    Vwap,
    WindowError,
    time_vwaps,
)

T0 = 1_700_000_000_000_000
DAY_US = 86_400 * SECOND_US
CONTEXTS = (EXACT, Context(prec=5))  # in the first one the sums are made by operators
numbers = st.decimals("0.00000001", "99999999999", places=8)
sizes = st.just(Decimal(0)) | st.decimals("0", "9999", places=8)


@pytest.fixture(autouse=True)
def _context() -> Iterator[None]:
    """Nothing depends on the thread's context, which here rounds to five digits unless a test says otherwise."""
    before = getcontext()
    setcontext(Context(prec=5))
    yield
    setcontext(before)


def rounded(value: Decimal, exact: Fraction) -> bool:
    """Say whether a value is an exact one to 28 digits."""
    digit = value.adjusted() - 27
    units = value.scaleb(-digit, EXACT)
    numerator = exact.numerator * int(10 ** max(0, -digit))
    denominator = exact.denominator * int(10 ** max(0, digit))
    return units == int(units) and abs(int(units) * denominator - numerator) * 2 <= denominator


def d(text: object) -> Decimal:
    return Decimal(str(text))


def test_published_averages(recordings: Path) -> None:
    """Those that others' tests pin down, cumulative and sliding."""
    cases = json.loads((recordings / "reference/vwap.json").read_text())
    for case in cases:
        points = case.get("points") or case["stream"]
        sliding = SlidingVwap(case.get("window", len(points)))
        told = []
        for number, (price, size) in enumerate(points):
            assert sliding.add(d(price), d(size), number, str(number)) is Became.ADDED
            told.append(sliding.value)
        value = told[-1]
        assert value is not None
        if "expect_stream" in case:
            assert [float(each or 0) for each in told] == case["expect_stream"]
        elif "expect_decimal" in case:
            assert str(value) == case["expect_decimal"]
        elif "expect_rounded_down_6" in case:
            assert str(value)[: len(case["expect_rounded_down_6"])] == case["expect_rounded_down_6"]
        else:
            assert float(value) == pytest.approx(case["expect"], rel=case.get("rel_tol", 1e-15))
    assert len(cases) == 7


def test_tulips_weighted_moving_average(recordings: Path) -> None:
    """Its vwma5, to its three decimals, from the fifth close on."""
    case = json.loads((recordings / "reference/moving_averages.json").read_text())["tulip"]
    sliding, told = SlidingVwap(5), []
    for number, (close, volume) in enumerate(zip(case["close"], case["volume"], strict=True)):
        sliding.add(d(close), d(volume), number, str(number))
        told.append(float(sliding.value or 0))
    assert [round(value, 3) for value in told[4:]] == case["vwma5"]


def recorded(recordings: Path, session: str) -> dict[str, list[Trade]]:
    """Return the trades of a recorded session, by product."""
    found: dict[str, list[Trade]] = {}
    with gzip.open(recordings / "sessions" / session, "rb") as lines:
        if session.startswith("binance"):
            protocol: Binance | Coinbase = Binance(None, ["BTCUSDT", "ETHUSDT"], 1)
            frames = (line.partition(b" ")[2] for line in lines if b"@trade" in line[:60])
        else:
            protocol = Coinbase(None, [], 1)
            frames = (line for line in lines if b"match" in line[:40])
        for frame in frames:
            for event in protocol.decode(frame, 1):
                if isinstance(event, Trade) and not event.before:
                    found.setdefault(event.product_id, []).append(event)
    return found


@pytest.mark.parametrize(
    ("session", "windows", "steps"),
    [
        ("binance_spot_btcusdt_2024-08-08.raw.gz", (5, 20, 200), 9_757),
        ("binance_spot_ethusdt_2024-08-08.raw.gz", (5, 20, 200), 6_106),
        ("coinbase_exchange_2021-04-17.jsonl.gz", (5, 20), 97),
    ],
)
def test_recorded_sessions(recordings: Path, session: str, windows: Sequence[int], steps: int) -> None:
    """Equal at every step to what fractions say of the window's trades, summed anew; venues' ids are all new."""
    setcontext(EXACT)
    grid = 10**8
    count = 0
    for trades in recorded(recordings, session).values():
        sliding = [SlidingVwap(window) for window in windows]
        prices = [Fraction(trade.price) * grid for trade in trades]
        volumes = [Fraction(trade.size) * grid for trade in trades]
        assert {number.denominator for number in prices + volumes} == {1}
        units = [volume.numerator for volume in volumes]
        costs = [price.numerator * unit for price, unit in zip(prices, units, strict=True)]
        for end, trade in enumerate(trades, 1):
            count += 1
            for each in sliding:
                became = each.add(trade.price, trade.size, trade.exchange_time_us or 0, trade.trade_id)
                assert became is Became.ADDED
                begin = max(0, end - each.window)
                size, cost = sum(units[begin:end]), sum(costs[begin:end])
                assert each.value is not None
                assert rounded(each.value, Fraction(cost, size * grid))
                assert (Fraction(each.size) * grid, each.points) == (Fraction(size), end - begin)
        for each in sliding:
            assert Fraction(each.quote_volume) * grid**2 == sum(costs[-each.window :])
    assert count == steps


class Model:
    """The window, said plainly: the highest numbers, or what came last."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.held: list[Print] = []
        self.counts = dict.fromkeys(Became, 0)

    def numbered(self, trades: Sequence[Print]) -> bool:
        return all(trade.trade_id.isdecimal() for trade in trades)

    def add(self, trade: Print) -> Became:
        became = self._judged(trade)
        self.counts[became] += 1
        if became in (Became.ADDED, Became.OUT_OF_ORDER):
            in_order = self.numbered([*self.held, trade])
            self.held.append(trade)
            if in_order:
                self.held.sort(key=lambda each: int(each.trade_id))
            self.held = self.held[-self.window :]
            if self.numbered(self.held):
                self.held.sort(key=lambda each: int(each.trade_id))
        return became

    def _judged(self, trade: Print) -> Became:
        if trade.trade_id and trade.trade_id in {each.trade_id for each in self.held}:
            return Became.DUPLICATE
        if self.held and self.numbered([*self.held, trade]):
            ids = [int(each.trade_id) for each in self.held]
            if len(ids) == self.window and int(trade.trade_id) < min(ids):
                return Became.LATE
            if int(trade.trade_id) < max(ids):
                return Became.OUT_OF_ORDER
        return Became.ADDED


def agrees(sliding: SlidingVwap | MergedVwap, held: Sequence[Print]) -> None:
    """Assert that a window is what the sums of its trades, made anew, say."""
    size = sum((Fraction(trade.size) for trade in held), Fraction(0))
    cost = sum((Fraction(trade.price) * Fraction(trade.size) for trade in held), Fraction(0))
    assert sliding.trades() == list(held)
    assert (sliding.points, Fraction(sliding.size), Fraction(sliding.quote_volume)) == (len(held), size, cost)
    if size:
        assert sliding.value is not None
        assert rounded(sliding.value, cost / size)
    else:
        assert sliding.value is None
    ends = sorted((held[0].time_us, held[-1].time_us)) if held else [None, None]
    assert [sliding.from_us, sliding.until_us] == ends


@pytest.mark.parametrize("context", CONTEXTS)
def test_trades_take_their_places_by_their_numbers(context: Context) -> None:
    """Also in a full window, from which the lowest one goes then; 10 is more than 9."""
    setcontext(context)
    sliding = SlidingVwap(4)
    told = [
        (number, sliding.add(Decimal(number), Decimal(2), number, str(number)).value)
        for number in (3, 7, 10, 9, 10, 8, 1, 7, 11, 7)
    ]
    assert told == [
        (3, "added"),
        (7, "added"),
        (10, "added"),
        (9, "out_of_order"),
        (10, "duplicate"),
        (8, "out_of_order"),
        (1, "late"),
        (7, "duplicate"),
        (11, "added"),
        (7, "late"),
    ]
    agrees(sliding, [Print(number, str(number), Decimal(number), Decimal(2)) for number in (8, 9, 10, 11)])
    assert (sliding.out_of_order, sliding.duplicates, sliding.late) == (2, 2, 2)


def test_a_venue_that_counts_anew_begins_a_new_window() -> None:
    """Its trades would be late for ever otherwise. One that is no later than the newest is late, as before."""
    sliding = SlidingVwap(2)
    trades = [(900, 0), (901, 10), (5, 10 + ANEW_US), (5, 11 + ANEW_US), (4, 11 + ANEW_US), (6, 12 + ANEW_US)]
    told = [sliding.add(Decimal(1), Decimal(1), time_us, str(number)).value for number, time_us in trades]
    assert told == ["added", "added", "late", "out_of_order", "out_of_order", "added"]
    assert [trade.trade_id for trade in sliding.trades()] == ["5", "6"]
    assert sliding.add(Decimal(1), Decimal(1), 12 + ANEW_US, "3").value == "late"


def test_what_has_no_number_is_taken_as_it_comes() -> None:
    """For as long as one such trade is in the window: then a lower number is not late, and no id is in it twice."""
    sliding = SlidingVwap(3)
    told = [
        sliding.add(Decimal(1), Decimal(1), 0, trade_id).value
        for trade_id in ("8", "ETH-1", "5", "ETH-1", "4", None, "4", "6", "7", "2", "9", "3")
    ]
    assert told[:6] == ["added", "added", "added", "duplicate", "added", "added"]
    assert told[6:] == ["duplicate", "added", "added", "added", "added", "late"]
    assert [trade.trade_id for trade in sliding.trades()] == ["6", "7", "9"]


ids = st.integers(0, 12).map(str)
names = st.sampled_from(["", "ETH-1", "ETH-2", "ETH-3"])


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(CONTEXTS),
    st.integers(1, 6),
    st.lists(st.tuples(ids, numbers, sizes, st.booleans()), max_size=40)
    | st.lists(st.tuples(st.one_of(ids, ids, ids, names), numbers, sizes, st.booleans()), max_size=40),
)
def test_any_order_is_that_of_a_plain_model(
    context: Context, window: int, given_: list[tuple[str, Decimal, Decimal, bool]]
) -> None:
    """Also where the window is left now and then, and made again of its trades: nothing tells it from the first."""
    setcontext(context)
    sliding, model, before = SlidingVwap(window), Model(window), dict.fromkeys(Became, 0)
    for number, (trade_id, price, size, restart) in enumerate(given_):
        trade = Print(number, trade_id, price, size)
        assert sliding.add(price, size, number, trade_id or None) is model.add(trade)
        agrees(sliding, model.held)
        counts = [sliding.out_of_order, sliding.duplicates, sliding.late]
        named = (Became.OUT_OF_ORDER, Became.DUPLICATE, Became.LATE)
        assert counts == [model.counts[became] - before[became] for became in named]
        if restart:
            sliding, before = SlidingVwap(window, sliding.trades()), dict(model.counts)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(CONTEXTS), st.integers(1, 6), st.lists(st.tuples(numbers, sizes), max_size=20), st.integers(0, 20)
)
def test_the_merged_window_holds_what_came_last(
    context: Context, window: int, given_: list[tuple[Decimal, Decimal]], restart: int
) -> None:
    """In the order in which it came, whatever its time."""
    setcontext(context)
    merged = MergedVwap(window)
    held: list[Print] = []
    for number, (price, size) in enumerate(given_):
        merged.add(price, size, -number)
        held = [*held, Print(-number, "", price, size)][-window:]
        agrees(merged, held)
        if number == restart:
            merged = MergedVwap(window, merged.trades())


def test_an_average_is_told_with_what_it_is_made_of() -> None:
    """A trade of size 0 is a point of it, and no price."""
    sliding = SlidingVwap(3)
    assert sliding.vwap("kraken", "BTC-USD", "live") == Vwap(
        "kraken", "BTC-USD", 3, 0, Decimal(0), Decimal(0), None, None, "live"
    )
    sliding.add(Decimal(7), Decimal(0), 1, "1")
    sliding.add(Decimal(10), Decimal(2), 2, "2")
    told = sliding.vwap("kraken", "BTC-USD", "live")
    assert told == Vwap("kraken", "BTC-USD", 3, 2, Decimal(2), Decimal(20), 1, 2, "live")
    assert told.value == sliding.value == 10


@pytest.mark.parametrize("window", [0, -1, WINDOW_MAX + 1, 2.5, "20", True, None])
def test_a_window_out_of_range_is_refused(window: int) -> None:
    """With a sentence that says what is asked and what there is."""
    for kind in (SlidingVwap, MergedVwap):
        with pytest.raises(WindowError, match=r"a whole number of trades from 1 to 1000000, not") as error:
            kind(window)
        assert repr(window) in str(error.value)


def test_a_window_at_its_limits() -> None:
    """One trade is a window, and the largest one is allowed."""
    assert SlidingVwap(WINDOW_MAX).window == WINDOW_MAX
    sliding = SlidingVwap(1)
    for number in range(3):
        sliding.add(Decimal(number), Decimal(1), number, str(number))
    assert (sliding.value, sliding.points) == (Decimal(2), 1)
    assert sliding.add(Decimal(9), Decimal(1), 0, "1") is Became.LATE


def test_no_digit_is_lost() -> None:
    """Prices and sizes of 19 digits, large and small ones in turn, leave sums that are exact."""
    sliding = SlidingVwap(7)
    held: list[Print] = []
    for number in range(500):
        price = Decimal(f"{9_999_999_999_999_999_999 - number}E-{number % 19}")
        trade = Print(number, str(number), price, price.scaleb(-3, EXACT))
        sliding.add(trade.price, trade.size, trade.time_us, trade.trade_id)
        held = [*held, trade][-7:]
    agrees(sliding, held)


def test_what_was_extreme_leaves_nothing_behind() -> None:
    """The largest and the smallest numbers that a decoder believes, in one window, and then those of every day."""
    sliding, windows = SlidingVwap(2), TimeWindows()
    largest, smallest = Decimal("9.99999999999999999E+17"), Decimal("1.234567890123456789E-29")
    held = [
        Print(number, str(number), each, each)
        for number, each in enumerate((largest, smallest, Decimal("63551.02"), Decimal("0.00317")))
    ]
    for number, trade in enumerate(held):
        sliding.add(trade.price, trade.size, trade.time_us, trade.trade_id)
        windows.add(trade.price, trade.size, trade.time_us)
        agrees(sliding, held[max(0, number - 1) : number + 1])
    [cost] = {each[2] for each in told([windows], 0).values()}
    assert cost == sum(Fraction(trade.price) * Fraction(trade.size) for trade in held)


Dealt = tuple[int, Decimal, Decimal]  # time, price, size


def within(dealt: Sequence[Dealt], span_s: int, now_us: int) -> list[object]:
    """Return what a window of time holds, and its span, said plainly."""
    step = 1 if span_s in EXACT_SPANS_S else SECOND_US if span_s in SECONDS_SPANS_S else MINUTE_US
    newest = max((time_us for time_us, *_ in dealt), default=0)
    begin = max(now_us, newest) - span_s * SECOND_US
    held = [(time_us // step * step, price, size) for time_us, price, size in dealt if time_us // step * step >= begin]
    if not held:
        return [0, 0, 0, None, None]
    size = sum(Fraction(size) for _, _, size in held)
    cost = sum(Fraction(price) * Fraction(size) for _, price, size in held)
    return [len(held), size, cost, min(time_us for time_us, *_ in held), newest]


def told(windows: Iterable[TimeWindows], now_us: int) -> dict[int | None, list[object]]:
    return {
        vwap.window_s: [
            vwap.points,
            Fraction(vwap.size),
            Fraction(vwap.quote_volume),
            vwap.from_us,
            vwap.until_us,
        ]
        for vwap in time_vwaps(EVERY_VENUE, "BTC-USD", "live", windows, now_us)
    }


steps_us = st.sampled_from([0, 1, 300_000, SECOND_US, 9 * SECOND_US, 59 * SECOND_US, 10 * MINUTE_US, DAY_US // 3])
deals = st.lists(st.tuples(steps_us, st.sampled_from([False] * 3 + [True]), numbers, sizes), max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.lists(deals, min_size=1, max_size=3), steps_us)
def test_windows_of_time_are_those_of_a_plain_model(
    series: list[list[tuple[int, bool, Decimal, Decimal]]], after_us: int
) -> None:
    """Of one series after each trade, of several at the end; late ones are counted where they belong."""
    every: list[Dealt] = []
    windows = []
    for given_ in series:
        dealt: list[Dealt] = []
        window, newest, late = TimeWindows(), T0, 0
        for step_us, is_late, price, size in given_:
            time_us = newest - 2 * step_us if is_late else newest + step_us
            window.add(price, size, time_us)
            if dealt and time_us < max(each[0] for each in dealt) - DAY_US:
                late += 1
            else:
                dealt.append((time_us, price, size))
                newest = max(newest, time_us)
            for span_s, held in told([window], 0).items():
                assert held == within(dealt, span_s or 0, 0)
        assert window.late == late
        every += dealt
        windows.append(window)
    now_us = max((time_us for time_us, *_ in every), default=0) + after_us
    for span_s, held in told(windows, now_us).items():
        assert held == within(every, span_s or 0, now_us)


def candles(dealt: Sequence[Dealt], interval_s: int) -> list[Candle]:
    """Return the candles of trades, without the empty ones."""
    made = []
    by_time = sorted(dealt, key=lambda each: each[0])
    for open_us, group in groupby(
        by_time, key=lambda each: each[0] // (interval_s * SECOND_US) * interval_s * SECOND_US
    ):
        trades = list(group)
        volume, quote_volume = Decimal(0), Decimal(0)
        for _, price, size in trades:
            volume = EXACT.add(volume, size)
            quote_volume = EXACT.fma(price, size, quote_volume)
        prices = (Decimal(1), Decimal(1), Decimal(1), Decimal(1))
        made.append(
            Candle(
                "kraken", "BTC-USD", interval_s, open_us, *prices, volume, quote_volume, Decimal(0), len(trades), "live"
            )
        )
    return made


@settings(deadline=None, max_examples=60)
@given(deals, deals)
def test_windows_of_time_go_on_from_candles(
    first: list[tuple[int, bool, Decimal, Decimal]], then: list[tuple[int, bool, Decimal, Decimal]]
) -> None:
    """Nothing counts twice and nothing is left out; after a minute they are exact to the trade again."""
    dealt: list[Dealt] = []
    whole, newest = TimeWindows(), T0
    for step_us, _, price, size in first:
        newest += step_us
        whole.add(price, size, newest)
        dealt.append((newest, price, size))
    by_second = [each for each in candles(dealt, 1) if each.open_time_us >= newest - 7_200 * SECOND_US]
    stored = candles(dealt, 60)
    resumed = TimeWindows([*stored[:-1], *by_second])  # of the last minute only the seconds are there
    assert told([resumed], newest)[86_400][:3] == told([whole], newest)[86_400][:3]
    for step_us, is_late, price, size in [*then, (61 * SECOND_US, False, Decimal(1), Decimal(1))]:
        time_us = newest - min(step_us, SECOND_US) if is_late else newest + step_us
        newest = max(newest, time_us)
        for each in (whole, resumed):
            each.add(price, size, time_us)
    assert told([resumed], newest) == told([whole], newest)


def test_a_minute_counts_what_its_seconds_do_not_know() -> None:
    """At its beginning; where its seconds know more, they count. Of two revisions the later one does."""
    [minute] = candles([(T0, Decimal(10), Decimal(6))] * 4, 60)
    second_us = minute.open_time_us + 30 * SECOND_US
    [second] = candles([(second_us, Decimal(10), Decimal(6))] * 3, 1)
    old = msgspec.structs.replace(second, volume=Decimal(1), quote_volume=Decimal(1), trades=9, revision=-1)
    both = told([TimeWindows([minute, second, old])], second_us)
    assert both[86_400] == [4, 24, 240, minute.open_time_us, second_us]
    assert both[300] == [4, 24, 240, minute.open_time_us, second_us]
    assert both[10] == [3, 18, 180, second_us, second_us]
    [behind] = candles([(T0, Decimal(10), Decimal(6))] * 2, 60)
    assert told([TimeWindows([second, behind])], second_us)[86_400] == [3, 18, 180, minute.open_time_us, second_us]


def test_nothing_is_kept_longer_than_a_window_needs() -> None:
    """An hour's seconds and a day's minutes, however long it goes on; late trades count for all that they are in."""
    window, one = TimeWindows(), Decimal(1)
    for second in range(7_300):
        window.add(one, one, T0 + second * SECOND_US)
    assert [len(marks.times) for marks in window._levels] == [61, 3_601, 122]
    last_us = T0 + 7_299 * SECOND_US
    window.add(one, one, last_us - 1_000 * SECOND_US)
    points = {span_s: each[0] for span_s, each in told([window], last_us).items()}
    assert points == {1: 2, 10: 11, 60: 61, 300: 301, 900: 901, 3_600: 3_602, 14_400: 7_301, 86_400: 7_301}
    for minute in range(1, 2_000):
        window.add(one, one, last_us + minute * MINUTE_US)
    assert [len(marks.times) for marks in window._levels] == [2, 61, 1_440]
    window.add(one, one, T0)
    assert window.late == 1
    assert {each[0] for each in told([window], last_us + 10 * DAY_US).values()} == {0}
    assert list(told([], 0)) == list(told([window], 0)) == list(SPANS_S)
