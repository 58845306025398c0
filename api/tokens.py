"""Tokens: whose each is, as the database said some seconds ago at most."""

import asyncio
import time

from fastapi.concurrency import run_in_threadpool

from models.store.database import Database
from models.store.owners import Owner, owner_of_token

KEPT_S = 5.0
TOKENS_MAX = 10_000


class Tokens:
    """Knows the owners of tokens, and asks the database once for all requests that need the same one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[str, tuple[float, Owner]] = {}
        self._asked: dict[str, asyncio.Task[Owner | None]] = {}

    async def owner_of(self, token: str) -> Owner | None:
        """Return whose token this is, or None. Raises StoreUnavailableError."""
        kept = self._kept.get(token)
        if kept is not None and kept[0] > time.monotonic():
            return kept[1]
        asked = self._asked.get(token)
        if asked is None:
            # Without this every request of a busy client would ask as soon as what is kept is too old.
            asked = self._asked[token] = asyncio.create_task(self._ask(token))
            asked.add_done_callback(lambda _: self._asked.pop(token))
        return await asyncio.shield(asked)  # a request that is cut off leaves the others their answer

    async def _ask(self, token: str) -> Owner | None:
        owner = await run_in_threadpool(self._look_up, token)
        if owner is not None:
            if len(self._kept) >= TOKENS_MAX:
                self._kept.clear()
            self._kept[token] = (time.monotonic() + KEPT_S, owner)
        return owner

    def _look_up(self, token: str) -> Owner | None:
        with self._database.read() as connection:
            return owner_of_token(connection, token)
