"""`crossfill status` and `doctor`."""

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import typer

from cli.remote import Remote, remote
from models.settings import Settings

# Before it, SQLite can corrupt a WAL database when a checkpoint meets a commit; our lock keeps them apart.
SQLITE_SAFE = (3, 51, 3)
FREE_BYTES_MIN = 500_000_000


def status(*, as_json: Annotated[bool, typer.Option("--json", help="The answer as it is.")] = False) -> None:
    """Print how each part of the running system is."""
    health = _health(remote())
    if as_json:
        typer.echo(json.dumps(health))
    else:
        typer.echo(f"{health['status']}, {health.get('market', 'unknown')} market")
        for name, part in health.get("parts", {}).items():
            typer.echo(f"  {name:<11} {part['status']:<9} {part['detail']}")
        for name, address in _metrics(remote(), Settings().home / "ports.json").items():
            typer.echo(f"  {name:<11} {'metrics':<9} {address}")
    raise typer.Exit(0 if health["status"] == "up" else 1)


def _metrics(found: Remote, ports: Path) -> dict[str, str]:
    """Return where each program tells its metrics; the workers' addresses are known where they run from this folder."""
    addresses = {"api": f"{found.api}/metrics", "notifier": f"{found.notifier}/metrics"}
    written = json.loads(ports.read_text()) if ports.exists() else {}
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(Settings().host, Settings().host)  # noqa: S104 -- read, not bound
    listeners = {name.removeprefix("metrics_"): port for name, port in written.items() if name.startswith("metrics_")}
    return addresses | {name: f"http://{host}:{port}/metrics" for name, port in listeners.items()}


def _health(found: Remote) -> dict[str, Any]:
    try:
        with urlopen(f"{found.api}/health/ready", timeout=5) as answer:  # noqa: S310 -- the user's own address
            return dict(json.load(answer))
    except HTTPError as error:
        return dict(json.load(error))
    except (URLError, OSError, ValueError) as error:
        detail = f"{found.api} does not answer ({error}); start it with `make run`"
        return {"status": "down", "parts": {"api": {"status": "down", "detail": detail}}}


Finding = tuple[bool, str]


def doctor() -> None:
    """Check this machine and the running system; say what does not work, and the mend."""
    settings = Settings()
    checks: dict[str, Callable[[Settings], Finding]] = {
        "Python": _python,
        "SQLite": _sqlite,
        "Valkey": _valkey,
        "state folder": _folder,
        "token": _token,
        "database": _database,
        "system": _system,
    }
    well = True
    for name, check in checks.items():
        works, sentence = check(settings)
        well &= works
        typer.echo(f"{'ok  ' if works else 'MEND'}  {name:<13} {sentence}")
    raise typer.Exit(0 if well else 1)


def _python(_settings: Settings) -> Finding:
    version = sys.version.split()[0]
    return sys.version_info >= (3, 11), f"{version} at {sys.executable}; 3.11 or later is needed"


def _sqlite(_settings: Settings) -> Finding:
    safe = sqlite3.sqlite_version_info >= SQLITE_SAFE
    note = "" if safe else "; older than 3.51.3, so commits and checkpoints are kept apart by a file lock"
    return True, f"{sqlite3.sqlite_version}{note}"


def _valkey(settings: Settings) -> Finding:
    from cli.valkey import ValkeyError, binary  # noqa: PLC0415 -- only the doctor looks

    if settings.broker_url is not None:
        return True, "not needed: CROSSFILL_BROKER_URL names a Redis"
    try:
        return os.access(binary(), os.X_OK), str(binary())
    except ValkeyError as error:
        return False, str(error)


def _folder(settings: Settings) -> Finding:
    home = settings.home.absolute()
    if not home.exists():
        return True, f"{home} will be made by `make run`"
    free = shutil.disk_usage(home).free
    if not os.access(home, os.W_OK):
        return False, f"{home} cannot be written; set CROSSFILL_HOME to a folder of yours"
    return free > FREE_BYTES_MIN, f"{home}, {free / 1e9:.1f} GB free; {FREE_BYTES_MIN / 1e9:.1f} GB are wanted"


def _token(settings: Settings) -> Finding:
    token = settings.home / "token"
    if settings.token is not None:
        return True, "from CROSSFILL_TOKEN"
    if not token.exists():
        return True, f"{token} will be made by `make run`"
    mode = token.stat().st_mode & 0o777
    return mode == 0o600, f"{token}, mode {mode:o}; 600 is right (chmod 600 {token})"  # noqa: PLR2004 -- the mode


def _database(settings: Settings) -> Finding:
    from models.domain.errors import CrossfillError  # noqa: PLC0415 -- only the doctor looks
    from models.store.database import Database  # noqa: PLC0415 -- likewise
    from models.store.schema import check  # noqa: PLC0415 -- likewise

    if settings.database_url is None and not Path(settings.home / "crossfill.db").exists():
        return True, "will be made by `make run`"
    database = Database.open(settings.database, pool_size=1)
    try:
        check(database)
    except CrossfillError as error:
        return False, str(error)
    finally:
        database.close()
    return True, f"{database.engine.url.render_as_string(hide_password=True)}, of this version"


def _system(_settings: Settings) -> Finding:
    health = _health(remote())
    bad = [f"{name}: {part['detail']}" for name, part in health.get("parts", {}).items() if part["status"] != "up"]
    return health["status"] == "up", "; ".join(bad) or f"up, {health['market']} market"
