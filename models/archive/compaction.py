"""Many small files into one, once nothing comes to them any more."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from models.archive.files import OPTIONS, PART_ROWS, Archive
from models.archive.layout import Entry, File, Series
from models.archive.rows import DECIMALS, Shape

HOUR_MS = 3_600_000


def compact_day(archive: Archive, series: Series, day: str, *, hourly: bool, now_ms: int) -> list[str]:
    """Make one file of a finished day's, or of each finished hour of a day that lasts; return names of broken files.

    Killed at any moment it leaves everything at least once: the sources go when the whole is there, and what is there
    twice is seen as such by the numbers of its entries. A broken file stays as it is. Raises ArchiveError.
    """
    files = archive.of_day(series, day)
    groups: dict[int, list[File]] = {}
    for file in files:
        if not hourly or file.first.ms // HOUR_MS == file.last.ms // HOUR_MS < now_ms // HOUR_MS:
            groups.setdefault(file.first.ms // HOUR_MS if hourly else 0, []).append(file)
    return [name for group in groups.values() if len(group) > 1 for name in _merge(archive, series, group)]


def _merge(archive: Archive, series: Series, files: Sequence[File]) -> list[str]:
    broken = [file.path for file in files if archive.broken(file) is not None]
    whole = [file for file in files if file.path not in broken]
    if len(whole) < 2:  # noqa: PLR2004 -- one is one already
        return broken
    try:
        schema = _schema(archive, series, whole)
        first, last = whole[0].first, max(file.last for file in whole)
        with archive.writing(series, first, last) as writing:
            _copy(archive, whole, schema, writing.stream)
    except FileNotFoundError:
        return broken  # another archivist was faster
    archive.delete(file for file in whole if file.path != writing.file.path)
    return broken


def _schema(archive: Archive, series: Series, files: Sequence[File]) -> Any:  # noqa: ANN401 -- pyarrow carries no types
    """Return a schema with room for every file's decimals."""
    shapes: dict[str, Shape] = {}
    for file in files:
        for name, shape in shapes_of(archive.footer(file), DECIMALS[series.kind]).items():
            shapes[name] = shapes.get(name, Shape()).over(shape)
    with archive.filesystem.open(files[0].path, "rb") as stream:
        schema = pq.read_schema(stream).remove_metadata()
    for name, shape in shapes.items():
        place = schema.get_field_index(name)
        schema = schema.set(place, pa.field(name, shape.type))
    return schema


def shapes_of(footer: Any, names: Sequence[str]) -> dict[str, Shape]:  # noqa: ANN401 -- pyarrow carries no types
    """Return how large the numbers of a file's decimal columns are, as its statistics say or its types allow."""
    schema = footer.schema.to_arrow_schema()
    shapes = {}
    for name in names:
        place, kind = schema.get_field_index(name), schema.field(name).type
        whole = 0
        for group in range(footer.num_row_groups):
            column = footer.row_group(group).column(place)
            told = column.statistics
            if told is None or (not told.has_min_max and told.null_count != column.num_values):
                whole = kind.precision - kind.scale
                break
            if told.has_min_max:
                largest = max(abs(told.min), abs(told.max))
                whole = max(whole, largest.adjusted() + 1 if largest else 0)
        shapes[name] = Shape(max(0, whole), kind.scale)
    return shapes


def _copy(archive: Archive, files: Sequence[File], schema: Any, stream: Any) -> None:  # noqa: ANN401 -- likewise
    """Write the rows of files whose ranges are in order; an entry that two of them tell of is copied once."""
    done: Entry | None = None
    held: list[Any] = []
    with pq.ParquetWriter(stream, schema, **OPTIONS) as writer:
        for file in files:
            for batch in archive.parts(file):
                fresh = batch if done is None else batch.filter(_after(batch, done))
                held.append(pa.Table.from_batches([fresh]).cast(schema))
                if sum(part.num_rows for part in held) >= PART_ROWS:  # many small row groups are slow to read
                    writer.write_table(pa.concat_tables(held))
                    held = []
            done = file.last if done is None else max(done, file.last)
        if held:
            writer.write_table(pa.concat_tables(held))


def _after(batch: Any, entry: Entry) -> Any:  # noqa: ANN401 -- likewise
    ms, seq = batch.column("entry_ms"), batch.column("entry_seq")
    same = pc.and_(pc.equal(ms, entry.ms), pc.greater(seq, entry.seq))
    return pc.or_(pc.greater(ms, entry.ms), same)
