"""The faults: a seeded schedule of what happens to whom and for how long, and the hand that does it."""

import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from models.bus.leases import LEASE_MS
from models.store.file_lock import FileLock, LockTimeoutError
from tests.chaos.flight import Flight, Watcher
from tests.chaos.processes import LEASE_S, Process, System, signal_to
from tests.chaos.proxy import Proxy

DATABASE_S = 10.0
ANALYST_S = LEASE_MS / 1_000
HIT_S = 4.0  # for so long a kill waits for a moment with work in flight
CHILD_S = 15.0  # and so much longer for a price job: the first is due some seconds after the first request
SETTLED_S = 5.0  # a process that has just started has nothing in its hands yet
AGAIN = 3
FROZEN_S = 1.0  # a signal takes effect at once, but for a process in the midst of a write


@dataclass(frozen=True)
class Fault:
    """`what` happens at `at_s` seconds, for `for_s` of them; `draw` chooses whom it meets."""

    at_s: float
    what: str
    for_s: float
    draw: float


@dataclass(frozen=True)
class Hit:
    """A fault that happened, with what it met."""

    fault: Fault
    kind: str
    target: str
    flight: Flight

    @property
    def met_work(self) -> bool:
        """Whether it met work in flight."""
        return self.flight.work(self.kind) > 0


# Kinds of processes that others start, and who does.
CHILDREN = {"writer": "api", "child": "jobs", "beat": "jobs"}

# By name: which kind of process it meets, and between how many seconds it lasts.
FAULTS: dict[str, tuple[str, float, float]] = {
    "kill child": ("child", 0.0, 0.0),
    "kill jobs": ("jobs", 0.3, 1.0),
    "kill beat": ("beat", 0.0, 0.0),
    "kill writer": ("writer", 0.0, 0.0),
    "kill api": ("api", 0.3, 1.0),
    "kill fulfilment": ("fulfilment", 0.3, 2.0),
    "kill collector": ("collector", 0.3, 1.0),
    "kill analyst": ("analyst", 0.3, 1.0),
    "kill notifier": ("notifier", 0.3, 1.0),
    "restart api": ("api", 0.3, 1.0),
    "restart fulfilment": ("fulfilment", 0.3, 1.0),
    "stop fulfilment": ("fulfilment", LEASE_S + 1.0, LEASE_S + 4.0),
    "stop api": ("api", 1.0, 3.0),
    "stop collector": ("collector", 2.0, 6.0),
    "stop analyst": ("analyst", ANALYST_S + 1.0, ANALYST_S + 4.0),
    "stop notifier": ("notifier", 1.0, 4.0),
    "stop jobs": ("jobs", 1.0, 3.0),
    "kill redis": ("redis", 0.3, 1.5),
    "age redis": ("redis", 0.3, 1.0),
    "empty redis": ("redis", 0.3, 1.0),
    "lose database": ("database", DATABASE_S, DATABASE_S),
    "drop broker": ("network", 0.2, 2.0),
    "drop bus": ("network", 0.2, 2.0),
    "delay broker": ("network", 1.0, 3.0),
    "delay bus": ("network", 1.0, 3.0),
    "half-open broker": ("network", 2.0, 5.0),
    "half-open bus": ("network", 2.0, 5.0),
}
POSTGRES_FAULTS: dict[str, tuple[str, float, float]] = {
    "kill database": ("database", 0.3, 1.0),
    "drop database": ("network", 0.2, 2.0),
    "delay database": ("network", 1.0, 3.0),
    "half-open database": ("network", 2.0, 5.0),
}


def schedule(seed: int, duration_s: float, *, postgres: bool) -> list[Fault]:
    """Return every fault once, and again as long as there is time, in an order and at times of the seed.

    What ends a price job's worker comes first: its claim has half a minute to run out.
    """
    draw = random.Random(seed)
    kinds = FAULTS | (POSTGRES_FAULTS if postgres else {})
    first = ["kill child", "kill beat"]
    rest = [name for name in kinds if name not in first]
    draw.shuffle(first)
    draw.shuffle(rest)
    names = first + rest
    pace_s = min(duration_s / len(names), 4.0)
    made: list[Fault] = []
    at_s = 2.0
    while at_s < duration_s or len(made) < len(names):
        what = names[len(made)] if len(made) < len(names) else draw.choice(names)
        _, least_s, most_s = kinds[what]
        made.append(Fault(round(at_s, 2), what, round(draw.uniform(least_s, most_s), 2), draw.random()))
        at_s += pace_s * draw.uniform(0.6, 1.4)
    return made


class Hand:
    """Does what the schedule says, one fault after another; they may last into one another."""

    def __init__(self, system: System, watcher: Watcher, say: Callable[[str], None]) -> None:
        self._system = system
        self._watcher = watcher
        self._say = say
        self.hits: list[Hit] = []
        self._ends: list[threading.Timer] = []
        self.problems: list[str] = []
        self._busy: set[str] = set()  # whom a fault holds
        self._older: Path | None = None

    def run(self, faults: list[Fault], load_s: float) -> None:
        """Let everything of the schedule happen; return when all is over and heals."""
        started = time.monotonic()
        for fault in faults:
            _sleep_until(started + fault.at_s)
            self._do(fault, started)
        _sleep_until(started + load_s)
        # Whom nothing has met with work in its hands, is met again.
        met = {hit.kind for hit in self.hits if hit.met_work}
        for fault in [each for _ in range(AGAIN) for each in faults]:
            kind = (FAULTS | POSTGRES_FAULTS)[fault.what][0]
            if kind not in met and self._do(replace(fault, at_s=time.monotonic() - started), started):
                met.add(kind)
        for end in self._ends:
            end.join()

    def _do(self, fault: Fault, started: float) -> bool:
        """Let a fault happen; return whether it met work in flight."""
        hit = self._strike(fault, (FAULTS | POSTGRES_FAULTS)[fault.what][0])
        if hit is None:
            return False
        self.hits.append(hit)
        self._say(f"{time.monotonic() - started:6.1f} s  {fault.what} ({hit.target}): {hit.flight}")
        return hit.met_work

    def _later(self, for_s: float, end: Callable[[], None], who: str) -> None:
        """End a fault after its time, in a thread of its own: ours may be waiting for what the fault holds."""

        def over() -> None:
            try:
                end()
            except Exception as error:  # noqa: BLE001 -- told at the end
                self.problems.append(f"the end of a fault of {who} failed: {error!r}")
            self._busy.discard(who)

        self._busy.add(who)
        timer = threading.Timer(for_s, over)
        timer.daemon = True
        timer.start()
        self._ends.append(timer)

    def _strike(self, fault: Fault, kind: str) -> Hit | None:
        verb, _, what = fault.what.partition(" ")
        if what == "redis":
            return self._redis(fault, verb)
        if verb == "lose":
            return self._sqlite(fault) if self._system.is_sqlite else self._stop_postgres(fault)
        if fault.what == "kill database":
            return self._kill_postgres(fault)
        if kind == "network":
            return self._network(fault, verb, what)
        if kind in CHILDREN:
            return self._child(fault, kind)
        free = self._free(kind)
        if kind == "analyst":  # the one that works, not the one that stands by
            free = [each for each in free if self._watcher.analyses(each)] or free
        return self._process(fault, free[int(fault.draw * len(free))]) if free else None

    def _free(self, kind: str) -> list[Process]:
        """Return the processes of a kind that run and have for a while; wait for one, where there is none."""
        deadline = time.monotonic() + SETTLED_S + CHILD_S  # on a busy machine a start takes that long
        while time.monotonic() < deadline:
            settled = time.monotonic() - SETTLED_S
            found = [each for each in self._system.of(kind) if each.pid and each.started_at < settled]
            if free := [each for each in found if each.name not in self._busy]:
                return free
            time.sleep(0.1)
        return []

    # Our own programs

    def _process(self, fault: Fault, process: Process) -> Hit:
        verb = fault.what.split(" ")[0]
        # A worker that stands still within a transaction keeps SQLite's lock, and nobody can overtake it.
        outside = fault.what in {"stop fulfilment", "stop analyst"} and self._system.is_sqlite
        flight = self._freeze(process, process.kind, [process.pid], outside=outside)
        if verb == "stop":
            self._later(fault.for_s, lambda: process.signal_all(signal.SIGCONT), process.name)
        elif verb == "restart":
            signal_to([process.pid], signal.SIGCONT)
            process.terminate()

            def again() -> None:
                process.end()
                process.start()

            self._later(fault.for_s, again, process.name)
        else:
            process.kill()
            self._later(fault.for_s, process.start, process.name)
        return Hit(fault, process.kind, process.name, flight)

    def _child(self, fault: Fault, kind: str) -> Hit | None:
        """Kill a child: the API's writer, or of the jobs worker that which works, or beat."""
        if not self._free(CHILDREN[kind]):
            return None
        [parent] = self._system.of(CHILDREN[kind])
        pid = child_of(parent.pid, kind)
        if not pid:
            return None
        flight = self._freeze(parent, kind, [pid])
        signal_to([pid], signal.SIGKILL)
        return Hit(fault, kind, f"{kind} of {parent.name}", flight)

    def _freeze(self, process: Process, kind: str, pids: list[int], *, outside: bool = False) -> Flight:
        """Stop processes at a moment with work in flight, and return what that is; without one after HIT_S."""
        if kind == "child":  # it works for a moment only, and would not come to it if it were stopped all the time
            until_s = time.monotonic() + CHILD_S
            while not self._watcher.flight(None).running and time.monotonic() < until_s:
                time.sleep(0.002)
        deadline = time.monotonic() + HIT_S
        while True:
            signal_to(pids, signal.SIGSTOP)
            _stopped(pids)
            flight = self._watcher.flight(process, pids)
            if time.monotonic() > deadline or (flight.work(kind) and not (outside and flight.transactions)):
                return flight
            signal_to(pids, signal.SIGCONT)
            time.sleep(0.003)

    # Servers

    def _redis(self, fault: Fault, verb: str) -> Hit:
        redis = self._system.redis
        while "redis" in self._busy:  # it is just starting
            time.sleep(0.1)
        flight = self._freeze(redis, "redis", [redis.pid])
        redis.kill()
        if verb == "age" and self._older is not None:
            self._system.replace_redis(self._older)
        elif verb == "empty":
            self._system.replace_redis(None)
        if verb in {"age", "empty"}:
            self._watcher.witness.seen.forgot_ms.append(time.time_ns() // 1_000_000)
        self._later(fault.for_s, self._system.start_redis, "redis")
        return Hit(fault, "redis", "redis", flight)

    def remember_redis(self) -> None:
        """Copy Redis' data now: what an older Redis will know."""
        self._older = self._system.copy_redis()

    def _sqlite(self, fault: Fault) -> Hit:
        """Hold the project's own lock, and SQLite's, for some seconds."""
        path = self._system.folder / "crossfill.db"
        flight = self._when_busy("database")
        lock = FileLock(f"{path}.lock", timeout_s=10)
        with suppress(LockTimeoutError):
            lock.acquire()
            connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            connection.execute("BEGIN EXCLUSIVE")

            def end() -> None:
                connection.execute("ROLLBACK")
                connection.close()
                lock.release()
                lock.close()

            self._later(fault.for_s, end, "database")
        return Hit(fault, "database", "sqlite", flight)

    def _stop_postgres(self, fault: Fault) -> Hit:
        server = self._system.postgres
        assert server is not None
        flight = self._when_busy("database")
        server.signal_all(signal.SIGSTOP)
        self._watcher.blind = True

        def end() -> None:
            server.signal_all(signal.SIGCONT)
            self._watcher.blind = False

        self._later(fault.for_s, end, "database")
        return Hit(fault, "database", "postgres", flight)

    def _kill_postgres(self, fault: Fault) -> Hit:
        """End it at once; it recovers from its log when it starts (SIGKILL would leave its children)."""
        server = self._system.postgres
        assert server is not None
        while "database" in self._busy:  # it stands still, and would not hear
            time.sleep(0.1)
        flight = self._when_busy("database")
        server.kill(signal.SIGQUIT)
        self._watcher.blind = True

        def start() -> None:
            server.start()
            self._system.wait_database()
            self._watcher.blind = False

        self._later(fault.for_s, start, "database")
        return Hit(fault, "database", "postgres", flight)

    def _network(self, fault: Fault, verb: str, what: str) -> Hit | None:
        proxy: Proxy | None = {
            "broker": self._system.broker,
            "bus": self._system.bus,
            "database": self._system.between,
        }[what]
        if proxy is None or f"network {what}" in self._busy:
            return None
        flight = self._when_busy("network")
        if verb == "drop":
            proxy.drop()
        elif verb == "delay":
            proxy.delay_s = 0.02 + 0.3 * fault.draw
        else:
            proxy.half_open()
        self._later(fault.for_s, proxy.heal, f"network {what}")
        return Hit(fault, "network", what, flight)

    def _when_busy(self, kind: str) -> Flight:
        deadline = time.monotonic() + HIT_S
        while True:
            flight = self._watcher.flight(None)
            if flight.work(kind) or time.monotonic() > deadline:
                return flight
            time.sleep(0.003)


def _sleep_until(at_s: float) -> None:
    time.sleep(max(0.0, at_s - time.monotonic()))


def child_of(parent: int, kind: str) -> int:
    """Return the API's "writer", or the jobs worker's "child" (it has pipes to its parent) or "beat"; 0 without one."""
    with suppress(psutil.Error, OSError):
        for child in psutil.Process(parent).children():
            if kind == "writer":
                return child.pid
            links = [str(entry.readlink()) for entry in Path(f"/proc/{child.pid}/fd").iterdir()]
            if any(link.startswith("pipe:") for link in links) is (kind == "child"):
                return child.pid
    return 0


def _stopped(pids: list[int]) -> None:
    deadline = time.monotonic() + FROZEN_S
    while time.monotonic() < deadline and not all(_states(pids)):
        time.sleep(0.0005)


def _states(pids: list[int]) -> Iterator[bool]:
    for pid in pids:
        try:
            yield psutil.Process(pid).status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
        except psutil.NoSuchProcess:
            yield True
