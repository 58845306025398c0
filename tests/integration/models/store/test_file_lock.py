import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from models.store.file_lock import FileLock, LockTimeoutError
from tests.services import ROOT

HOLD = """
import sys, time
from models.store.file_lock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""
GREEDY = """
import sys, time
from models.store.file_lock import FileLock
lock = FileLock(sys.argv[1])
holds = open(sys.argv[1] + ".holds", "ab", buffering=0)
print("begins", flush=True)
while True:
    lock.acquire()
    holds.write(b"x")
    time.sleep(0.002)
    lock.release()
"""


@contextmanager
def _process(code: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def test_the_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    """The system drops it with the process, whatever the process was doing."""
    lock = FileLock(str(tmp_path / "lock"), timeout_s=30)
    with _process(HOLD, tmp_path / "lock") as holder:
        with pytest.raises(LockTimeoutError):
            FileLock(str(tmp_path / "lock"), timeout_s=0.05).acquire()
        holder.send_signal(signal.SIGKILL)
        lock.acquire()
        lock.release()
    lock.close()


def test_waiting_for_a_stopped_holder_ends(tmp_path: Path) -> None:
    """A process that stands still with the lock costs the others an error, not their lives."""
    lock = FileLock(str(tmp_path / "lock"), timeout_s=0.2)
    with _process(HOLD, tmp_path / "lock") as holder:
        holder.send_signal(signal.SIGSTOP)
        before = time.monotonic()
        with pytest.raises(LockTimeoutError):
            lock.acquire()
        assert time.monotonic() - before >= 0.2
    other = FileLock(str(tmp_path / "lock"), timeout_s=30)
    for each in (other, lock, other):  # who gave up keeps nothing
        each.acquire()
        each.release()
    other.close()
    lock.close()


def test_who_gave_up_may_come_again(tmp_path: Path) -> None:
    """Its wait goes on where it stood, and ends with the lock."""
    lock, other = FileLock(str(tmp_path / "lock"), timeout_s=0.05), FileLock(str(tmp_path / "lock"))
    for _ in range(3):
        other.acquire()
        for _ in range(2):
            with pytest.raises(LockTimeoutError):
                lock.acquire()
        Thread(target=other.release).start()
        for _ in range(20):
            with suppress(LockTimeoutError):
                lock.acquire()
                break
        lock.release()
    lock.close()
    other.close()


def test_a_greedy_process_does_not_starve_others(tmp_path: Path) -> None:
    """One that takes the lock again at once must queue behind who waits: the wait is one hold or two, not more."""
    lock = FileLock(str(tmp_path / "lock"), timeout_s=30)
    waits = []
    with _process(GREEDY, tmp_path / "lock"):
        for _ in range(50):
            before = (tmp_path / "lock.holds").stat().st_size
            lock.acquire()
            waits.append((tmp_path / "lock.holds").stat().st_size - before)
            lock.release()
            time.sleep(0.001)
    lock.close()
    assert sorted(waits)[25] <= 2


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    """Threads of one process, by one lock object or by two, never hold it together."""
    locks = [FileLock(str(tmp_path / "lock")) for _ in range(2)]
    inside, together = [], []

    def run(lock: FileLock) -> None:
        for _ in range(100):
            lock.acquire()
            inside.append(1)
            together.append(len(inside))
            time.sleep(0)
            inside.pop()
            lock.release()

    threads = [Thread(target=run, args=(locks[number % 2],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert together == [1] * 400
    for lock in locks:
        lock.close()
        lock.close()
