"""The programs of `crossfill up`: what each is called with, and what it gets by its environment."""

import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.supervisor import Program
from cli.valkey import binary, configure
from models.domain.quotes import Market
from models.settings import Settings
from simulator.registry import WIRES

USER = "crossfill"  # Flower's
# Programs that have no HTTP server but that of their metrics; its port is picked free.
LISTENERS = ("fulfilment", "collectors", "analyst", "jobs", "archivist")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What `up` was asked to run; paths are absolute."""

    settings: Settings
    home: Path
    ports: Mapping[str, int]  # by the names of ports.json
    token: str
    redis_password: str
    market: Market
    replay: Path | None = None
    speed: float = 1.0
    loop: bool = False

    @property
    def venues(self) -> tuple[str, ...]:
        """The venues that are read: all that are asked for, or those of them that somebody on this machine speaks."""
        wanted = self.settings.venue_names
        if self.market is Market.LIVE:
            return wanted
        return tuple(venue for venue in wanted if venue in WIRES or served(self.settings, venue))

    @property
    def simulated(self) -> tuple[str, ...]:
        """The venues that the simulator speaks."""
        if self.market is Market.LIVE:
            return ()
        elsewhere = {venue for venue in self.venues if self.replay is not None and served(self.settings, venue)}
        return tuple(venue for venue in self.venues if venue in WIRES and venue not in elsewhere)

    @property
    def bundled_redis(self) -> bool:
        """Whether the bundled server is run, because no other is named."""
        return self.settings.broker_url is None


def served(settings: Settings, venue: str) -> bool:
    """Return whether somebody on this machine is named as a venue.

    Elsewhere it may be the real one, whose prices nobody should take for made up ones.
    """
    return urlsplit(settings.venue_urls.get(venue, "")).hostname in {"127.0.0.1", "::1", "localhost"}


def programs(plan: Plan) -> list[Program]:
    """Return what runs, in the order in which it starts. Raises ValkeyError."""
    environment = _environment(plan)
    listed = []
    if plan.bundled_redis:
        listed.append(_redis(plan, environment))
    if plan.market is not Market.LIVE:
        listed.append(_simulator(plan, environment))

    def add(name: str, *arguments: str, **more: str) -> None:
        listed.append(
            Program(name=name, command=(sys.executable, "-m", *arguments), environment={**environment, **more})
        )

    def metrics(name: str) -> dict[str, str]:
        return {"CROSSFILL_METRICS_PORT": str(plan.ports[f"metrics_{name}"])}

    add("fulfilment", "workers", "fulfilment", **metrics("fulfilment"))
    add("api", "api")
    # Before what it reads: a replay begins with its first reader, and an analyst that knows nothing with what comes.
    add("analyst", "workers.analyst", **metrics("analyst"))
    # One process for all of them: its threads idle most of the time, and each process costs 70 MB.
    add("collectors", "workers.collector", *plan.venues, **metrics("collectors"))
    add("notifier", "notifier")
    add("jobs", "workers", "jobs", **metrics("jobs"))
    add("archivist", "workers.archivist", **metrics("archivist"))
    add("flower", "celery", "-A", "workers.celery", "flower", **flower_environment(plan.token, plan.ports["flower"]))
    return listed


def flower_environment(token: str, port: int, address: str = "127.0.0.1") -> dict[str, str]:
    """Return Flower's options. Its command line would show the password to everybody on the machine."""
    return {
        "FLOWER_ADDRESS": address,
        "FLOWER_PORT": str(port),
        "FLOWER_BASIC_AUTH": f"{USER}:{token}",
        "FLOWER_READ_ONLY": "true",
        "FLOWER_PERSISTENT": "false",
        "FLOWER_MAX_TASKS": "2000",  # it keeps them in memory; a task is in the database anyway
        "FLOWER_PURGE_OFFLINE_WORKERS": "60",
        "FLOWER_LOGGING": "error",  # it warns of every worker that is busy for a second
    }


def _environment(plan: Plan) -> dict[str, str]:
    """Return what every child gets: this process's own environment, with every choice that `up` made."""
    ours = {
        "CROSSFILL_HOME": str(plan.home),
        "CROSSFILL_MARKET": plan.market.value,
        "CROSSFILL_VENUES": ",".join(plan.venues),
        "CROSSFILL_MARKET_DATA": str(plan.settings.market_data.absolute()),
        "CROSSFILL_API_PORT": str(plan.ports["api"]),
        "CROSSFILL_NOTIFIER_PORT": str(plan.ports["notifier"]),
        "CROSSFILL_FLOWER_PORT": str(plan.ports["flower"]),
        "PYTHONUNBUFFERED": "1",
    }
    if plan.bundled_redis:
        ours["CROSSFILL_BROKER_URL"] = f"redis://:{plan.redis_password}@127.0.0.1:{plan.ports['redis']}/0"
    if plan.market is not Market.LIVE:
        urls = {venue: f"ws://127.0.0.1:{plan.ports[venue]}" for venue in plan.simulated}
        urls |= {venue: plan.settings.venue_urls[venue] for venue in plan.venues if venue not in urls}
        ours["CROSSFILL_VENUE_URLS"] = json.dumps(urls)
    if plan.settings.archive_url is not None and "://" not in plan.settings.archive_url:
        ours["CROSSFILL_ARCHIVE_URL"] = str(Path(plan.settings.archive_url).absolute())
    if plan.replay is not None:
        ours["CROSSFILL_SITTING"] = secrets.token_hex(8)
    if plan.settings.journal is not None:
        ours["CROSSFILL_JOURNAL"] = str(plan.settings.journal.absolute())
    # FLOWER_UNAUTHENTICATED_API would open Flower; the token is for the command line.
    hidden = ("FLOWER_", "CROSSFILL_TOKEN", "CROSSFILL_UNDER_MAKE", "MAKE", "MFLAGS")
    return {key: value for key, value in os.environ.items() if not key.startswith(hidden)} | ours


def _redis(plan: Plan, environment: Mapping[str, str]) -> Program:
    port, password = plan.ports["redis"], plan.redis_password
    configuration = configure(plan.home / "valkey", port, password)
    once = Retry(NoBackoff(), 0)  # the supervisor asks again; the client's own patience would hold everything up
    client = redis.Redis(port=port, password=password, socket_timeout=1, socket_connect_timeout=1, retry=once)

    def ready() -> bool:
        try:
            client.ping()
        except redis.RedisError:  # not there yet, or still loading its file
            return False
        client.close()
        return True

    command = (str(binary()), str(configuration))
    return Program(name="redis", command=command, environment=environment, ready=ready, ends_last=True)


def _simulator(plan: Plan, environment: Mapping[str, str]) -> Program:
    ports = plan.ports
    command = [sys.executable, "-m", "simulator", "--control-port", str(ports["simulator_control"])]
    for venue in plan.simulated:
        command += ["--port", f"{venue}={ports[venue]}"]
    if plan.replay is None:
        command += ["--seed", str(plan.settings.seed)]
    else:
        command += ["--replay", str(plan.replay), "--speed", str(plan.speed), *(["--loop"] if plan.loop else [])]
    # It needs no secrets: it is the world outside.
    public = {
        key: value
        for key, value in environment.items()
        if key not in {"CROSSFILL_BROKER_URL", "CROSSFILL_BUS_URL", "CROSSFILL_KAFKA_OPTIONS", "CROSSFILL_DATABASE_URL"}
    }
    return Program(name="simulator", command=command, environment=public)


def listens(host: str, port: int) -> bool:
    """Return whether somebody accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
