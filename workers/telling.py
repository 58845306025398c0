"""How often a worker tells what its tasks do, which Flower shows."""

from typing import Any, ClassVar

from celery import bootsteps

TELL_S = 0.5
EVENTS_MAX = 500  # told at once


class Telling(bootsteps.StartStopStep):
    """Sends the events of tasks twice a second.

    Celery itself sends them after each turn of its loop. For a wake-up, which does hardly anything, that was a
    fifth of all that the worker did.
    """

    requires: ClassVar[tuple[str, ...]] = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **_: Any) -> None:  # noqa: ANN401 -- celery's objects carry no types
        self._timer: Any = None
        super().__init__(consumer)

    def start(self, consumer: Any) -> None:  # noqa: ANN401 -- likewise
        """Begin; a consumer that reconnects starts again, with another dispatcher."""
        dispatcher = consumer.event_dispatcher
        dispatcher.on_send_buffered, dispatcher.buffer_limit = None, EVENTS_MAX
        self._timer = consumer.timer.call_repeatedly(TELL_S, dispatcher.flush)

    def stop(self, consumer: Any) -> None:  # noqa: ANN401, ARG002 -- likewise
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
