"""GET /audit/head over HTTP, and what the workers log of it."""

import os
import subprocess
import sys

import httpx

from models.domain.orders import OrderState, Reason
from models.domain.quotes import Market
from models.settings import Settings
from models.store.audit import heads, links
from models.store.database import Database
from models.store.outcomes import commit_outcomes
from models.store.owners import ensure_owner
from models.store.shards import claim
from tests.integration.models.store.samples import accepted, outcome
from tests.services import ROOT


def _expire_one(database: Database) -> None:
    ensure_owner(database, "ann", "user", "hers")
    (lease,) = claim(database, "owner", 1, 3_600_000_000)
    ended = outcome(accepted(database), OrderState.EXPIRED, reason=Reason.DEADLINE)
    commit_outcomes(database, lease, 0, [ended], [], market=Market.SIMULATED)


def test_the_head_is_told_to_whoever_is_signed_in(client: httpx.Client, database: Database) -> None:
    """Of an empty chain it is number 0 and zeros; then the last record's number, hash and time."""
    empty = {"shard": 0, "number": 0, "hash": "0" * 64, "time": None}
    assert client.get("/audit/head").json() == {"heads": [empty]}
    _expire_one(database)
    with database.read() as connection:
        (last,) = links(connection, 0)
    answer = client.get("/audit/head", headers={"Authorization": "Bearer another"})
    head = {"shard": 0, "number": 1, "hash": last.hash, "time": "2026-09-21T14:13:21.123456Z"}
    assert (answer.status_code, answer.json()) == (200, {"heads": [head]})
    assert client.get("/audit/head", headers={"Authorization": ""}).status_code == 401


def test_the_task_logs_the_head_as_it_can_be_given_back(settings: Settings, database: Database) -> None:
    """In a worker's own process: one line, with what `crossfill audit verify --head` takes."""
    _expire_one(database)
    with database.read() as connection:
        (head,) = heads(connection)
    script = "from workers.housekeeping import tell_heads; print(tell_heads())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env={**os.environ}, capture_output=True, check=True)
    logged, returned = done.stdout.decode().splitlines()
    assert returned == f"['{head}']"
    assert "audit heads" in logged
    assert str(head) in logged
    command = [sys.executable, "-m", "cli", "audit", "verify", "--head", str(head)]
    assert subprocess.run(command, cwd=ROOT, env={**os.environ}, check=False).returncode == 0
