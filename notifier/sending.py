"""One loop a client: it sends the owner's events above the client's cursor, for replay and live alike."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from models.domain.errors import CrossfillError
from models.store.database import Database
from models.store.events import EventRow, as_message, cursor_of, events_after

PAGE = 200
QUEUE_MAX = 1_000  # packets that wait in the library for a slow client; its own queue has no bound
SLOW_S = 20.0  # for so long a full queue is borne
PAUSE_S = 0.05
GATHER_S = 0.01  # between two reads for one client, while there always is something
RETRY_S = 1.0

Answer = TypeVar("Answer")
Emit = Callable[[str, dict[str, Any]], Awaitable[None]]

log = structlog.get_logger()


class TooSlowError(CrossfillError):
    """The client does not take what it is sent; it is cut off and resumes by its cursor."""


class Sender:
    """Sends one owner's events to one client. `waiting` says how many packets the client has not taken."""

    def __init__(self, database: Database, owner_id: str, emit: Emit, waiting: Callable[[], int]) -> None:
        self.owner_id = owner_id
        self._database = database
        self._emit = emit
        self._waiting = waiting
        self._news = asyncio.Event()
        self._cursor = 0

    @property
    def cursor(self) -> int:
        """The number of the last event that was handed over."""
        return self._cursor

    def wake(self) -> None:
        """Say that there may be something to send."""
        self._news.set()

    async def run(self, last_seq: int | None) -> None:
        """Send what was missed, then `ready`, then what comes. Raises TooSlowError.

        Without `last_seq` it starts from now. A cursor older than what is kept, or newer than anything,
        gets `resync` and starts from now too: the client must read the state anew.
        """
        oldest, newest = await self._durably(self._cursors)
        if last_seq is not None and not oldest - 1 <= last_seq <= newest:
            await self._emit("resync", {"oldest": oldest, "newest": newest})
            last_seq = None
        self._cursor = newest if last_seq is None else last_seq
        while await self._send_page():
            pass
        await self._emit("ready", {"last_seq": self._cursor})
        while True:
            await self._news.wait()
            self._news.clear()
            while await self._send_page():
                pass
            await asyncio.sleep(GATHER_S)

    async def _send_page(self) -> bool:
        """Send up to a page; return whether there may be more."""
        rows = await self._durably(self._page)
        for row in rows:
            await self._room()
            await self._emit(row.type.value, as_message(row))
            self._cursor = row.seq
        return len(rows) == PAGE

    async def _room(self) -> None:
        """Wait until the client has taken what it was sent."""
        waited_s = 0.0
        while self._waiting() >= QUEUE_MAX:
            if waited_s >= SLOW_S:
                raise TooSlowError(f"a client of {self.owner_id} left {QUEUE_MAX} packets unread for {SLOW_S:.0f} s")
            await asyncio.sleep(PAUSE_S)
            waited_s += PAUSE_S

    async def _durably(self, read: Callable[[], Answer]) -> Answer:
        """Read from the database, again and again while it is down: nothing may be left out."""
        while True:
            try:
                return await asyncio.to_thread(read)
            except CrossfillError as error:
                log.warning("events cannot be read", error=str(error))
                await asyncio.sleep(RETRY_S)

    def _cursors(self) -> tuple[int, int]:
        with self._database.read() as connection:
            return cursor_of(connection, self.owner_id)

    def _page(self) -> list[EventRow]:
        with self._database.read() as connection:
            return events_after(connection, self.owner_id, self._cursor, PAGE)
