"""The archive's files: exact, whole or not there, found by time, made one with others, gone when they are old."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.archive.compaction import compact_day
from models.archive.files import Archive, ArchiveError
from models.archive.layout import DAY_MS, Entry, File, Kind, Series, file_at
from models.archive.reading import read_chunks, read_spans
from models.archive.rows import SCALE_MAX, WHOLE_MAX, Rows
from models.domain.history import Chunk, Print, Sample, Span
from tests.examples import examples

NOON_MS = 1_795_262_400_000  # 2026-11-21T12:00Z
PAIR = "BTC-USDT"
MARKET = "simulated"

numbers = st.builds(
    lambda digits, scale: Decimal(digits).scaleb(-scale),
    st.integers(1, 10 ** (WHOLE_MAX - 1)),
    st.integers(0, SCALE_MAX),
)
unknown = st.none() | numbers
samples = st.builds(Sample, st.integers(1, 2**53), unknown, unknown, unknown, unknown, unknown)
prints = st.builds(
    Print,
    st.integers(1, 2**53),
    st.text(min_size=1, max_size=8),
    numbers,
    numbers,
    st.sampled_from(["buy", "sell", ""]),
    st.none() | st.integers(1, 2**53),
)
chunks = st.builds(
    Chunk,
    st.just("okx"),
    st.sampled_from(["BTC-USDT", "btc"]),
    st.integers(1, 3),
    st.lists(samples, max_size=4).map(tuple),
    st.lists(prints, max_size=4).map(tuple),
    st.just(MARKET),
)


def archived(
    archive: Archive, told: Mapping[Entry, Chunk], kinds: tuple[Kind, ...] = (Kind.TRADES, Kind.QUOTES)
) -> None:
    """Write entries into one file of each kind."""
    for kind in kinds:
        rows = Rows(kind)
        for entry, chunk in told.items():
            rows.add(entry, chunk)
        if len(rows):
            archive.write(Series(kind, "okx", PAIR), rows.table(), min(told), max(told))


def made(entry_ms: int, trade_id: int = 1, price: str = "10.5") -> dict[Entry, Chunk]:
    trade = Print(entry_ms * 1000, str(trade_id), Decimal(price), Decimal(2), "buy", entry_ms * 1000 - 5)
    return {Entry(entry_ms, 0): Chunk("okx", "BTC-USDT", 7, (), (trade,), MARKET)}


def files_of(archive: Archive, kind: Kind = Kind.TRADES) -> list[File]:
    series = Series(kind, "okx", PAIR)
    return [file for day in archive.days(series) for file in archive.of_day(series, day)]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(str(tmp_path / "archive"), MARKET)


@settings(deadline=None, max_examples=examples(30))  # the first file takes longer
@given(st.lists(chunks, min_size=1, max_size=6))
def test_what_is_archived_is_read_back_as_it_was(told: list[Chunk]) -> None:
    """Every digit, every None, in the order of its entry, whatever the scales beside it: prices are never rounded."""
    archive = Archive(f"memory://{uuid4().hex}", MARKET)
    by_entry = {Entry(NOON_MS, place): chunk for place, chunk in enumerate(told)}
    archived(archive, by_entry)
    expected = {entry: chunk for entry, chunk in by_entry.items() if chunk.samples or chunk.prints}
    assert read_chunks(archive, PAIR, NOON_MS, NOON_MS, set()) == expected
    assert read_chunks(archive, PAIR, NOON_MS + 1, NOON_MS + 9, set()) == {}


def test_spans_are_read_back_with_their_gaps(archive: Archive) -> None:
    """They are a venue's, and of no pair."""
    span, rows = Span("okx", 7, 1, 2, ("A", "B"), MARKET), Rows(Kind.SPANS)
    rows.add_span(Entry(NOON_MS, 3), span)
    archive.write(Series(Kind.SPANS, "okx"), rows.table(), Entry(NOON_MS, 3), Entry(NOON_MS, 3))
    assert read_spans(archive, "okx", NOON_MS, NOON_MS, set()) == {Entry(NOON_MS, 3): span}


def test_a_file_lies_where_the_documentation_says(archive: Archive, tmp_path: Path) -> None:
    """Anybody's DuckDB finds it, with the venue, the pair and the day from its folders."""
    archived(archive, made(NOON_MS))
    name = f"trades-{NOON_MS}.0-{NOON_MS}.0.parquet"
    folder = tmp_path / "archive/market=simulated/trades/venue=okx/pair=BTC-USDT/day=2026-11-21"
    assert [file.path for file in files_of(archive)] == [str(folder / name)]
    query = f"""
        SELECT venue, pair, day::text, price, taker_side
        FROM read_parquet('{tmp_path}/archive/market=simulated/trades/**/*.parquet',
                          hive_partitioning = true, union_by_name = true)"""
    with duckdb.connect() as connection:
        assert connection.execute(query).fetchall() == [("okx", "BTC-USDT", "2026-11-21", Decimal("10.5"), "buy")]


def test_a_decimal_is_as_wide_as_its_numbers_need(archive: Archive) -> None:
    """18 digits, which readers compute with as integers, or 38; what has more than a price can have is counted."""
    rows = Rows(Kind.TRADES)
    for place, price in enumerate(("1E+20", "0.1234567890123456789", "12345.678")):
        rows.add(*next(iter(made(NOON_MS + place, price=price).items())))
    assert (rows.refused, rows.table().schema.field("price").type) == (2, pa.decimal128(18, 3))
    rows.add(*next(iter(made(NOON_MS + 9, price="1234567890123456789.5").items())))
    assert rows.table().schema.field("price").type == pa.decimal128(38, 3)


def test_a_write_that_fails_leaves_nothing(archive: Archive, tmp_path: Path) -> None:
    """Neither a file nor a part of one; the error says where."""

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise OSError(28, "No space left on device")

    with pytest.raises(ArchiveError, match="No space left"):
        archive.write(Series(Kind.TRADES, "okx", PAIR), Broken(), Entry(NOON_MS, 0), Entry(NOON_MS, 0))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="cannot be used"):
        archived(Archive(str(tmp_path / "file"), MARKET), made(NOON_MS))
    with pytest.raises(ArchiveError, match="nosuch"):
        archived(Archive("nosuch://bucket", MARKET), made(NOON_MS))


@pytest.mark.parametrize("name", ["trades-1.0-2.0.parquet.tmp", ".x.parquet.tmp", "trades-1-2.parquet", "notes.txt"])
def test_another_name_is_none_of_ours(name: str) -> None:
    """What somebody else puts there is left alone."""
    assert file_at(f"a/{name}", "okx") is None


def test_many_files_are_made_one(archive: Archive) -> None:
    """With the same rows, in a type that holds all of them; the last entry stays the last."""
    told: dict[Entry, Chunk] = {}
    for place, price in enumerate(("10", "0.000000000000000001", "1234567890123456789", "2.50")):
        told |= (one := made(NOON_MS + place, place, price))
        archived(archive, one)
    series = Series(Kind.TRADES, "okx", PAIR)
    assert compact_day(archive, series, "2026-11-21", hourly=False, now_ms=NOON_MS) == []
    [file] = files_of(archive)
    assert (file.first, file.last, archive.last(series)) == (min(told), max(told), max(told))
    assert read_chunks(archive, PAIR, NOON_MS, NOON_MS + 9, set()) == told


def test_hours_of_a_day_that_lasts_are_made_one_each(archive: Archive) -> None:
    """The hour that lasts stays as it is."""
    for minute in (0, 5, 10, 60, 65, 120):
        archived(archive, made(NOON_MS + minute * 60_000))
    now_ms = NOON_MS + 121 * 60_000
    compact_day(archive, Series(Kind.TRADES, "okx", PAIR), "2026-11-21", hourly=True, now_ms=now_ms)
    assert [(file.first.ms - NOON_MS) // 60_000 for file in files_of(archive)] == [0, 60, 120]


def test_sources_that_were_left_by_a_kill_are_seen_once(archive: Archive) -> None:
    """Between the whole and its parts' end both are there: readers see one, and the next time makes them one."""
    told = {**made(NOON_MS, 1), **made(NOON_MS + 1, 2), **made(NOON_MS + 2, 3)}
    parts = list(told.items())
    archived(archive, told)
    archived(archive, dict(parts[1:2]))
    archived(archive, dict(parts[1:]))
    assert len(files_of(archive)) == 3
    assert read_chunks(archive, PAIR, NOON_MS, NOON_MS + 9, set()) == told
    compact_day(archive, Series(Kind.TRADES, "okx", PAIR), "2026-11-21", hourly=False, now_ms=NOON_MS)
    [file] = files_of(archive)
    assert pq.read_metadata(file.path).num_rows == 3
    assert read_chunks(archive, PAIR, NOON_MS, NOON_MS + 9, set()) == told


@pytest.mark.parametrize("damage", ["short", "inside", "empty"])
def test_a_broken_file_is_named_and_skipped_and_never_deleted(archive: Archive, damage: str) -> None:
    """Its neighbours are read, and made one without it."""
    for place in range(3):
        archived(archive, made(NOON_MS + place, place))
    bad = Path(files_of(archive)[1].path)
    content = bad.read_bytes()
    inside = content[:4] + b"x" * 56 + content[60:]
    bad.write_bytes({"short": content[:-20], "inside": inside, "empty": b""}[damage])
    broken: set[str] = set()
    found = read_chunks(archive, PAIR, NOON_MS, NOON_MS + 9, broken)
    assert ({entry.ms - NOON_MS for entry in found}, broken) == ({0, 2}, {str(bad)})
    series = Series(Kind.TRADES, "okx", PAIR)
    assert compact_day(archive, series, "2026-11-21", hourly=False, now_ms=NOON_MS) == [str(bad)]
    assert bad.exists()
    assert len(files_of(archive)) == 2


def test_old_days_go_and_the_rest_stays(archive: Archive) -> None:
    """Of every series; the day that is named is kept."""
    for days_ago in range(4):
        archived(archive, made(NOON_MS - days_ago * DAY_MS))
    assert archive.delete_before("2026-11-20") == 2
    assert archive.days(Series(Kind.TRADES, "okx", PAIR)) == ["2026-11-20", "2026-11-21"]


def test_markets_never_mix(tmp_path: Path) -> None:
    """Each has a folder of its own."""
    for market, price in (("simulated", "1"), ("live", "2")):
        archived(Archive(str(tmp_path), market), made(NOON_MS, price=price))
    [chunk] = read_chunks(Archive(str(tmp_path), "live"), PAIR, NOON_MS, NOON_MS, set()).values()
    assert chunk.prints[0].price == 2
