"""The whole system, as `crossfill up` starts it, on free ports and a folder of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.valkey import free_port
from tests.services import ROOT


@dataclass(frozen=True)
class System:
    """A running system and how to talk to it."""

    home: Path
    api: str
    notifier: str
    flower: str
    token: str
    process: subprocess.Popen[bytes]
    log: Path

    def client(self) -> httpx.Client:
        """Return an HTTP client that is signed in."""
        return httpx.Client(base_url=self.api, headers={"Authorization": f"Bearer {self.token}"}, timeout=40)

    def stop(self, number: int = signal.SIGINT, limit_s: float = 40) -> int:
        """Send a signal, wait for the end and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(limit_s)


def environment_of(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which nothing but the test's own settings is set."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CROSSFILL_")}
    kept.pop("ORDER_TIMEOUT_SECONDS", None)
    ports = {f"CROSSFILL_{name}_PORT": str(free_port()) for name in ("API", "NOTIFIER", "FLOWER")}
    return {**kept, **ports, "CROSSFILL_HOME": str(home), "NO_COLOR": "1", **(extra or {})}


@contextmanager
def running_system(home: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[System]:
    """Run `crossfill up` until it is ready; end it afterwards, whatever the test did to it."""
    variables = environment_of(home, environment)
    log = home.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "up", *arguments],
            cwd=ROOT,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    api = f"http://127.0.0.1:{variables['CROSSFILL_API_PORT']}"
    try:
        _wait_ready(api, process, log)
        yield System(
            home=home,
            api=api,
            notifier=f"http://127.0.0.1:{variables['CROSSFILL_NOTIFIER_PORT']}",
            flower=f"http://127.0.0.1:{variables['CROSSFILL_FLOWER_PORT']}",
            token=(home / "token").read_text().strip(),
            process=process,
            log=log,
        )
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _wait_ready(api: str, process: subprocess.Popen[bytes], log: Path, limit_s: float = 180) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            answer = httpx.get(f"{api}/health/ready", timeout=2)
            if answer.status_code == httpx.codes.OK and answer.json()["status"] == "up":
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    message = f"the system did not become ready:\n{log.read_text(errors='replace')[-6000:]}"
    raise AssertionError(message)


@contextmanager
def simulated_venues(folder: Path) -> Iterator[dict[str, str]]:
    """Run a simulator of its own, and yield the venues' addresses."""
    command = [sys.executable, "-m", "simulator"]
    with subprocess.Popen(command, cwd=ROOT, env=environment_of(folder), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())["ports"]
        try:
            yield {venue: f"ws://127.0.0.1:{port}" for venue, port in ports.items() if venue != "control"}
        finally:
            process.terminate()
            process.wait(10)


def recorded_synthetic(folder: Path, seconds: int) -> Path:
    """Record a session of Binance's BTC-USDT from the seeded simulator, for machines without recordings."""
    port = free_port()
    environment = environment_of(folder / "home", {"CROSSFILL_VENUE_URLS": f'{{"binance": "ws://127.0.0.1:{port}"}}'})
    simulator = subprocess.Popen(
        [sys.executable, "-m", "simulator", "--port", f"binance={port}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
    )
    try:
        assert simulator.stdout is not None
        simulator.stdout.readline()
        record = [
            sys.executable,
            "-m",
            "cli",
            "record",
            "binance",
            "BTC-USDT",
            "--for",
            f"{seconds}s",
            "--out",
            str(folder),
        ]
        subprocess.run(record, cwd=ROOT, env=environment, check=True, timeout=seconds + 120)
    finally:
        simulator.terminate()
        simulator.wait(10)
        assert simulator.stdout is not None
        simulator.stdout.close()
    return next(folder.glob("binance_*.jsonl.gz"))
