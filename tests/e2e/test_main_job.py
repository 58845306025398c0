"""The main job, end to end: recorded traffic through simulator, collectors, bus, loop and database.

Real Valkey, real Celery workers, a real Socket.IO client; an oracle that shares no code with the book.
"""

import gzip
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from decimal import Decimal
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import pytest
import socketio

from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS
from models.domain.journal import read
from tests.e2e.orders_mix import CLASSES, Ended, Placed, mix
from tests.e2e.system import System, environment_of, recorded_synthetic, running_system, simulated_venues
from tests.oracle import expected
from tests.services import MARKET_DATA, ROOT, market_data

RECORDING = "binance_spot_btcusdt_2024-08-08.raw.gz"
SPEED = 10
PLACED_PER_S = 17
ENDED = {"filled", "expired", "cancelled", "rejected"}
CLASS_MIN = 30
SILENCE_US = 3_000_000


@dataclass
class Run:
    """What one run of the system left behind."""

    session: Path
    home: Path
    posted: dict[str, Placed]
    ended: dict[str, Ended]
    messages: list[dict[str, Any]]
    events: list[dict[str, Any]]
    journal: list[dict[str, Any]]
    exit_status: int
    largest_shown: Decimal


class Listener:
    """A Socket.IO client that keeps every message.

    Python's client gives each packet a thread of its own, which may overtake one another, so messages
    are put in the order of their numbers. That they arrive in it is seen by the JavaScript client.
    """

    def __init__(self, system: System) -> None:
        self.messages: list[dict[str, Any]] = []
        self.ready = threading.Event()
        self._client = socketio.Client()
        self._client.on("*", lambda _event, message: self.messages.append(message))
        self._client.on("ready", lambda _message: self.ready.set())
        self._token = system.token
        self._client.connect(system.notifier, auth=self._auth, transports=["websocket"])
        assert self.ready.wait(60)

    def _auth(self) -> dict[str, Any]:
        """Sign in with the cursor, so that a reconnection on a busy machine resumes where it was."""
        return {"token": self._token, "last_seq": max((message.get("seq", 0) for message in self.messages), default=0)}

    def close(self) -> None:
        self._client.disconnect()


def _quotes_of(session: Path) -> Iterator[dict[str, str]]:
    """Yield the bookTicker payloads of a session, in either form, from its raw text."""
    with gzip.open(session, "rt") as lines:
        for line in lines:
            frame = json.loads(line)["f"] if line.startswith("{") else line.split(" ", 1)[1]
            if '"bookTicker' in frame or "@bookTicker" in frame:
                yield json.loads(frame)["data"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with one session in it, and whether it is recorded or synthetic."""
    folder = tmp_path_factory.mktemp("session")
    recorded = market_data()
    if recorded is None:
        return recorded_synthetic(folder, 60), "synthetic"
    link = folder / RECORDING
    link.symlink_to((recorded / "sessions" / RECORDING).resolve())
    return link, "recorded"


def _place_all(client: httpx.Client, posted: dict[str, Placed], listener: Listener) -> None:
    """Post the whole mix at a steady pace; cancel what is to be cancelled once it works."""
    started = time.monotonic()
    waiting: list[str] = []
    for number, placed in enumerate(mix()):
        time.sleep(max(0.0, started + number / PLACED_PER_S - time.monotonic()))
        answer = client.post("/order/limit", json=placed.body)
        assert answer.status_code == httpx.codes.ACCEPTED, answer.text
        order_id = answer.json()["order"]["id"]
        posted[order_id] = placed
        if placed.cancel:
            waiting.append(order_id)
        working = {message["order_id"] for message in listener.messages if message["type"] == "order.working"}
        for order_id in [each for each in waiting if each in working]:
            assert client.delete(f"/orders/{order_id}").status_code == httpx.codes.ACCEPTED
            waiting.remove(order_id)
    time.sleep(1)
    for order_id in waiting:
        assert client.delete(f"/orders/{order_id}").status_code == httpx.codes.ACCEPTED


def _orders_when_ended(client: httpx.Client, count: int, limit_s: float = 180) -> dict[str, dict[str, Any]]:
    deadline = time.monotonic() + limit_s
    while True:
        orders: dict[str, dict[str, Any]] = {}
        url: str | None = "/orders?limit=100"
        while url:
            answer = client.get(url)
            orders.update((order["id"], order) for order in answer.json()["orders"])
            url = answer.links.get("next", {}).get("url")
        if len(orders) == count and all(order["state"] in ENDED for order in orders.values()):
            return orders
        assert time.monotonic() < deadline, Counter(order["state"] for order in orders.values())
        time.sleep(0.5)


@pytest.fixture(scope="module")
def run(session: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the whole mix against the replayed session once; the tests look at what it left."""
    folder = tmp_path_factory.mktemp("main-job")
    path, _ = session
    journal_folder = folder / "journal"
    posted: dict[str, Placed] = {}
    arguments = ("--replay", str(path.parent), "--speed", str(SPEED if _ == "recorded" else 1))
    with ExitStack() as stack:
        # Venues without a session are not read, unless somebody is named for them: orders of the mix need several.
        others = stack.enter_context(simulated_venues(folder))
        others.pop("binance")
        environment = {"CROSSFILL_JOURNAL": str(journal_folder), "CROSSFILL_VENUE_URLS": json.dumps(others)}
        system = stack.enter_context(running_system(folder / "home", *arguments, environment=environment))
        client = stack.enter_context(system.client())
        listener = Listener(system)
        _place_all(client, posted, listener)
        orders = _orders_when_ended(client, len(posted))
        splits = {order_id: client.get(f"/orders/{order_id}").json()["splits"] for order_id in orders}
        events: list[dict[str, Any]] = []
        while page := client.get("/events", params={"after": events[-1]["seq"] if events else 0}).json()["events"]:
            events += page
        deadline = time.monotonic() + 60
        while len(listener.messages) < len(events) + 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        listener.close()
        exit_status = system.stop(signal.SIGINT)
    files = sorted(journal_folder.glob("*.jsonl"))
    journal = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    largest = max(max(Decimal(quote["B"]), Decimal(quote["A"])) for quote in _quotes_of(path))
    ended = {order_id: Ended(order, splits[order_id]) for order_id, order in orders.items()}
    told = sorted((message for message in listener.messages if "seq" in message), key=itemgetter("seq"))
    return Run(path, folder / "home", posted, ended, told, events, journal, exit_status, largest)


@pytest.fixture(autouse=True)
def _said(session: tuple[Path, str], record_property: Callable[[str, object], None]) -> None:
    record_property(MARKET_DATA, session[1])


def test_every_class_of_order_occurs(run: Run) -> None:
    """At least 300 orders ran, and each class has at least 30 of them."""
    found = Counter(name for ended in run.ended.values() for name in ended.classes(run.largest_shown))
    assert len(run.ended) >= 300
    assert {name: found[name] for name in CLASSES if found[name] < CLASS_MIN} == {}


def test_splits_are_what_the_oracle_computes(run: Run) -> None:
    """The journal and the orders as posted give exactly the splits and ends that the API shows."""
    right = expected(run.journal, SILENCE_US)
    assert right.keys() == run.ended.keys()
    for order_id, ended in run.ended.items():
        got = [
            (s["venue"], s["product_id"], Decimal(s["price"]), Decimal(s["size"]), s["token"], s["quote_number"])
            for s in ended.splits
        ]
        assert got == right[order_id]["splits"], order_id
        assert ended.order["state"] == right[order_id]["state"], order_id
        assert ended.order["reason"] == right[order_id]["reason"], order_id


def test_the_journal_has_the_orders_as_posted(run: Run) -> None:
    """What the loop placed is what was posted: side, size, price, venues."""
    placed = {order[1]: order for entry in run.journal for order in entry["orders"]}
    assert placed.keys() == run.posted.keys()
    for order_id, (_, _, symbol, side, price, size, _, venues, *_) in placed.items():
        body = run.posted[order_id].body
        assert (symbol.replace("-", ""), side) == (body["symbol"].replace("-", ""), body["side"])
        assert (Decimal(price), Decimal(size)) == (Decimal(body["price"]), Decimal(body["order_size"]))
        assert venues == body.get("venues")


def test_the_journal_has_the_quotes_of_the_recording(run: Run) -> None:
    """Per product the same quotes in the same order; each one left out is counted as conflated."""
    keys = ("b", "B", "a", "A")
    recorded = [tuple(Decimal(quote[key]) for key in keys) for quote in _quotes_of(run.session)]
    applied = [
        (item[4], tuple(Decimal(value) for value in item[5:9]))
        for entry in run.journal
        for item in entry["items"]
        if item[0] == "quote" and item[1:3] == ["binance", "BTCUSDT"]
    ]
    numbers = sorted({number for number, _ in applied})
    conflated = numbers[-1] - len(numbers)
    assert numbers[-1] <= len(recorded)
    for number, quote in applied:
        assert recorded[number - 1] == quote, number
    # The recording goes on until the system is stopped, or ends before.
    assert conflated <= len(recorded) - len(numbers)
    assert len(numbers) > len(recorded) / 2


def _allowances(journal: list[dict[str, Any]]) -> dict[tuple[str, str, str, Decimal], Decimal]:
    """Return first size plus all growth of each level, from the quotes alone."""
    shown: dict[tuple[str, str, str], dict[Decimal, Decimal]] = defaultdict(dict)
    allowed: dict[tuple[str, str, str, Decimal], Decimal] = defaultdict(Decimal)
    for entry in journal:
        for item in entry["items"]:
            if item[0] != "quote" or not item[9]:
                continue
            for side, price_text, size_text in (("sell", item[5], item[6]), ("buy", item[7], item[8])):
                if price_text is None or size_text is None:
                    continue
                price, size = Decimal(price_text), Decimal(size_text)
                levels = shown[item[1], item[2], side]
                for better in [p for p in levels if (p > price if side == "sell" else p < price)]:
                    del levels[better]
                allowed[item[1], item[2], side, price] += max(Decimal(0), size - levels.get(price, Decimal(0)))
                levels[price] = size
    return allowed


def _oversold(journal: list[dict[str, Any]], sold: dict[tuple[str, str, str, Decimal], Decimal]) -> list[object]:
    allowed = _allowances(journal)
    return [(level, size, allowed[level]) for level, size in sold.items() if size > allowed[level]]


def test_no_level_is_sold_beyond_what_it_showed(run: Run) -> None:
    """On each level the sum sold, over all quotes and orders, is at most first size plus all growth."""
    sold: dict[tuple[str, str, str, Decimal], Decimal] = defaultdict(Decimal)
    for ended in run.ended.values():
        for split in ended.splits:
            level = (split["venue"], split["product_id"], ended.order["side"], Decimal(split["price"]))
            sold[level] += Decimal(split["size"])
    assert len(sold) > 100
    assert _oversold(run.journal, sold) == []


def test_a_ledger_that_forgets_would_be_found(run: Run) -> None:
    """The level invariant fails for a ledger that forgets at each quote, on the same journal."""
    from models.domain.ledger import EachQuote, Ledger  # noqa: PLC0415 -- only this test swaps it

    for ledger, honest in ((Ledger, True), (EachQuote, False)):
        book = Book(INSTRUMENTS, silence_us=SILENCE_US, ledger=ledger)
        sold: dict[tuple[str, str, str, Decimal], Decimal] = defaultdict(Decimal)
        for entry in run.journal:
            result = book.step(**read(entry))
            while True:
                for outcome in result.outcomes:
                    for split in outcome.splits:
                        sold[split.venue, split.product_id, split.side.value, split.price] += split.size
                if not result.more:
                    break
                result = book.step(entry["now"])
        assert (not _oversold(run.journal, sold)) is honest


def test_orders_keep_their_limits(run: Run) -> None:
    """Splits never exceed the order, stay within its limit and come before its deadline; each order ended once."""
    with closing(sqlite3.connect(run.home / "crossfill.db")) as connection:
        rows = connection.execute(
            "SELECT o.id, o.side, o.price, o.size, o.filled_size, o.deadline_us, s.price, s.size, s.created_us "
            "FROM orders o JOIN splits s ON s.order_seq = o.seq",
        ).fetchall()
    total: dict[str, Decimal] = defaultdict(Decimal)
    for order_id, side, limit, _, _, deadline, price, size, created in rows:
        total[order_id] += Decimal(size)
        assert (Decimal(price) >= Decimal(limit)) if side == "sell" else (Decimal(price) <= Decimal(limit))
        assert deadline is None or created < deadline
    for order_id, _, _, size, filled, *_ in rows:
        assert total[order_id] == Decimal(filled) <= Decimal(size)
    ends = Counter(event["order_id"] for event in run.events if event["type"].removeprefix("order.") in ENDED)
    assert ends == Counter(run.ended.keys())


def test_the_client_was_told_everything_in_order(run: Run) -> None:
    """The Socket.IO client has every event once, numbered without a gap, as GET /events has it."""
    assert [event["seq"] for event in run.events] == list(range(1, len(run.events) + 1))
    assert run.messages == run.events
    assert {event["market"] for event in run.events} == {"replay"}


def test_the_audit_finds_nothing_to_complain_about(run: Run) -> None:
    """Every order, split, level and record holds, and each split's quote is in the session, in its place."""
    environment = environment_of(run.home, {})
    command = [sys.executable, "-m", "cli", "audit", "verify", "--all", "--json", "--session", str(run.session)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    checked = json.loads(done.stdout)["checked"]
    splits = sum(len(ended.splits) for ended in run.ended.values())
    assert (checked["orders"], checked["splits"]) == (len(run.ended), splits)
    assert checked["records"] >= len(run.ended)
    assert 100 < checked["splits in the session"] <= splits


def test_up_ends_in_order(run: Run) -> None:
    """After SIGINT `crossfill up` ends with status 0 and leaves no process of its own."""
    assert run.exit_status == 0
