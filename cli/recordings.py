"""Recorded sessions as their venues' collectors would have told of them, by the recording's own clock."""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import msgspec

from exchanges.protocol import Gap, Unknown, VenueProtocol
from exchanges.registry import PROTOCOLS
from models.domain.instruments import INSTRUMENTS, Instruments
from models.domain.quotes import Mark, Quote
from simulator.replay import find, read

MARK_US = 500_000  # as often as collectors mark


@dataclass(frozen=True)
class Session:
    """The files of each venue, when their first and last frames were received, and how many there are.

    `instruments` are the pairs that are asked for, as in a collector's subscriptions.
    """

    instruments: Instruments
    files: Mapping[str, tuple[Path, ...]]
    begun_us: int
    ended_us: int
    frames: int


def open_session(path: Path, instruments: Instruments = INSTRUMENTS) -> Session:
    """Look through a session: one file, or a folder of them. Raises SessionError where there is none."""
    found = find(path, {venue: instruments.products_of(venue) for venue in PROTOCOLS}, speed=1, loop=False)
    files = {venue: replay.files for venue, replay in sorted(found.items())}
    times = [_us(time_s) for some in files.values() for file in some for time_s, _ in read(file)]
    return Session(instruments, files, min(times), max(times), len(times))


def _us(time_s: float) -> int:
    return round(time_s * 1e6)


class _Line:
    """One venue's connection, as far as its recording tells."""

    def __init__(self, venue: str, product_ids: Sequence[str]) -> None:
        self.venue = venue
        self._product_ids = product_ids
        self.token = 0
        self.number = 0
        self.heard_us: int | None = None  # None: nothing yet, or not to be believed any more
        self.protocol = self._made()
        self._silence_us = round(self.protocol.limits.silence_s * 1e6)

    def _made(self) -> VenueProtocol:
        return PROTOCOLS[self.venue](None, self._product_ids, 0)

    def alive(self, now_us: int) -> bool:
        return self.heard_us is not None and now_us - self.heard_us <= self._silence_us

    def connect(self, now_us: int) -> Mark:
        self.token += 1
        self.number = 0
        return Mark(self.venue, self.token, now_us)

    def take(self, now_us: int, frame: str) -> list[Quote | Mark]:
        """Return what a frame says; the connection is a new one after a silence, or where its book is not believed."""
        items: list[Quote | Mark] = [] if self.alive(now_us) else [self.connect(now_us)]
        self.heard_us = now_us
        for event in self.protocol.decode(frame.encode(), now_us):
            if isinstance(event, Quote):
                self.number += 1
                items.append(msgspec.structs.replace(event, token=self.token, number=self.number))
            elif isinstance(event, Gap | Unknown) and event.resync:
                # A collector would connect again, and so learn the book anew; the recording may not have that.
                self.protocol = self._made()
                items.append(self.connect(now_us))
        return items


class Told:
    """What a session's venues told, in order of time: quotes as they came, and marks.

    Frames are merged by the time of their receipt, those of one moment by the venue's name; a time
    that goes back is taken for the newest so far. A venue is marked with its first frame and then twice a
    second, for as long as a frame came within its protocol's limit of silence. `quotes` and
    `connections` count by venue what was told so far.
    """

    def __init__(self, session: Session) -> None:
        self.quotes: Counter[str] = Counter()
        self._session = session
        self._lines = {venue: _Line(venue, tuple(session.instruments.products_of(venue))) for venue in session.files}

    @property
    def connections(self) -> dict[str, int]:
        """How many connections each venue had: more than one where the recording has holes or lost something."""
        return {venue: line.token for venue, line in self._lines.items()}

    def __iter__(self) -> Iterator[tuple[int, list[Quote | Mark]]]:
        """Yield the microsecond and what was told then, where that is anything."""
        mark_us, now_us = self._session.begun_us + MARK_US, self._session.begun_us
        for time_us, venue, frame in self._frames():
            now_us = max(now_us, time_us)
            while mark_us < now_us:
                marks = self._marks(mark_us)
                if not marks:  # until the next frame nobody lives: the hole may be of years
                    mark_us += (now_us - mark_us) // MARK_US * MARK_US
                else:
                    yield mark_us, marks
                mark_us += MARK_US
            items = self._lines[venue].take(now_us, frame)
            if items:
                self.quotes[venue] += sum(isinstance(item, Quote) for item in items)
                yield now_us, items

    def _marks(self, now_us: int) -> list[Quote | Mark]:
        return [Mark(line.venue, line.token, now_us) for line in self._lines.values() if line.alive(now_us)]

    def _frames(self) -> Iterator[tuple[int, str, str]]:
        streams = (_frames(venue, file) for venue, files in self._session.files.items() for file in files)
        return heapq.merge(*streams, key=itemgetter(0, 1))


def _frames(venue: str, file: Path) -> Iterator[tuple[int, str, str]]:
    return ((_us(time_s), venue, frame) for time_s, frame in read(file))
