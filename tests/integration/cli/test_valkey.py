import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.valkey import ValkeyError, binary, configure, free_port, wait_ready

PASSWORD = "p-a_ssw0rd"


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([binary(), configure(folder, port, PASSWORD)], stdout=subprocess.DEVNULL)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    one = free_port()
    process = start(tmp_path / "a folder", one)
    wait_ready(one, PASSWORD, process)
    yield one
    process.terminate()
    process.wait(10)


def test_it_drops_nothing_and_wants_its_password(tmp_path: Path, port: int) -> None:
    """An append-only file, no eviction, loopback only, and a password that others cannot read."""
    with redis.Redis(port=port, password=PASSWORD, decode_responses=True) as client:
        settings = client.config_get("*")
    assert settings["appendonly"] == "yes"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["bind"] == "127.0.0.1"
    assert stat.S_IMODE((tmp_path / "a folder" / "valkey.conf").stat().st_mode) == 0o600
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


def test_it_keeps_its_queues_over_a_restart(tmp_path: Path) -> None:
    """What was pushed is there after a stop."""
    port = free_port()
    for expected in (1, 2):
        process = start(tmp_path, port)
        wait_ready(port, PASSWORD, process)
        with redis.Redis(port=port, password=PASSWORD) as client:
            assert client.lpush("orders.0", "wake") == expected
        process.terminate()
        process.wait(10)


def test_a_server_that_cannot_start_is_one_sentence(tmp_path: Path) -> None:
    """Its port is taken: it ends, and the wait ends with it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = start(tmp_path, port)
        with pytest.raises(ValkeyError, match=f"did not start on port {port}"):
            wait_ready(port, PASSWORD, process)
        process.wait(10)
