"""The part of a fulfilment worker that is not Celery's: shards, their loops, and the queues that wake them.

It is a step of the worker itself and not of its consumer, so that the loops outlive a lost broker.
"""

import os
import socket
from typing import Any, ClassVar

import structlog
from celery import bootsteps

from models.bus.client import connect
from models.bus.names import orders_queue
from models.domain.instruments import INSTRUMENTS
from models.settings import Settings
from models.store.database import Database
from models.store.shards import Lease
from workers.fulfilment import FulfilmentLoop, LoopSettings
from workers.leases import Leases

log = structlog.get_logger()

# The task `order.place` finds its worker's loops here; there is one worker a process.
owned: Leases | None = None


class Owner(bootsteps.StartStopStep):
    """Starts the leases with the worker, and ends them before it."""

    requires: ClassVar[tuple[str, ...]] = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **_: Any) -> None:  # noqa: ANN401 -- celery's objects carry no types
        self._worker = worker
        self._leases: Leases | None = None
        self._database: Database | None = None
        self._queues: frozenset[int] = frozenset()

    def start(self, worker: Any) -> None:  # noqa: ANN401 -- likewise
        """Open what the loops need and begin to claim shards."""
        global owned  # noqa: PLW0603 -- one worker a process
        settings = Settings()
        database = self._database = Database.open(settings.database)
        bus, hinter = connect(settings.bus), connect(settings.bus, timeout_s=0.5)
        loop_settings = LoopSettings(
            settings.market,
            settings.fee_bps,
            int(settings.silence_s * 1e6),
            settings.journal,
        )

        def make_loop(lease: Lease) -> FulfilmentLoop:
            return FulfilmentLoop(lease, INSTRUMENTS, database, bus, hinter, loop_settings)

        name = f"{worker.hostname}-{os.getpid()}"
        self._leases = owned = Leases(database, name, int(settings.lease_s * 1e6), make_loop, self._consume)
        log.info("fulfilment starts", market=settings.market.value, host=socket.gethostname())
        owned.start()

    def stop(self, worker: Any) -> None:  # noqa: ANN401, ARG002 -- likewise
        """Finish what is at hand and give the shards back."""
        global owned  # noqa: PLW0603 -- one worker a process
        if self._leases is not None:
            self._leases.stop()
        if self._database is not None:
            self._database.close()
        self._leases = self._database = owned = None

    terminate = stop

    def _consume(self, shards: frozenset[int]) -> None:
        """Consume the queues of the shards that are ours now, and no others.

        Celery's consumer belongs to its own thread, so the change is handed to its loop. A consumer
        that is just reconnecting takes the queues from the app when it is back.
        """
        gone, come = self._queues - shards, shards - self._queues
        self._queues = shards
        for shard in come:
            self._worker.app.amqp.queues.select_add(orders_queue(shard))
        for shard in gone:
            self._worker.app.amqp.queues.deselect([orders_queue(shard)])
        consumer = getattr(self._worker, "consumer", None)
        if consumer is None or consumer.task_consumer is None:
            return
        for shard in come:
            consumer.call_soon(consumer.add_task_queue, orders_queue(shard))
        for shard in gone:
            consumer.call_soon(consumer.cancel_task_queue, orders_queue(shard))
