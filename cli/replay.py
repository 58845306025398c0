"""`crossfill replay`: orders against a recorded session, offline, and what another rule would have given them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.remote import fail
from cli.sessions import seconds

if TYPE_CHECKING:
    from cli.fills import Record
    from cli.playing import Rules, Run


def play(  # noqa: PLR0913 -- one argument an option
    session: Annotated[Path | None, typer.Argument(help="A session, or a folder of them.")] = None,
    *,
    orders: Annotated[Path | None, typer.Option(help="The orders: JSON lines, a JSON array, or CSV.")] = None,
    journal: Annotated[Path | None, typer.Option(help="Instead of both: a loop's journal, or several.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes; any number gives the same fills.")] = 1,
    timeout: Annotated[str, typer.Option(help="The timeout of GTD orders that name none.")] = "30s",
    replenish: Annotated[
        str | None, typer.Option(help="What if: hold-1s, growth-only, no-hold, level-reset or each-quote.")
    ] = None,
    silence: Annotated[str | None, typer.Option(help="What if quotes counted for so long without a mark.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON lines to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Fill orders against a recorded session, by its own clock: the same input gives the same bytes."""
    from cli.fills import as_bytes, compare, summary  # noqa: PLC0415 -- the help needs none of it
    from cli.playing import Rules  # noqa: PLC0415 -- likewise
    from models.domain.errors import CrossfillError  # noqa: PLC0415 -- likewise
    from models.domain.ledger import PRESENT, RULE_VERSION, RULES  # noqa: PLC0415 -- likewise
    from simulator.replay import SessionError  # noqa: PLC0415 -- likewise

    if replenish is not None and replenish not in RULES:
        fail(f"--replenish {replenish}: there is no such rule; one of {', '.join(RULES)}")
    silence_us = None if silence is None else _duration_us("--silence", silence)
    timeout_us = _duration_us("--timeout", timeout)
    what_if = replenish is not None or silence_us is not None
    try:
        if session is not None and orders is not None and journal is None:
            source = _session(session, orders, timeout_us, workers)
        elif journal is not None and session is None and orders is None:
            source = _journals(journal, workers, what_if=what_if)
        else:
            fail("name a session and --orders FILE, or --journal PATH alone")
        rules = Rules(PRESENT, source.silence_us)
        run = source.run(rules)
        records = source.records(run)
        written, tables = as_bytes(records), [summary(records)]
        if what_if:
            other = Rules(replenish or PRESENT, silence_us or source.silence_us)
            comparison = compare(records, source.records(source.run(other)))
            written = as_bytes(comparison.lines(rules.as_json(), other.as_json()))
            tables = comparison.tables(str(rules), str(other))
    except (CrossfillError, SessionError) as error:
        fail(str(error))
    if out is not None:
        _write(out, written)
    if as_json:
        typer.echo(written, nl=False)
    else:
        _show([source.title, *run.heard, f"rule: {rules} of silence, version {RULE_VERSION}"], tables, written)


def _duration_us(option: str, text: str) -> int:
    duration_us = round(seconds(option, text) * 1e6)
    if not duration_us:
        fail(f"{option} {text}: give more than nothing, as 3s")
    return duration_us


@dataclass(frozen=True)
class _Source:
    """Where quotes and orders come from, and how they are played by a rule."""

    title: str
    silence_us: int
    run: "Callable[[Rules], Run]"
    names: Mapping[str, str | None] = field(default_factory=dict)

    def records(self, run: "Run") -> "list[Record]":
        from cli.fills import record  # noqa: PLC0415 -- the help needs none of it

        return [record(each, self.names.get(each.order.id)) for each in run.played]


def _session(path: Path, orders: Path, timeout_us: int, workers: int) -> _Source:
    from cli.order_files import read_orders  # noqa: PLC0415 -- likewise
    from cli.playing import play_session  # noqa: PLC0415 -- likewise
    from cli.recordings import open_session  # noqa: PLC0415 -- likewise
    from models.settings import Settings  # noqa: PLC0415 -- likewise
    from models.store.events import rfc3339  # noqa: PLC0415 -- likewise

    found = next((each for each in (path, Settings().market_data / path) if each.exists()), None)
    if found is None:
        fail(f"{path} is not there: name a folder of sessions or one session (see docs/sessions.md)")
    session = open_session(found)
    asked = read_orders(orders, session.instruments, session.begun_us, session.ended_us)
    placings = [each.placing(seq, timeout_us) for seq, each in enumerate(asked, 1)]

    length_s = (session.ended_us - session.begun_us) / 1e6
    title = f"{found.name}: {session.frames:,} frames in {length_s:,.3f} s from {rfc3339(session.begun_us)}"
    # The default of the settings and not their value: two people with other environments get the same fills.
    silence_us = round(Settings.model_fields["silence_s"].default * 1e6)
    names = {str(each.number): each.ticket.client_order_id for each in asked}
    return _Source(title, silence_us, lambda rules: play_session(session, placings, rules, workers), names)


def _journals(path: Path, workers: int, *, what_if: bool) -> _Source:
    from cli.playing import open_journals, play_journals  # noqa: PLC0415 -- likewise
    from models.domain.ledger import RULE_VERSION  # noqa: PLC0415 -- likewise

    journals = open_journals(path)
    if what_if and any(len(files) > 1 for files in journals.shards):
        fail(
            f"what if goes with one epoch: what the next one began with came of the rule then; name one file of {path}"
        )
    title = f"{path.name}: the journals of {len(journals.shards)} shards, {sum(map(len, journals.shards))} in all"
    others = sorted(journals.rule_versions - {RULE_VERSION})
    if others:
        title += f"; rule version {', '.join(map(str, others))} wrote them and may have filled otherwise"
    return _Source(title, journals.silence_us, lambda rules: play_journals(journals, rules, workers))


def _write(out: Path, written: bytes) -> None:
    try:
        out.write_bytes(written)
    except OSError as error:
        fail(f"--out {out}: cannot be written: {error.strerror}")


def _show(heading: list[str], tables: list[Any], written: bytes) -> None:
    from rich.console import Console  # noqa: PLC0415 -- slow to load

    console = Console()
    for line in heading:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for table in tables:
        console.print(table)
    typer.echo(f"sha256 of the JSON lines: {sha256(written).hexdigest()}")
