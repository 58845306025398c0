"""The Makefile, with a supervisor of two sleeping programs in the place of the system."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.cli.test_supervisor import PATIENT, gone, wait
from tests.services import ROOT

PYTHON = """#!/bin/sh
cd {root}
exec {python} -m tests.integration.cli.supervised {home} {programs}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is made, and starts our programs instead of the system."""
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    programs = json.dumps({"second": PATIENT, "third": PATIENT})
    text = PYTHON.format(root=ROOT, python=sys.executable, home=tmp_path, programs=shlex.quote(programs))
    (binaries / "python").write_text(text)
    (binaries / "python").chmod(0o755)
    (tmp_path / ".venv" / ".made").touch()
    return tmp_path


@pytest.fixture
def make(checkout: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`make run`, running; in a process group of its own."""
    with (checkout / "log").open("wb") as log:
        process = subprocess.Popen(
            ["make", "run"], cwd=checkout, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    wait(lambda: "THE SCREEN" in (checkout / "log").read_text(), (checkout / "log").read_text)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(15)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("whom", ["make", "up", "group"])
def test_a_signal_to_make_or_to_its_group_ends_everything(
    checkout: Path, make: subprocess.Popen[bytes], number: signal.Signals, whom: str
) -> None:
    """Whoever of them gets which of the three signals, everything has ended, in order, within 10 s."""
    (up,) = psutil.Process(make.pid).children()
    pids = [up.pid, *(child.pid for child in up.children())]
    assert len(pids) == 4, "itself, two programs, the reaper"
    if whom == "group":
        os.killpg(make.pid, number)
    else:
        os.kill(make.pid if whom == "make" else up.pid, number)
    make.wait(10)
    assert all(gone(pid) for pid in pids)
    assert "Crossfill ended: " in (checkout / "log").read_text()


def test_everything_ends_when_make_is_killed(make: subprocess.Popen[bytes]) -> None:
    """A SIGKILL of make leaves nothing running either."""
    (up,) = psutil.Process(make.pid).children()
    pids = [up.pid, *(child.pid for child in up.children())]
    make.kill()
    make.wait()
    wait(lambda: all(gone(pid) for pid in pids), limit_s=10)


def test_a_second_run_does_not_end_with_the_first(checkout: Path, make: subprocess.Popen[bytes]) -> None:
    """Each make has a file of its own to watch."""
    names = {path.name for path in (checkout / ".venv").glob(".running-*")}
    assert names == {f".running-{make.pid}"}


def test_make_alone_prints_the_menu(checkout: Path) -> None:
    """At most twelve verbs, each with a line."""
    text = subprocess.run(["make"], cwd=checkout, capture_output=True, text=True, check=True).stdout
    verbs = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    assert {"run", "live", "test", "check", "bench", "lock", "clean"} <= set(verbs)
    assert len(verbs) <= 12


def test_an_old_python_is_refused_in_one_sentence(checkout: Path) -> None:
    """It says what is needed and how to name another."""
    old = checkout / "old"
    old.mkdir()
    for name in ("sh", "sed", "mktemp", "touch"):
        (old / name).symlink_to(str(shutil.which(name)))
    (old / "python3").write_text("#!/bin/sh\nexit 1\n")
    (old / "python3").chmod(0o755)
    (checkout / ".venv" / ".made").unlink()
    make = str(shutil.which("make"))
    done = subprocess.run(
        [make, "run"], cwd=checkout, env={"PATH": str(old)}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.startswith("Crossfill needs Python 3.11 or later, and this machine has none: ")
