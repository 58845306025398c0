"""`crossfill up`, whole: every process, on free ports and in a folder of its own."""

import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.system import System, environment_of, running_system
from tests.services import ROOT

NAMES = [
    *("redis", "simulator", "fulfilment", "api", "analyst", "collectors"),
    *("notifier", "jobs", "archivist", "flower"),
]


def wait(condition: Callable[[], bool], limit_s: float) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def family(system: System) -> list[psutil.Process]:
    """Return every process of the system but `up` itself."""
    return psutil.Process(system.process.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    """Return whether all ended."""
    return not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes)


def screen_of(system: System) -> str:
    """Return what `up` has printed, once it has printed its screen."""
    wait(lambda: "The logs follow." in system.log.read_text(), 90)
    return system.log.read_text()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with running_system(tmp_path / "home") as one:
        yield one


def test_the_screen_can_be_followed(system: System) -> None:
    """The curl line that the screen shows is accepted, and the order of the README is filled."""
    screen = screen_of(system)
    assert screen.startswith("\nCrossfill is up, on a SIMULATED market")
    command = screen[screen.index("  curl") : screen.index("\n\nWatch")]
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    order = json.loads(done.stdout)["order"]
    with system.client() as client:
        wait(lambda: client.get(f"/orders/{order['id']}").json()["state"] == "filled", 60)
        splits = client.get(f"/orders/{order['id']}").json()["splits"]
    assert len(splits) >= 5
    assert len({split["venue"] for split in splits}) >= 2


def test_nothing_secret_can_be_read_by_others(system: System) -> None:
    """No secret is on a command line or in the log, and the files that hold one are the user's alone."""
    screen_of(system)
    home = system.home
    hidden = [system.token, (home / "redis_password").read_text().strip()]
    for process in family(system):
        words = " ".join(process.cmdline())
        assert not any(secret in words for secret in hidden)
    assert not any(secret in system.log.read_text() for secret in hidden)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in ("token", "redis_password", "valkey/valkey.conf"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600
    for process in [psutil.Process(system.process.pid), *family(system)]:
        for each in process.net_connections(kind="inet"):
            assert each.status != psutil.CONN_LISTEN or each.laddr.ip == "127.0.0.1", process.cmdline()


def test_a_second_one_in_the_same_folder_says_so(system: System) -> None:
    """One sentence, status 1; the first runs on."""
    done = subprocess.run(
        [sys.executable, "-m", "cli", "up"],
        cwd=ROOT,
        env=environment_of(system.home),
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "another `crossfill up` uses" in done.stderr
    assert system.process.poll() is None


def test_whoever_is_killed_comes_back(system: System) -> None:
    """Every process in turn is killed at once with the others; the system is well again after a while."""
    screen_of(system)
    leaders = psutil.Process(system.process.pid).children()
    assert len(leaders) == len(NAMES) + 1, "the reaper is the one more"
    for leader in leaders:
        if not any("reaper.py" in word for word in leader.cmdline()):
            leader.kill()

    def well() -> bool:
        try:
            return bool(httpx.get(f"{system.api}/health/ready", timeout=2).json()["status"] == "up")
        except (httpx.HTTPError, ValueError):
            return False

    wait(lambda: all(f"{name:<10} | ended with status -9" in system.log.read_text() for name in NAMES), 60)
    wait(well, 120)
    assert system.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(system: System, number: signal.Signals) -> None:
    """Nobody is left, and the status is 0."""
    screen_of(system)
    processes = family(system)
    assert system.stop(number) == 0
    assert all_gone(processes)
    log = system.log.read_text()
    assert re.search(r"^redis .*bye", log, re.MULTILINE)
    assert "Traceback" not in log, log[-4000:]


def test_nobody_outlives_a_killed_one_and_the_next_starts_at_once(tmp_path: Path) -> None:
    """After a SIGKILL of `up` its children end, and another `up` in the same folder finds no hindrance."""
    home = tmp_path / "home"
    with running_system(home) as first:
        processes = family(first)
        first.process.kill()
        first.process.wait()
        with running_system(home) as second:
            assert all_gone(processes)
            assert second.token == first.token
            assert second.stop(signal.SIGINT) == 0


def test_two_live_side_by_side(tmp_path: Path) -> None:
    """Other folders and other ports: both are well, and neither knows the other's token."""
    with running_system(tmp_path / "one") as one, running_system(tmp_path / "two") as two:
        assert one.token != two.token
        for mine, other in ((one, two), (two, one)):
            with mine.client() as client:
                assert client.get("/orders").status_code == 200
                assert client.get("/orders", headers={"Authorization": f"Bearer {other.token}"}).status_code == 401
        assert one.stop(signal.SIGINT) == 0
        assert httpx.get(f"{two.api}/health/ready").json()["status"] == "up"


def test_make_run_ends_when_make_alone_is_interrupted(tmp_path: Path) -> None:
    """SIGINT to make, which keeps it for itself."""
    if not (ROOT / ".venv" / ".made").exists():
        pytest.skip("the environment was not made by make")
    variables = environment_of(tmp_path / "home")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["make", "run"], cwd=ROOT, env=variables, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait(lambda: "The logs follow." in (tmp_path / "log").read_text(), 180)
        processes = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        process.wait(40)
        wait(lambda: all_gone(processes), 30)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(40)


def test_the_pasted_events_line_names_this_environment(system: System) -> None:
    """The command that the screen shows is there."""
    line = next(line for line in screen_of(system).splitlines() if line.endswith(" events"))
    *_settings, command, verb = shlex.split(line)
    assert verb == "events"
    assert Path(command).name == "crossfill"
