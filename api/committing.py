"""Group commit, from the event loop: orders go to the writer, and a request is answered when its order is durable."""

import asyncio
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import msgspec
import structlog
from fastapi.concurrency import run_in_threadpool

from api.figures import Counters
from api.problems import unavailable
from api.writer import Setup, Written, error_of
from models.domain.orders import Side
from models.store.orders import Accepted, NewOrder

WRITER = (sys.executable, "-m", "api.writer")
PATIENCE_S = 20.0  # the database has ten; a writer that says nothing for so long stands still
RESTART_S = 1.0
CLOSE_S = 10.0
_LENGTH = struct.Struct("!i")  # as multiprocessing's connections have it, which the writer reads from

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting:
    side: Side
    since: float
    future: "asyncio.Future[Accepted]"


class Committer:
    """Hands orders to the writer, a process of its own that it starts, and starts again where it ends.

    The writer answers in the order of asking. What waits is bounded: beyond it an order is refused at
    once, because one that waits long helps nobody.
    """

    def __init__(self, setup: Setup, waiting_max: int, counters: Counters, command: Sequence[str] = WRITER) -> None:
        self._setup = setup
        self._waiting_max = waiting_max
        self._counters = counters
        self._command = command
        self._waiting: deque[_Waiting] = deque()
        self._gathered: list[NewOrder] = []
        self._let_in = 0
        self._writer: asyncio.StreamWriter | None = None
        self._encode = msgspec.msgpack.Encoder().encode
        self._running: asyncio.Task[None] | None = None
        self._heard = 0.0  # when the writer answered last
        self._closing = False

    def __len__(self) -> int:
        return len(self._waiting)

    def start(self) -> None:
        """Start the writer."""
        self._running = asyncio.create_task(self._run())

    def let_in(self) -> bool:
        """Say whether there is room for one more order, and count it as one that waits until it is worked.

        In one turn the event loop reads all connections before it works any request: those of a turn that
        were let in are not among those that wait yet.
        """
        if len(self._waiting) + self._let_in >= self._waiting_max:
            return False
        if not self._let_in:
            asyncio.get_running_loop().call_soon(self._forget_let_in)  # before the requests of this turn are worked
        self._let_in += 1
        return True

    def _forget_let_in(self) -> None:
        self._let_in = 0

    async def store(self, order: NewOrder) -> Accepted:
        """Store an order, with the id of the task that will wake its shard, and return when it is durable.

        Raises ProblemError with 503 where it cannot be stored now, and what the store says of the row.
        """
        if len(self._waiting) >= self._waiting_max:
            raise unavailable("more orders are coming than can be stored; repeat with the same Idempotency-Key")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(order.side, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        if not self._gathered:
            loop.call_soon(self._send)  # with all that this turn of the loop brings
        self._gathered.append(order)
        return await waiting.future

    async def close(self) -> None:
        """Store what waits and end."""
        self._closing = True
        self._send()
        if self._writer is not None:
            self._writer.write_eof()
        if self._running is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._running, CLOSE_S)

    def _send(self) -> None:
        if self._writer is not None and self._gathered:
            message = self._encode(self._gathered)
            self._gathered = []
            self._writer.write(_LENGTH.pack(len(message)) + message)

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            problem = "it ended"
            try:
                await self._run_writer()
            except OSError as error:  # it could not even be started
                problem = str(error)
            self._fail("the process that stores orders ended")
            if self._closing:
                return
            log.warning("the writer is started again", problem=problem)
            await asyncio.sleep(max(0.0, began + RESTART_S - time.monotonic()))

    async def _run_writer(self) -> None:
        """Start a writer and pass on what it answers until it ends."""
        ours, its = socket.socketpair()
        with its:
            number = its.fileno()
            process = subprocess.Popen([*self._command, str(number)], pass_fds=[number])  # noqa: ASYNC220, S603 -- our own program, and forking takes a moment only
        watching = asyncio.create_task(self._watch(process))
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours)
            setup = self._encode(self._setup)
            self._writer.write(_LENGTH.pack(len(setup)) + setup)
            self._send()
            if self._closing:
                self._writer.write_eof()
            await self._read(reader)
        finally:
            watching.cancel()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            process.kill()  # it has ended, or will never
            await run_in_threadpool(process.wait)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                [length] = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                self._resolve(msgspec.msgpack.decode(await reader.readexactly(length), type=Written))

    async def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        """End a writer that stands still, so that nobody waits for it for ever."""
        while True:
            await asyncio.sleep(1)
            quiet_since = max(self._heard, self._waiting[0].since) if self._waiting else inf
            if asyncio.get_running_loop().time() - quiet_since > PATIENCE_S:
                log.warning("the writer does not answer")
                process.kill()

    def _resolve(self, written: Written) -> None:
        self._heard = asyncio.get_running_loop().time()
        self._counters.commits.observe(written.took_s)
        batch = [self._waiting.popleft() for _ in range(written.orders)]
        if written.failed:
            self._refuse(batch, "the database is not available", 2)
            return
        self._counters.batches.observe(len(batch))
        for waiting, answer in zip(batch, written.answers, strict=True):
            if answer.refused:
                _set(waiting.future, error_of(answer))
                continue
            if answer.existing:
                self._counters.repeated.inc()
            else:
                self._counters.accepted.labels(waiting.side.value).inc()
            _set(waiting.future, Accepted(answer.job_id, answer.order_id, answer.existing))

    def _fail(self, why: str) -> None:
        batch = list(self._waiting)
        self._waiting.clear()
        self._gathered = []
        if batch:
            self._refuse(batch, why, 1)

    def _refuse(self, batch: Sequence[_Waiting], why: str, retry_after_s: int) -> None:
        self._counters.failures.inc()
        for waiting in batch:
            _set(waiting.future, unavailable(f"{why}; repeat with the same Idempotency-Key", retry_after_s))


def _set(future: "asyncio.Future[Accepted]", answer: Accepted | Exception) -> None:
    if future.done():  # whoever asked has gone
        return
    if isinstance(answer, Accepted):
        future.set_result(answer)
    else:
        future.set_exception(answer)
