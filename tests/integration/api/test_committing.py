"""The API's end of group commit, with a real writer."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest
from prometheus_client import CollectorRegistry

from api import committing
from api.committing import Committer
from api.figures import Counters
from api.problems import ProblemError
from api.writer import Setup
from models.settings import Settings
from models.store.database import Database
from models.store.orders import Accepted
from tests.integration.models.store.samples import new_order

pytestmark = pytest.mark.usefixtures("database")


@asynccontextmanager
async def started(settings: Settings, waiting_max: int = 10) -> AsyncIterator[Committer]:
    """A committer and its writer."""
    setup = Setup(settings.database, settings.broker, settings.bus)
    made = Committer(setup, waiting_max, Counters(CollectorRegistry()))
    made.start()
    yield made
    await made.close()


def writer() -> psutil.Process:
    [process] = [child for child in psutil.Process().children() if "api.writer" in child.cmdline()]
    return process


def test_more_than_may_wait(settings: Settings, database: Database) -> None:
    """What comes beyond the bound is refused at once with 503 and when to come again; what waits is stored."""

    async def run() -> list[Accepted | BaseException]:
        async with started(settings) as committer:
            with database.write():  # the writer waits
                asked = [asyncio.create_task(committer.store(new_order(owner_id="local"))) for _ in range(12)]
                refused, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
                assert refused == set(asked[10:])
            return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(run())
    assert all(isinstance(answer, Accepted) for answer in answers[:10])
    for answer in answers[10:]:
        assert isinstance(answer, ProblemError)
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"


def test_a_writer_that_stands_still(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it for ever: it is ended and another one started."""

    async def run() -> None:
        async with started(settings) as committer:
            assert isinstance(await committer.store(new_order(owner_id="local")), Accepted)
            monkeypatch.setattr(committing, "PATIENCE_S", 0.5)  # to start takes longer on a busy machine
            still = writer()
            os.kill(still.pid, signal.SIGSTOP)
            with pytest.raises(ProblemError, match="ended"):
                await committer.store(new_order(owner_id="local"))
            assert not still.is_running()
            monkeypatch.setattr(committing, "PATIENCE_S", 60)
            assert isinstance(await committer.store(new_order(owner_id="local")), Accepted)

    asyncio.run(run())


def test_what_waits_at_the_end_is_stored(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A committer that is closed has first stored and answered what it was given."""
    monkeypatch.setattr(committing, "CLOSE_S", 60)  # the writer is still starting, maybe on a busy machine

    async def run() -> list[Accepted]:
        async with started(settings) as committer:
            asked = [asyncio.create_task(committer.store(new_order(owner_id="local"))) for _ in range(5)]
            await asyncio.sleep(0)
        return [task.result() for task in asked]

    assert len({answer.order_id for answer in asyncio.run(run())}) == 5
