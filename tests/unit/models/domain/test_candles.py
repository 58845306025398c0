"""Candles made of trades: those that another program made of the same ones, and what holds for any."""

import csv
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.domain.candles import (
    GAP_MAX_US,
    GRACE_US,
    INTERVALS_S,
    LATE_MAX_US,
    SPANS_MAX,
    Candle,
    CandleMaker,
    MakerState,
    Settled,
)

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
MIDNIGHT_US = 19_675 * 86_400 * SECOND_US  # 2023-11-14
Row = tuple[Decimal, Decimal, str, int]


def maker(begun_us: int = MIDNIGHT_US, **more: Any) -> CandleMaker:
    return CandleMaker("binance", "XRP-ETH", "replay", MakerState(begun_us), **more)


def restarted(old: CandleMaker, **more: Any) -> CandleMaker:
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(old.state), type=MakerState)
    settled = msgspec.json.decode(msgspec.json.encode(old.settled), type=Settled)
    return CandleMaker("binance", "XRP-ETH", "replay", state, settled, **more)


def d(value: object) -> Decimal:
    return Decimal(str(value))


def of(candles: Iterable[Candle], interval: str) -> list[Candle]:
    return [candle for candle in candles if candle.interval_s == INTERVALS_S[interval]]


def prices(candle: Candle) -> tuple[Decimal, ...]:
    return candle.open, candle.high, candle.low, candle.close


def numbers(*values: int) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, values))


@pytest.fixture
def recorded(recordings: Path) -> list[Row]:
    """Binance's trades of XRP-ETH over two and a half days of October 2019."""
    with gzip.open(recordings / "reference/binance_XRP_ETH_trades.json.gz") as file:
        rows = json.load(file, parse_float=Decimal)
    return [(d(price), d(amount), side, ms * 1_000) for ms, _, _, side, price, amount, _ in rows]


def freqtrades(recordings: Path, interval: str) -> list[tuple[Any, ...]]:
    with (recordings / f"reference/binance_XRP_ETH_{interval}.csv").open() as file:
        return [
            (
                int(datetime.fromisoformat(row["date"]).timestamp()) * SECOND_US,
                *(Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")),
            )
            for row in csv.DictReader(file)
        ]


def fed(rows: Sequence[Row]) -> list[Candle]:
    made, clock_us, told = maker(rows[0][-1]), 0, []
    for row in rows:
        made.trade(*row)
        clock_us = max(clock_us, row[-1])
        told += made.advance(clock_us)
    return told + made.advance(clock_us + 600 * SECOND_US)


def test_another_programs_candles(recordings: Path, recorded: list[Row]) -> None:
    """The 12,477 recorded trades give freqtrade's 2,469 one-minute and 706 five-minute candles exactly."""
    assert len(recorded) == 12_477
    told = fed(recorded)
    for interval, count in (("1m", 2_469), ("5m", 706)):
        made = [(each.open_time_us, *prices(each), each.volume) for each in of(told, interval) if each.trades]
        assert made == freqtrades(recordings, interval)
        assert len(made) == count
    assert not any(candle.revision for candle in told)
    assert sum(candle.trades for candle in of(told, "1s")) == 12_477


def test_another_programs_candles_of_trades_out_of_order(recordings: Path, recorded: list[Row]) -> None:
    """The same where trades come up to the grace period late: equal times keep their order, nothing is revised."""
    chance = random.Random(5)
    lag: dict[int, float] = defaultdict(lambda: chance.uniform(0, GRACE_US))
    shuffled = sorted(recorded, key=lambda row: row[-1] + lag[row[-1]])
    assert shuffled != recorded
    assert [replaced(each) for each in fed(shuffled)] == [replaced(each) for each in fed(recorded)]
    made = [(each.open_time_us, *prices(each), each.volume) for each in of(fed(shuffled), "1m") if each.trades]
    assert made == freqtrades(recordings, "1m")


def replaced(candle: Candle) -> Candle:
    # The first to come begins the series, and another may.
    return msgspec.structs.replace(candle, incomplete=False)


@dataclass
class Model:
    """Candles as anyone would group trades, over and over."""

    begun_us: int
    grace_us: int
    late_max_us: int
    clock_us: int = 0
    trades: list[Row] = field(default_factory=list)
    spans_us: list[tuple[int, int]] = field(default_factory=list)
    dropped: int = 0

    def __post_init__(self) -> None:
        self.clock_us = self.begun_us
        self.spans_us.append((0, self.begun_us))

    @property
    def closed_us(self) -> int:
        return (self.clock_us - self.grace_us) // SECOND_US * SECOND_US

    def trade(self, row: Row) -> None:
        time_us = row[-1]
        is_closed = time_us < self.closed_us
        if is_closed and (time_us < self.begun_us or time_us < self.clock_us - self.late_max_us):
            self.dropped += 1
        else:
            self.trades.append(row)
            self.trades.sort(key=lambda row: row[-1])  # equal times keep the order of arrival

    def candle(self, interval_s: int, start_us: int) -> Candle | None:
        """The candle of an interval, without its revision; None where there was no trade until its end."""
        end_us = start_us + interval_s * SECOND_US
        before = [row for row in self.trades if row[-1] < end_us]
        rows = [row for row in before if row[-1] >= start_us]
        if not before:
            return None
        values = [row[0] for row in rows] or [before[-1][0]]
        zero = Decimal(0)
        return Candle(
            "binance",
            "XRP-ETH",
            interval_s,
            start_us,
            values[0],
            max(values),
            min(values),
            values[-1],
            sum((row[1] for row in rows), zero),
            sum((row[0] * row[1] for row in rows), zero),
            sum((row[1] for row in rows if row[2] == "buy"), zero),
            len(rows),
            "replay",
            incomplete=any(start_us < until_us and end_us > from_us for from_us, until_us in self.spans_us),
        )

    def closed(self) -> dict[tuple[int, int], Candle]:
        made: dict[tuple[int, int], Candle] = {}
        if not self.trades:
            return made
        first_us = self.trades[0][-1]
        for interval_s in INTERVALS_S.values():
            length_us = interval_s * SECOND_US
            starts_us: Iterable[int] = range(first_us // length_us * length_us, self.closed_us, length_us)
            if interval_s == 1:  # seconds without trades have no candle
                starts_us = {row[-1] // length_us * length_us for row in self.trades}
            for start_us in starts_us:
                if start_us + length_us <= self.closed_us and (candle := self.candle(interval_s, start_us)):
                    made[interval_s, start_us] = candle
        return made

    def open(self) -> list[Candle]:
        newest_us = max([self.clock_us, *(row[-1] // SECOND_US * SECOND_US for row in self.trades[-1:])])
        lengths = ((interval_s, interval_s * SECOND_US) for interval_s in INTERVALS_S.values())
        candles = (self.candle(interval_s, newest_us // length_us * length_us) for interval_s, length_us in lengths)
        return [msgspec.structs.replace(candle, closed=False) for candle in candles if candle]


halves = st.integers(-800, 60).map(lambda number: number * SECOND_US // 2)
rows = st.tuples(
    st.just("trade"),
    st.integers(1, 9).map(Decimal),
    st.decimals("0.00000001", "1000", places=8),
    st.sampled_from(["buy", "sell"]),
    st.one_of(halves, st.integers(-12 * SECOND_US, 3 * SECOND_US)),
)
advances = st.tuples(
    st.just("advance"), st.one_of(st.integers(0, 3 * SECOND_US), halves.map(abs), st.integers(0, GAP_MAX_US))
)
spans = st.tuples(st.just("missed"), st.integers(-100, 100), st.integers(-1, 100))
steps = st.lists(st.one_of(rows, rows, advances, spans, st.just(("restart",))), max_size=30)


@settings(max_examples=120, deadline=None)
@given(
    begun_us=st.integers(MIDNIGHT_US - 3_700 * SECOND_US, MIDNIGHT_US),
    grace_us=st.sampled_from([0, 1_500_000, GRACE_US]),
    late_max_us=st.sampled_from([GRACE_US, LATE_MAX_US, 150 * SECOND_US, 400 * SECOND_US]),
    steps=steps,
)
@example(MIDNIGHT_US, 0, LATE_MAX_US, [("trade", d(1), d(1), "buy", 0), ("advance", GAP_MAX_US)] * 2)
@example(MIDNIGHT_US, 0, GRACE_US, [("advance", 3_500_000), ("trade", d(1), d(1), "buy", -2_500_000)])
def test_candles_are_those_of_a_plain_model(
    begun_us: int, grace_us: int, late_max_us: int, steps: list[tuple[Any, ...]]
) -> None:
    """After each advance what was told is what grouping the trades gives, late ones or not, restarts or not."""
    more: dict[str, Any] = {"grace_us": grace_us, "late_max_us": late_max_us}
    model = Model(begun_us, **more)
    made, never_restarted = maker(begun_us, **more), maker(begun_us, **more)
    told: dict[tuple[int, int], Candle] = {}
    for name, *values in [*steps, ("advance", 0), ("advance", GAP_MAX_US)]:
        if name == "trade":
            row = (*values[:-1], model.clock_us + values[-1])
            for each in (made, never_restarted, model):
                each.trade(row) if each is model else each.trade(*row)
        elif name == "missed":
            from_us = max(model.clock_us + values[0] * SECOND_US // 2, model.clock_us - late_max_us)
            span = (from_us, from_us + values[1] * SECOND_US // 2)
            if values[1] > 0:
                model.spans_us.append(span)
            made.missed(*span)
            never_restarted.missed(*span)
        elif name == "restart":
            made = restarted(made, **more)
        else:
            model.clock_us += values[0]
            news = made.advance(model.clock_us)
            assert news == never_restarted.advance(model.clock_us)
            for candle in news:
                key = candle.interval_s, candle.open_time_us
                assert candle.revision == (told[key].revision + 1 if key in told else 0)
                assert candle.closed
                told[key] = candle
            assert {key: msgspec.structs.replace(candle, revision=0) for key, candle in told.items()} == model.closed()
        assert made.open_candles() == model.open()
        assert made.state.dropped == model.dropped
    assert msgspec.json.encode(made.state) == msgspec.json.encode(never_restarted.state)
    assert msgspec.json.encode(made.settled) == msgspec.json.encode(never_restarted.settled)


def trade(made: CandleMaker, price: object, at_s: float, size: object = 1, side: str = "buy") -> None:
    made.trade(d(price), d(size), side, MIDNIGHT_US + round(at_s * SECOND_US))


def advance(made: CandleMaker, at_s: float) -> list[Candle]:
    return made.advance(MIDNIGHT_US + round(at_s * SECOND_US))


def test_a_candle_waits_for_the_grace_period() -> None:
    """It closes when the clock is so far past its end, and larger ones with their last part, smallest first."""
    made = maker()
    trade(made, 5, 86_399.5)
    assert not of(advance(made, 86_401.999_999), "1d")
    assert [candle.interval_s for candle in advance(made, 86_402)] == list(INTERVALS_S.values())


def test_the_first_candles_are_incomplete_unless_they_begin_with_the_series() -> None:
    """A series that begins at 00:05 knows all of the 5m candle and not of the 15m one; the next ones are whole."""
    made = maker(MIDNIGHT_US + 300 * SECOND_US)
    trade(made, 5, 300)
    told = advance(made, 1_802)
    assert [(candle.open_time_us, candle.incomplete) for candle in of(told, "15m")] == [
        (MIDNIGHT_US, True),
        (MIDNIGHT_US + 900 * SECOND_US, False),
    ]
    assert not any(candle.incomplete for candle in told if candle.interval_s < 900)


def test_an_interval_without_trades_has_the_close_before() -> None:
    """Once there was a trade, and not for seconds; nothing is told of what came before the first."""
    made = maker()
    assert not advance(made, 302)
    trade(made, 5, 301)
    trade(made, 7, 302)
    told = advance(made, 482)
    assert [prices(candle) for candle in of(told, "1m")] == [numbers(5, 7, 5, 7), *[numbers(7, 7, 7, 7)] * 2]
    assert [candle.trades for candle in of(told, "1m")] == [2, 0, 0]
    assert [candle.trades for candle in of(told, "1s")] == [1, 1]
    assert of(told, "1m")[1].volume == 0
    assert of(told, "1m")[1].vwap is None


def test_a_late_trade_revises_all_closed_candles_that_hold_it() -> None:
    """Two late trades are one revision; the open hour has them too; an empty minute after them has their close."""
    made = maker(late_max_us=180 * SECOND_US)
    trade(made, 5, 238)
    advance(made, 361)
    trade(made, 4, 237, side="sell")
    trade(made, 6, 239.5)
    told = advance(made, 361)
    assert [(candle.interval_s, candle.open_time_us // SECOND_US % 3_600, candle.revision) for candle in told] == [
        (1, 237, 0),
        (1, 239, 0),
        (60, 180, 1),
        (60, 240, 1),
        (300, 0, 1),
    ]
    assert [prices(candle) for candle in told[2:]] == [numbers(4, 6, 4, 6), numbers(6, 6, 6, 6), numbers(4, 6, 4, 6)]
    assert advance(made, 361) == []
    assert prices(of(made.open_candles(), "1h")[0]) == numbers(4, 6, 4, 6)
    assert (made.state.late, made.state.dropped) == (2, 0)


def test_a_trade_that_is_too_late_is_counted_and_dropped() -> None:
    """Beyond the limit nothing changes; at it the candle is revised; and the limit is not for what is open."""
    made = maker()
    trade(made, 5, 100)
    advance(made, 131)
    trade(made, 6, 120.9)
    assert (made.state.dropped, made.state.late) == (1, 0)
    trade(made, 6, 121)
    assert (made.state.dropped, made.state.late) == (1, 1)
    trade(made, 6, 129.5)
    assert (made.state.dropped, made.state.late) == (1, 1)
    assert [candle.interval_s for candle in advance(made, 131)] == [1]


def test_what_may_be_missing_makes_candles_incomplete() -> None:
    """Closed ones in a revision, open ones, and those that begin within the span; not those that end with it."""
    made = maker()
    trade(made, 5, 59)
    advance(made, 63)
    made.missed(MIDNIGHT_US + 59 * SECOND_US, MIDNIGHT_US + 180 * SECOND_US)
    assert [(candle.interval_s, candle.revision, candle.incomplete) for candle in advance(made, 63)] == [
        (1, 1, True),
        (60, 1, True),
    ]
    trade(made, 6, 179)
    trade(made, 6, 180)
    told = advance(made, 302)
    assert [candle.incomplete for candle in of(told, "1s")] == [True, False]
    assert [candle.incomplete for candle in of(told, "1m")] == [True, True, False, False]
    assert [candle.incomplete for candle in of(told, "5m")] == [True]


def test_the_first_trade_of_a_second_may_be_late_and_others_missing() -> None:
    """A span that ended within the oldest second that a trade may be in is remembered."""
    made = maker()
    made.missed(MIDNIGHT_US + 110 * SECOND_US, MIDNIGHT_US + 112_300_000)
    advance(made, 122.4)
    trade(made, 5, 112.45)
    assert [(candle.interval_s, candle.incomplete) for candle in advance(made, 122.4)] == [(1, True), (60, True)]


def test_many_gaps_are_remembered_as_few() -> None:
    """Spans that touch are one; beyond the limit the oldest are joined, so that nothing incomplete is called whole."""
    made = maker()
    for number in range(200):
        made.missed(MIDNIGHT_US + number * MINUTE_US, MIDNIGHT_US + number * MINUTE_US + SECOND_US)
    assert len(made.settled.spans_us) == SPANS_MAX
    trade(made, 5, 0)
    assert all(candle.incomplete for candle in of(advance(made, 3_600), "1m"))


def test_a_leap_of_the_clock_makes_no_candles_for_the_time_between() -> None:
    """Not even one of years; what overlaps it is incomplete, and the close before it is not carried on."""
    made = maker()
    trade(made, 5, 10)
    advance(made, 100)
    year_s = 366 * 86_400
    told = advance(made, year_s + 100)
    assert [candle.interval_s for candle in told] == [60, 300, 900, 3_600, 14_400, 86_400]
    assert all(candle.incomplete for candle in told)
    assert advance(made, year_s + 300) == []
    trade(made, 6, year_s + 310)
    told = advance(made, year_s + 362)
    assert [(candle.interval_s, candle.incomplete) for candle in told] == [(1, False), (60, False)]
    assert of(made.open_candles(), "1d")[0].incomplete
    assert advance(maker(), GAP_MAX_US // SECOND_US) == []


def test_a_late_trade_from_within_a_leap_makes_an_incomplete_candle() -> None:
    """The time before the clock's new place was not seen, whatever still comes of it."""
    made = maker()
    trade(made, 5, 10)
    advance(made, 100)
    advance(made, 10_805)
    trade(made, 6, 10_799)
    told = advance(made, 10_805)
    assert {candle.interval_s: (candle.revision, candle.incomplete, candle.trades) for candle in told} == dict.fromkeys(
        (1, 60, 300, 900, 3_600), (0, True, 1)
    )


def test_what_is_kept_is_bounded() -> None:
    """After hours of trades the state is as large as after a minute of them."""
    made, sizes = maker(), []
    for second in range(20_000):
        trade(made, 5 + second % 7, second)
        advance(made, second)
        sizes.append(len(msgspec.msgpack.encode(made.settled)))
    assert max(sizes[60:]) <= 1.5 * max(sizes[:60])
    assert len(msgspec.msgpack.encode(made.state)) < 500
    assert max(len(kept) for kept in made.settled.kept) <= 1 + LATE_MAX_US // SECOND_US


def test_settlings_tell_when_the_settled_part_is_to_be_written() -> None:
    """It differs from what it was whenever the number does, and never when it does not."""
    made, chance = maker(), random.Random(7)
    before = msgspec.json.encode(made.settled), made.settlings
    unchanged = 0
    for step in range(3_000):
        at_s = step / 4
        choice = chance.random()
        if choice < 0.7:
            trade(made, chance.randrange(1, 9), at_s - chance.choice((0, 0, 0, 1, 6, 15)))
        elif choice < 0.98:
            advance(made, at_s)
        else:
            made.missed(MIDNIGHT_US + step * SECOND_US // 4, MIDNIGHT_US + step * SECOND_US // 4 + SECOND_US)
        after = msgspec.json.encode(made.settled), made.settlings
        if after[1] == before[1]:
            assert after[0] == before[0]
            unchanged += 1
        before = after
    assert 1_000 < unchanged < 3_000


def test_the_clock_never_goes_back() -> None:
    """An older time closes nothing, opens nothing and forgets nothing."""
    made = maker()
    trade(made, 5, 10)
    advance(made, 62)
    before = msgspec.json.encode(made.state), msgspec.json.encode(made.settled)
    assert advance(made, 11) == []
    assert (msgspec.json.encode(made.state), msgspec.json.encode(made.settled)) == before
    trade(made, 6, 51)
    assert made.state.dropped == 1
