"""The doors: whose token it is, and what there is to be asked for, as the database says."""

import asyncio

from models.domain.instruments import Instruments
from models.settings import Settings
from models.store.database import Database, StoreUnavailableError
from models.store.listings import instruments_at
from models.store.owners import Owner, owner_of_token
from models.store.shards import shards_count
from notifier.metrics import NotifierMetrics

UNAVAILABLE = "the database is not available; try again"


class Doors:
    """What every client meets first. Each method raises StoreUnavailableError."""

    def __init__(self, settings: Settings, database: Database, metrics: NotifierMetrics) -> None:
        self.metrics = metrics
        self._settings = settings
        self._database = database
        self._instruments: Instruments | None = None
        self._shards = 0

    async def owner_of(self, token: str) -> Owner | None:
        """Return whose token this is, or None; both refusals are counted."""

        def read() -> Owner | None:
            with self._database.read() as connection:
                return owner_of_token(connection, token)

        try:
            owner = await asyncio.to_thread(read)
        except StoreUnavailableError:
            self.metrics.refused.labels("database").inc()
            raise
        if owner is None:
            self.metrics.refused.labels("token").inc()
        return owner

    async def instruments(self) -> Instruments:
        """Return the pairs of the market."""
        if self._instruments is None:
            self._instruments = await asyncio.to_thread(instruments_at, self._database, self._settings.market)
        return self._instruments

    async def shards(self) -> int:
        """Return the number of shards."""

        def read() -> int:
            with self._database.read() as connection:
                return shards_count(connection)

        self._shards = self._shards or await asyncio.to_thread(read)
        return self._shards
