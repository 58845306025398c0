"""A fulfilment worker ends in time whatever holds the database."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from models.bus.names import Queue, Task
from models.store.database import Database, StoreUnavailableError
from models.store.file_lock import FileLock
from tests.integration.workers.test_fulfilment import database, owners, place, read, running_worker, until

__all__ = ["database"]


@contextmanager
def _held(database_url: str) -> Iterator[None]:
    """Hold a SQLite database as `lose database` of the chaos runs does: its file lock, and an exclusive lock."""
    path = database_url.removeprefix("sqlite:///")
    lock, connection = FileLock(f"{path}.lock"), sqlite3.connect(path, isolation_level=None)
    lock.acquire()
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()
        lock.release()
        lock.close()


def keep_house(redis_url: str) -> None:
    """Ask for what beat asks for, which needs the database."""
    app = Celery("test", broker=redis_url, set_as_current=False)
    for task in (Task.DATABASE_CHECKPOINT, Task.ORDER_SWEEP) * 2:
        app.send_task(task, queue=Queue.HOUSEKEEPING.value, ignore_result=True)
    app.close()


@pytest.mark.parametrize("before_s", [0, 2])
def test_a_worker_ends_while_the_database_is_held(
    before_s: float, database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """It is gone before anybody else who would write gives up, and leaves its lease to run out."""
    gave_up = threading.Event()

    def write() -> None:
        try:
            with database.write():
                pass
        except StoreUnavailableError:
            gave_up.set()

    with running_worker("fulfilment", database_url, redis_url, tmp_path) as process:
        [order_id] = place(database)
        until(lambda: read(database, order_id).state.value == "working")
        with _held(database_url):
            keep_house(redis_url)
            time.sleep(before_s)  # whatever its threads are about, they hang in the database by then
            process.terminate()
            writer = threading.Thread(target=write)
            writer.start()
            process.wait(60)
            assert not gave_up.is_set()
        writer.join(20)
    assert process.returncode == 0
    assert owners(database) != {0: None}
