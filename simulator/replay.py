"""Recorded sessions, in the three forms that docs/sessions.md describes."""

import base64
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

from simulator.wire import Wire

LOOKED_AT = 500  # frames of a file that are looked at for the products that it has
PAUSE_S_MAX = 60.0  # sessions of different days are played one after the other
BETWEEN_ROUNDS_S = 1.0
GZIPPED = ".gzip_frames.b64.txt"  # frames that were compressed on the wire, in base64
FORMS = (".raw.gz", ".jsonl.gz", ".jsonl", GZIPPED)
FOREIGN = ("kraken_v1_",)  # an older API, which nobody here speaks


class SessionError(Exception):
    """A folder or file that holds no session; the sentence says what was looked for."""


@dataclass(frozen=True)
class Replay:
    """Sessions of one venue, and how to play them."""

    files: tuple[Path, ...]
    speed: float = 1.0
    loop: bool = False

    def frames(self, wire: Wire) -> Iterator[tuple[float, str]]:
        """Yield each frame with the seconds since the first one, at the replay's speed.

        Files are merged by the time of receipt. With `loop` it never ends: ids and the venue's times
        go on rising from round to round, so that nobody takes a frame of the second round for a late one.
        """
        rounds, begun_s, at_s = Rounds(wire), 0.0, 0.0
        while True:
            for at_s, frame in self._once():
                yield (begun_s + at_s) / self.speed, rounds.renumbered(frame) if self.loop else frame
            if not self.loop:
                return
            rounds.turn(at_s + BETWEEN_ROUNDS_S)
            begun_s += at_s + BETWEEN_ROUNDS_S

    def _once(self) -> Iterator[tuple[float, str]]:
        at_s, before_s = 0.0, None
        for time_s, frame in heapq.merge(*map(read, self.files), key=itemgetter(0)):
            if before_s is not None:
                at_s += min(time_s - before_s, PAUSE_S_MAX)
            before_s = time_s
            yield at_s, frame


class Rounds:
    """What is added to a session's counters and times in the rounds after the first."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._seen: dict[str, tuple[int, int]] = {}  # the lowest and highest value of each counter
        self._added: dict[str, int] = {}
        self._later_us = 0

    def renumbered(self, frame: str) -> str:
        """Return a frame as it is in this round."""
        return self._wire.renumbered(frame, self._number, self._later_us)

    def turn(self, length_s: float) -> None:
        """Begin the next round; the one before took so many seconds of the session's time."""
        step = 0 if self._wire.first_again else 1
        for counter, (low, high) in self._seen.items():
            self._added[counter] = self._added.get(counter, 0) + high - low + step
        self._later_us += round(length_s * 1_000_000)

    def _number(self, counter: str, value: int) -> int:
        low, high = self._seen.get(counter, (value, value))
        self._seen[counter] = min(low, value), max(high, value)
        return value + self._added.get(counter, 0)


def find(path: Path, products: Mapping[str, Iterable[str]], *, speed: float, loop: bool) -> dict[str, Replay]:
    """Return the replay of each venue that has a session at `path`: a folder (or its `sessions`), or one file.

    `products` are the product ids by venue. A file belongs to the venue that its name begins with, and
    counts where it speaks of one of the products. Raises SessionError where there is none.
    """
    folder = path / "sessions" if (path / "sessions").is_dir() else path
    files = [path] if path.is_file() else sorted(file for form in FORMS for file in folder.glob(f"*{form}"))
    replays = {}
    for venue, ids in products.items():
        mine = tuple(file for file in files if _is_session(file, venue) and _speaks_of(file, ids))
        if mine:
            replays[venue] = Replay(mine, speed, loop)
    if not replays:
        raise SessionError(
            f"no session of {' or '.join(products)} with a pair that we list at {path}; "
            "a session's name begins with its venue (see docs/sessions.md)",
        )
    return replays


def _is_session(file: Path, venue: str) -> bool:
    name = file.name
    return name.startswith(f"{venue}_") and name.endswith(FORMS) and not name.startswith(FOREIGN)


def _speaks_of(file: Path, product_ids: Iterable[str]) -> bool:
    names = [*product_ids]
    return any(name in frame for _, frame in islice(read(file), LOOKED_AT) for name in names)


def read(file: Path) -> Iterator[tuple[float, str]]:
    """Yield (seconds, frame) of a session in any of its forms, up to where its recorder was cut off.

    Raises SessionError for a line that is in none of the forms.
    """
    times = _times_of(file)
    number = 0
    try:
        with _open(file) as lines:
            for number, line in enumerate(lines):
                yield _parsed(file, line.rstrip("\n"), times[number] if times is not None else None)
    except EOFError:
        return  # a recorder that was killed left an unfinished file; what is there is good
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SessionError(f"{file.name}, line {number + 1}: {error!r}; see docs/sessions.md") from error


def _parsed(file: Path, line: str, time_s: float | None) -> tuple[float, str]:
    if time_s is not None:
        return time_s, gzip.decompress(base64.b64decode(line)).decode() if file.name.endswith(GZIPPED) else line
    if file.name.endswith(".raw.gz"):
        stamp, _, frame = line.partition(" ")
        return int(stamp) / 1e9, frame
    entry = json.loads(line)
    return entry["t"] / 1e9, entry["f"]


def _times_of(file: Path) -> list[float] | None:
    """Return the times that stand beside a session of frames alone, or None for the other forms."""
    stem = file.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(GZIPPED)
    beside = file.with_name(f"{stem}.recv_ts.txt")
    return [float(line) for line in beside.read_text().split()] if beside.exists() else None


@contextmanager
def _open(file: Path) -> Iterator[IO[str]]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        yield lines
