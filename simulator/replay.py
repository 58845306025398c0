"""Recorded sessions, in the three forms that docs/sessions.md describes."""

import gzip
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO

LOOKED_AT = 500  # frames of a file that are looked at for the products that it has


class SessionError(Exception):
    """A folder or file that holds no session; the sentence says what was looked for."""


@dataclass(frozen=True)
class Replay:
    """Sessions of one venue, and how to play them."""

    files: tuple[Path, ...]
    speed: float
    loop: bool

    def frames(self) -> Iterator[tuple[float, str]]:
        """Yield each frame with the seconds since the first of its file, at the replay's speed, in order."""
        for time_s, frame in heapq.merge(*map(_from_start, self.files), key=itemgetter(0)):
            yield time_s / self.speed, frame


def find(path: Path, products: Mapping[str, Iterable[str]], *, speed: float, loop: bool) -> dict[str, Replay]:
    """Return the replay of each venue that has a session at `path`, a folder or one file.

    `products` are the product ids by venue. A file belongs to the venue that its name begins with, and
    counts where it speaks of one of the products. Raises SessionError where there is none.
    """
    files = [path] if path.is_file() else sorted([*path.glob("*.gz"), *path.glob("*.jsonl")])
    replays = {}
    for venue, ids in products.items():
        mine = tuple(file for file in files if _is_session(file, venue) and _speaks_of(file, ids))
        if mine:
            replays[venue] = Replay(mine, speed, loop)
    if not replays:
        raise SessionError(f"no session of {' or '.join(products)} at {path}; a session's name begins with its venue")
    return replays


def _is_session(file: Path, venue: str) -> bool:
    return file.name.startswith(venue) and file.name.endswith((".raw.gz", ".jsonl.gz", ".jsonl"))


def _speaks_of(file: Path, product_ids: Iterable[str]) -> bool:
    names = [f'"{product_id}"' for product_id in product_ids]
    return any(name in frame for _, frame in islice(_read(file), LOOKED_AT) for name in names)


def _from_start(file: Path) -> Iterator[tuple[float, str]]:
    first: float | None = None
    for time_s, frame in _read(file):
        first = time_s if first is None else first
        yield time_s - first, frame


def _read(file: Path) -> Iterator[tuple[float, str]]:
    """Yield (seconds, frame) of a session in any of its forms."""
    times = _times_of(file)
    with _open(file) as lines:
        for number, line in enumerate(lines):
            text = line.rstrip("\n")
            if times is not None:
                yield times[number], text
            elif file.name.endswith(".raw.gz"):
                stamp, _, frame = text.partition(" ")
                yield int(stamp) / 1e9, frame
            else:
                entry = json.loads(text)
                yield entry["t"] / 1e9, entry["f"]


def _times_of(file: Path) -> list[float] | None:
    """Return the times that stand beside a session of frames alone, or None for the other forms."""
    stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
    beside = file.with_name(f"{stem}.recv_ts.txt")
    return [float(line) for line in beside.read_text().split()] if beside.exists() else None


@contextmanager
def _open(file: Path) -> Iterator[IO[str]]:
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        yield lines
