"""Entries of a range of time, read back from the archive as they were on the bus."""

from typing import Any

import pyarrow.compute as pc
from pyarrow import ArrowException

from models.archive.files import Archive
from models.archive.layout import Entry, Kind, Series
from models.archive.rows import chunks_of, spans_of
from models.domain.history import Chunk, Span


def read_chunks(archive: Archive, pair: str, first_ms: int, last_ms: int, broken: set[str]) -> dict[Entry, Chunk]:
    """Return a pair's entries of a range, both ends included, each once. Raises ArchiveError.

    The names of files that cannot be read are added to `broken`, and the others are read.
    """
    found: dict[Entry, Chunk] = {}
    for venue in sorted({*archive.venues(Kind.TRADES), *archive.venues(Kind.QUOTES)}):
        rows = [
            _rows(archive, Series(kind, venue, pair), first_ms, last_ms, broken) for kind in (Kind.TRADES, Kind.QUOTES)
        ]
        found |= chunks_of(archive.market, venue, *rows)
    return found


def read_spans(archive: Archive, venue: str, first_ms: int, last_ms: int, broken: set[str]) -> dict[Entry, Span]:
    """Return a venue's spans of a range of entries likewise. Raises ArchiveError."""
    return spans_of(archive.market, venue, _rows(archive, Series(Kind.SPANS, venue), first_ms, last_ms, broken))


def _rows(archive: Archive, series: Series, first_ms: int, last_ms: int, broken: set[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for file in archive.between(series, first_ms, last_ms):
        mine: list[dict[str, Any]] = []
        try:
            for batch in archive.parts(file):
                ms = batch.column("entry_ms")
                mine += batch.filter(pc.and_(pc.greater_equal(ms, first_ms), pc.less_equal(ms, last_ms))).to_pylist()
        except FileNotFoundError:
            # It was made one with others meanwhile: that one has what this one had.
            return _rows(archive, series, first_ms, last_ms, broken)
        except (OSError, ArrowException):
            broken.add(file.path)
            continue
        rows += mine
    return rows
