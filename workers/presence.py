"""Says every two seconds, in the database, that this worker lives; tells its metrics; ends it with its beat.

Celery starts the embedded beat once and never looks after it. Without it nothing is swept, and a price
job whose time comes is never found; who started this worker starts both again.
"""

import os
import threading
from typing import Any, ClassVar

import structlog
from celery import bootsteps
from celery.platforms import EX_FAILURE
from celery.worker import state

from models.domain.errors import CrossfillError
from models.metrics import Families, Listener, new_registry
from models.settings import Settings
from models.store.database import Database
from models.store.shards import beat, leave
from workers import jobs
from workers.fulfilment import clock_us
from workers.metrics import Tally

BEAT_S = 2.0
KIND = "jobs"

log = structlog.get_logger()


class Presence(bootsteps.StartStopStep):
    """A thread of the worker's main process, started after its pool has forked."""

    requires: ClassVar[tuple[str, ...]] = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:  # noqa: ANN401 -- celery's objects carry no types
        self._worker = worker
        self._stopping = threading.Event()
        self._name = f"{worker.hostname}-{os.getpid()}"
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
        tally = jobs.tally = Tally(jobs.WORKS)
        registry = new_registry(KIND, Settings())
        registry.register(Families(tally.collect))
        self._listener = Listener(Settings(), registry)

    def start(self, worker: Any) -> None:  # noqa: ANN401, ARG002 -- likewise
        """Begin."""
        self._thread.start()
        self._listener.start()

    def stop(self, worker: Any) -> None:  # noqa: ANN401, ARG002 -- likewise
        """End."""
        self._stopping.set()
        self._listener.stop()
        if self._thread.is_alive():
            self._thread.join(5)

    terminate = stop

    def _run(self) -> None:
        database = Database.open(Settings().database, pool_size=1)
        started_us = clock_us()
        while True:
            try:
                beat(database, self._name, KIND, started_us)
            except CrossfillError as error:
                log.warning("the database does not answer", error=str(error))
            if self._stopping.wait(BEAT_S):
                break
            schedule = getattr(self._worker, "beat", None)  # a process, started beside this thread
            if schedule is not None and schedule.pid is not None and not schedule.is_alive() and not state.should_stop:
                log.error("beat has died: this worker ends, to be started again")
                state.should_stop = EX_FAILURE
        try:
            leave(database, self._name)
        except CrossfillError as error:
            log.warning("could not say good-bye", error=str(error))
        database.close()
