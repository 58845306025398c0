"""Connections to PostgreSQL that never wait for ever. Loaded only where the database is PostgreSQL.

A peer that has gone without a word is found by the kernel: what it does not acknowledge for some
seconds, sent or asked (keepalives), ends the connection. Something between that acknowledges and
delivers nothing is found by the clock: the server itself ends a statement after STATEMENT_S, so who
hears nothing for longer than that is connected to nobody. The server for its part ends a transaction whose
client is silent for IDLE_S: its locks would stay for as long as somebody acknowledges in its place.
"""

from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

LOCK_S = 10
STATEMENT_S = 60
# Between two statements of a transaction we do little: a page of the audit takes a second, all else milliseconds.
IDLE_S = 20
ANSWER_S = STATEMENT_S + 5.0
COMMIT_S = 20.0  # beyond it the outcome is unknown; one that only waits for a slow disk is far quicker
GONE_S = 10  # a peer that acknowledges nothing for so long has gone

Result = TypeVar("Result")


class Connection(psycopg.Connection):
    """One that gives up, and is closed, where no answer comes within `answer_s`; None: it waits for ever."""

    answer_s: float | None = ANSWER_S

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """Wait for an answer. Raises psycopg.OperationalError."""
        try:
            return super().wait(gen, interval, self.answer_s if timeout is None else timeout)
        except psycopg.OperationalError:
            # Nobody knows what the server makes of it: whatever it may answer yet must not be taken for
            # the answer to the next question.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise

    def commit(self) -> None:
        """Commit. Raises psycopg.OperationalError; the outcome is unknown then."""
        before, self.answer_s = self.answer_s, COMMIT_S
        try:
            super().commit()
        finally:
            self.answer_s = before


def options() -> dict[str, str | int]:
    """Return libpq's parameters. macOS has no TCP_USER_TIMEOUT: there the keepalives alone find who is gone."""
    return {
        "connect_timeout": 5,
        # A database that was made with SQL_ASCII would answer in bytes.
        "client_encoding": "utf8",
        "options": (
            f"-c lock_timeout={LOCK_S * 1000} -c statement_timeout={STATEMENT_S * 1000}"
            f" -c idle_in_transaction_session_timeout={IDLE_S * 1000}"
            # A plan from when a table was small would read all of it for each batch when it is large.
            " -c plan_cache_mode=force_custom_plan"
        ),
        "keepalives_idle": GONE_S // 2,
        "keepalives_interval": 1,
        "keepalives_count": GONE_S // 2,
        "tcp_user_timeout": GONE_S * 1000,
    }
