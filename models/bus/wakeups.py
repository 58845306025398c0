"""Wake-ups: the Celery messages that say "there is due work", in a shard or among the jobs."""

import logging
import time
from collections.abc import Mapping
from uuid import uuid4

from celery import Celery
from kombu.exceptions import KombuError, OperationalError

from models.bus.broker import celery_options
from models.bus.names import Queue, Task, orders_queue

PAUSE_S = 1.0  # after a failure nothing is tried for so long: a dead broker costs its callers nothing

log = logging.getLogger(__name__)


def new_task_id() -> str:
    """Return the id of a wake-up that will be published once its rows are committed."""
    return str(uuid4())


class Wakeups:
    """Publishes wake-ups. Losing one costs a second: the loop looks at its rows anyway."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("crossfill", set_as_current=False)
        self._app.conf.update(celery_options(broker_url, socket_timeout_s=2))
        # kombu tries three times with 2 s between before it says that a broker is away.
        self._app.conf.broker_transport_options |= {"max_retries": 0, "interval_start": 0, "interval_step": 0}
        self._quiet_until = 0.0
        self._down = False

    def publish(self, tasks: Mapping[int, str], job_task_id: str | None = None) -> bool:
        """Wake the owners of shards, by shard number with the task's id, and where asked a worker for jobs.

        Returns whether it could be sent. Blocks for up to some seconds where the broker is silent, so
        it never runs on an event loop.
        """
        if time.monotonic() < self._quiet_until:
            return False
        messages = [(Task.ORDER_PLACE, {"shard": shard}, orders_queue(shard), id_) for shard, id_ in tasks.items()]
        if job_task_id is not None:
            messages.append((Task.JOB_RUN, {}, Queue.JOBS.value, job_task_id))
        try:
            with self._app.producer_pool.acquire(block=True, timeout=2) as producer:
                for task, arguments, queue, task_id in messages:
                    self._app.send_task(
                        task,
                        kwargs=arguments,
                        queue=queue,
                        task_id=task_id,
                        producer=producer,
                        ignore_result=True,
                        retry=False,
                    )
        except (OperationalError, KombuError, OSError) as error:
            self._quiet_until = time.monotonic() + PAUSE_S
            if not self._down:
                log.warning("wake-ups cannot be published, rows are found by looking: %s", error)
            self._down = True
            return False
        self._down = False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
