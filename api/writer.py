"""`python -m api.writer FD`: the process that stores orders, many in one transaction, for the API that started it.

It reads batches from a socket, answers each in their order, and ends when the socket does: an API that was
killed leaves nobody behind. Two interpreters because one would give its lock back and forth between
the event loop and the thread that commits, which costs more than either's work (docs/adr/0014).
"""

import gc
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from api.announcing import Announcer
from models.bus.wakeups import new_task_id
from models.domain.errors import CrossfillError
from models.logs import configure_logs
from models.store.database import Database
from models.store.orders import Accepted, ClientOrderIdTakenError, KeyReusedError, NewOrder, NotAcceptedError, accept

BATCH_MAX = 256

log = structlog.get_logger()


class Setup(msgspec.Struct, array_like=True, frozen=True):
    """What the writer is told first, over the socket because URLs have passwords in them."""

    database: str
    broker: str
    bus: str
    log_level: str = "INFO"


class Answer(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True):
    """What became of one order. `refused`: the name of the error and what it is made of."""

    job_id: str = ""
    order_id: str = ""
    existing: bool = False
    refused: tuple[str, ...] = ()


class Written(msgspec.Struct, array_like=True, frozen=True):
    """What became of one transaction: an answer for each order, or the reason why none was stored."""

    orders: int
    took_s: float
    answers: list[Answer]
    failed: str = ""


_REFUSALS: dict[str, type[CrossfillError]] = {
    error.__name__: error for error in (KeyReusedError, ClientOrderIdTakenError, NotAcceptedError)
}
_batches = msgspec.msgpack.Decoder(list[NewOrder])


def error_of(answer: Answer) -> CrossfillError:
    """Return the error of an answer that refuses."""
    name, *values = answer.refused
    return _REFUSALS[name](*values)


def _answer(answer: Accepted | CrossfillError) -> Answer:
    match answer:
        case Accepted():
            return Answer(answer.job_id, answer.order_id, answer.existing)
        case KeyReusedError():
            values = [answer.key]
        case ClientOrderIdTakenError():
            values = [answer.client_order_id, answer.order_id]
        case NotAcceptedError():
            values = [answer.cause]
        case _:
            raise answer
    return Answer(refused=(type(answer).__name__, *values))


def serve(connection: Connection, database_type: type[Database], announcer_type: type[Announcer]) -> None:
    """Store what comes until nothing more can come."""
    setup = msgspec.msgpack.decode(connection.recv_bytes(), type=Setup)
    configure_logs(setup.log_level)
    database = database_type.open(setup.database)
    announcer = announcer_type(setup.broker, setup.bus)
    gc.freeze()  # what the imports made stays: to look it through again and again takes 50 ms at a time
    while orders := _gather(connection):
        tasks = {shard: new_task_id() for shard in {order.shard for order in orders}}
        rows = [replace(order, task_id=tasks[order.shard]) for order in orders]
        written = _write(database, rows)
        # Where whoever asked is gone, the same keys find what became of it.
        with suppress(OSError):
            connection.send_bytes(msgspec.msgpack.encode(written))
        fresh = [row for row, answer in zip(rows, written.answers, strict=False) if not answer.refused]
        if fresh:
            shards = {row.shard for row in fresh}
            announcer.announce({shard: tasks[shard] for shard in shards}, {row.owner_id for row in fresh})
    announcer.close()
    database.close()


def _gather(connection: Connection) -> list[NewOrder]:
    """Wait for orders and return all that have come, up to BATCH_MAX or a little above; none at the end."""
    orders: list[NewOrder] = []
    try:
        while not orders or (len(orders) < BATCH_MAX and connection.poll()):
            orders += _batches.decode(connection.recv_bytes())
    except (EOFError, OSError):
        pass  # what came before is stored
    return orders


def _write(database: Database, rows: Sequence[NewOrder]) -> Written:
    began = time.perf_counter()
    try:
        answers = [_answer(answer) for answer in accept(database, rows)]
    except (CrossfillError, SQLAlchemyError) as error:
        log.warning("orders could not be stored", orders=len(rows), error=str(error))
        return Written(len(rows), time.perf_counter() - began, [], str(error))
    return Written(len(rows), time.perf_counter() - began, answers)


def main(
    descriptor: str, database_type: type[Database] = Database, announcer_type: type[Announcer] = Announcer
) -> None:
    """Serve the socket of this number. Tests of what a kill leaves behind hand in parts of other types."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the API is told; it stores what it has, and closes the socket
    serve(Connection(int(descriptor)), database_type, announcer_type)


if __name__ == "__main__":
    main(sys.argv[1])
