"""Where a file of the archive lies, and what its name says. docs/archive.md shows it to those who read it themselves.

A file holds what a range of the bus's entries told of one series; the range is in its name. So the archive
itself says how far it is, and no position is kept anywhere else.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote, unquote

DAY_MS = 86_400_000
SUFFIX = ".parquet"
# Where the entry of a trade is looked for: from its own time on, and a venue's clock may be ahead of ours.
EARLY_MS = 60_000
LATE_MS = 600_000
_NAME = re.compile(r"(trades|quotes|spans)-(\d+)\.(\d+)-(\d+)\.(\d+)\.parquet", re.ASCII)


class Kind(StrEnum):
    """What a file holds."""

    TRADES = "trades"
    QUOTES = "quotes"
    SPANS = "spans"  # of a venue: they are of no pair


class Entry(NamedTuple):
    """The number of an entry on the bus: milliseconds of Redis's clock, and a count within one."""

    ms: int
    seq: int

    @classmethod
    def read(cls, text: bytes) -> "Entry":
        """Return an entry's number as Redis writes it."""
        ms, _, seq = text.partition(b"-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}.{self.seq}"


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """What one file tells of. `pair` is None for spans."""

    kind: Kind
    venue: str
    pair: str | None = None

    @property
    def folder(self) -> str:
        """The folder of its days, under that of the market."""
        parts = [self.kind.value, f"venue={quote(self.venue, safe='')}"]
        return "/".join(parts if self.pair is None else [*parts, f"pair={quote(self.pair, safe='')}"])


@dataclass(frozen=True, slots=True)
class File:
    """A file of the archive. Its path is the filesystem's own; `size` is in bytes."""

    path: str
    kind: Kind
    venue: str
    first: Entry
    last: Entry
    size: int = 0


def day_of(ms: int) -> str:
    """Return the day of an entry, UTC, as folders are named."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d")


def name_of(kind: Kind, first: Entry, last: Entry) -> str:
    """Return a file's name."""
    return f"{kind}-{first}-{last}{SUFFIX}"


def file_at(path: str, venue: str, size: int = 0) -> File | None:
    """Return what a file's name says, or None where it is not one of ours."""
    found = _NAME.fullmatch(path.rpartition("/")[2])
    if found is None:
        return None
    first, last = (Entry(int(found[place]), int(found[place + 1])) for place in (2, 4))
    return File(path, Kind(found[1]), venue, first, last, size)


def value_of(folder: str) -> str:
    """Return what a folder is named after: the venue of `venue=binance`."""
    return unquote(folder.rstrip("/").rpartition("=")[2])
