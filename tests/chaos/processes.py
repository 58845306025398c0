"""The whole system, each process under our own control: killed, stopped, woken and started again."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from cli.valkey import binary, configure, wait_ready
from models.domain.moving_averages import Kind, Seed
from models.domain.strategies import Strategy, Variant
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from models.store.strategies import put_strategy
from models.store.venues import ensure_venues
from tests.chaos.proxy import Proxy
from tests.services import ROOT, postgres_command

SHARDS = 4
LEASE_S = 2
VENUES = ("binance", "coinbase", "kraken")
OWNERS = ("local", "second", "third")
WATCH_S = 0.1
AGAIN_S = 0.5  # a process that ended is started again after so long, as a supervisor would
PASSWORD = "chaos"
# So short that it raises something all the time.
STRATEGY = Strategy(
    "chaos",
    {"a": Variant(Kind.SMA, 2, 5), "b": Variant(Kind.EMA, 2, 5, Seed.SMA)},
    interval="1s",
    pairs=("BTC-USDT", "ETH-USDT", "LTC-BTC", "LTC-USDT"),
)


def stable_port() -> int:
    """Return a free port that no outgoing connection is given: a server must find it again after its death."""
    while True:
        port = random.randint(12_000, 31_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def signal_to(pids: Iterable[int], number: int) -> None:
    """Send a signal to processes; 0 is none (and to the system, the whole of our own group)."""
    for pid in pids:
        if pid > 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass
class Process:
    """A program that is kept running, unless it is told to be down."""

    name: str
    kind: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    cwd: Path = ROOT
    user: Mapping[str, int] = field(default_factory=dict)
    ends_by: int = signal.SIGTERM
    up: bool = False  # whether it should run
    deaths: int = 0  # that nobody asked for
    stuck: int = 0  # how often it did not end when asked to
    handle: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    _again_at: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> None:
        """Start it, and again whenever it ends."""
        with self._lock:
            self.up, self.started_at, self._again_at = True, time.monotonic(), 0.0
            self._open()

    def _open(self) -> None:
        with self.log.open("ab") as output:
            self.handle = subprocess.Popen(  # type: ignore[call-overload] # keywords vary
                self.command,
                env=dict(self.environment),
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                extra_groups=[] if self.user else None,
                **self.user,
            )

    @property
    def pid(self) -> int:
        """Its process id; 0 where it does not run."""
        return self.handle.pid if self.handle is not None and self.handle.poll() is None else 0

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Kill it, and what it leaves behind; it stays down."""
        with self._lock:
            self.up = False
        if self.handle is not None:
            signal_to([self.pid], number)
            self.handle.wait(20)
            self._sweep()

    def signal_all(self, number: int) -> None:
        """Send a signal to it and all of its children."""
        signal_to(self.family(), number)

    def family(self) -> list[int]:
        """Return its process id and those of its children."""
        pid = self.pid
        if not pid:
            return []
        try:
            return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def terminate(self) -> None:
        """Ask it to end; it stays down."""
        with self._lock:
            self.up = False
        if self.handle is not None and self.handle.poll() is None:
            self.handle.send_signal(self.ends_by)

    def end(self, limit_s: float = 15) -> None:
        """Wait for its end after `terminate`; kill it, and note that, where that takes too long."""
        if self.handle is not None:
            try:
                self.handle.wait(limit_s)
            except subprocess.TimeoutExpired:
                self.stuck += 1
                self.handle.kill()
                self.handle.wait(5)
            self._sweep()

    def watch(self, now: float) -> None:
        """Start it again where it ended although it should run."""
        with self._lock:
            if not self.up or self.handle is None or self.handle.poll() is None:
                return
            if not self._again_at:
                self.deaths += 1
                self._again_at = now + AGAIN_S
            elif now >= self._again_at:
                self._sweep()
                self.start()

    def _sweep(self) -> None:
        """End the rest of its group, as `crossfill up` does."""
        assert self.handle is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.handle.pid, signal.SIGKILL)


class System:
    """Two fulfilment workers, two collectors (one venue has both), two analysts, API, notifier, jobs worker.

    That one has its child and beat. Redis and PostgreSQL stand behind proxies, as broker, as bus and as database.
    """

    def __init__(self, folder: Path, database: str, seed: int) -> None:
        self.folder = folder
        self.is_sqlite = database == "sqlite"
        self.journal = folder / "journal"
        self.tokens = {owner: f"token-of-{owner}" for owner in OWNERS}
        self._processes: list[Process] = []
        self._ended = threading.Event()
        (folder / "logs").mkdir(parents=True)
        redis_port, self._postgres_port = stable_port(), stable_port()
        self.redis_url = f"redis://:{PASSWORD}@127.0.0.1:{redis_port}/0"
        self.broker, self.bus = Proxy(redis_port), Proxy(redis_port)
        self.between = None if self.is_sqlite else Proxy(self._postgres_port)
        self.database_url = self._database(self._postgres_port)
        ports = {venue: stable_port() for venue in VENUES}
        api_port, notifier_port = stable_port(), stable_port()
        self.api, self.notifier = f"http://127.0.0.1:{api_port}", f"http://127.0.0.1:{notifier_port}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("CROSSFILL_", "PG"))}
        urls = ", ".join(f'"{venue}": "ws://127.0.0.1:{port}"' for venue, port in ports.items())
        self._environment = {
            **kept,
            "CROSSFILL_HOME": str(folder),
            "CROSSFILL_DATABASE_URL": self._database(self.between.port if self.between else 0),
            "CROSSFILL_BROKER_URL": f"redis://:{PASSWORD}@127.0.0.1:{self.broker.port}/0",
            "CROSSFILL_BUS_URL": f"redis://:{PASSWORD}@127.0.0.1:{self.bus.port}/0",
            "CROSSFILL_VENUES": ",".join(VENUES),
            "CROSSFILL_VENUE_URLS": f"{{{urls}}}",
            "CROSSFILL_API_PORT": str(api_port),
            "CROSSFILL_NOTIFIER_PORT": str(notifier_port),
            "CROSSFILL_LEASE_S": str(LEASE_S),
            "CROSSFILL_JOURNAL": str(self.journal),
            "PYTHONUNBUFFERED": "1",
        }
        self.redis = self._redis(redis_port)
        self.postgres = None if self.is_sqlite else self._postgres()
        simulator = [f"--port={venue}={port}" for venue, port in ports.items()]
        self._add("simulator", "simulator", "simulator", "--seed", str(seed), *simulator)
        self._add("fulfilment-1", "fulfilment", "workers", "fulfilment")
        self._add("fulfilment-2", "fulfilment", "workers", "fulfilment")
        self._add("api", "api", "api")
        self._add("collector-1", "collector", "workers.collector", "binance", "coinbase")
        self._add("collector-2", "collector", "workers.collector", "kraken", "binance")
        self._add("analyst-1", "analyst", "workers.analyst")
        self._add("analyst-2", "analyst", "workers.analyst")
        self._add("notifier", "notifier", "notifier")
        self._add("jobs", "jobs", "workers", "jobs")
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def _database(self, port: int) -> str:
        if self.is_sqlite:
            return f"sqlite:///{self.folder / 'crossfill.db'}"
        return f"postgresql+psycopg://crossfill@127.0.0.1:{port}/postgres"

    def _add(self, name: str, kind: str, module: str, *arguments: str) -> None:
        environment = {**self._environment, "PGAPPNAME": name}  # tells the server who is connected
        command = (sys.executable, "-m", module, *arguments)
        self._processes.append(Process(name, kind, command, environment, self.folder / "logs" / f"{name}.log"))

    def _redis(self, port: int) -> Process:
        configuration = configure(self.folder / "valkey", port, PASSWORD)
        command = (str(binary()), str(configuration))
        made = Process("redis", "redis", command, self._environment, self.folder / "logs" / "redis.log")
        self._processes.append(made)
        return made

    def _postgres(self) -> Process:
        command, user = postgres_command(self.folder / "postgres", self._postgres_port)
        log = self.folder / "logs" / "postgres.log"
        # At a SIGTERM it would wait for its clients.
        made = Process("postgres", "database", command, {}, log, self.folder / "postgres", user, signal.SIGINT)
        self._processes.append(made)
        return made

    def of(self, kind: str) -> list[Process]:
        """Return the processes of a kind."""
        return [process for process in self._processes if process.kind == kind]

    def workers(self) -> list[Process]:
        """Return our own programs: all but servers and the simulated market."""
        return [process for process in self._processes if process.kind not in {"redis", "database", "simulator"}]

    @property
    def deaths(self) -> dict[str, int]:
        """How often each process ended although nobody had killed it."""
        return {process.name: process.deaths for process in self._processes if process.deaths}

    @property
    def stuck(self) -> dict[str, int]:
        """How often each process did not end when it was asked to."""
        return {process.name: process.stuck for process in self._processes if process.stuck}

    def start(self) -> None:
        """Start everything, servers first."""
        self.start_redis()
        if self.postgres is not None:
            self.postgres.start()
            self.wait_database()
        if not self._watcher.is_alive():
            self._prepare()
            self._watcher.start()
        for process in self._processes:
            if process.kind not in {"redis", "database"}:
                process.start()

    def start_redis(self) -> None:
        """Start Redis and wait until it answers."""
        self.redis.start()
        assert self.redis.handle is not None
        wait_ready(int(self.redis_url.rsplit(":", 1)[1].split("/")[0]), PASSWORD, self.redis.handle)

    def wait_database(self) -> None:
        """Wait until PostgreSQL answers."""
        database = Database.open(self.database_url, pool_size=1)
        until(lambda: _answers(database), 30, "PostgreSQL does not answer")
        database.close()

    def _prepare(self) -> None:
        migrate(self.database_url)
        database = Database.open(self.database_url, pool_size=1)
        fix_shards(database, SHARDS)
        ensure_venues(database, VENUES)
        for owner, token in self.tokens.items():
            ensure_owner(database, owner, "admin", token)
        put_strategy(database, STRATEGY)
        database.close()

    def stop(self) -> None:
        """Stop everything in order; servers last."""
        for process in self._processes:
            process.signal_all(signal.SIGCONT)
        ours = [process for process in self._processes if process.kind not in {"redis", "database"}]
        for process in ours:
            process.terminate()
        for process in ours:
            process.end()
        for process in [self.redis, *([self.postgres] if self.postgres else [])]:
            process.terminate()
            process.end(30)

    def close(self) -> None:
        """End whatever still runs; nothing is left behind."""
        self._ended.set()
        if self._watcher.is_alive():
            self._watcher.join(5)
        for process in self._processes:
            process.signal_all(signal.SIGCONT)
            process.kill()
        for proxy in (self.broker, self.bus, self.between):
            if proxy is not None:
                proxy.close()

    def _watch(self) -> None:
        while not self._ended.wait(WATCH_S):
            for process in self._processes:
                process.watch(time.monotonic())

    # Redis' memory

    def copy_redis(self) -> Path:
        """Copy what Redis has on its disk, for `replace_redis`."""
        copy = self.folder / "valkey-older"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder / "valkey" / "appendonlydir", copy)
        return copy

    def replace_redis(self, copy: Path | None) -> None:
        """Let a dead Redis wake up with what it had when it was copied, or with nothing."""
        data = self.folder / "valkey" / "appendonlydir"
        shutil.rmtree(data, ignore_errors=True)
        if copy is not None:
            shutil.copytree(copy, data)


def _answers(database: Database) -> bool:
    try:
        with database.read() as connection:
            connection.exec_driver_sql("SELECT 1")
    except Exception:  # noqa: BLE001 -- while it starts it says no in many ways
        return False
    return True


def until(condition: Callable[[], object], limit_s: float, problem: str | Callable[[], str]) -> None:
    """Wait for a condition. Raises AssertionError with the problem."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(problem if isinstance(problem, str) else problem())
        time.sleep(0.05)
