"""`crossfill audit verify`: recompute what is stored, and say what does not hold."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from cli.evidence import Recording
    from models.domain.audit import SymbolOf, Violation
    from models.domain.instruments import Instruments
    from models.domain.records import AuditedSplit
    from models.settings import Settings
    from models.store.audit import Story
    from models.store.database import Database

audit = typer.Typer(help="The audit log: what was filled, from what, in a chain of hashes.", no_args_is_help=True)

HOLDS, BROKEN, UNKNOWN = 0, 1, 2  # exit statuses
VIOLATIONS_MAX = 1_000  # sentences kept; beyond it they are counted
_HEAD = re.compile(r"(\d{1,9}):(\d{1,18}):([0-9a-f]{64})")
_Row = TypeVar("_Row")


@audit.callback()
def _group() -> None:
    """Make `verify` a command of a group, although it is the only one."""


@dataclass
class Findings:
    """What was checked, what could not be, and what does not hold."""

    checked: Counter[str] = field(default_factory=Counter)
    unchecked: Counter[str] = field(default_factory=Counter)
    violations: list["Violation"] = field(default_factory=list)
    count: int = 0

    def add(self, found: Iterable["Violation"]) -> None:
        """Take in violations; of very many the first are kept."""
        for each in found:
            self.count += 1
            if len(self.violations) < VIOLATIONS_MAX:
                self.violations.append(each)


def verify(
    order: Annotated[str | None, typer.Argument(help="An order's id; none: all that is stored.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that is stored (as without an order).")] = False,
    session: Annotated[Path | None, typer.Option(help="A recorded session, or a folder of them.")] = None,
    head: Annotated[list[str] | None, typer.Option(help="A head that was kept, SHARD:NUMBER:HASH.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON.")] = False,
) -> None:
    """Recompute fills, levels, averages and the audit log. Status 0: all holds; 1: not all; 2: cannot say."""
    from sqlalchemy.exc import ArgumentError, DatabaseError  # noqa: PLC0415 -- the help needs none of it

    from models.domain.errors import CrossfillError  # noqa: PLC0415 -- likewise
    from models.settings import Settings  # noqa: PLC0415 -- likewise
    from simulator.replay import SessionError  # noqa: PLC0415 -- likewise

    if order is not None and (everything or head):
        _cannot("give either an order, or --all and heads that were kept")
    kept = _kept(head or [])
    try:
        findings = _verified(Settings(), order, session, kept)
    except (CrossfillError, SessionError, OSError) as error:
        _cannot(str(error))
    except ArgumentError:  # it would quote the address, and with it a password
        _cannot("CROSSFILL_DATABASE_URL is not the address of a database that SQLAlchemy knows")
    except DatabaseError as error:
        _cannot(f"the database cannot be read: {error.orig}")
    typer.echo(json.dumps(_as_json(findings)) if as_json else "\n".join(_as_text(findings)))
    raise typer.Exit(BROKEN if findings.count else HOLDS)


audit.command()(verify)


def _cannot(sentence: str) -> NoReturn:
    typer.echo(f"crossfill: {sentence}", err=True)
    raise typer.Exit(UNKNOWN)


def _kept(texts: Iterable[str]) -> dict[int, dict[int, str]]:
    kept: dict[int, dict[int, str]] = defaultdict(dict)
    for text in texts:
        match = _HEAD.fullmatch(text.strip().lower())
        if match is None:
            _cannot(f"--head {text}: give SHARD:NUMBER:HASH, as GET /audit/head and the log have them")
        shard, number, hashed = int(match[1]), int(match[2]), match[3]
        if kept[shard].setdefault(number, hashed) != hashed:
            _cannot(f"--head {text}: another hash was given for the same record")
    return kept


def _verified(
    settings: "Settings", order: str | None, session: Path | None, kept: dict[int, dict[int, str]]
) -> Findings:
    from cli.evidence import Recording  # noqa: PLC0415 -- it needs every exchange
    from models.store import audit as stored  # noqa: PLC0415 -- slow to load
    from models.store.listings import instruments  # noqa: PLC0415 -- likewise

    database = _opened(settings)
    findings = Findings()
    try:
        with stored.snapshot(database) as connection:
            known = instruments(connection)
            seq = None
            if order is not None and (seq := stored.seq_of(connection, order)) is None:
                _cannot(f"there is no order {order}")
            with nullcontext() if session is None else Recording(session, known) as recording:
                _check(connection, findings, known, seq, kept, recording)
    finally:
        database.close()
    return findings


def _opened(settings: "Settings") -> "Database":
    from sqlalchemy import make_url  # noqa: PLC0415 -- slow to load

    from models.store.database import Database  # noqa: PLC0415 -- likewise
    from models.store.schema import check  # noqa: PLC0415 -- likewise

    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        _cannot(f"there is no database at {url.database}; run it where .crossfill is, or set CROSSFILL_HOME")
    database = Database.open(settings.database, pool_size=1)
    try:
        check(database)
    except BaseException:
        database.close()
        raise
    return database


def _check(
    connection: "Connection",
    findings: Findings,
    known: "Instruments",
    seq: int | None,
    kept: dict[int, dict[int, str]],
    recording: "Recording | None",
) -> None:
    from models.domain.audit import check_levels  # noqa: PLC0415 -- slow to load
    from models.domain.instruments import INSTRUMENTS  # noqa: PLC0415 -- likewise
    from models.store import audit as stored  # noqa: PLC0415 -- likewise

    def symbol_of(venue: str, product_id: str) -> str | None:
        instrument = known.of_product(venue, product_id) or INSTRUMENTS.of_product(venue, product_id)
        return None if instrument is None else instrument.symbol

    if seq is None:
        _check_chains(connection, findings, kept)
        _check_averages(connection, findings)
    _check_orders(connection, findings, symbol_of, seq)
    by_level = _counted(stored.splits_by_level(connection, seq), findings.checked, "splits on their levels")
    findings.add(_guarded("splits", check_levels(by_level)))
    if recording is not None:
        by_quote = _covered(stored.splits_by_quote(connection, seq), recording, findings)
        findings.add(_guarded("splits", recording.check(by_quote)))


def _counted(rows: Iterable[_Row], counts: Counter[str], name: str) -> Iterator[_Row]:
    for row in rows:
        counts[name] += 1
        yield row


def _guarded(table: str, found: Iterator["Violation"]) -> Iterator["Violation"]:
    """Yield violations, and one more where a row holds what is no value of its column; the rest is not checked."""
    from models.domain.audit import Violation  # noqa: PLC0415 -- slow to load

    try:
        yield from found
    except (ArithmeticError, ValueError, LookupError, TypeError) as error:
        sentence = f"a row of {table} cannot be read, and what follows it was not checked: {error!r}"
        yield Violation("row.unreadable", table, sentence)


def _check_chains(connection: "Connection", findings: Findings, kept: dict[int, dict[int, str]]) -> None:
    from models.domain.audit import check_chain  # noqa: PLC0415 -- slow to load
    from models.store import audit as stored  # noqa: PLC0415 -- likewise

    heads = {head.shard: head for head in stored.heads(connection)}
    for shard in sorted({*heads, *kept, *stored.shards_of_links(connection)}):
        links = _counted(stored.links(connection, shard), findings.checked, "records")
        findings.add(check_chain(shard, links, heads.get(shard), kept.get(shard, {})))
        findings.checked["chains"] += 1


def _check_orders(connection: "Connection", findings: Findings, symbol_of: "SymbolOf", seq: int | None) -> None:
    from models.store import audit as stored  # noqa: PLC0415 -- slow to load

    def found() -> Iterator["Violation"]:
        for story in stored.stories(connection, seq):
            findings.checked["orders"] += story.now is not None
            findings.checked["splits"] += len(story.splits)
            yield from _guarded(f"order {story.seq}", _check_story(story, findings, symbol_of))
            if seq is not None:
                yield from _check_links(connection, story, findings)

    findings.add(_guarded("orders", found()))


def _check_story(story: "Story", findings: Findings, symbol_of: "SymbolOf") -> Iterator["Violation"]:
    from models.domain.audit import check_order, check_orphans  # noqa: PLC0415 -- slow to load

    if story.now is None:
        yield from check_orphans(story.seq, story.links, story.splits)
        return
    before = sum(0 <= split.place[1] <= story.now.chained_from for split in story.splits)
    findings.unchecked["splits from before there was a log"] += before
    unknown = sum(symbol_of(split.venue, split.product_id) is None for split in story.splits)
    findings.unchecked["splits of products that are not listed any more"] += unknown
    yield from check_order(story.now, story.links, story.splits, symbol_of)


def _check_links(connection: "Connection", story: "Story", findings: Findings) -> Iterator["Violation"]:
    """Check the records of one order, and that each hangs on the one before it."""
    from models.domain.audit import Violation, check_link  # noqa: PLC0415 -- slow to load
    from models.store import audit as stored  # noqa: PLC0415 -- likewise

    for link in story.links:
        findings.checked["records"] += 1
        yield from check_link(link)
        before = stored.link_before(connection, link)
        if link.number > 1 and (before is None or before.hash != link.previous):
            hashed = "missing" if before is None else before.hash
            sentence = f"{link.id} follows the hash {link.previous}, and the record before it is {hashed}"
            yield Violation("chain.previous", link.id, sentence)


def _check_averages(connection: "Connection", findings: Findings) -> None:
    from models.domain.audit_averages import check_average, recomputable  # noqa: PLC0415 -- slow to load
    from models.store import audit as stored  # noqa: PLC0415 -- likewise

    def checked(job: stored.StoredAverage) -> Iterator["Violation"]:
        findings.checked["averages"] += 1
        yield from check_average(job.id, job.payload, job.result)
        if not recomputable(job.result):
            findings.unchecked["averages whose value does not follow from their sources alone"] += 1

    def found() -> Iterator["Violation"]:
        for job in stored.averages(connection):
            yield from _guarded(f"job {job.id}", checked(job))

    findings.add(_guarded("jobs", found()))


def _covered(splits: Iterable["AuditedSplit"], recording: "Recording", findings: Findings) -> Iterator["AuditedSplit"]:
    for split in splits:
        if recording.covers(split):
            findings.checked["splits in the session"] += 1
            yield split
        else:
            findings.unchecked["splits that the session does not cover"] += 1


def _as_json(findings: Findings) -> dict[str, Any]:
    return {
        "holds": not findings.count,
        "checked": dict(findings.checked),
        "not_checked": dict(+findings.unchecked),
        "violations": [asdict(each) for each in findings.violations],
        "violations_count": findings.count,
    }


def _as_text(findings: Findings) -> Iterator[str]:
    yield f"checked: {_counts(findings.checked) or 'nothing is stored'}"
    if +findings.unchecked:
        yield f"not checked: {_counts(findings.unchecked)}"
    yield from (each.sentence for each in findings.violations)
    if findings.count > len(findings.violations):
        yield f"and {findings.count - len(findings.violations):,} more"
    yield f"{findings.count:,} things do not hold" if findings.count else "all of it holds"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
