"""What is in flight, as well as it can be known from outside: from the database, Redis, locks, sockets and clients."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import Connection, text

from models.bus.client import connect
from models.bus.names import ANALYST, PENDING, STATE, Queue, orders_queue, quotes_stream
from models.bus.tape import position_of
from models.domain.analysis import PARTS
from models.domain.errors import CrossfillError
from models.store.database import Database
from tests.chaos.market import Witness
from tests.chaos.processes import SHARDS, Process, System


@dataclass(frozen=True)
class Flight:
    """What a fault would hit. A field that cannot be seen just then is 0."""

    requests: int = 0  # that clients have sent and have no answer to
    unplaced: int = 0  # orders that are accepted and in no book
    resting: int = 0  # orders in the books that the process owns
    transactions: int = 0  # that the process is in the midst of
    messages: int = 0  # wake-ups in the queues
    running: int = 0  # price jobs that somebody claimed or renewed within the last seconds
    waiting: int = 0  # price jobs that nobody was told of: only the sweeper finds them
    unpushed: int = 0  # events that are committed and have not come to a client
    unread: int = 0  # bytes in the sockets of the process
    unkept: int = 0  # batches of the market that are beyond what the analyst has kept
    unstored: int = 0  # closed candles that are not in the database

    def work(self, kind: str) -> int:
        """Return how much of it a process of this kind has in its hands."""
        return sum(getattr(self, name) for name in WORK[kind])

    def __add__(self, other: "Flight") -> "Flight":
        return Flight(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        found = ((each.name, getattr(self, each.name)) for each in fields(self))
        return ", ".join(f"{name} {count:,}" for name, count in found if count) or "nothing"


# What counts as work in the hands of each kind.
WORK = {
    "api": ("requests", "transactions"),
    "writer": ("requests", "transactions"),
    "fulfilment": ("unplaced", "transactions"),
    "jobs": ("running", "messages", "waiting"),
    "child": ("running",),
    "beat": ("waiting",),
    "collector": ("unread",),
    "analyst": ("unkept", "unstored"),
    "notifier": ("unpushed",),
    "redis": ("unread", "messages"),
    "database": ("transactions", "requests", "unplaced"),
    "network": ("requests", "unplaced", "unpushed"),
}

# A claim of a worker that died runs on for its whole lease; it is no work in anybody's hands.
FRESH_US = 28_000_000  # of the 30 s of workers.jobs.LEASE_US


class Watcher:
    """Measures. `requests` and `unpushed` ask the clients."""

    def __init__(self, system: System, requests: Callable[[], int], unpushed: Callable[[dict[str, int]], int]) -> None:
        self._system = system
        self._requests = requests
        self._unpushed = unpushed
        self.blind = False  # the database does not answer; to ask it would be to wait for it
        self.database = Database.open(system.database_url, pool_size=2)
        self.redis = connect(system.redis_url, timeout_s=0.5)
        self.witness = Witness(system.redis_url)

    def close(self) -> None:
        """Close the connections."""
        self.witness.close()
        self.database.close()
        self.redis.close()

    def flight(self, process: Process | None, pids: Iterable[int] = ()) -> Flight:
        """Return what is in flight now, for a process (or all of them), whose sockets are those of `pids`."""
        requests = self._requests()
        seen = Flight(requests=requests, unread=sum(map(unread, pids)), messages=self.messages())
        if self._system.is_sqlite and process is not None:
            seen += Flight(transactions=int(lock_holder(self._system.folder / "crossfill.db.lock") in set(pids)))
        if process is not None and process.kind == "analyst":
            seen += self._analysed(process)
        if not self.blind:
            with suppress(CrossfillError), self.database.read() as connection:
                seen += self._stored(connection, process)
        return seen

    def analyses(self, process: Process) -> bool:
        """Say whether this analyst is the one that works."""
        try:
            owner: Any = self.redis.get(ANALYST)
        except redis.RedisError:
            return False
        return owner is not None and owner.startswith(b"%d-" % process.pid)

    def _analysed(self, process: Process) -> Flight:
        if not self.analyses(process):
            return Flight()
        try:
            beyond: list[Any] = []
            for shard in range(SHARDS):
                kept: Any = self.redis.hmget(STATE, [position_of(part, shard) for part in range(PARTS)])
                position = min(filter(None, kept), key=_number, default=None)
                if position is not None:
                    beyond.append(self.redis.xrange(quotes_stream(shard), f"({position.decode()}", count=100))
            return Flight(unkept=sum(map(len, beyond)), unstored=int(self.redis.llen(PENDING)))
        except redis.RedisError:
            return Flight()

    def messages(self, *, held: bool = True) -> int:
        """Return how many wake-ups are in the queues and, where asked, how many were taken and not acknowledged.

        What a killed worker held stays so for its visibility timeout of a minute, and is then given back.
        """
        try:
            names = [*map(str, Queue), *map(orders_queue, range(SHARDS))]
            return sum(int(self.redis.llen(name)) for name in names) + held * int(self.redis.hlen("unacked"))
        except redis.RedisError:
            return 0

    def _stored(self, connection: Connection, process: Process | None) -> Flight:
        def one(query: str, **values: object) -> int:
            return int(connection.execute(text(query), values).scalar_one() or 0)

        shards = "SELECT shard FROM shards"
        if process is not None and process.kind == "fulfilment":
            shards += f" WHERE owner LIKE '%-{process.pid}'"
        of_these = f"shard IN ({shards}) AND ended_us IS NULL AND state ="
        jobs = "SELECT count(*) FROM jobs WHERE ended_us IS NULL AND kind != 'order' AND state ="
        seqs = connection.execute(text("SELECT id, event_seq FROM owners")).all()
        return Flight(
            unplaced=one(f"SELECT count(*) FROM orders WHERE {of_these} 'queued'"),
            resting=one(f"SELECT count(*) FROM orders WHERE {of_these} 'working'"),
            running=one(f"{jobs} 'running' AND lease_until_us > :fresh", fresh=time.time_ns() // 1000 + FRESH_US),
            waiting=one(f"{jobs} 'queued'"),
            unpushed=self._unpushed({row.id: row.event_seq for row in seqs}),
            transactions=0 if self._system.is_sqlite else one(_TRANSACTIONS, name=process.name if process else "%"),
        )


_TRANSACTIONS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE application_name LIKE :name AND backend_xid IS NOT NULL AND pid != pg_backend_pid()"
)


def lock_holder(path: Path) -> int:
    """Return the process that holds `flock` on a file; 0 where nobody does."""
    with suppress(OSError):
        inode = f":{path.stat().st_ino} "
        for line in Path("/proc/locks").read_text().splitlines():
            if inode in line and "FLOCK" in line and "->" not in line:
                return int(line.split()[4])
    return 0


def unread(pid: int) -> int:
    """Return how many bytes lie in a process's sockets, come and not read or written and not sent."""
    total = 0
    with suppress(OSError):
        mine = set()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    mine.add(target[8:-1])
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[9] in mine and parts[3] == "01":  # established
                total += sum(int(size, 16) for size in parts[4].split(":"))
    return total


def _number(position: bytes) -> list[int]:
    return [int(part) for part in position.split(b"-")]
