"""`python -m tests.integration.killpoints api|writer|fulfilment POINT`: the real program with one failpoint handed in.

A failpoint is an object of the tests in the place of the real one; the programs themselves know of none.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import uvicorn
from kombu.transport import redis as kombu_redis
from sqlalchemy import Connection, Engine

from api import writer
from api.__main__ import KEEP_ALIVE_S
from api.announcing import Announcer
from api.app import bootstrap, create_app
from models.domain.book import Book
from models.domain.outcomes import StepResult
from models.settings import Settings
from models.store.database import Database
from workers.fulfilment import FulfilmentLoop
from workers.owner import Owner

API_POINTS = ("before_commit", "after_commit", "before_wake_up")
LOOP_POINTS = ("after_brpop", "after_reading", "before_commit", "in_transaction", "after_commit", "before_hint")
STOP = "stop_before_commit"
point = ""
doomed: list[int] = []  # the API of a writer


def die() -> NoReturn:
    """End this process at once, as a SIGKILL from outside does, and the API with its writer."""
    for pid in (*doomed, os.getpid()):
        os.kill(pid, signal.SIGKILL)
    raise AssertionError("unreachable")


class KillingDatabase(Database):
    """Dies within or right after a write transaction, once `armed`."""

    armed = False

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.busy = threading.RLock()  # while a thread writes

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self.busy, super().write() as connection:
            yield connection
            if self.armed and point in ("before_commit", "in_transaction"):
                die()
        if self.armed and point == "after_commit":
            die()


class ArmedDatabase(KillingDatabase):
    """One whose every write is what is waited for: the writer's."""

    armed = True


class SilentAnnouncer(Announcer):
    """Never comes to its wake-up."""

    def announce(self, tasks: dict[int, str], owners: set[str], job_task_id: str | None = None) -> None:
        if point != "before_wake_up":
            super().announce(tasks, owners, job_task_id)


class KillingLoop(FulfilmentLoop):
    """Dies, or stops, in the first step that has work."""

    _stopped = False

    def _step(self, book: Book, journal: Any, **inputs: Any) -> bool:
        if point == "after_reading" and inputs.get("orders"):
            die()
        return super()._step(book, journal, **inputs)

    def _commit(self, result: StepResult) -> None:
        if result.outcomes and point == "before_commit":
            die()
        assert isinstance(self._database, KillingDatabase)
        if result.outcomes and point == STOP and not self._stopped:
            self._stopped = True
            with self._database.busy:  # whoever stands still with SQLite's lock in its hand cannot be overtaken
                os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(1)  # another thread may be the one that takes the signal, a little later
        self._database.armed = bool(result.outcomes)
        super()._commit(result)
        self._database.armed = False

    def _hint(self, owners: set[str]) -> None:
        if point == "before_hint":
            die()
        super()._hint(owners)


class KillingOwner(Owner):
    """Hands them in."""

    database_type = KillingDatabase
    loop_type = KillingLoop


def _api() -> None:
    settings = Settings()
    make = partial(bootstrap, writer=(sys.executable, "-m", "tests.integration.killpoints", "writer", point))
    app = create_app(settings, make)
    uvicorn.run(app, port=settings.api_port, log_level="warning", timeout_keep_alive=KEEP_ALIVE_S)


def _writer(descriptor: str) -> None:
    doomed.append(os.getppid())
    writer.main(descriptor, ArmedDatabase, SilentAnnouncer)


def _fulfilment() -> None:
    from workers.__main__ import COMMON  # noqa: PLC0415 -- the API does not load the worker's app
    from workers.celery import app  # noqa: PLC0415 -- likewise

    if point == "after_brpop":

        class KillingQoS(kombu_redis.QoS):
            """Dies with the wake-up in its hand: it is taken from the queue and noted nowhere."""

            def append(self, message: Any, delivery_tag: Any) -> None:
                die()

        kombu_redis.Channel.QoS = KillingQoS
    app.steps["worker"].add(KillingOwner)
    app.worker_main([*COMMON, "--pool", "threads", "--concurrency", "1", "--queues", "orders.idle"])


def main(program: str, at: str, *arguments: str) -> None:
    """Run a program that dies, or stops, at a point."""
    global point  # noqa: PLW0603 -- one a process
    point = at
    programs: dict[str, Callable[..., None]] = {"api": _api, "writer": _writer, "fulfilment": _fulfilment}
    programs[program](*arguments)
