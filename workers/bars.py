"""Bars of trades over the archive, exact, on DuckDB: what was traded of a pair in each interval of a window.

A trade is counted once, by venue, product and its id there, at the earliest time at which it is told of, whichever
files and entries tell of it. Sums are of decimals that cannot overflow; where they might, Python's do it.
"""

# ruff: noqa: S608 -- the names in the queries are our own; paths and venues are quoted, and times are parameters

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
from pyarrow import ArrowException

from models.archive.compaction import shapes_of
from models.archive.files import Archive, ArchiveError
from models.archive.layout import EARLY_MS, LATE_MS, File, Kind, Series
from models.archive.rows import DECIMALS, WIDE, Rows, Shape
from models.domain.decimals import EXACT

MEMORY = "384MB"
SPILLED = "8GB"
THREADS = 2
# Two tellings of one trade may differ by so much in time, where the venue sends none and two connections saw it.
TOLD_AGAIN_US = 60_000_000
ORDER = ("time_us", "received_time_us", "entry_ms", "entry_seq", "place")
COLUMNS = ("venue", "product_id", "trade_id", "price", "size", "taker_side", *ORDER)
ZERO = Decimal(0)


class Bar(msgspec.Struct, array_like=True):
    """What was traded at one venue from a time on. `first` and `last`: in what order, among the bars of one chunk."""

    venue: str
    start_us: int
    trades: int
    volume: Decimal
    quote_volume: Decimal
    from_us: int
    until_us: int
    taker_buy_volume: Decimal = ZERO
    open: Decimal = ZERO
    high: Decimal = ZERO
    low: Decimal = ZERO
    close: Decimal = ZERO
    first: int = 0
    last: int = 0


def joined(bars: Iterable[Bar], venue: str, start_us: int) -> Bar | None:
    """Return bars of one chunk as one, or None where there are none."""
    made: Bar | None = None
    with localcontext(EXACT):
        for bar in bars:
            if made is None:
                made = msgspec.structs.replace(bar, venue=venue, start_us=start_us)
                continue
            made.trades += bar.trades
            made.volume += bar.volume
            made.quote_volume += bar.quote_volume
            made.taker_buy_volume += bar.taker_buy_volume
            made.high, made.low = max(made.high, bar.high), min(made.low, bar.low)
            made.from_us, made.until_us = min(made.from_us, bar.from_us), max(made.until_us, bar.until_us)
            if bar.first < made.first:
                made.first, made.open = bar.first, bar.open
            if bar.last > made.last:
                made.last, made.close = bar.last, bar.close
    return made


class Bars:
    """Asks DuckDB over the archive's files of trades, within bounded memory; `broken` names files left out.

    `spill` is a folder of this process alone, for what does not fit.
    """

    def __init__(self, archive: Archive, spill: Path) -> None:
        self._archive = archive
        self._footers: dict[str, tuple[int, dict[str, Shape]]] = {}
        self.broken: set[str] = set()
        spill.parent.mkdir(parents=True, exist_ok=True)  # DuckDB makes its own in it when it must, and clears it
        options: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": str(spill),
        }
        options["max_temp_directory_size"] = SPILLED
        self._duck = duckdb.connect(":memory:", config=options)
        self._duck.execute("SET preserve_insertion_order = false")
        if not archive.local:
            self._duck.register_filesystem(archive.filesystem)

    def close(self) -> None:
        """Give back what DuckDB holds."""
        self._duck.close()

    def of(
        self,
        pair: str,
        venues: Sequence[str],
        window_us: tuple[int, int],
        tail: Mapping[str, Rows],
        interval_us: int | None = None,
    ) -> list[Bar]:
        """Return a pair's bars by venue and interval in [start, end).

        Without an interval there is one bar a venue, of sums alone. `tail` is what is not archived yet, by venue.
        A bar without trades is left out. Raises ArchiveError.
        """
        first_ms, last_ms = window_us[0] // 1000 - EARLY_MS, window_us[1] // 1000 + LATE_MS
        for attempt in range(3):
            files = {
                venue: self._readable(self._archive.between(Series(Kind.TRADES, venue, pair), first_ms, last_ms))
                for venue in venues
            }
            try:
                return self._bars({venue: each for venue, each in files.items() if each}, tail, window_us, interval_us)
            except (duckdb.Error, OSError, ArrowException) as error:
                # A file is broken inside, or was made one with others meanwhile.
                for file in (file for each in files.values() for file in each):
                    if self._archive.broken(file) is not None:
                        self.broken.add(file.path)
                if attempt == 2:  # noqa: PLR2004 -- the last
                    raise ArchiveError(self._archive.url, error) from error
        raise AssertionError

    def _readable(self, files: Iterable[File]) -> list[File]:
        """Return those files whose footers can be read, and remember how large their numbers are."""
        found = []
        for file in files:
            if file.path in self.broken:
                continue
            if file.path not in self._footers:
                try:
                    footer = self._archive.footer(file)
                except FileNotFoundError:
                    continue
                except (OSError, ArrowException):
                    self.broken.add(file.path)
                    continue
                self._footers[file.path] = footer.num_rows, shapes_of(footer, DECIMALS[Kind.TRADES])
            found.append(file)
        return found

    def _bars(
        self,
        files: Mapping[str, Sequence[File]],
        tail: Mapping[str, Rows],
        window_us: tuple[int, int],
        interval_us: int | None,
    ) -> list[Bar]:
        tables = {venue: rows.table() for venue, rows in tail.items() if len(rows)}
        if not files and not tables:
            return []
        count, shapes = self._sizes(files, tables)
        digits = sum(shape.whole + shape.scale for shape in shapes.values())
        if digits + len(str(count)) > WIDE:  # a sum of products might not fit
            return _by_hand(self._rows(files, tables), window_us, interval_us)
        query = _query(self._sources(files, tables), shapes, interval_us)
        parameters = {"start": window_us[0], "end": window_us[1], "again": TOLD_AGAIN_US}
        if interval_us is not None:
            parameters["interval"] = interval_us
        return [Bar(*row) for row in self._duck.execute(query, parameters).fetchall()]

    def _sizes(self, files: Mapping[str, Sequence[File]], tables: Mapping[str, Any]) -> tuple[int, dict[str, Shape]]:
        """Return the number of rows, and the shape that holds the prices, and that of the sizes."""
        known = [self._footers[file.path] for each in files.values() for file in each]
        known += [(table.num_rows, _shapes_of_table(table)) for table in tables.values()]
        shapes: dict[str, Shape] = {}
        for _, told in known:
            for name, shape in told.items():
                shapes[name] = shapes.get(name, Shape()).over(shape)
        return sum(count for count, _ in known), shapes

    def _sources(self, files: Mapping[str, Sequence[File]], tables: Mapping[str, Any]) -> list[str]:
        """Return each venue's rows as SQL."""
        sources = []
        for venue, each in files.items():
            paths = ", ".join(_text(self._archive.address(file.path)) for file in each)
            # Without union_by_name DuckDB takes the first file's scale for all, and rounds what is finer.
            read = f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"
            sources.append(f"SELECT {_text(venue)} AS venue, * FROM {read}")
        for place, (venue, table) in enumerate(tables.items()):
            self._duck.register(f"tail_{place}", table)
            sources.append(f"SELECT {_text(venue)} AS venue, * FROM tail_{place}")
        return sources

    def _rows(self, files: Mapping[str, Sequence[File]], tables: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        for venue, each in files.items():
            for file in each:
                for batch in self._archive.parts(file):
                    yield from _plain_rows(venue, pa.Table.from_batches([batch]))
        for venue, table in tables.items():
            yield from _plain_rows(venue, table)


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _query(sources: Sequence[str], shapes: Mapping[str, Shape], interval_us: int | None) -> str:
    numbers = ", ".join(
        f"{name}::DECIMAL({max(1, shape.whole + shape.scale)}, {shape.scale}) AS {name}"
        for name, shape in shapes.items()
    )
    others = ", ".join(name for name in COLUMNS if name not in shapes)
    order = ", ".join(ORDER)
    # Of two narrow decimals DuckDB makes a narrow product, and refuses one that is wider.
    product = f"price::DECIMAL({WIDE}, {shapes['price'].scale}) * size"
    near = "time_us >= $start - $again AND time_us < $end + $again"
    union = " UNION ALL BY NAME ".join(f"SELECT {others}, {numbers} FROM ({source}) WHERE {near}" for source in sources)
    # Most trades are told once: sorting all of them to find the others costs as much as all the rest.
    again = "SELECT venue, product_id, trade_id FROM told GROUP BY ALL HAVING count(*) > 1"
    once = f"""
        SELECT * FROM told ANTI JOIN again USING (venue, product_id, trade_id)
        UNION ALL BY NAME
        SELECT * FROM told SEMI JOIN again USING (venue, product_id, trade_id)
        QUALIFY row_number() OVER (PARTITION BY venue, product_id, trade_id ORDER BY {order}) = 1"""
    counted = "SELECT * FROM once WHERE time_us >= $start AND time_us < $end"
    if interval_us is None:
        return f"""
            WITH told AS MATERIALIZED ({union}), again AS MATERIALIZED ({again}), once AS ({once})
            SELECT venue, min(time_us), count(*), sum(size), sum({product}), min(time_us), max(time_us)
            FROM ({counted}) GROUP BY venue ORDER BY venue"""
    return f"""
        WITH told AS MATERIALIZED ({union}), again AS MATERIALIZED ({again}), once AS ({once}),
             numbered AS (SELECT *, row_number() OVER (ORDER BY {order}) - 1 AS number FROM ({counted}))
        SELECT venue, time_us // $interval * $interval AS start_us, count(*), sum(size), sum({product}),
               min(time_us), max(time_us), coalesce(sum(size) FILTER (taker_side = 'buy'), 0),
               arg_min(price, number), max(price), min(price), arg_max(price, number), min(number), max(number)
        FROM numbered GROUP BY ALL ORDER BY start_us, venue"""


def _shapes_of_table(table: Any) -> dict[str, Shape]:  # noqa: ANN401 -- pyarrow carries no types
    types = {name: table.schema.field(name).type for name in DECIMALS[Kind.TRADES]}
    return {name: Shape(kind.precision - kind.scale, kind.scale) for name, kind in types.items()}


def _plain_rows(venue: str, table: Any) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401 -- likewise
    columns = [table.column(name).to_pylist() for name in COLUMNS[1:]]
    for row in zip(*columns, strict=True):
        yield (venue, *row)


def _by_hand(rows: Iterable[tuple[Any, ...]], window_us: tuple[int, int], interval_us: int | None) -> list[Bar]:
    """Return the same bars with Python's decimals, which have as many digits as they need."""
    place = COLUMNS.index(ORDER[0])
    told: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    for row in rows:
        if window_us[0] - TOLD_AGAIN_US <= row[place] < window_us[1] + TOLD_AGAIN_US:
            before = told.get(row[:3])
            if before is None or row[place:] < before[place:]:
                told[row[:3]] = row
    once = [row for row in told.values() if window_us[0] <= row[place] < window_us[1]]
    bars: dict[tuple[int, str], list[Bar]] = {}
    with localcontext(EXACT):
        for number, row in enumerate(sorted(once, key=lambda row: row[place:])):
            venue, _, _, price, size, side, time_us = row[: place + 1]
            start_us = 0 if interval_us is None else time_us // interval_us * interval_us
            bought = size if side == "buy" else ZERO
            told_of = (venue, start_us, 1, size, price * size, time_us, time_us, bought, price, price, price, price)
            bars.setdefault((start_us, venue), []).append(Bar(*told_of, number, number))
    whole = (joined(each, venue, start_us) for (start_us, venue), each in sorted(bars.items()))
    return [bar for bar in whole if bar is not None]
