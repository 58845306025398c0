"""Flower, started as `crossfill up` starts it."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from cli.programs import flower_environment, listens
from cli.valkey import free_port
from tests.integration.cli.test_supervisor import wait
from tests.services import ROOT

TOKEN = "a-token_of-43-characters"


@pytest.fixture
def flower(redis_url: str, tmp_path: Path) -> Iterator[tuple[psutil.Process, int]]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "workers.celery", "flower"],
        cwd=ROOT,
        env={
            **{key: value for key, value in os.environ.items() if not key.startswith("CROSSFILL_")},
            "CROSSFILL_BROKER_URL": redis_url,
            "CROSSFILL_HOME": str(tmp_path),
            **flower_environment(TOKEN, port),
        },
    )
    wait(lambda: listens("127.0.0.1", port), limit_s=30)
    yield psutil.Process(process.pid), port
    process.terminate()
    process.wait(10)


def test_flower_wants_the_token_and_only_shows(flower: tuple[psutil.Process, int]) -> None:
    """By its environment alone: a password, read-only, on the loopback address, nothing kept in files."""
    process, port = flower
    url = f"http://127.0.0.1:{port}"
    good = ("crossfill", TOKEN)
    assert httpx.get(url).status_code == 401
    assert httpx.get(f"{url}/api/tasks").status_code == 401
    assert httpx.get(f"{url}/api/tasks", auth=("crossfill", "guess")).status_code == 401
    assert httpx.get(url, auth=good).status_code == 200
    assert httpx.get(f"{url}/api/tasks", auth=good).status_code == 200
    with httpx.Client(base_url=url, auth=good) as client:
        page = client.get("/")
        headers = {"X-XSRFToken": page.cookies.get("_xsrf") or "", "Origin": url}
        answer = client.post("/api/task/send-task/event.prune", json={"args": []}, headers=headers)
        assert (answer.status_code, answer.text) == (403, "Read only mode is enabled")
        assert client.post("/api/worker/shutdown/jobs@here", headers=headers).status_code == 403
    assert not any(TOKEN in word for word in process.cmdline())
    (listening,) = {each.laddr.ip for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
    assert listening == "127.0.0.1"
    assert not (ROOT / "flower").exists()
    begun = time.monotonic()
    process.terminate()
    process.wait(8)
    assert time.monotonic() - begun < 8
