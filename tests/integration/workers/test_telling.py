"""What a fulfilment worker tells of its tasks, in a real process."""

from pathlib import Path
from typing import Any

import redis
from celery import Celery

from models.bus.broker import celery_options
from models.bus.wakeups import Wakeups, new_task_id
from models.store.database import Database
from tests.integration.workers.test_fulfilment import database, running_worker

__all__ = ["database"]  # a fixture

WAKEUPS = 100


def test_all_tasks_are_told_in_few_messages(
    database: Database, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    """Flower is told of every wake-up, of many in one message: to tell of each by itself costs more than the task."""
    app = Celery("listener", set_as_current=False)
    app.conf.update(celery_options(redis_url))
    told: set[str] = set()
    wakeups, sent = Wakeups(redis_url), {new_task_id() for _ in range(WAKEUPS)}
    with (
        redis.Redis.from_url(redis_url) as client,
        running_worker("fulfilment", database_url, redis_url, tmp_path),
        app.connection_for_read() as connection,
    ):

        def begin(_event: dict[str, Any]) -> None:
            del receiver.handlers["worker-heartbeat"]
            client.config_resetstat()
            for task_id in sent:
                wakeups.publish({0: task_id})

        def note(event: dict[str, Any]) -> None:
            told.add(event["uuid"])
            receiver.should_stop = told >= sent

        # The first heartbeat that is heard says that whoever listens is heard.
        handlers = {"worker-heartbeat": begin, "task-succeeded": note}
        receiver = app.events.Receiver(connection, handlers=handlers)
        receiver.capture(limit=None, timeout=30, wakeup=False)
        assert told >= sent
        published: Any = client.info("commandstats")
        assert published["cmdstat_publish"]["calls"] < WAKEUPS / 2
    wakeups.close()
    app.close()
