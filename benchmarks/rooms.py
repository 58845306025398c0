"""Rooms: what the notifier uses of a core for 200 clients in 4 rooms each, by what comes in and by who listens.

The notifier is a process of its own with a real Valkey. Clients speak engine.io's own protocol over `websockets`,
in another process, so that what they cost is not the notifier's. CPU is the notifier's by the system's account.

`uvicorn benchmarks.rooms:plain` is a server beside it that tells as many messages by the library's own emit(room=).
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import psutil
import socketio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from websockets.asyncio.client import connect as connect_client

from benchmarks.accept import UVICORN
from benchmarks.processes import own_cpu_s
from cli.valkey import free_port
from models.bus.analysis import tell_candles, tell_vwaps
from models.bus.client import connect
from models.bus.latest import LatestPrice
from models.bus.names import latest_key
from models.bus.quotes import QuoteWriter
from models.domain.candles import Candle
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Quote
from models.domain.vwap import Vwap
from models.store.database import Database
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from notifier.telling import PERIOD_S
from tests.services import ROOT, running_valkey

CLIENTS = 200
PAIRS = [instrument.symbol for instrument in INSTRUMENTS][:20]
KINDS = ("price:{}", "vwap:{}", "candle:{}:1m")
VENUES = ("binance", "coinbase", "kraken", "okx")
MEASURED_S = 8.0
AIM = 0.5  # of a core, for 200 clients in 4 rooms each at 1,000 updates/s


def shared(_client: int) -> list[str]:
    """Return the same four rooms for everybody."""
    return [*(kind.format("BTC-USD") for kind in KINDS), "price:ETH-USD"]


def spread(client: int) -> list[str]:
    """Return four of sixty rooms, others for each client."""
    rooms = [kind.format(pair) for pair in PAIRS for kind in KINDS]
    return [rooms[(4 * client + number) % len(rooms)] for number in range(4)]


class Plain:
    """A server of four rooms that reads nothing and tells each, four times a second, by the library's own means."""

    def __init__(self) -> None:
        self.io = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_interval=10, ping_timeout=10)
        self.io.on("subscribe", self._subscribe)
        self._ticking: asyncio.Task[None] | None = None
        self._sent = 0

    async def start(self) -> None:
        """Begin to tell."""
        self._ticking = asyncio.create_task(self._tick())

    async def _subscribe(self, sid: str, given: dict[str, list[str]]) -> None:
        for room in given["rooms"]:
            await self.io.enter_room(sid, room)

    async def _tick(self) -> None:
        prices = dict.fromkeys(("bid", "bid_size", "ask", "ask_size", "last"), "60000.01")
        for number in itertools.count():
            for room in shared(0):
                told = {venue: {"product_id": room, **prices, "live": True, "time_us": number} for venue in VENUES}
                await self.io.emit("price", {"room": room, "pair": room, "prices": told}, room=room)
                self._sent += len(list(self.io.manager.get_participants("/", room)))
            await asyncio.sleep(PERIOD_S)

    async def metrics(self, _request: Request) -> PlainTextResponse:
        """Tell how many messages were sent, as the notifier does."""
        return PlainTextResponse(f"crossfill_market_messages_sent_total {self._sent}\n")


def plain() -> socketio.ASGIApp:
    """Return the server beside."""
    server = Plain()
    beside = Starlette(routes=[Route("/metrics", server.metrics)])
    return socketio.ASGIApp(server.io, beside, on_startup=server.start)


def _nothing(_client: int) -> list[str]:
    return []


@contextmanager
def feeding(redis_url: str, updates_per_s: float, symbols: Sequence[str]) -> Iterator[list[int]]:
    """Write prices, averages, candles and quotes in turn, so many a second; yield how many it were."""
    bus, stop, written = connect(redis_url), threading.Event(), [0]
    writer = QuoteWriter(bus)

    def update(number: int) -> None:
        symbol, venue = symbols[number // 3 % len(symbols)], VENUES[number % len(VENUES)]
        value, one, now_us = Decimal(number) / 100 + 60_000, Decimal(1), time.time_ns() // 1000
        if number % 3 == 0:
            price = LatestPrice(venue, symbol, value, now_us, value, one, value, one, True, now_us, "simulated")  # noqa: FBT003 -- live
            quote = Quote("binance", "BTCUSDT", 1, number, value, one, value, one, True, None, now_us)  # noqa: FBT003 -- live
            writer.write({0: [quote]}, {symbol: price})
            return
        pipeline = bus.pipeline(transaction=False)
        if number % 3 == 1:
            tell_vwaps(pipeline, symbol, {venue: Vwap(venue, symbol, 200, 200, value, value, 1, 2, "simulated")})
        else:
            prices = (value,) * 7
            made = Candle(venue, symbol, 60, 60_000_000, *prices, trades=number, market="simulated")
            tell_candles(pipeline, symbol, {f"{venue}:1m": made})
        pipeline.execute()

    def run() -> None:
        started = time.monotonic()
        for number in itertools.count():
            ahead_s = number / updates_per_s - (time.monotonic() - started)
            if stop.wait(max(0.0, ahead_s)) if ahead_s > 0.002 else stop.is_set():
                return
            update(number)
            written[0] = number + 1

    thread = threading.Thread(target=run)
    if updates_per_s:
        thread.start()
    yield written
    stop.set()
    if updates_per_s:
        thread.join()
    for symbol in symbols:
        bus.delete(latest_key(symbol))  # the next row begins with nothing
    bus.close()


async def _listen(host: str, rooms: Sequence[str]) -> None:
    url = f"ws://{host}/socket.io/?EIO=4&transport=websocket"
    async with connect_client(url, compression=None, max_size=None) as client:
        await client.recv()
        await client.send('40{"token":"secret"}')
        if rooms:
            await client.send("421" + json.dumps(["subscribe", {"rooms": rooms}]))
        async for text in client:
            if text == "2":
                await client.send("3")


async def _stream(host: str) -> None:
    async with connect_client(f"ws://{host}/ws/binance/BTC", compression=None) as client:
        async for _ in client:
            pass


async def _clients(host: str, form: str, count: int) -> None:
    rooms = {"shared": shared, "spread": spread}.get(form, _nothing)
    run = [_stream(host) if form == "stream" else _listen(host, rooms(number)) for number in range(count)]
    await asyncio.gather(*run)


def _sent(host: str) -> float:
    import httpx  # noqa: PLC0415 -- the clients' process does not need it

    lines = httpx.get(f"http://{host}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("crossfill_market_messages_sent_total"))


@contextmanager
def _process(*words: str, **environment: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, env=os.environ | environment, stdout=subprocess.DEVNULL
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def _measure(
    host: str, notifier: psutil.Process, redis_url: str, form: str, clients: int, rate: float
) -> tuple[float, float]:
    """Print a row; return what the server used of a core, and for a message in microseconds."""
    with (
        feeding(redis_url, rate, PAIRS if form == "spread" else PAIRS[:2]) as written,
        _process("benchmarks.rooms", host, form, str(clients)) as readers,
    ):
        time.sleep(4)
        before = _sent(host), own_cpu_s(notifier), written[0], time.monotonic()
        time.sleep(MEASURED_S)
        after = _sent(host), own_cpu_s(notifier), written[0], time.monotonic()
        assert readers.is_running()
    took_s = after[3] - before[3]
    sent, cpu, came = ((after[index] - before[index]) / took_s for index in range(3))
    each_us = 1e6 * cpu / sent if sent else 0.0
    shown = "emit(room=)" if "uvicorn" in notifier.cmdline() else form
    print(f"| {shown} | {clients} | {came:,.0f} | {sent:,.0f} | {cpu:.1%} | {each_us:.0f} |", flush=True)
    return cpu, each_us


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, running_valkey(Path(name) / "valkey") as url:
        database_url, port = f"sqlite:///{Path(name) / 'crossfill.db'}", free_port()
        migrate(database_url)
        database = Database.open(database_url)
        fix_shards(database, 1)
        ensure_owner(database, "local", "admin", "secret")
        database.close()
        environment = {
            "CROSSFILL_DATABASE_URL": database_url,
            "CROSSFILL_BROKER_URL": url,
            "CROSSFILL_HOME": name,
            "CROSSFILL_NOTIFIER_PORT": str(port),
        }
        host = f"127.0.0.1:{port}"
        print(
            "| rooms | clients | updates/s in | messages/s out | of a core | us a message |\n|---|--:|--:|--:|--:|--:|"
        )
        with _process("notifier", **environment) as notifier:
            time.sleep(5)
            _measure(host, notifier, url, "none", 0, 1_000)
            _measure(host, notifier, url, "none", CLIENTS, 1_000)
            slow, _ = _measure(host, notifier, url, "shared", CLIENTS, 100)
            fast, ours_us = _measure(host, notifier, url, "shared", CLIENTS, 1_000)
            wide, _ = _measure(host, notifier, url, "spread", CLIENTS, 1_000)
            _measure(host, notifier, url, "stream", 10, 1_000)
        beside = ["uvicorn", "benchmarks.rooms:plain", "--factory", "--port", str(port), *UVICORN]
        with _process(*beside, "--ws-per-message-deflate", "false") as server:
            time.sleep(5)
            _, plain_us = _measure(host, server, url, "shared", CLIENTS, 0)
    reached = "reached" if max(fast, wide) <= AIM else "missed"
    print(f"\nAim: {AIM:.0%} of a core for {CLIENTS} clients in 4 rooms at 1,000 updates/s: {reached}.", end=" ")
    print(f"Ten times the input costs {fast / slow:.2f} times as much.")
    print(
        f"A message costs {ours_us / plain_us:.2f} of what it does by the library's emit(room=), which reads nothing."
    )


if __name__ == "__main__":
    asyncio.run(_clients(sys.argv[1], sys.argv[2], int(sys.argv[3])))
