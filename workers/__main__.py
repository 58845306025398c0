"""`python -m workers fulfilment` and `python -m workers jobs`: Celery workers with the right options."""

import os
import sys

from models.bus.names import Queue
from models.logs import configure_logs
from workers.celery import app, settings

COMMON = ["worker", "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]


def _fulfilment() -> list[str]:
    from workers.owner import Owner  # noqa: PLC0415 -- only this worker owns shards
    from workers.telling import Telling  # noqa: PLC0415 -- only this worker is woken many times a second

    app.steps["worker"].add(Owner)
    app.steps["consumer"].add(Telling)
    # The queues of its shards come with the leases. A wake-up takes no time, so of the two threads one is
    # free for housekeeping, which no price job holds up here.
    name = f"fulfilment-{os.getpid()}@%h"
    pool = ["--pool", "threads", "--concurrency", "2"]
    return [*COMMON, *pool, "--queues", Queue.HOUSEKEEPING.value, "--hostname", name]


def _jobs() -> list[str]:
    from workers.presence import Presence  # noqa: PLC0415 -- the other worker says that it lives with its leases

    app.steps["worker"].add(Presence)
    schedule = settings.home / "beat-schedule"
    name = f"jobs-{os.getpid()}@%h"
    beat = ["--beat", "--schedule", str(schedule)]
    # A wake-up that waits behind a long job is one that an idle worker cannot take, so at most one does.
    pool = ["--pool", "prefork", "--concurrency", "1", "--prefetch-multiplier", "1"]
    return [*COMMON, *pool, "--queues", Queue.JOBS.value, "--hostname", name, *beat]


def main(arguments: list[str]) -> None:
    """Start the worker that is named."""
    configure_logs(settings.log_level)
    kinds = {"fulfilment": _fulfilment, "jobs": _jobs}
    if len(arguments) != 1 or arguments[0] not in kinds:
        sys.exit("usage: python -m workers fulfilment|jobs")
    app.worker_main(kinds[arguments[0]]())


if __name__ == "__main__":
    main(sys.argv[1:])
