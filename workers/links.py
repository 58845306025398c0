"""A collector's connections: the one that is read, the one that will replace it, and the one for candles."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import websocket

from exchanges.protocol import VenueProtocol
from models.domain.errors import CrossfillError
from models.domain.instruments import INSTRUMENTS, Instruments
from workers.backoff import full_jitter
from workers.connection import Connection, steady_s
from workers.history import History
from workers.outbox import Outbox

WATCH_S = 0.5
JOIN_S = 0.3
RATE_S = 5.0


@dataclass(frozen=True)
class CollectorSettings:
    """What a collector must know.

    `make` builds the protocol of a new connection from its token; `companion` that of a second one for
    the candles, where the venue has them at another address. `instruments` says what a product feeds.
    """

    venue: str
    market: str
    make: Callable[[int], VenueProtocol]
    companion: Callable[[int], VenueProtocol] | None = None
    instruments: Instruments = INSTRUMENTS
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 60.0
    healthy_s: float = 60.0  # a connection that lived so long resets the backoff


class Link:
    """One connection with the outbox that it fills and the history that it makes."""

    def __init__(self, settings: CollectorSettings, token: int, log_: structlog.stdlib.BoundLogger) -> None:
        self.token = token
        self.outbox = Outbox(settings.venue, settings.market)
        self.connection = Connection(settings.make(token), self.outbox, log_)
        self.history = History(settings.venue, token, self.connection.connected_us, settings.market)


class Opening:
    """A connection that is opened while another one is still read."""

    def __init__(self, open_link: Callable[[], Link]) -> None:
        self._open = open_link
        self._link: Link | None = None
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="opening", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._link = self._open()
        except (websocket.WebSocketException, OSError, CrossfillError) as error:
            self.failed = error

    @property
    def link(self) -> Link | None:
        """The connection, once it is there and lives."""
        return None if self._link is None or self._link.connection.closing.is_set() else self._link

    @property
    def ended(self) -> bool:
        """Whether it came to nothing, or is over again."""
        return self.failed is not None or (self._link is not None and self._link.connection.closing.is_set())

    def close(self) -> None:
        """Throw away what came of it."""
        self._thread.join(JOIN_S)
        if self._link is not None:
            self._link.connection.close()


class Companion:
    """A second connection, for the venue's candles: opened again and again, and nothing waits for it."""

    def __init__(
        self, make: Callable[[int], VenueProtocol], outbox: Outbox, log_: structlog.stdlib.BoundLogger
    ) -> None:
        self.outbox = outbox
        self._make = make
        self._log = log_
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="companion", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            try:
                connection = Connection(self._make(0), self.outbox, self._log)
                attempt = 0
                self._watch(connection)
            except (websocket.WebSocketException, OSError) as error:
                self._log.warning("no connection for candles", error=str(error) or repr(error))
            attempt += 1
            self._stopping.wait(full_jitter(attempt))

    def _watch(self, connection: Connection) -> None:
        limits, outbox = connection.protocol.limits, self.outbox
        while not connection.closing.is_set() and not connection.announced and outbox is self.outbox:
            if self._stopping.wait(WATCH_S) or steady_s() - connection.read_at > limits.silence_s:
                break
            if connection.unanswered:
                self._log.warning("the venue has not answered the subscription to candles")
                break
            if limits.ping_s is not None and steady_s() - connection.read_at >= limits.ping_s:
                connection.ping()
        connection.close()


class Rate:
    """Messages a second, over the last five seconds or so."""

    def __init__(self) -> None:
        self._before = (time.monotonic(), 0)
        self._value = 0.0

    def of(self, messages: int) -> float:
        """Return the rate, from the number of messages so far."""
        now = time.monotonic()
        then, count = self._before
        if now - then >= RATE_S:
            self._value = round((messages - count) / (now - then), 1)
            self._before = (now, messages)
        return self._value
