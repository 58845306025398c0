"""`crossfill audit verify` on a small run of the book in both databases, and after each kind of tampering."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner, Result

from cli.main import app
from models.domain.averages import Method
from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import Order, Side, TimeInForce
from models.domain.outcomes import StepResult
from models.domain.quotes import Mark, Market, Quote
from models.store.audit import heads
from models.store.book import cancels, load, queued, working
from models.store.database import Database
from models.store.jobs import AVERAGE_KIND, NewJob, claim_due, create, finish
from models.store.orders import request_cancel
from models.store.outcomes import commit_outcomes
from models.store.shards import Lease, claim, release
from tests.integration.models.store.samples import NOW_US, accepted
from tests.unit.models.domain.test_audit_averages import SEEN, _payload, _result

SECOND = 1_000_000
KEPT_US = 3_600_000_000


class Owner:
    """The loop's work without its threads: what is stored, through a book, into outcome transactions."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now_us = NOW_US
        self.token = 0
        self.begin()

    def begin(self) -> None:
        """Claim the shard and load the book; a new connection of the venue."""
        self.lease: Lease = claim(self.database, "owner", 1, KEPT_US)[0]
        with self.database.read() as connection:
            loaded, orders = load(connection, 0), working(connection, 0, 100)
        self.book = Book(INSTRUMENTS, levels=loaded.levels)
        self.number, self.token, self.quotes = 0, self.token + 1, 0
        self.commit(self.book.step(self.now_us, items=[Mark("binance", self.token, 0)], orders=orders))

    def quote(self, bid: str, size: str, after_us: int = SECOND // 2) -> None:
        """Let time pass, a quote come, and take in what is queued and cancelled."""
        self.now_us += after_us
        self.quotes += 1
        sides = (Decimal(bid), Decimal(size), Decimal("0.9"), Decimal(1))
        mark = Mark("binance", self.token, self.now_us)
        quote = Quote("binance", "LTCBTC", self.token, self.quotes, *sides, True, None, self.now_us)
        with self.database.read() as connection:
            orders, cancelled = queued(connection, 0, 100), cancels(connection, 0)
        self.commit(self.book.step(self.now_us, items=[mark, quote], orders=orders, cancels=cancelled))

    def commit(self, result: StepResult) -> None:
        if result.outcomes:
            fees = {"market": Market.SIMULATED, "fee_bps": Decimal("2.5")}
            commit_outcomes(self.database, self.lease, self.number, result.outcomes, result.levels, **fees)  # type: ignore[arg-type] # two kinds in one dictionary
            self.number += len(result.outcomes)


@pytest.fixture
def ran(database: Database) -> dict[str, Order]:
    """Five orders over two owners of the shard, and an average; by name the orders as they were accepted."""
    owner = Owner(database)
    orders = {
        "filled": accepted(database, size=Decimal(6)),
        "partly": accepted(database, size=Decimal(9), time_in_force=TimeInForce.GTC, deadline_us=None),
        "bought": accepted(database, side=Side.BUY, price=Decimal("0.5"), deadline_us=NOW_US + SECOND),
    }
    owner.quote("0.0009", "5")
    owner.quote("0.0009", "8")
    release(database, [owner.lease])
    owner.begin()
    orders["taken"] = accepted(database, size=Decimal(3), time_in_force=TimeInForce.IOC)
    owner.quote("0.0009", "11")
    orders["cancelled"] = accepted(database)
    owner.quote("0.00001", "11")
    request_cancel(database, "ann", orders["cancelled"].id, owner.now_us)
    owner.quote("0.00001", "12")
    owner.quote("0.0009", "2", after_us=2 * SECOND)
    payload, result = _payload(Method.CLAMPED_MEAN), _result(Method.CLAMPED_MEAN, SEEN, frozenset())
    create(database, NewJob("average", "ann", AVERAGE_KIND, payload, NOW_US, NOW_US, None, None, "f"))
    claimed = claim_due(database, [AVERAGE_KIND], "worker", KEPT_US)
    assert claimed is not None
    finish(database, claimed, result)
    return orders


Verify = Callable[..., Result]


@pytest.fixture
def verify(any_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Verify:
    """Run `crossfill audit verify` on the database."""
    monkeypatch.setenv("CROSSFILL_DATABASE_URL", any_url)
    monkeypatch.setenv("CROSSFILL_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["audit", "verify", *arguments], catch_exceptions=False)

    return run


def _rules(result: Result) -> set[str]:
    return {each["rule"] for each in json.loads(result.stdout)["violations"]}


def _run(database: Database, *statements: str, **values: Any) -> None:
    with database.write() as connection:
        if database.is_sqlite:
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        for statement in statements:
            connection.execute(text(statement), values)


def test_what_a_run_stored_holds(ran: dict[str, Order], verify: Verify) -> None:
    """All of it, and each order alone; the counts say what was looked at."""
    result = verify("--all")
    assert (result.exit_code, result.stderr) == (0, "")
    first, last = result.stdout.splitlines()
    assert last == "all of it holds"
    assert first == "checked: records 11, chains 1, averages 1, orders 5, splits 5, splits on their levels 5"
    assert json.loads(verify("--json").stdout) == {
        "holds": True,
        "checked": {
            "records": 11,
            "chains": 1,
            "averages": 1,
            "orders": 5,
            "splits": 5,
            "splits on their levels": 5,
        },
        "not_checked": {},
        "violations": [],
        "violations_count": 0,
    }
    for order in ran.values():
        assert (verify(order.id).exit_code, order.id) == (0, order.id)


def test_it_sees_one_state_while_the_system_goes_on(database: Database, ran: dict[str, Order], verify: Verify) -> None:
    """Outcomes that are committed while it reads are in all of what it compares, or in none."""
    _run(database, "UPDATE shards SET owner = NULL, lease_until_us = 0")
    owner, ended, committed = Owner(database), Event(), [0]
    owner.now_us += 100 * SECOND

    def work() -> None:
        while not ended.is_set():
            accepted(database, time_in_force=TimeInForce.GTC, deadline_us=None)
            committed[0] += 1
            owner.quote("0.0009", str(20 + committed[0]))

    thread = Thread(target=work)
    thread.start()
    try:
        for _ in range(5):
            before = committed[0]
            result = verify("--all")
            assert result.exit_code == 0, result.stdout
            while committed[0] < before + 2 and thread.is_alive():
                ended.wait(0.01)
    finally:
        ended.set()
        thread.join()
    assert committed[0] >= 10
    assert verify("--all").exit_code == 0


# What is done to the database by SQL, and a rule that finds it.
TAMPERED: dict[str, tuple[str, str]] = {
    "split changed": ("UPDATE splits SET price = '0.00091' WHERE id = '0-1-4-0'", "split.changed"),
    "split deleted": ("DELETE FROM splits WHERE id = '0-1-4-0'", "split.deleted"),
    "split inserted": (
        (
            "INSERT INTO splits SELECT '0-1-99-0', order_seq, venue, product_id, side, price, size, fee, token, "
            "quote_number, shown, taken_before, exchange_time_us, received_time_us, created_us, market FROM splits "
            "WHERE id = '0-1-4-0'"
        ),
        "split.inserted",
    ),
    "splits swapped": (
        "UPDATE splits SET order_seq = (SELECT MAX(order_seq) + MIN(order_seq) FROM splits) - order_seq",
        "split.inserted",
    ),
    "unit sold twice": ("UPDATE splits SET taken_before = '0' WHERE id = '0-1-4-0'", "level.overlap"),
    "order changed": ("UPDATE orders SET price = '0.00001' WHERE seq = 1", "order.limit"),
    "order's end changed": ("UPDATE orders SET reason = 'ioc' WHERE state = 'cancelled'", "order.progress"),
    "order's sum changed": ("UPDATE orders SET filled_size = '5' WHERE seq = 1", "order.filled_size"),
    "order deleted": ("DELETE FROM orders WHERE state = 'cancelled'", "order.deleted"),
    "job changed": ("UPDATE jobs SET state = 'failed' WHERE kind = 'order' AND state = 'done'", "job.state"),
    "average changed": (
        "UPDATE jobs SET result = '{\"method\": \"mean\"}' WHERE kind = 'average'",
        "row.unreadable",
    ),
    "record changed": (
        'UPDATE audit SET record = REPLACE(record, \'"fee_bps":"2.5"\', \'"fee_bps":"2.6"\') WHERE number = 3',
        "chain.hash",
    ),
    "record deleted": ("DELETE FROM audit WHERE number = 3", "chain.number"),
    "first record deleted": ("DELETE FROM audit WHERE number = 1", "chain.number"),
    "record inserted": (
        "INSERT INTO audit SELECT shard, number + 1000, order_seq, record, previous, hash FROM audit WHERE number = 2",
        "chain.number",
    ),
    "record of another shard": (
        "INSERT INTO audit SELECT 7, number, order_seq, record, previous, hash FROM audit WHERE number = 1",
        "chain.shard",
    ),
    "records swapped": (
        (
            "UPDATE audit SET number = 1003 WHERE number = 3; UPDATE audit SET number = 3 WHERE number = 4; "
            "UPDATE audit SET number = 4 WHERE number = 1003"
        ),
        "chain.previous",
    ),
    "record filed elsewhere": ("UPDATE audit SET order_seq = 2 WHERE number = 1", "chain.order"),
    "tail cut off": ("DELETE FROM audit WHERE number > 9", "chain.head"),
    "no number": ("UPDATE orders SET filled_size = 'NaN' WHERE seq = 1", "order.filled_size"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_tampering_is_found(database: Database, ran: dict[str, Order], verify: Verify, what: str) -> None:
    """Changed, inserted, swapped, deleted and cut-off rows: status 1, and a sentence for a person."""
    statements, rule = TAMPERED[what]
    _run(database, *statements.split("; "))
    result = verify("--json")
    assert (result.exit_code, result.stderr) == (1, "")
    assert rule in _rules(result), result.stdout
    said = verify("--all").stdout.splitlines()
    assert said[-1].endswith("do not hold")
    assert len(said) > 2


def test_a_tail_that_was_cut_off_with_its_head_is_found_by_a_head_that_was_kept(
    database: Database,
    ran: dict[str, Order],
    verify: Verify,
) -> None:
    """Whoever undoes the last outcome everywhere leaves no trace but in the head that somebody kept."""
    with database.read() as connection:
        (kept,) = heads(connection)
    assert verify("--head", str(kept)).exit_code == 0
    assert verify("--head", f"0:1:{'0' * 64}").exit_code == 1
    _run(
        database,
        "DELETE FROM audit WHERE number > 9",
        "UPDATE shards SET audit_number = 9, audit_hash = (SELECT hash FROM audit WHERE number = 9)",
    )
    assert "chain.cut" in _rules(verify("--json", "--head", str(kept)))
    assert not any(rule.startswith("chain.") for rule in _rules(verify("--json")))


def test_one_order_alone_is_checked_against_its_levels_and_its_records(
    database: Database,
    ran: dict[str, Order],
    verify: Verify,
) -> None:
    """What another order took twice is found from either; what is elsewhere is not asked for."""
    _run(database, "UPDATE splits SET taken_before = '0' WHERE id = '0-1-4-0'")
    assert "level.overlap" in _rules(verify(ran["filled"].id, "--json"))
    assert verify(ran["cancelled"].id).exit_code == 0
    _run(database, "UPDATE audit SET hash = previous WHERE number = 1")
    assert {"chain.hash"} <= _rules(verify(ran["filled"].id, "--json"))


def test_what_cannot_be_said_has_a_status_of_its_own(
    ran: dict[str, Order], verify: Verify, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An order that is not there, a head that is none, no session, no database: one sentence and status 2."""
    for arguments, said in (
        (["nobody"], "there is no order nobody"),
        (["--head", "0:1"], "give SHARD:NUMBER:HASH"),
        (["--head", f"0:1:{'a' * 64}", "--head", f"0:1:{'b' * 64}"], "another hash"),
        ([ran["filled"].id, "--all"], "either an order, or --all"),
        (["--session", str(tmp_path / "none")], "no session of"),
    ):
        result = verify(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
    (tmp_path / "file").write_text("no database at all" * 100)
    for url in (f"sqlite:///{tmp_path / 'none.db'}", f"sqlite:///{tmp_path / 'file'}", "nonsense"):
        monkeypatch.setenv("CROSSFILL_DATABASE_URL", url)
        result = verify()
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / "none.db").exists()


def _session(folder: Path, quotes: list[tuple[str, str]]) -> Path:
    """Write what Binance says for these best bids, in the form of docs/sessions.md."""
    folder.mkdir()
    payloads = [
        {"u": number, "s": "LTCBTC", "b": bid, "B": size, "a": "0.9", "A": "1"}
        for number, (bid, size) in enumerate(quotes, 1)
    ]
    frames = [json.dumps({"stream": "ltcbtc@bookTicker", "data": payload}) for payload in payloads]
    lines = [json.dumps({"t": NOW_US * 1000 + number, "f": frame}) for number, frame in enumerate(frames)]
    (folder / "binance_made.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_splits_are_held_against_a_recorded_session(
    database: Database,
    ran: dict[str, Order],
    verify: Verify,
    tmp_path: Path,
) -> None:
    """Each quote must be there with its price and size, in the order of their numbers."""
    _run(database, "UPDATE splits SET market = 'replay'")
    bids = [("0.0009", "5.00"), ("0.0009", "8"), ("0.0009", "11"), ("0.00001", "11"), ("0.0009", "2")]
    known = {"split.changed", "split.market"}
    right = _rules(verify("--json", "--session", str(_session(tmp_path / "right", bids))))
    assert right == known
    less = _rules(verify("--json", "--session", str(_session(tmp_path / "less", bids[:1] + bids[2:]))))
    assert less == known | {"session.quote"}
    turned = _rules(verify("--json", "--session", str(_session(tmp_path / "turned", [bids[1], bids[0], *bids[2:]]))))
    assert turned == known | {"session.order"}
    _run(database, "UPDATE splits SET market = 'simulated'")
    result = verify("--session", str(tmp_path / "less"))
    assert "splits that the session does not cover 5" in result.stdout
    assert result.exit_code == 0


def test_a_database_from_before_the_log_is_not_accused(
    database: Database,
    ran: dict[str, Order],
    verify: Verify,
) -> None:
    """What was filled before the migration stays outside of the chain, and is counted; the rest is checked."""
    _run(
        database,
        "DELETE FROM audit",
        "UPDATE shards SET audit_epoch = epoch, audit_number = 0, audit_hash = :none",
        "UPDATE meta SET value = (SELECT CAST(MAX(seq) AS VARCHAR(32)) FROM orders) WHERE key = 'audit_after_seq'",
        none="0" * 64,
    )
    result = verify()
    assert result.exit_code == 0, result.stdout
    assert "not checked: splits from before there was a log 5" in result.stdout
    late = accepted(database)
    _run(database, "UPDATE shards SET owner = NULL, lease_until_us = 0")
    (lease,) = claim(database, "new", 1, KEPT_US)
    book = Book(INSTRUMENTS)
    done = book.step(NOW_US + 40 * SECOND, orders=[late])
    commit_outcomes(database, lease, 0, done.outcomes, done.levels, market=Market.SIMULATED)
    assert "records 1, " in verify().stdout
    _run(database, "UPDATE orders SET state = 'filled' WHERE seq = :seq", seq=late.seq)
    assert "order.progress" in _rules(verify("--json"))
