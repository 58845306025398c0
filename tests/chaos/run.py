"""One run: everything starts, is used and hit, comes to rest, is judged; starts cold, and is judged again."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import httpx
from sqlalchemy import func, select

from models.domain.candles import EVERY_VENUE
from models.domain.instruments import INSTRUMENTS
from models.domain.shards import shard_of
from models.store.tables import candles as stored_candles
from models.store.tables import jobs, owners
from simulator.market import START_USD
from tests.chaos import checks, market
from tests.chaos.faults import Hand, Hit, schedule
from tests.chaos.flight import WORK, Flight, Watcher
from tests.chaos.load import SYMBOLS, Client, Listener, Placed, Told
from tests.chaos.processes import OWNERS, SHARDS, VENUES, System, until

READY_S = 90.0
# The longest waits are for what a killed worker held: its messages (70 s), a price job (30 s, and its next attempts).
QUIET_S = 150.0
SAY_S = 5.0
LATE_S = 8.0
CLIENTS = 2  # an owner
PACE = 4.0  # requests a second and client


@dataclass
class Report:
    """What a run did and found."""

    seed: int
    database: str
    hits: list[Hit] = field(default_factory=list)
    skipped: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    deaths: dict[str, int] = field(default_factory=dict)
    stuck: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=dict)

    def missed(self) -> list[str]:
        """Return the kinds of process that were never hit with work in flight."""
        met = {hit.kind for hit in self.hits if hit.met_work}
        return [kind for kind in WORK if kind not in met]

    @property
    def failed(self) -> bool:
        """Whether a promise was broken, or the run proves too little."""
        return bool(self.violations or self.missed())

    def __str__(self) -> str:
        lines = [f"seed {self.seed} on {self.database}: {', '.join(f'{n} {c:,}' for n, c in self.counts.items())}"]
        lines += [f"answers: {', '.join(f'{what} {count:,}' for what, count in self.answers.most_common())}"]
        lines += [f"{'fault':<22}{'times':>6}{'with work':>11}  in flight, together"]
        for what in sorted({hit.fault.what for hit in self.hits}):
            mine = [hit for hit in self.hits if hit.fault.what == what]
            together = sum((hit.flight for hit in mine), Flight())
            lines.append(f"{what:<22}{len(mine):>6}{sum(hit.met_work for hit in mine):>11}  {together}")
        if self.skipped:
            lines.append(f"{self.skipped} faults met nobody: whom they were for was down already")
        if self.deaths:
            lines.append(f"ended by themselves and were started again: {self.deaths}")
        if self.stuck:
            lines.append(f"did not end within 15 s of a SIGTERM: {self.stuck}")
        lines += [f"spent: {', '.join(f'{name} {spent:.0f} s' for name, spent in self.spent_s.items())}"]
        lines += [f"never hit with work in flight: {kind}" for kind in self.missed()]
        lines += [f"VIOLATION: {sentence}" for sentence in self.violations]
        verdict = "FAILED" if self.failed else "passed"
        return "\n".join([*lines, f"{verdict}: {len(self.violations)} violations"])


def run(
    seed: int,
    database: str,
    duration_s: float,
    *,
    pace: float = PACE,
    patient: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run it all under a load of `duration_s` seconds; `database` is "sqlite" or "postgresql".

    A `patient` run waits until wake-ups that a killed worker held were given back and worked.
    """
    folder = Path(tempfile.mkdtemp(prefix="crossfill-chaos-"))
    folder.chmod(0o755)  # PostgreSQL may run as another user
    report = Report(seed, database)
    system = System(folder, database, seed)
    kept = True
    try:
        _run(system, report, duration_s, pace, say, patient=patient)
        kept = report.failed
    finally:
        system.close()
        if kept:
            say(f"what is left of it: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return report


def _run(
    system: System, report: Report, duration_s: float, pace: float, say: Callable[[str], None], *, patient: bool
) -> None:
    told, clock = Told(), _Clock(report)
    listeners = [Listener(system.notifier, owner, system.tokens[owner], told) for owner in (*OWNERS, OWNERS[0])]

    def unpushed(newest: dict[str, int]) -> int:
        return sum(max(0, newest.get(each.owner, 0) - each.cursor) for each in listeners)

    system.start()
    watcher = Watcher(system, lambda: told.pending, unpushed)
    try:
        _wait_ready(system)
        clock.note("start")
        _load(system, report, told, listeners, watcher, duration_s, pace, say)
        clock.note("load")
        _settle(system, report, told, listeners, watcher, "hot", say, patient=patient)
        clock.note("rest")
        system.stop()
        for listener in listeners:
            listener.close()
        told.problems += _left_behind(system)
        system.start()
        _wait_ready(system)
        # They ask for everything from the beginning now.
        anew = [Listener(system.notifier, each.owner, system.tokens[each.owner], told) for each in listeners[:3]]
        listeners[:] = anew
        for listener in listeners:
            listener.start()
        _settle(system, report, told, listeners, watcher, "cold", say, patient=patient)
        for listener in listeners:
            listener.close()
        clock.note("cold start")
    finally:
        watcher.close()
        system.stop()
    if system.is_sqlite:
        report.violations += checks.file_is_whole(system.folder / "crossfill.db")
    report.deaths, report.stuck, report.answers = system.deaths, system.stuck, told.answers
    report.violations += dict.fromkeys(told.problems)
    clock.note("end")


class _Clock:
    def __init__(self, report: Report) -> None:
        self._report, self._at = report, time.monotonic()

    def note(self, what: str) -> None:
        now = time.monotonic()
        self._report.spent_s[what], self._at = now - self._at, now


def _load(
    system: System,
    report: Report,
    told: Told,
    listeners: Sequence[Listener],
    watcher: Watcher,
    duration_s: float,
    pace: float,
    say: Callable[[str], None],
) -> None:
    clients = [
        Client(system.api, owner, system.tokens[owner], f"{report.seed}-{owner}-{number}", pace, told)
        for owner in OWNERS
        for number in range(CLIENTS)
    ]
    for listener in listeners:
        listener.start()
    for client in clients:
        client.start()
    hand = Hand(system, watcher, say)
    faults = schedule(report.seed, duration_s, postgres=not system.is_sqlite)
    hand.remember_redis()
    hand.run(faults, duration_s)
    report.hits, report.skipped = hand.hits, len(faults) - len(hand.hits)
    told.problems += hand.problems
    for client in clients:
        client.stop()
    for client in clients:
        if not client.join(QUIET_S):
            told.problems.append("a client never had its answer")


def _settle(
    system: System,
    report: Report,
    told: Told,
    listeners: Iterable[Listener],
    watcher: Watcher,
    when: str,
    say: Callable[[str], None],
    *,
    patient: bool,
) -> None:
    """Wait until all is quiet, see that the system still works, and judge."""
    _wait_quiet(watcher, listeners, when, say, patient=patient)
    _probe(system, told)
    _wait_analysed(watcher, when)
    _wait_quiet(watcher, listeners, when, say, patient=patient)
    record = checks.Record.of(watcher.database, OWNERS)
    found = [*checks.violations(record, told.placed, system.journal), *checks.clients_told(record, listeners)]
    found += _of_market(watcher)
    report.violations += [f"{sentence} ({when})" for sentence in found]
    report.counts = {
        "orders": len(record.orders),
        "price jobs": len(record.jobs) - len(record.orders),
        "failed jobs": sum(job.state == "failed" for job in record.jobs),
        "splits": len(record.splits),
        "filled": sum(order.state == "filled" for order in record.orders),
        "filled in part": sum(0 < order.filled_size < order.size for order in record.orders),
        "events": sum(map(len, record.events.values())),
        "epochs": sum(1 for _ in system.journal.glob("*.jsonl")),
        "trades": sum(map(len, watcher.witness.seen.trades.values())),
        "candles": len(candles := market.stored_candles(watcher.database)),
        "incomplete": sum(candle.incomplete for candle in candles),
        "signals told": sum(telling.kind == "signal" for telling in watcher.witness.seen.tellings),
    }


def _wait_analysed(watcher: Watcher, when: str) -> None:
    """Wait until candles of every venue are closed that began after now."""
    now_us = time.time_ns() // 1_000

    def venues() -> set[str]:
        with watcher.database.read() as connection:
            query = select(stored_candles.c.venue).where(stored_candles.c.open_time_us > now_us).distinct()
            return set(connection.execute(query).scalars())

    until(lambda: venues() >= {*VENUES, EVERY_VENUE}, READY_S, lambda: f"only {venues()} have candles ({when})")


def _of_market(watcher: Watcher) -> list[str]:
    """Judge what the analyst made; a late trade, and the revision that it makes, may be on their way."""
    deadline = time.monotonic() + LATE_S
    while found := list(market.violations(watcher.database, watcher.witness.seen)):
        if time.monotonic() > deadline:
            break
        time.sleep(1)
    return found


def _wait_ready(system: System) -> None:
    def ready() -> bool:
        try:
            answer = httpx.get(f"{system.api}/health/ready", timeout=3, trust_env=False)
            return answer.status_code == httpx.codes.OK and answer.json()["status"] == "up"
        except httpx.HTTPError:
            return False

    until(ready, READY_S, "the system is not ready")


def _wait_quiet(
    watcher: Watcher, listeners: Iterable[Listener], when: str, say: Callable[[str], None], *, patient: bool
) -> None:
    began = said_at = time.monotonic()

    def left() -> str:
        with watcher.database.read() as connection:
            count = connection.execute(select(func.count()).select_from(jobs).where(jobs.c.ended_us.is_(None)))
            open_jobs = count.scalar_one()
            newest = {row.id: row.event_seq for row in connection.execute(select(owners.c.id, owners.c.event_seq))}
        found = {
            "jobs": open_jobs,
            "messages": watcher.messages(held=patient),
            "events": sum(abs(newest[each.owner] - each.cursor) for each in listeners),
        }
        return ", ".join(f"{count} {name}" for name, count in found.items() if count)

    def quiet() -> bool:
        nonlocal said_at
        still = left()
        if still and time.monotonic() - said_at > SAY_S:
            said_at = time.monotonic()
            say(f"        {said_at - began:.0f} s later ({when}): left are {still}")
        return not still

    until(quiet, QUIET_S, lambda: f"it does not come to rest ({when}): left are {left()}")


def _probe(system: System, told: Told) -> None:
    """Place an order in each shard that the market can fill, and see it filled."""
    with httpx.Client(
        base_url=system.api, headers={"Authorization": f"Bearer {system.tokens[OWNERS[0]]}"}, trust_env=False
    ) as client:
        for shard in range(SHARDS):
            symbol = next(symbol for symbol in SYMBOLS if shard_of(symbol, SHARDS) == shard)
            instrument = INSTRUMENTS[symbol]
            price = Decimal(START_USD[instrument.base] / START_USD[instrument.quote]) * Decimal("0.9")
            price -= price % instrument.tick
            size = int(10 / START_USD[instrument.base] / float(instrument.lot)) * instrument.lot
            body = {"symbol": symbol, "order_size": f"{size:f}", "price": f"{price:f}", "timeout_s": 30}
            key = str(uuid4())
            answer = client.post(
                "/order/limit", json=body, headers={"Prefer": "wait=30", "Idempotency-Key": key}, timeout=40
            )
            placed = Placed(OWNERS[0], key, "/order/limit", body, *_ids(answer))
            told.placed.append(placed)
            if answer.json().get("order", {}).get("state") != "filled":
                told.problems.append(f"an order of {symbol} was not filled after all was over: {answer.text}")


def _ids(answer: httpx.Response) -> tuple[str, str]:
    order = answer.json()["order"]
    return order["job_id"], order["id"]


def _left_behind(system: System) -> list[str]:
    """Name the processes that outlived a clean stop."""
    return [f"{process.name} outlived its end" for process in system.workers() if process.pid]
