"""Wake-ups and hints after commits."""

import threading
import time

from models.bus import hints
from models.bus.client import BusUnavailableError, connect
from models.bus.wakeups import Wakeups

QUIET_S = 1.0
GATHER_S = 0.02  # a wake-up costs a millisecond of work here and three where it is received, whatever it says


class Announcer:
    """Publishes wake-ups and hints after commits, on its own thread, what gathers meanwhile at once.

    Redis may be down: the rows say what is due, and everyone looks once a second.
    """

    def __init__(self, broker_url: str, bus_url: str) -> None:
        self._wakeups = Wakeups(broker_url)
        self._bus = connect(bus_url, timeout_s=1)
        self._tasks: dict[int, str] = {}
        self._owners: set[str] = set()
        self._job_task_id: str | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._hint_after = 0.0
        self._thread = threading.Thread(target=self._run, name="announce", daemon=True)
        self._thread.start()

    def announce(self, tasks: dict[int, str], owners: set[str], job_task_id: str | None = None) -> None:
        """Wake shards (or a worker for jobs) and hint owners soon."""
        with self._changed:
            self._tasks.update(tasks)
            self._owners |= owners
            self._job_task_id = job_task_id or self._job_task_id
            self._changed.notify()

    def close(self) -> None:
        """Publish what waits and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(5)
        self._wakeups.close()
        self._bus.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._tasks and not self._owners and not self._job_task_id and not self._closing:
                    self._changed.wait()
                tasks, owners, job_task_id = self._tasks, self._owners, self._job_task_id
                self._tasks, self._owners, self._job_task_id = {}, set(), None
                if self._closing and not tasks and not owners and not job_task_id:
                    return
            if tasks or job_task_id:
                self._wakeups.publish(tasks, job_task_id)
            if owners and time.monotonic() >= self._hint_after:
                try:
                    hints.publish(self._bus, owners)
                except BusUnavailableError:
                    self._hint_after = time.monotonic() + QUIET_S
            if not self._closing:
                time.sleep(GATHER_S)
