"""The Celery app. Its settings come from the environment; nothing is connected here."""

from celery import Celery

from models.bus.broker import celery_options
from models.bus.names import Queue, Task
from models.domain.quotes import Market
from models.settings import Settings

settings = Settings()
# What the world outside is asked for only where the market is live.
LIVE_SCHEDULE = {"listings": {"task": Task.LISTING_REFRESH.value, "schedule": 6 * 3600.0}}
# A recording has no past.
PASTS_SCHEDULE = {"pasts": {"task": Task.CANDLES_FETCH.value, "schedule": 2.0, "options": {"expires": 4}}}
app = Celery("crossfill", include=["workers.orders", "workers.jobs", "workers.housekeeping"])
app.conf.update(
    celery_options(settings.broker),
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_prefetch_multiplier=4,
    worker_disable_rate_limits=True,
    worker_send_task_events=True,
    worker_max_tasks_per_child=5_000,
    task_default_queue=Queue.JOBS.value,
    # The rest of housekeeping may wait behind a backlog of jobs.
    task_routes={
        task.value: {"queue": Queue.HOUSEKEEPING.value}
        for task in (Task.ORDER_SWEEP, Task.DATABASE_CHECKPOINT, Task.AUDIT_TELL)
    },
    task_create_missing_queues=True,
    task_time_limit=120,
    task_soft_time_limit=90,
    # Housekeeping may fire twice and does not mind.
    beat_schedule={
        "sweep": {"task": Task.ORDER_SWEEP.value, "schedule": 1.0, "options": {"expires": 10}},
        "checkpoint": {"task": Task.DATABASE_CHECKPOINT.value, "schedule": 5.0, "options": {"expires": 10}},
        "prune": {"task": Task.EVENT_PRUNE.value, "schedule": 3600.0},
        "audit": {"task": Task.AUDIT_TELL.value, "schedule": 60.0, "options": {"expires": 60}},
        **(LIVE_SCHEDULE if settings.market is Market.LIVE else {}),
        **(PASTS_SCHEDULE if settings.market is not Market.REPLAY else {}),
    },
)
