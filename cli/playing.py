"""Replays spread over processes, by pair or by journal; what comes back is in one order however they were spread."""

import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cli.recordings import Session, Told
from models.domain.errors import CrossfillError
from models.domain.journal import Opening, read_opening
from models.domain.ledger import RULE_VERSION, RULES
from models.domain.replay import NoOpeningError, Placing, Played, Replay, rerun
from models.domain.shards import shard_of

Work = TypeVar("Work")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Rules:
    """How what was taken is forgotten, by name, and how long a venue without a mark is believed."""

    replenish: str
    silence_us: int

    def __str__(self) -> str:
        return f"{self.replenish}, {self.silence_us / 1e6:g} s"

    def as_json(self) -> dict[str, str | int]:
        """Return it as a line of JSON has it."""
        return {"replenish": self.replenish, "silence_us": self.silence_us, "version": RULE_VERSION}


@dataclass(frozen=True)
class Run:
    """What became of the orders, in accept order; quotes and connections by venue."""

    played: Sequence[Played]
    quotes: Mapping[str, int] = field(default_factory=dict)
    connections: Mapping[str, int] = field(default_factory=dict)

    @property
    def heard(self) -> list[str]:
        """What the venues said, in a line or two."""
        counts = (f"{count:,} of {venue}" for venue, count in sorted(self.quotes.items()))
        again = [f"{count:,} of {venue}" for venue, count in sorted(self.connections.items()) if count > 1]
        lines = [f"quotes: {', '.join(counts)}"] if self.quotes else []
        return [*lines, *([f"connections, because of holes: {', '.join(again)}"] if again else [])]


class JournalError(CrossfillError):
    """A journal that cannot be played; the sentence names file and line."""


def play_session(session: Session, placings: Iterable[Placing], rules: Rules, workers: int) -> Run:
    """Return what became of orders in a session, computed by so many processes.

    Each process reads the whole session, because the number of a quote counts all quotes of its connection, and
    fills the orders of its share of the pairs.
    """
    shares: dict[int, list[Placing]] = {}
    for placing in placings:
        shares.setdefault(shard_of(placing.order.symbol, workers), []).append(placing)
    runs = _spread(_play_share, [(session, share, rules) for _, share in sorted(shares.items())], workers)
    return Run(_merged(run.played for run in runs), runs[0].quotes, runs[0].connections)


def _play_share(work: tuple[Session, list[Placing], Rules]) -> Run:
    session, placings, rules = work
    symbols = sorted({placing.order.symbol for placing in placings})
    books = Replay(
        [session.instruments[symbol] for symbol in symbols], silence_us=rules.silence_us, ledger=RULES[rules.replenish]
    )
    told = Told(session)
    played = books.run(told, placings, session.ended_us)
    return Run(played, dict(told.quotes), told.connections)


@dataclass(frozen=True)
class Journals:
    """The journals of each shard in the order of their epochs, and by which rules they were written."""

    shards: Sequence[tuple[Path, ...]]
    silence_us: int
    rule_versions: frozenset[int]


def open_journals(path: Path) -> Journals:
    """Look through journals: one file, or a loop's folder of them (SHARD-EPOCH.jsonl). Raises JournalError."""
    files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise JournalError(
            f"{path} holds no journal, as 000-000001.jsonl: loops write them where CROSSFILL_JOURNAL says"
        )
    shards: dict[str, list[Path]] = {}
    for file in files:
        shards.setdefault(file.name.partition("-")[0], []).append(file)
    openings = [_opening(file) for file in files]
    silences = {opening.silence_us for opening in openings}
    if len(silences) > 1:
        raise JournalError(f"the journals at {path} are of runs with different limits of silence; name one file")
    versions = frozenset(opening.rule_version for opening in openings)
    return Journals([tuple(some) for some in shards.values()], silences.pop(), versions)


def _opening(file: Path) -> Opening:
    for line, entry in _entries(file):
        try:
            opening = read_opening(entry)
        except (ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise JournalError(f"{file}, line {line}: no book can be opened from it: {error!r}") from error
        if opening is not None:
            return opening
        break
    raise JournalError(f"{file} does not begin with the book that its steps were for; was it written by a loop?")


def _entries(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line and entry. A last line that was cut off is left out: its step was never done."""
    try:
        with file.open(encoding="utf-8") as lines:
            for line, text in enumerate(lines, 1):
                if not text.endswith("\n"):
                    return
                entry = json.loads(text)
                if not isinstance(entry, dict):
                    raise JournalError(f"{file}, line {line}: no entry of a journal")
                yield line, entry
    except (OSError, ValueError) as error:
        raise JournalError(f"{file} cannot be read as a journal: {error}") from error


def play_journals(journals: Journals, rules: Rules, workers: int) -> Run:
    """Do a loop's steps again. Raises JournalError."""
    return Run(_merged(_spread(_play_journal, [(files, rules) for files in journals.shards], workers)))


def _play_journal(work: tuple[tuple[Path, ...], Rules]) -> list[Played]:
    files, rules = work
    here = [files[0], 0]

    def entries() -> Iterator[dict[str, Any]]:
        for file in files:
            for line, entry in _entries(file):
                here[:] = file, line
                yield entry

    try:
        return rerun(entries(), silence_us=rules.silence_us, ledger=RULES[rules.replenish])
    except NoOpeningError as error:
        raise JournalError(f"{here[0]}, line {here[1]}: {error}") from error
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise JournalError(f"{here[0]}, line {here[1]}: no step of a loop: {error!r}") from error


def _merged(parts: Iterable[Iterable[Played]]) -> list[Played]:
    return sorted((each for part in parts for each in part), key=lambda each: each.order.seq)


def _spread(work: Callable[[Work], Answer], shares: Sequence[Work], workers: int) -> list[Answer]:
    """Do shares of work in so many processes, here where one is enough."""
    if min(len(shares), workers) <= 1:
        return [work(share) for share in shares]
    with ProcessPoolExecutor(min(len(shares), workers), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(work, shares))
