"""Outcomes: splits committed a second, beside what the bare drivers do with the same rows.

Each outcome fills an order in one split: a row of `splits` and one of `audit`, an update of the order and of
its job, three events and its level. The bare form sends the rows that such a commit left, ready made, by the
driver's own `executemany`: it computes, numbers and checks nothing. All forms work on copies of one database.
"""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import psycopg
from psycopg.types.json import set_json_loads
from sqlalchemy import Table

from models.domain.identifiers import uuid7
from models.domain.orders import OrderState, Side, TimeInForce
from models.domain.outcomes import Level, Outcome, Split
from models.domain.quotes import Market
from models.store.book import queued
from models.store.database import Database
from models.store.orders import NewOrder, accept
from models.store.outcomes import commit_outcomes
from models.store.owners import ensure_owner
from models.store.schema import ensure_venues, fix_shards, migrate
from models.store.shards import Lease, claim
from models.store.tables import audit, events, jobs, levels, orders, splits
from tests.services import running_postgres

BATCH = 500
AIM = 10_000
OWNERS = 20
NOW_US = 1_790_000_000_123_456
SHARDS = 2
_PRICE = Decimal("0.0012345")
_FEE_BPS = Decimal("2.5")


@dataclass(frozen=True)
class Batch:
    """What is committed at once, under which lease, its first number and what its levels become."""

    lease: Lease
    first: int
    outcomes: list[Outcome]
    levels: list[Level]


def prepare(url: str, batches: int) -> list[Batch]:
    """Make a database with open orders in both shards; return what is to be committed, the shards in turn."""
    migrate(url)
    with closing(Database.open(url)) as database:
        fix_shards(database, SHARDS)
        ensure_venues(database, ["binance"])
        for number in range(OWNERS):
            ensure_owner(database, f"owner{number:02}", "user", f"token {number}")
        for number in range(batches):
            accept(database, [_order(each, number % SHARDS) for each in range(BATCH)])
        leases = {lease.shard: lease for lease in claim(database, "benchmark", SHARDS, 3_600_000_000)}
        with database.read() as connection:
            waiting = [queued(connection, shard, batches * BATCH) for shard in range(SHARDS)]
        database.checkpoint()
    made = []
    for number in range(batches):
        shard, place = number % SHARDS, number // SHARDS * BATCH
        outcomes = [
            Outcome(order, OrderState.FILLED, None, (_split(each, order.size),), NOW_US + 1_000_000)
            for each, order in enumerate(waiting[shard][place : place + BATCH], number * BATCH)
        ]
        parts = [split for outcome in outcomes for split in outcome.splits]
        levels = [Level(each.venue, each.product_id, each.side, each.price, each.taken_before) for each in parts]
        made.append(Batch(leases[shard], place, outcomes, levels))
    return made


def _order(number: int, shard: int) -> NewOrder:
    return NewOrder(
        id=uuid7(NOW_US),
        job_id=uuid7(NOW_US),
        owner_id=f"owner{number % OWNERS:02}",
        shard=shard,
        symbol="LTC-BTC",
        side=Side.SELL,
        price=_PRICE,
        size=Decimal("10.25"),
        time_in_force=TimeInForce.GTD,
        venues=None,
        client_order_id=None,
        market=Market.SIMULATED.value,
        created_us=NOW_US,
        deadline_us=NOW_US + 30_000_000,
        idempotency_key=None,
        fingerprint="f",
    )


def _split(number: int, size: Decimal) -> Split:
    return Split(
        venue="binance",
        product_id="LTCBTC",
        side=Side.SELL,
        price=_PRICE + Decimal(number % 100).scaleb(-7),
        size=size,
        token=7,
        quote_number=number,
        shown=Decimal("1234.5678"),
        taken_before=Decimal("100.25"),
        exchange_time_us=NOW_US + 900_000,
        received_time_us=NOW_US + 950_000,
    )


def commit(database: Database, batch: Batch) -> None:
    """Commit a batch as a loop does."""
    market = Market.SIMULATED
    commit_outcomes(database, batch.lease, batch.first, batch.outcomes, batch.levels, market=market, fee_bps=_FEE_BPS)


def _nothing(*_: object) -> str:
    return ""


def _commit_unaudited(database: Database, batch: Batch) -> None:
    with patch("models.store.audit.extend", _nothing), patch("models.store.outcomes._Written.record", _nothing):
        commit(database, batch)


# The bare drivers: what a commit sends, by the statement that sends it and the query that finds its rows again.

_IDS = "(SELECT {} FROM orders WHERE seq BETWEEN {} AND {})"
_CHANGED = ("state", "reason", "filled_size", "filled_value", "avg_price", "ended_us")
_Sent = list[tuple[str, list[tuple[Any, ...]]]]


def _bare_connection(url: str) -> Any:  # noqa: ANN401 -- of either driver
    if not url.startswith("sqlite"):
        connection = psycopg.connect(url.replace("+psycopg", ""))
        set_json_loads(lambda text: bytes(text).decode(), connection)  # type: ignore[arg-type] # it gives bytes
        return connection
    opened = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "wal_autocheckpoint=0"):
        opened.execute(f"PRAGMA {pragma}")
    return opened


def _sent(connection: Any, mark: str, batch: Batch) -> _Sent:  # noqa: ANN401 -- of either driver
    """Return what the commit of a batch sent."""
    first, last = batch.outcomes[0].order.seq, batch.outcomes[-1].order.seq
    of_orders = f"WHERE order_seq BETWEEN {first} AND {last}"
    ids, job_ids = (_IDS.format(name, first, last) for name in ("id", "job_id"))

    def insert(table: Table, where: str = "", more: str = "") -> tuple[str, list[tuple[Any, ...]]]:
        names = ", ".join(table.columns.keys())
        rows = connection.execute(f"SELECT {names} FROM {table.name} {where}").fetchall()
        return f"INSERT INTO {table.name} ({names}) VALUES ({', '.join([mark] * len(table.columns))}) {more}", rows

    def change(table: Table, key: str, names: Sequence[str], where: str) -> tuple[str, list[tuple[Any, ...]]]:
        rows = connection.execute(f"SELECT {', '.join((*names, key))} FROM {table.name} WHERE {where}").fetchall()
        return f"UPDATE {table.name} SET {', '.join(f'{name} = {mark}' for name in names)} WHERE {key} = {mark}", rows

    per_owner = [(3 * BATCH // OWNERS, f"owner{number:02}") for number in range(OWNERS)]
    return [
        change(orders, "seq", _CHANGED, f"seq BETWEEN {first} AND {last}"),
        change(jobs, "id", ("state", "result", "ended_us"), f"id IN {job_ids}"),
        insert(splits, of_orders),
        insert(levels, more="ON CONFLICT (venue, product_id, side, price) DO UPDATE SET taken = excluded.taken"),
        insert(audit, of_orders),
        (f"UPDATE owners SET event_seq = event_seq + {mark} WHERE id = {mark}", per_owner),
        insert(events, f"WHERE order_id IN {ids} AND type <> 'order.accepted'"),
    ]


def _send(connection: Any, sent: _Sent) -> None:  # noqa: ANN401 -- of either driver
    cursor = connection.cursor()
    if isinstance(connection, sqlite3.Connection):
        cursor.execute("BEGIN IMMEDIATE")
    for statement, rows in sent:
        cursor.executemany(statement, rows)
    connection.commit()


# The table


@contextmanager
def _copies(folder: Path, kind: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the URL of a database, and what makes a copy of it and returns the copy's URL."""
    numbers = count(1)
    if kind == "SQLite":
        first = folder / "0.db"

        def copy_file() -> str:
            return f"sqlite:///{shutil.copy(first, folder / f'{next(numbers)}.db')}"

        yield f"sqlite:///{first}", copy_file
        return
    with running_postgres(folder / "postgres") as url:
        server = url.removesuffix("/postgres")

        def copy_database(template: str = "first") -> str:
            name = f"copy{next(numbers)}" if template == "first" else "first"
            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            return f"{server}/{name}"

        yield copy_database("template1"), copy_database


def _measure(folder: Path, kind: str, batches_count: int) -> dict[str, tuple[float, float]]:
    """Return seconds and seconds of this process's CPU for a batch, by form: medians of batches in turn."""
    times: dict[str, list[tuple[float, float]]] = {}
    with _copies(folder, kind) as (url, copy), ExitStack() as stack:
        batches = prepare(url, batches_count)
        reference, unaudited, timed, both = (stack.enter_context(closing(Database.open(copy()))) for _ in range(4))
        bare = stack.enter_context(closing(_bare_connection(copy())))
        for batch in batches:
            commit(reference, batch)
        with closing(_bare_connection(str(reference.engine.url))) as source:
            sent = [_sent(source, "?" if kind == "SQLite" else "%s", batch) for batch in batches]
        for number, batch in enumerate(batches):
            forms = {
                "crossfill": partial(commit, timed, batch),
                "without its audit log": partial(_commit_unaudited, unaudited, batch),
                "the bare driver": partial(_send, bare, sent[number]),
            }
            for form, run in forms.items():
                times.setdefault(form, []).append(_timed(run))
        found = {
            form: (median(wall for wall, _ in each), median(cpu for _, cpu in each)) for form, each in times.items()
        }
        if kind != "SQLite":  # where writers wait for one another
            _commit_by_shard(both, batches[: 2 * SHARDS])  # the first are slower: connecting, preparing
            rest = batches[2 * SHARDS :]
            wall_s, cpu_s = _timed(partial(_commit_by_shard, both, rest))
            found["two shards of one worker"] = wall_s / len(rest), cpu_s / len(rest)
    return found


def _timed(run: Callable[[], None]) -> tuple[float, float]:
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall_s, time.process_time() - cpu_s


def _commit_by_shard(database: Database, batches: Sequence[Batch]) -> None:
    """Commit as a worker does that owns both shards: a thread for each."""

    def commit_all(shard: int) -> None:
        for batch in batches:
            if batch.lease.shard == shard:
                commit(database, batch)

    with ThreadPoolExecutor(SHARDS) as threads:
        list(threads.map(commit_all, range(SHARDS)))


def main(batches: int = 40) -> None:
    """Print a table for both databases."""
    print("| database | form | splits/s | us of CPU a split | of the bare driver's rate |\n|---|---|--:|--:|--:|")
    said = []
    for kind in ("SQLite", "PostgreSQL"):
        with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name:
            Path(name).chmod(0o755)  # the server may run as another user
            measured = _measure(Path(name), kind, batches)
        bare_s, _ = measured["the bare driver"]
        for form, (wall_s, cpu_s) in measured.items():
            rate, of_bare = BATCH / wall_s, bare_s / wall_s
            print(f"| {kind} | {form} | {rate:,.0f} | {cpu_s / BATCH * 1e6:.0f} | {of_bare:.2f} |", flush=True)
            if "driver" not in form and "without" not in form:
                reached = "reached" if rate >= AIM else "not reached"
                said.append(f"{kind}, {form}: the aim of {AIM:,} splits/s is {reached}.")
        audit_cost = measured["crossfill"][1] / measured["without its audit log"][1]
        said.append(f"{kind}: a commit takes {audit_cost:.2f} x the CPU of one without its audit log.")
    print("", *said, sep="\n")


if __name__ == "__main__":
    main()
