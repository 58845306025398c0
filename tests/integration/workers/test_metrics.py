"""Metrics of workers, each in a process of its own: what they did is what they tell."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

import models.metrics
from cli.valkey import free_port
from models.bus.wakeups import Wakeups, new_task_id
from models.metrics import Listener
from models.settings import Settings
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards
from models.store.venues import ensure_venues
from tests.integration.scraping import Samples, key, scrape
from tests.integration.workers.test_fulfilment import feeding, filled, place, read, running_worker, until
from tests.integration.workers.test_sweeping import add_jobs


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with one shard and an owner."""
    opened = Database.open(database_url)
    fix_shards(opened, 1)
    ensure_venues(opened, ["binance"])
    ensure_owner(opened, "local", "admin", "secret")
    yield opened
    opened.close()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port at which a worker of this test tells its metrics."""
    chosen = free_port()
    monkeypatch.setenv("CROSSFILL_METRICS_PORT", str(chosen))
    return chosen


def telling(port: int, condition: Callable[[Samples], bool], limit_s: float = 60) -> Samples:
    """Scrape until a condition holds, and return what was told."""
    told: list[Samples] = []

    def holds() -> bool:
        try:
            told.append(scrape(f"http://127.0.0.1:{port}"))
        except httpx.TransportError:
            return False
        return condition(told[-1])

    until(holds, limit_s)
    return told[-1]


def test_a_fulfilment_worker_tells_what_it_did(
    database: Database, database_url: str, redis_url: str, tmp_path: Path, port: int
) -> None:
    """Orders placed and ended, splits, commits, the lease, and why the order that rests does."""
    # A lease that runs out on a busy machine would be a second epoch.
    with running_worker("fulfilment", database_url, redis_url, tmp_path, lease_s=60), feeding(redis_url, size="30"):
        [first] = place(database, "10")
        until(lambda: filled(database, first))
        [resting] = place(database, "25")
        until(lambda: read(database, resting).filled_size == 20)
        why = key("crossfill_orders_open", state="working", reason="taken_by_others")
        told = telling(port, lambda samples: samples.get(why) == 1)
    assert told[key("crossfill_process_info", kind="fulfilment", market="simulated")] == 1
    assert told[key("crossfill_orders_placed_total")] == 2
    assert told[key("crossfill_orders_ended_total", state="filled", reason="")] == 1
    assert told[key("crossfill_splits_total", venue="binance")] == 2
    assert told[key("crossfill_outcomes_batch_size_sum")] >= 2
    assert told[key("crossfill_outcomes_commit_seconds_count")] == told[key("crossfill_outcomes_batch_size_count")]
    assert told[key("crossfill_step_seconds_count")] > 2
    assert told[key("crossfill_lease_epoch", shard="0")] == 1
    assert told[key("crossfill_quotes_taken_total")] > 1
    assert told[key("crossfill_books_dropped_total")] == 0
    assert key("crossfill_inbox_oldest_age_seconds", shard="0") in told


def test_a_jobs_worker_tells_what_its_child_did(
    database: Database, database_url: str, redis_url: str, tmp_path: Path, port: int
) -> None:
    """The main process has the listener, the child the work."""
    add_jobs(database, 5)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET payload = '{}' WHERE rowid = 1")
    with running_worker("jobs", database_url, redis_url, tmp_path):
        wakeups = Wakeups(redis_url)
        assert wakeups.publish({}, new_task_id())
        wakeups.close()
        done = key("crossfill_job_attempts_total", kind="average", end="done")
        told = telling(port, lambda samples: samples.get(done) == 4)
        put_back = key("crossfill_job_attempts_total", kind="average", end="put_back")
        telling(port, lambda samples: samples[put_back] >= 1)
    assert told[key("crossfill_process_info", kind="jobs", market="simulated")] == 1


def test_a_port_that_is_taken_is_had_later(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker goes on without; when the port is free it is taken."""
    monkeypatch.setattr(models.metrics, "RETRY_S", 0.05)  # nobody waits for five seconds
    with socket.create_server(("127.0.0.1", port)):
        listener = Listener(Settings(), CollectorRegistry())
        listener.start()
        time.sleep(0.3)
    telling(port, lambda samples: samples == {})
    listener.stop()


def test_only_metrics_are_served_to_whom_they_are_for(port: int) -> None:
    """Another path is not there; with a token nobody else reads; a stopped listener leaves the port free."""
    settings = Settings(metrics_token=SecretStr("sesame"))
    listener = Listener(settings, CollectorRegistry())
    listener.start()
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(answers)
    assert httpx.get(f"{address}/").status_code == 404
    refused = httpx.get(f"{address}/metrics")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.get(f"{address}/metrics", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert httpx.get(f"{address}/metrics", headers={"Authorization": "Bearer sesame"}).status_code == 200
    listener.stop()
    assert not answers()
