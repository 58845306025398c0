"""The first screen of the README, followed to the letter against a system that `crossfill up` runs."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import psutil
import pytest

from models.domain.instruments import INSTRUMENTS
from tests.e2e.system import System, running_system
from tests.integration.scraping import key, scrape
from tests.services import ROOT

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A simulated market with all processes, as `make run` has it."""
    with running_system(tmp_path_factory.mktemp("first-screen") / "home") as running:
        yield running


def _commands(marker: str) -> list[str]:
    """Return the shell commands of the README's console blocks that hold the marker."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = [re.sub(r"\\\n\s*", "", block) for block in blocks]
    return [line[2:] for block in lines for line in block.splitlines() if line.startswith("$ ") and marker in line]


def _run(command: str, system: System) -> str:
    """Run a command of the README with this system's ports, token and folder."""
    command = command.replace("http://127.0.0.1:8000", system.api).replace(".crossfill/", f"{system.home}/")
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True, timeout=90).stdout


def test_the_health_check_says_which_market_is_on(system: System) -> None:
    """The README's health check answers that everything is up and the market simulated."""
    [command] = _commands("/health/ready")
    answer = json.loads(_run(command, system))
    assert answer["status"] == "up"
    assert answer["market"] == "simulated"


def test_the_order_of_the_readme_is_filled_in_pieces(system: System) -> None:
    """1,000 LTC are sold before the default deadline, in at least 5 splits over 2 venues, not at the limit."""
    [command] = _commands("/order/limit")
    placed = json.loads(_run(command, system))
    with system.client() as client:
        deadline = time.monotonic() + 90
        order: dict[str, Any] = {"state": "queued"}
        while order["state"] in {"queued", "working"} and time.monotonic() < deadline:
            time.sleep(0.2)
            order = client.get(f"/orders/{placed['order']['id']}").json()
    assert order["state"] == "filled"
    assert len(order["splits"]) >= 5
    assert len({split["venue"] for split in order["splits"]}) >= 2
    assert {split["market"] for split in order["splits"]} == {"simulated"}
    assert all(float(split["price"]) > 0.0001 for split in order["splits"])


def test_the_events_come_back(system: System) -> None:
    """`crossfill events --after 0` prints what happened to the order, in order, and goes on listening."""
    environment = {**os.environ, "CROSSFILL_HOME": str(system.home), "CROSSFILL_URL": system.api}
    environment["CROSSFILL_NOTIFIER_URL"] = system.notifier
    listening = subprocess.Popen(
        [sys.executable, "-m", "cli", "events", "--after", "0", "--json"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert listening.stdout is not None
    seen: list[dict[str, Any]] = []
    with listening.stdout as lines:
        for line in lines:
            seen.append(json.loads(line))
            if seen[-1]["type"] == "job.done":
                break
        listening.terminate()
        listening.wait(10)
    kinds = [message["type"] for message in seen]
    assert kinds[0] == "order.accepted"
    assert kinds[-2:] == ["order.filled", "job.done"]
    assert [message["seq"] for message in seen] == list(range(1, len(seen) + 1))


def test_the_price_says_what_it_is_made_of(system: System) -> None:
    """Of all six venues, whose prices agree to within half a per cent."""
    [command] = _commands("/prices/")
    deadline, answer = time.monotonic() + 60, json.loads(_run(command, system))
    while any(source["reason"] for source in answer["sources"]) and time.monotonic() < deadline:
        answer = json.loads(_run(command, system))  # one was not heard just then, on a busy machine
    assert {source["venue"] for source in answer["sources"] if source["reason"] is None} == set(INSTRUMENTS.venues)
    assert all(abs(Decimal(each["raw_price"]) / Decimal(answer["value"]) - 1) < 0.005 for each in answer["sources"])


def test_a_price_job_is_worked_when_its_window_is_over(system: System) -> None:
    """The command follows it to its end, a few seconds after the window; six venues were seen all the time."""
    environment = {**os.environ, "CROSSFILL_HOME": str(system.home), "CROSSFILL_URL": system.api}
    command = [sys.executable, "-m", "cli", "average", "BTC-USDT", "ETH-USDT", "--window", "3s", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=True)
    job = json.loads(done.stdout)
    assert (job["state"], [part["pair"] for part in job["result"]["parts"]]) == ("done", ["BTC-USDT", "ETH-USDT"])
    for part in job["result"]["parts"]:
        used = [source for source in part["sources"] if source["reason"] is None]
        assert len(used) >= 5
        assert all(Decimal(source["coverage"]) > Decimal("0.9") for source in used)
        assert min(Decimal(each["raw_price"]) for each in used) <= Decimal(part["value"])


def test_a_venue_that_is_switched_off_fills_nothing(system: System) -> None:
    """From then on: an order for it alone says why it waits, and is filled once the venue is on again."""
    order = {"symbol": "BTC-USDT", "order_size": "0.01", "price": 1000, "venues": ["okx"], "timeout_s": 60}
    with system.client() as client:
        assert client.patch("/venues/okx", json={"enabled": False}).json()["reason"] == "venue_disabled"
        placed = client.post("/order/limit", json=order).json()["order"]["id"]
        deadline = time.monotonic() + 30
        while client.get(f"/orders/{placed}").json()["state"] == "queued" and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(1)
        waiting = client.get(f"/orders/{placed}").json()
        assert (waiting["state"], waiting["reason"], waiting["splits"]) == ("working", "venue_disabled", [])
        client.patch("/venues/okx", json={"enabled": True})
        while client.get(f"/orders/{placed}").json()["state"] == "working" and time.monotonic() < deadline + 10:
            time.sleep(0.05)
        filled = client.get(f"/orders/{placed}").json()
    assert (filled["state"], {split["venue"] for split in filled["splits"]}) == ("filled", {"okx"})


def test_every_process_tells_its_metrics(system: System) -> None:
    """`crossfill status` says where; each tells what docs/metrics.md lists for it, of this simulated market."""
    environment = {**os.environ, "CROSSFILL_HOME": str(system.home), "CROSSFILL_URL": system.api}
    environment["CROSSFILL_NOTIFIER_URL"] = system.notifier
    command = [sys.executable, "-m", "cli", "status"]
    status = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=True)
    addresses = dict(re.findall(r"^  (\w+) +metrics +(http\S+)/metrics$", status.stdout, re.MULTILINE))
    assert set(addresses) == {"api", "notifier", "fulfilment", "collectors", "analyst", "jobs", "archivist"}
    told = {process: scrape(address) for process, address in addresses.items()}
    for process, samples in told.items():
        assert key("crossfill_process_info", kind=process, market="simulated") in samples
    for venue in INSTRUMENTS.venues:
        assert told["collectors"][key("crossfill_venue_connected", venue=venue)] == 1
        assert told["collectors"][key("crossfill_venue_messages_total", venue=venue)] > 0
        assert told["collectors"][key("crossfill_quote_age_seconds", venue=venue)] < 60
    assert told["api"][key("crossfill_orders_accepted_total", side="sell")] >= 1
    assert told["api"][key("crossfill_shards", state="owned")] == 1
    assert told["fulfilment"][key("crossfill_orders_placed_total")] >= 1
    assert told["analyst"][key("crossfill_analysis_trades_total")] >= 1


def test_who_follows_an_order_sees_why_it_waits(system: System) -> None:
    """The command says so while nothing else happens, and ends with the order."""
    environment = {**os.environ, "CROSSFILL_HOME": str(system.home), "CROSSFILL_URL": system.api}
    environment["CROSSFILL_NOTIFIER_URL"] = system.notifier
    command = [sys.executable, "-m", "cli", "order", "LTCBTC", "1", "0.9", "--timeout", "6"]
    followed = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90
    )
    reasons = re.findall(r"waits: (\w+)", followed.stdout)
    assert "outside_limit" in reasons
    assert all(before != after for before, after in pairwise(reasons)), reasons
    assert "order.expired" in followed.stdout
    assert followed.returncode == 1


def test_flower_asks_for_the_token_and_shows_the_workers(system: System) -> None:
    """Flower refuses a stranger, knows both workers, and the job links to its task."""
    assert httpx.get(f"{system.flower}/api/workers").status_code == httpx.codes.UNAUTHORIZED
    signed_in = httpx.BasicAuth("crossfill", system.token)
    deadline = time.monotonic() + 60
    names: list[str] = []
    while len(names) < 2 and time.monotonic() < deadline:
        names = list(httpx.get(f"{system.flower}/api/workers", auth=signed_in, params={"refresh": "1"}).json())
        time.sleep(0.5)
    assert {name.split("@")[0].split("-")[0] for name in names} == {"fulfilment", "jobs"}


def test_no_secret_is_on_a_command_line(system: System) -> None:
    """Neither the token nor the Redis password can be read from the list of processes."""
    secrets = [system.token, (system.home / "redis_password").read_text().strip()]
    shown = "\n".join(" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    assert not [secret for secret in secrets if secret in shown]
