"""What `crossfill vwap` does: a connection to Coinbase's trades, opened again and again, and a window a product."""

import threading
from collections.abc import Callable, Iterator, Sequence

import structlog
import websocket

from exchanges.coinbase.protocol import VENUE, Coinbase
from exchanges.protocol import Acknowledged, Event
from models.domain.decimals import plain
from models.domain.errors import CrossfillError
from models.domain.quotes import Trade
from models.domain.vwap import Became, SlidingVwap
from workers.backoff import full_jitter
from workers.connection import Connection, steady_s
from workers.outbox import Outbox

CHANNELS = ("matches", "heartbeat")
WAIT_S = 0.1
HEALTHY_S = 60.0  # a connection that lived so long resets the backoff
IN_WINDOW = (Became.ADDED, Became.OUT_OF_ORDER)

log = structlog.get_logger()


class AveragingError(CrossfillError):
    """There is nothing to average; the sentence says why."""


class _Matches(Coinbase):
    """Trades alone. What the venue refuses is remembered, because it will be refused again."""

    refused: tuple[str, ...] = ()

    def decode(self, frame: bytes, received_time_us: int) -> Sequence[Event]:
        events = super().decode(frame, received_time_us)
        for event in events:
            if isinstance(event, Acknowledged):
                self.refused = event.refused
        return events


class Averaging:
    """The averages of the last `window` trades of each product. Raises WindowError."""

    def __init__(self, address: str, products: Sequence[str], window: int) -> None:
        self._address = address
        self._windows = {product: SlidingVwap(window) for product in products}

    def run(
        self, ended: threading.Event, tick: Callable[[], None], *, must_begin: bool = False
    ) -> Iterator[tuple[str, str]]:
        """Yield a product and its average with each of its trades, until ended; `tick` is called about every 0.1 s.

        A lost connection is opened again. Raises AveragingError where the venue refuses a product and,
        if it `must_begin`, where the first connection fails.
        """
        failures = 0
        while not ended.is_set():
            started = steady_s()
            protocol, outbox = _Matches(self._address, list(self._windows), 0, CHANNELS), Outbox(VENUE, "")
            try:
                connection = Connection(protocol, outbox, log)
            except (websocket.WebSocketException, OSError) as error:
                if must_begin:
                    raise AveragingError(
                        f"nobody serves Coinbase at {self._address} ({error}): start it with `make run`, or use --live"
                    ) from error
                log.warning("no connection", address=self._address, error=str(error) or repr(error))
            else:
                must_begin = False
                try:
                    yield from self._watch(connection, protocol, outbox, ended, tick)
                finally:
                    connection.close()
            if steady_s() - started >= HEALTHY_S:
                failures = 0
            ended.wait(full_jitter(failures))
            failures += 1

    def _watch(
        self,
        connection: Connection,
        protocol: _Matches,
        outbox: Outbox,
        ended: threading.Event,
        tick: Callable[[], None],
    ) -> Iterator[tuple[str, str]]:
        silence_s = protocol.limits.silence_s
        while not ended.is_set():
            closing = connection.closing.is_set()  # before what it has brought is taken: nothing comes after it
            outbox.wait(0 if closing else WAIT_S)
            items, _ = outbox.take()
            yield from self._added(item for item in items if isinstance(item, Trade))
            tick()
            if protocol.refused:
                raise AveragingError(f"Coinbase refuses {', '.join(protocol.refused)}")
            if closing or connection.unanswered or connection.stood_still():
                break
            if steady_s() - connection.read_at > silence_s:
                log.warning("Coinbase is silent; connecting again")
                break

    def _added(self, trades: Iterator[Trade]) -> Iterator[tuple[str, str]]:
        for trade in trades:
            window = self._windows.get(trade.product_id)
            # One from before the subscription may be hours old, and the trades between it and the next are not known.
            if window is None or trade.before:
                continue
            moment = trade.exchange_time_us
            time_us = trade.received_time_us if moment is None else moment
            became = window.add(trade.price, trade.size, time_us, trade.trade_id)
            value = window.value
            if became in IN_WINDOW and value is not None:
                yield trade.product_id, plain(value)
