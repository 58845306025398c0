"""Bars over the archive are exact, and the same as a plain computation; and what of a job's hours is a candle."""

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models.archive.files import Archive
from models.archive.layout import Entry, Kind, Series
from models.archive.rows import Rows
from models.domain.decimals import EXACT
from models.domain.history import Chunk, Print, Span
from tests.examples import examples
from tests.services import ROOT
from workers.archive import holes_of
from workers.bars import Bar, Bars, joined

NOON_US = 1_795_262_400_000_000  # 2026-11-21T12:00Z
SECOND_US = 1_000_000
PAIR = "BTC-USDT"
WINDOW_US = (NOON_US, NOON_US + 60 * SECOND_US)
VENUES = ("kraken", "okx")

numbers = st.builds(lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(1, 10**6), st.integers(0, 8))
wide = st.builds(lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(1, 10**18), st.integers(0, 18))
times = st.integers(-5 * SECOND_US, 65 * SECOND_US).map(lambda offset: NOON_US + offset)


def told(number: st.SearchStrategy[Decimal]) -> st.SearchStrategy[list[tuple[str, Print]]]:
    made = st.builds(
        Print, times, st.integers(1, 8).map(str), number, number, st.sampled_from(["buy", "sell"]), st.none() | times
    )
    return st.lists(st.tuples(st.sampled_from(VENUES), made), max_size=12)


def rows_by_venue(trades: list[tuple[str, Print]]) -> dict[str, Rows]:
    rows = {venue: Rows(Kind.TRADES) for venue in VENUES}
    for place, (venue, made) in enumerate(trades):
        rows[venue].add(Entry(NOON_US // 1000, place), Chunk(venue, "A", 7, (), (made,)))
    return rows


def model(trades: list[tuple[str, Print]], interval_us: int) -> list[Bar]:
    """The plain computation: each trade at its earliest telling, grouped by interval."""
    once: dict[tuple[str, str], tuple[int, int, int, Print]] = {}
    for place, (venue, made) in enumerate(trades):
        time_us = made.time_us if made.exchange_time_us is None else made.exchange_time_us
        key = (time_us, made.time_us, place, made)
        once[venue, made.trade_id] = min(once.get((venue, made.trade_id), key), key, key=lambda each: each[:3])
    counted = sorted((each[:3], venue, each[3]) for (venue, _), each in once.items())
    numbered = [each for each in counted if WINDOW_US[0] <= each[0][0] < WINDOW_US[1]]
    bars: dict[tuple[int, str], Bar] = {}
    for number, ((time_us, _, _), venue, made) in enumerate(numbered):
        start_us = time_us // interval_us * interval_us
        bar = bars.get((start_us, venue))
        if bar is None:
            zero, price = Decimal(0), made.price
            bar = Bar(
                venue, start_us, 0, zero, zero, time_us, time_us, zero, price, price, price, price, number, number
            )
            bars[start_us, venue] = bar
        bar.trades, bar.last, bar.close = bar.trades + 1, number, made.price
        bar.volume = EXACT.add(bar.volume, made.size)
        bar.quote_volume = EXACT.add(bar.quote_volume, EXACT.multiply(made.price, made.size))
        bar.taker_buy_volume = EXACT.add(bar.taker_buy_volume, made.size if made.taker_side == "buy" else Decimal(0))
        bar.high, bar.low, bar.until_us = max(bar.high, made.price), min(bar.low, made.price), time_us
    return [bars[key] for key in sorted(bars)]


@settings(deadline=None, max_examples=examples(12))
@example(
    [
        ("okx", Print(NOON_US, "1", Decimal(295), Decimal(339), "buy")),
        ("okx", Print(NOON_US, "2", Decimal("0.00001"), Decimal("1E-8"), "buy")),
    ],
    0,
    SECOND_US,
)  # a product of more than 18 digits of numbers that have fewer
@given(told(numbers), st.integers(0, 12), st.sampled_from([SECOND_US, 60 * SECOND_US]))
def test_bars_are_those_of_a_plain_computation(
    tmp_path_factory: pytest.TempPathFactory, trades: list[tuple[str, Print]], archived: int, interval_us: int
) -> None:
    """Whatever is told twice, out of order, or on the bus and in the archive both: each trade counts once."""
    folder = tmp_path_factory.mktemp("archive")
    archive = Archive(str(folder), "simulated")
    for venue, rows in rows_by_venue(trades[:archived]).items():
        if len(rows):
            archive.write(
                Series(Kind.TRADES, venue, PAIR),
                rows.table(),
                Entry(NOON_US // 1000, 0),
                Entry(NOON_US // 1000, archived),
            )
    bars = Bars(archive, folder / "spill")
    # The same entries on the bus, as a reader who lists before the archivist writes would see them.
    tail = rows_by_venue(trades)
    expected = model(trades, interval_us)
    assert bars.of(PAIR, VENUES, WINDOW_US, tail, interval_us) == expected
    sums = {bar.venue: (bar.trades, bar.volume, bar.quote_volume) for bar in bars.of(PAIR, VENUES, WINDOW_US, tail)}
    for venue in VENUES:
        mine = [bar for bar in expected if bar.venue == venue]
        whole = sum(bar.trades for bar in mine), sum(bar.volume for bar in mine), sum(bar.quote_volume for bar in mine)
        assert sums.get(venue, (0, 0, 0)) == whole
    bars.close()


@settings(deadline=None, max_examples=examples(10))
@given(told(wide))
def test_numbers_that_might_overflow_are_computed_by_hand(
    tmp_path_factory: pytest.TempPathFactory, trades: list[tuple[str, Print]]
) -> None:
    """With the same result, to the last of up to 37 digits."""
    bars = Bars(Archive(f"memory://{uuid4().hex}", "simulated"), tmp_path_factory.mktemp("bars") / "spill")
    assert bars.of(PAIR, VENUES, WINDOW_US, rows_by_venue(trades), SECOND_US) == model(trades, SECOND_US)
    bars.close()


def test_a_broken_file_is_named_and_the_others_count(tmp_path: Path) -> None:
    """Broken in its middle, where its footer does not tell, or at its end."""
    archive = Archive(str(tmp_path), "simulated")
    one = Decimal(1)
    for place in range(3):
        rows = Rows(Kind.TRADES)
        made = Print(NOON_US + place, str(place), one, one, "buy", NOON_US + place)
        rows.add(Entry(NOON_US // 1000, place), Chunk("okx", "A", 7, (), (made,)))
        archive.write(Series(Kind.TRADES, "okx", PAIR), rows.table(), *[Entry(NOON_US // 1000, place)] * 2)
    files = sorted(tmp_path.rglob("*.parquet"))
    content = files[0].read_bytes()
    files[0].write_bytes(content[:4] + b"x" * 56 + content[60:])
    files[1].write_bytes(files[1].read_bytes()[:-9])
    bars = Bars(archive, tmp_path / "spill")
    [bar] = bars.of(PAIR, VENUES, WINDOW_US, {})
    assert (bar.trades, bars.broken) == (1, {str(files[0]), str(files[1])})
    bars.close()


def test_no_trade_is_no_bar(tmp_path: Path) -> None:
    """Nor is an archive that is not there an error."""
    bars = Bars(Archive(str(tmp_path / "none"), "simulated"), tmp_path / "spill")
    assert bars.of(PAIR, VENUES, WINDOW_US, {}, SECOND_US) == []
    bars.close()


def test_bars_are_joined_by_their_order() -> None:
    """The first one's open and the last one's close, whichever venue's they are."""

    def bar(venue: str, price: int, first: int, last: int) -> Bar:
        high, low, close = (Decimal(price + step) for step in (2, -1, 1))
        sums = Decimal(3), Decimal(5)
        return Bar(venue, 0, 2, *sums, first, last, Decimal(1), Decimal(price), high, low, close, first, last)

    whole = joined([bar("okx", 10, 5, 9), bar("kraken", 20, 2, 7)], "all", 0)
    assert whole == Bar(
        "all", 0, 4, Decimal(6), Decimal(10), 2, 9, Decimal(2), Decimal(20), Decimal(22), Decimal(9), Decimal(11), 2, 9
    )
    assert joined([], "all", 0) is None


def test_trades_may_be_missing_where_nobody_listened_or_some_were_missed() -> None:
    """Connections that overlap count once."""
    spans = [Span("okx", 7, 0, 40), Span("okx", 8, 30, 60, ("A",)), Span("okx", 9, 80, 200, ("B",))]
    assert holes_of(spans, "A", 10, 100) == (70, [(60, 80), (30, 60)])
    assert holes_of([], "A", 10, 100) == (0, [(10, 100)])
    assert holes_of(spans[:1], "A", 10, 40) == (30, [])


def test_a_worker_that_computes_nothing_does_not_carry_duckdb() -> None:
    """The tasks are known to fulfilment workers too; what works them is imported with the first job."""
    code = "import sys, workers.jobs; sys.exit(sum(name in sys.modules for name in ('duckdb', 'pyarrow', 'fsspec')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
