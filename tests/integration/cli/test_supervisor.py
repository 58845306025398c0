"""Real processes, real signals."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.services import ROOT

PATIENT = "import time; print('here'); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here')\nwhile True: time.sleep(1)"
)
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"


class Run:
    """One supervisor in a process and a folder of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, programs: dict[str, str | list[str]]) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.cli.supervised", str(self.home), json.dumps(programs)],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def says(self, text: str, times: int = 1) -> None:
        wait(lambda: self.text().count(text) >= times, lambda: f"{text!r} is not in:\n{self.text()}")

    def text(self) -> str:
        return self.log.read_text()

    def pids(self) -> list[int]:
        return [pid for pid, _started in json.loads((self.home / "pids.json").read_text())]


def wait(condition: Callable[[], bool], message: Callable[[], str] = lambda: "in vain", limit_s: float = 60) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, message()
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Return whether the process ended, be it that nobody has asked for its status yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    one = Run(tmp_path)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.terminate()
        one.process.wait(15)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_program_in_order(run: Run, number: signal.Signals) -> None:
    """Each of the three signals ends all programs, the one that others need as the last, with status 0."""
    last = "import signal, sys, time\ndef end(*_): print('bye ' + sys.argv[0]); sys.exit()\n"
    last += "signal.signal(signal.SIGTERM, end); print('here'); time.sleep(600)"
    (run.home / "first.ready").touch()
    process = run.start({"first": last, "second": "import time; time.sleep(0.3)\n" + last})
    run.says("THE SCREEN")
    pids = run.pids()
    run.says("here", 2)
    process.send_signal(number)
    assert process.wait(30) == 0
    assert all(gone(pid) for pid in pids)
    text = run.text()
    assert text.index("second     | bye") < text.index("first      | bye")
    assert not (run.home / "pids.json").exists()


def test_the_group_of_a_program_ends_with_it(run: Run) -> None:
    """What a program started ends too, though it was told nothing."""
    process = run.start({"second": PARENT})
    run.says("THE SCREEN")
    leader = run.pids()[0]
    wait(lambda: len(psutil.Process(leader).children()) == 1)
    child = psutil.Process(leader).children()[0].pid
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    wait(lambda: gone(child))


def test_a_program_that_ignores_the_request_is_killed_within_ten_seconds(run: Run) -> None:
    """The end takes at most 10 s, whoever is stubborn."""
    (run.home / "first.ready").touch()
    process = run.start({"first": STUBBORN, "second": STUBBORN})
    run.says("THE SCREEN")
    pids = run.pids()
    run.says("here", 2)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(12) == 0
    assert time.monotonic() - begun > 8
    assert all(gone(pid) for pid in pids)


def test_the_next_program_waits_for_the_first_to_be_ready(run: Run) -> None:
    """A program starts once the one before says that it is ready; the logs follow the screen."""
    run.start({"first": PATIENT, "second": PATIENT})
    wait((run.home / "pids.json").exists)
    time.sleep(0.5)
    assert len(run.pids()) == 1
    assert run.text() == ""
    (run.home / "first.ready").touch()
    run.says("THE SCREEN")
    assert len(run.pids()) == 2


def test_a_program_that_dies_is_started_again(run: Run) -> None:
    """Whoever is killed comes back; the others stay as they are."""
    run.start({"second": PATIENT, "third": PATIENT})
    run.says("THE SCREEN")
    second, third = run.pids()
    os.kill(second, signal.SIGKILL)
    run.says("second     | ended with status -9; it is started again")
    wait(lambda: second not in run.pids())
    assert gone(second)
    assert third in run.pids()
    assert len(run.pids()) == 2


def test_a_program_that_keeps_dying_stops_the_whole(run: Run) -> None:
    """After five deaths all is ended, its last lines are shown, and the status is 1."""
    process = run.start({"second": PATIENT, "third": "raise SystemExit('no such luck')"})
    assert process.wait(60) == 1
    text = run.text()
    assert "third died 5 times within 60 s; its last lines:\n  no such luck" in text


def test_a_missing_program_stops_the_whole(run: Run) -> None:
    """A command that is not there is said in one sentence."""
    process = run.start({"second": PATIENT, "third": ["/no/such/program"]})
    assert process.wait(60) == 1
    assert "third does not start: [Errno 2] No such file or directory: '/no/such/program'" in run.text()


def test_programs_end_when_the_supervisor_is_killed(run: Run) -> None:
    """After a SIGKILL of the supervisor its programs and what they started end within 10 s."""
    process = run.start({"second": PARENT, "third": STUBBORN})
    run.says("THE SCREEN")
    pids = run.pids()
    wait(lambda: len(psutil.Process(pids[0]).children()) == 1)
    child = psutil.Process(pids[0]).children()[0].pid
    process.kill()
    wait(lambda: all(gone(pid) for pid in (*pids, child)))


def test_the_next_supervisor_ends_what_a_killed_one_and_its_killed_reaper_left(run: Run) -> None:
    """Nothing of an earlier run is left, even when the reaper was killed too."""
    process = run.start({"second": PATIENT})
    run.says("THE SCREEN")
    run.says("here")  # later it could tell nobody
    (pid,) = run.pids()
    process.send_signal(signal.SIGSTOP)  # it shall not see its reaper die and do something about it
    for child in psutil.Process(process.pid).children():
        if child.pid != pid:
            child.kill()
    process.kill()
    process.wait()
    time.sleep(0.3)
    assert not gone(pid)
    run.start({"second": PATIENT})
    run.says("THE SCREEN")
    assert gone(pid)


def test_it_ends_when_who_started_it_is_gone(run: Run) -> None:
    """Without a signal, within seconds, once it is not wanted any more."""
    process = run.start({"second": PATIENT})
    run.says("THE SCREEN")
    (run.home / "alive").unlink()
    assert process.wait(30) == 0
    assert "who started it is gone" in run.text()


def test_a_stalled_terminal_stalls_nobody(tmp_path: Path) -> None:
    """A reader that reads nothing neither holds the programs up nor the end."""
    loud = (
        f"import time\nwhile True: print('x' * 1000); time.sleep(0.0001); open({str(tmp_path / 'beat')!r}, 'w').close()"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.cli.supervised", str(tmp_path), json.dumps({"second": loud})],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    wait((tmp_path / "beat").exists)
    time.sleep(2)
    now = time.time()
    wait(lambda: (tmp_path / "beat").stat().st_mtime > now)
    process.terminate()
    assert process.wait(30) == 0
    assert process.stdout is not None
    process.stdout.close()
