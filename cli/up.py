"""`crossfill up`: everything on this machine, in one terminal."""

import json
import logging
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from cli import home as home_folder
from cli.console import Console
from cli.leftovers import end_leftovers
from cli.legacy import FILE, environment
from cli.programs import LISTENERS, USER, Plan, listens, programs, served
from cli.supervisor import Supervisor
from cli.valkey import free_port
from models.domain.errors import CrossfillError
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Market
from models.settings import Settings
from simulator.registry import WIRES
from simulator.replay import SessionError, find

READY_LIMIT_S = 30.0  # then the screen says what is missing, instead of nothing for ever
# make deletes the file named here when it is interrupted: the one trace of a SIGINT that was sent to make alone.
UNDER_MAKE = "CROSSFILL_UNDER_MAKE"
MARKETS = {
    Market.SIMULATED: "a SIMULATED market: every price is made up (real ones: make live)",
    Market.REPLAY: "a REPLAYED market: recorded prices, not today's",
    Market.LIVE: "the LIVE market: the exchanges' prices; orders stay on paper",
}


class UpError(CrossfillError):
    """The system cannot be started as asked; the sentence says what to change."""


@dataclass(frozen=True)
class Health:
    """What /health/ready said: the status, and a sentence for each part that is not up."""

    status: str
    missing: tuple[str, ...] = ()


def up(
    *,
    replay: Annotated[Path | None, typer.Option(help="Feed recorded traffic: a folder or one session file.")] = None,
    speed: Annotated[float, typer.Option(min=0.1, max=1000, help="How many times faster the replay runs.")] = 1,
    loop: Annotated[bool, typer.Option("--loop", help="Begin the replay again at its end.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Read the real exchanges. Orders stay on paper.")] = False,
) -> None:
    """Run everything on this machine until Ctrl-C."""
    try:
        status = _run(replay, speed, loop=loop, live=live)
    except CrossfillError as error:
        typer.echo(f"crossfill up: {error}", err=True)
        raise typer.Exit(1) from error
    except ValidationError as error:
        typer.echo(f"crossfill up: {_in_one_line(error)}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    finally:
        if marker := os.environ.get(UNDER_MAKE):
            Path(marker).unlink(missing_ok=True)
    raise typer.Exit(status)


def _run(replay: Path | None, speed: float, *, loop: bool, live: bool) -> int:
    wanted = _wanted()
    if os.environ.get(FILE):
        _heed(Path(os.environ[FILE]), live=live)
    settings = Settings()
    home = settings.home.absolute()
    if settings.kafka is not None:
        from models.bus.kafka import check_options  # noqa: PLC0415 -- only who has Kafka pays for its client

        check_options(settings.kafka_client)
    market, replay = _market(settings, replay, live=live)
    if replay is not None:
        settings = settings.model_copy(update={"venues": ",".join(_replayed(settings, replay))})
    with home_folder.lock(home):
        end_leftovers(home / "pids.json")
        plan = Plan(
            settings=settings,
            home=home,
            ports=_ports(settings, market),
            token=home_folder.secret(home / "token"),
            redis_password=home_folder.secret(home / "redis_password"),
            market=market,
            replay=replay,
            speed=speed,
            loop=loop,
        )
        listed = programs(plan)
        from cli.migrate import prepare  # noqa: PLC0415 -- the store is not loaded before the ports are known free

        placed = settings.model_copy(update={"home": home, "market": market})
        prepare(placed, plan.token)
        if market is Market.REPLAY:
            _forget_replays(placed)
        if market is Market.LIVE:
            _refresh_lists(placed)
        home_folder.write_ports(home, dict(plan.ports))
        console = Console(color=sys.stdout.isatty() and "NO_COLOR" not in os.environ)
        supervisor = Supervisor(listed, home / "pids.json", console, wanted)
        return supervisor.run(_announcer(plan, time.monotonic() + READY_LIMIT_S))


def _heed(file: Path, *, live: bool) -> None:
    """Set what a config file says for the settings here and in every child, and say so."""
    told = environment(file, os.environ)
    os.environ.update(told)
    listed = ", ".join(f"{name}={value}" for name, value in told.items()) or "nothing that is not set otherwise"
    typer.echo(f"{file} ({FILE}) stands for {listed}", err=True)
    if not live and "CROSSFILL_VENUE_URLS" in told:
        typer.echo(f"{file}: ws_url is read with --live only; here Coinbase is simulated", err=True)


def _refresh_lists(settings: Settings) -> None:
    """Fetch the venues' own lists of instruments; without one, a venue's pairs are those that were known before."""
    import structlog  # noqa: PLC0415 -- only a live market needs it

    from models.store.database import Database  # noqa: PLC0415 -- the store is not loaded before it is needed
    from workers.listings import lists_of, refresh  # noqa: PLC0415 -- likewise

    # What a worker logs for each venue is one sentence here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with closing(Database.open(settings.database)) as database:
        failures = refresh(database, lists_of(settings))
    if failures:
        why = "; ".join(f"{venue}: {sentence}" for venue, sentence in failures.items())
        typer.echo(f"crossfill up: without these venues' lists, their pairs stay as known before ({why})", err=True)


def _wanted() -> Callable[[], bool]:
    """Return what says whether who started this still wants it; only make can change its mind without a signal."""
    marker = os.environ.get(UNDER_MAKE)
    if marker is None:
        return lambda: True
    path, parent = Path(marker), os.getppid()
    return lambda: path.exists() and os.getppid() == parent


def _market(settings: Settings, replay: Path | None, *, live: bool) -> tuple[Market, Path | None]:
    if replay is None:
        return (Market.LIVE if live else Market.SIMULATED), None
    if live:
        raise UpError("--live and --replay exclude each other")
    for path in (replay, settings.market_data / replay):
        if path.exists():
            return Market.REPLAY, path.absolute()
    raise UpError(f"{replay} is not there: name a folder of sessions or one session (see docs/sessions.md)")


def _replayed(settings: Settings, replay: Path) -> tuple[str, ...]:
    """Return the venues to read: those that have a session, or that somebody on this machine is named for."""
    try:
        found = find(replay, {venue: INSTRUMENTS.products_of(venue) for venue in WIRES}, speed=1, loop=False)
    except SessionError as error:
        raise UpError(str(error)) from error
    wanted = settings.venue_names
    without = [venue for venue in wanted if venue in WIRES and venue not in found and not served(settings, venue)]
    if without and "venues" in settings.model_fields_set:
        raise UpError(f"no session of {', '.join(without)} (CROSSFILL_VENUES) is at {replay}; of {', '.join(found)} is")
    venues = tuple(venue for venue in wanted if venue not in without)
    if not venues:
        raise UpError(f"the sessions at {replay} are of {', '.join(found)}, where CROSSFILL_PAIRS asks for nothing")
    if without:
        typer.echo(f"replaying {', '.join(venues)}; not read, for want of a session: {', '.join(without)}", err=True)
    return venues


def _forget_replays(settings: Settings) -> None:
    """Forget what earlier replays came to: it would stand among this one's, as if it were of one market."""
    from models.store.candles import forget_market  # noqa: PLC0415 -- the store is not loaded before it is needed
    from models.store.database import Database  # noqa: PLC0415 -- likewise

    with closing(Database.open(settings.database)) as database:
        forget_market(database, Market.REPLAY)


def _ports(settings: Settings, market: Market) -> dict[str, int]:
    """Return every port by its name in ports.json. Raises PortTakenError."""
    host = settings.host
    ports = {
        "api": home_folder.checked_port(host, settings.api_port, "CROSSFILL_API_PORT"),
        "notifier": home_folder.checked_port(host, settings.notifier_port, "CROSSFILL_NOTIFIER_PORT"),
        "flower": home_folder.checked_port("127.0.0.1", settings.flower_port, "CROSSFILL_FLOWER_PORT"),
    }
    if len(set(ports.values())) < len(ports):
        raise UpError("CROSSFILL_API_PORT, CROSSFILL_NOTIFIER_PORT and CROSSFILL_FLOWER_PORT must differ")
    picked = [] if market is Market.LIVE else [*filter(WIRES.__contains__, settings.venue_names), "simulator_control"]
    picked += [f"metrics_{name}" for name in LISTENERS]
    if settings.broker_url is None:
        picked.append("redis")
    for name in picked:
        port = free_port()
        while port in ports.values():
            port = free_port()
        ports[name] = port
    return ports


def _announcer(plan: Plan, deadline: float) -> Callable[[], str | None]:
    address = _reachable(plan.settings.host)

    def announce() -> str | None:
        health = _health(f"http://{address}:{plan.ports['api']}/health/ready")
        if health.status == "up" and not listens("127.0.0.1", plan.ports["flower"]):
            health = Health("degraded", ("flower: it does not answer yet",))
        if health.status != "up" and time.monotonic() < deadline:
            return None
        return screen(plan, health, Path.cwd())

    return announce


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104 -- read, not bound


def _health(url: str) -> Health:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 -- http, by construction
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            body = json.load(error)
        except ValueError:
            body = {}
        if "parts" not in body:
            return Health("down", (f"api: it answers {error.code}",))
    except (OSError, ValueError):
        return Health("down", ("api: it does not answer yet",))
    parts: Iterable[tuple[str, dict[str, str]]] = body.get("parts", {}).items()
    missing = tuple(f"{name}: {part.get('detail')}" for name, part in parts if part.get("status") != "up")
    return Health(body.get("status", "down"), missing)


def screen(plan: Plan, health: Health, folder: Path) -> str:
    """Return what is shown once, when the system is ready; paths are relative to `folder` where they can be."""

    def shown(path: Path) -> str:
        return shlex.quote(str(path.relative_to(folder) if path.is_relative_to(folder) else path))

    address, ports = _reachable(plan.settings.host), plan.ports
    token = shown(plan.home / "token")
    command = shown(Path(sys.executable).with_name("crossfill"))
    if plan.home != folder / ".crossfill":
        command = f"CROSSFILL_HOME={shown(plan.home)} {command}"
    order = {"symbol": "LTCBTC", "order_size": 1000, "price": 0.0001}
    if plan.market is Market.REPLAY:
        order = {"symbol": "BTCUSDT", "order_size": 1, "price": 1000}
    if plan.settings.pairs:
        chosen = INSTRUMENTS[plan.settings.pairs.partition(",")[0]]
        order = {"symbol": chosen.symbol, "order_size": 1, "price": str(chosen.tick)}
    missing = [*health.missing, *(f"{venue}: is not simulated" for venue in _left_out(plan))]
    problems = "".join(f"  {sentence}\n" for sentence in missing)
    return f"""
Crossfill is {health.status}, on {MARKETS[plan.market]}
{problems}
  API      http://{address}:{ports["api"]}  (described at /docs)
  Events   http://{address}:{ports["notifier"]}  (Socket.IO)
  Flower   http://127.0.0.1:{ports["flower"]}  (user {USER}; the token is the password)
  Token    {token}

Place an order:

  curl -s http://{address}:{ports["api"]}/order/limit -H "Authorization: Bearer $(cat {token})" \\
    -H "Content-Type: application/json" -d '{json.dumps(order)}'

Watch what comes of it:

  {command} events

Ctrl-C ends everything. The logs follow.

"""


def _left_out(plan: Plan) -> list[str]:
    return [venue for venue in plan.settings.venue_names if venue not in plan.venues]


def _in_one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "a setting"
    setting = name if name.isupper() else f"CROSSFILL_{name.upper()}"
    return f"{setting}: {first['msg'].lower()}"
