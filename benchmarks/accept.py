"""Accept: POST /order/limit on both databases, beside a bare no-op POST and four forms of the tutorial design."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.error import URLError
from urllib.request import urlopen

import redis

from benchmarks.fulfilling import DATABASES, Store, store
from benchmarks.load import Load, post, run
from cli.valkey import free_port
from tests.services import running_valkey

TOKEN = "benchmark"
BODY = json.dumps({"symbol": "LTCBTC", "order_size": 1000, "price": 0.0001}).encode()
FORMS = ("noop", "async_backend", "sync_backend", "async_plain", "sync_plain")
CONNECTIONS = (1, 32, 256)
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning", "--workers", "1")


@contextmanager
def serving(command: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """Run a server until it answers, and end it afterwards."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                urlopen(f"http://127.0.0.1:{port}/openapi.json", timeout=2).close()
                break
            except URLError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


@contextmanager
def crossfill(made: Store, folder: Path, broker: str) -> Iterator[int]:
    """Run the API on a database; yield its port."""
    port = free_port()
    environment = {
        "CROSSFILL_HOME": str(folder),
        "CROSSFILL_BROKER_URL": broker,
        "CROSSFILL_API_PORT": str(port),
        "CROSSFILL_DATABASE_URL": made.url,
    }
    with serving([sys.executable, "-m", "api"], port, environment):
        yield port


@contextmanager
def form(name: str, broker: str) -> Iterator[int]:
    """Run what Crossfill is measured against; yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"benchmarks.tutorial:{name}", "--factory", "--port", str(port)]
    with serving([*command, *UVICORN], port, {"CROSSFILL_BROKER_URL": broker}):
        yield port


def main(rounds: int = 3, duration_s: float = 4) -> None:
    """Print a table of rate, p50 and p99 by connections, medians of rounds in turn, and the ratios."""
    results: dict[tuple[str, int], list[Load]] = {}
    request = post("/order/limit", BODY, TOKEN)
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(running_valkey(folder / "valkey"))
        databases = {f"crossfill, {kind}": stack.enter_context(store(kind, 1)) for kind in DATABASES}
        for _ in range(rounds):
            for kind in (*databases, *FORMS):
                with redis.Redis.from_url(broker) as client:
                    client.flushall()
                server = crossfill(databases[kind], folder, broker) if kind in databases else form(kind, broker)
                with server as port:
                    run(port, request, connections=4, duration_s=0.5)
                    for connections in CONNECTIONS:
                        load = run(port, request, connections=connections, duration_s=duration_s)
                        assert set(load.statuses) == {202}, (kind, load.statuses)
                        results.setdefault((kind, connections), []).append(load)
    _print(results, list(databases))


def _print(results: dict[tuple[str, int], list[Load]], ours: list[str]) -> None:
    print("| server | connections | requests/s | p50 ms | p99 ms |\n|---|--:|--:|--:|--:|")
    for (kind, connections), loads in results.items():
        rate, p50, p99 = (
            median(values)
            for values in zip(*((x.rate, x.quantile_ms(0.5), x.quantile_ms(0.99)) for x in loads), strict=True)
        )
        print(f"| {kind} | {connections} | {rate:,.0f} | {p50:.2f} | {p99:.2f} |")
    for connections in CONNECTIONS:
        rates = {kind: median(x.rate for x in loads) for (kind, n), loads in results.items() if n == connections}
        fastest = max((kind for kind in FORMS if kind != "noop"), key=rates.__getitem__)
        for kind in ours:
            print(
                f"\n{kind}, {connections} connections: {rates[kind] / rates[fastest]:.2f} x the fastest tutorial form "
                f"({fastest}), {rates[kind] / rates['noop']:.2f} x the no-op.",
            )


if __name__ == "__main__":
    main()
