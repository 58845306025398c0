"""From the socket to the bus: how many messages a second the real collector takes, for each venue.

A server of raw bytes sends frames that were made before, as fast as they are taken: no more than AHEAD
of what the collector says that it took, which is told twice a second. The collector runs in a process
of its own, with a real Valkey. A rate a core is messages by the collector's own CPU time.
"""

import base64
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.frames import as_bytes, frames_of, majors
from cli.valkey import free_port
from exchanges.registry import PROTOCOLS
from models.bus.client import connect
from models.bus.latest import CollectorState, read_collectors
from models.store.database import Database
from models.store.schema import fix_shards, migrate
from tests.services import ROOT, running_valkey

FRAMES = 120_000
AHEAD = 40_000  # a collector that has many more to decode gives its connection up
PART = 2_000
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def framed(frame: str | bytes) -> bytes:
    """Return a WebSocket frame as a server sends it: unmasked, in one piece."""
    payload = as_bytes(frame)
    kind = 0x82 if isinstance(frame, bytes) else 0x81
    if len(payload) < 126:
        return bytes([kind, len(payload)]) + payload
    if len(payload) < 65_536:
        return bytes([kind, 126]) + struct.pack("!H", len(payload)) + payload
    return bytes([kind, 127]) + struct.pack("!Q", len(payload)) + payload


class Blast:
    """A server that answers one client's handshake and, when told, sends all that it has.

    `taken` is how many of `rest` the client took, as far as is known.
    """

    def __init__(self, first: Sequence[bytes], rest: Sequence[bytes]) -> None:
        self._first, self._rest = b"".join(first), rest
        self.taken = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.go = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65_536)
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n") if b": " in line)
        key = head[head.lower().index(lines[b"sec-websocket-key"]) :][:24]  # its case counts
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        client.sendall(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self._first)
        threading.Thread(target=self._drain, args=(client,), daemon=True).start()
        self.go.wait()
        for start in range(0, len(self._rest), PART):
            while start > self.taken + AHEAD:
                time.sleep(0.005)
            client.sendall(b"".join(self._rest[start : start + PART]))

    @staticmethod
    def _drain(client: socket.socket) -> None:
        while client.recv(65_536):
            pass


@contextmanager
def collecting(folder: Path, redis_url: str, venue: str, port: int) -> Iterator[psutil.Process]:
    """Run the real collector of a venue that is served at a port; it logs to `log` in the folder."""
    url = f"sqlite:///{folder / 'crossfill.db'}"
    migrate(url)
    database = Database.open(url)
    fix_shards(database, 1)
    database.close()
    environment = {
        **os.environ,
        "CROSSFILL_DATABASE_URL": url,
        "CROSSFILL_BROKER_URL": redis_url,
        "CROSSFILL_VENUE_URLS": json.dumps({venue: f"ws://127.0.0.1:{port}"}),
    }
    command = [sys.executable, "-m", "workers.collector", venue]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)


def measure(venue: str, redis_url: str, folder: Path) -> tuple[float, float, CollectorState]:
    """Return messages a second, messages a second of CPU, and what the collector said at the end."""
    first, rest = frames_of(venue, FRAMES, majors(venue))
    blast = Blast([*map(framed, first)], [*map(framed, rest)])
    bus = connect(redis_url)
    try:
        with collecting(folder, redis_url, venue, blast.port) as watched:
            before = _wait(bus, venue, len(first))
            cpu, started = sum(watched.cpu_times()[:2]), time.monotonic()
            blast.go.set()
            state = _wait(bus, venue, before.messages + len(rest), blast)
            took_s = time.monotonic() - started
            used_s = sum(watched.cpu_times()[:2]) - cpu
    except TimeoutError as error:
        raise TimeoutError(f"{error}; its collector said: {(folder / 'log').read_text()}") from error
    finally:
        bus.close()
    return len(rest) / took_s, len(rest) / used_s, state


def _wait(bus: object, venue: str, messages: int, blast: Blast | None = None) -> CollectorState:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = read_collectors(bus).get(venue)  # type: ignore[arg-type] # a client of Redis
        if state is not None and state.messages >= messages:
            return state
        if blast is not None and state is not None:
            blast.taken = state.messages
        time.sleep(0.02)
    raise TimeoutError(f"{venue}: {messages} messages were not taken, but {state}")


def main() -> None:
    """Print a table."""
    print("| venue | messages/s | a core | conflated | trades lost |\n|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as name:
        for venue in PROTOCOLS:
            folder = Path(name) / venue
            folder.mkdir()
            with running_valkey(folder / "valkey", free_port()) as redis_url:
                rate, core, state = measure(venue, redis_url, folder)
            print(f"| {venue} | {rate:,.0f} | {core:,.0f} | {state.conflated} | {state.trades_lost} |", flush=True)
