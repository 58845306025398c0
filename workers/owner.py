"""The part of a fulfilment worker that is not Celery's: shards, their loops, and the queues that wake them.

It is a step of the worker itself and not of its consumer, so that the loops outlive a lost broker.
"""

import gc
import os
import socket
from typing import Any, ClassVar

import structlog
from celery import bootsteps

from models.bus.client import connect
from models.bus.names import orders_queue
from models.metrics import Families, Listener, new_registry
from models.settings import Settings
from models.store.database import Database
from models.store.listings import instruments_at
from models.store.shards import Lease
from workers.fulfilment import FulfilmentLoop, LoopSettings
from workers.leases import Leases
from workers.metrics import LoopMetrics, of_shards

log = structlog.get_logger()

# The task `order.place` finds its worker's loops here; there is one worker a process.
owned: Leases | None = None


class Owner(bootsteps.StartStopStep):
    """Starts the leases with the worker, and ends them before it."""

    requires: ClassVar[tuple[str, ...]] = ("celery.worker.components:Pool",)
    # Tests of what a kill leaves behind have other ones.
    database_type: ClassVar[type[Database]] = Database
    loop_type: ClassVar[type[FulfilmentLoop]] = FulfilmentLoop

    def __init__(self, worker: Any, **_: Any) -> None:  # noqa: ANN401 -- celery's objects carry no types
        self._worker = worker
        self._leases: Leases | None = None
        self._database: Database | None = None
        self._listener: Listener | None = None
        self._shards: frozenset[int] = frozenset()
        self._queues: set[str] = set()

    def start(self, worker: Any) -> None:  # noqa: ANN401 -- likewise
        """Open what the loops need and begin to claim shards."""
        global owned  # noqa: PLW0603 -- one worker a process
        settings = Settings()
        database = self._database = self.database_type.open(settings.database)
        bus, hinter = connect(settings.bus), connect(settings.bus, timeout_s=0.5)
        loop_settings = LoopSettings(
            settings.market,
            settings.fee_bps,
            int(settings.silence_s * 1e6),
            settings.journal,
        )

        registry = new_registry("fulfilment", settings)
        metrics = LoopMetrics(registry)

        def make_loop(lease: Lease) -> FulfilmentLoop:
            known = instruments_at(database, settings.market)
            return self.loop_type(lease, known, database, bus, hinter, loop_settings, metrics)

        name = f"{worker.hostname}-{os.getpid()}"
        leases = self._leases = owned = Leases(database, name, int(settings.lease_s * 1e6), make_loop, self._consume)
        log.info("fulfilment starts", market=settings.market.value, host=socket.gethostname())
        registry.register(Families(lambda: of_shards(leases.loops)))
        gc.freeze()  # what the imports made stays: to look it through again and again takes 50 ms at a time
        leases.start()
        self._listener = Listener(settings, registry)
        self._listener.start()

    def stop(self, worker: Any) -> None:  # noqa: ANN401, ARG002 -- likewise
        """Finish what is at hand and give the shards back."""
        global owned  # noqa: PLW0603 -- one worker a process
        if self._leases is not None:
            self._leases.stop()
        if self._listener is not None:
            self._listener.stop()
        if self._database is not None:
            self._database.close()
        self._leases = self._database = self._listener = owned = None

    terminate = stop

    def _consume(self, shards: frozenset[int]) -> None:
        """Ask Celery to consume the queues of the shards that are ours now, and no others.

        Its consumer belongs to a thread of its own, so the change is handed to its loop. That happens
        again and again: a consumer that was just starting or reconnecting has it the next time.
        """
        self._shards = shards
        consumer = getattr(self._worker, "consumer", None)
        if consumer is not None:
            consumer.call_soon(self._reconcile, consumer)

    def _reconcile(self, consumer: Any) -> None:  # noqa: ANN401 -- likewise
        """Make what is consumed equal to what should be; runs on the consumer's thread."""
        wanted = {orders_queue(shard) for shard in self._shards}
        if consumer.task_consumer is None:
            return
        for name in wanted - self._queues:
            consumer.app.amqp.queues.select_add(name)
        for name in self._queues - wanted:
            consumer.cancel_task_queue(name)
        self._queues = wanted
        for name in wanted:
            if not consumer.task_consumer.consuming_from(name):
                consumer.add_task_queue(name)
