"""The load: clients that place, cancel and repeat until they have a 202, and clients that listen."""

import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any
from uuid import UUID

import httpx
import websocket

from models.domain.instruments import INSTRUMENTS
from simulator.market import START_USD
from tests.chaos.processes import VENUES

# Two of each of the four shards.
SYMBOLS = ("LTC-BTC", "BTC-USDC", "ETH-USDT", "LTC-USDT", "ETH-USDC", "ETH-BTC", "BTC-USDT", "ETH-USD")
PAIRS = tuple(each.symbol for each in INSTRUMENTS if len(each.venues & set(VENUES)) > 1)
LEVEL_USD = 3_000  # what a best level of the simulator's shows, about
ANSWER_S = 15.0
PAUSE_S = 0.3  # between two tries; 503's Retry-After of 2 s would leave little load
SILENT_S = 25.0  # the notifier pings each 10 s


@dataclass
class Placed:
    """A request with its key, and what the 202 said."""

    owner: str
    key: str
    path: str
    body: dict[str, Any]
    job_id: str | None = None
    order_id: str | None = None
    cancelled: bool = False  # a cancel was answered with 202


@dataclass
class Told:
    """What all clients did and were told."""

    placed: list[Placed] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    pending: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.answers[what] += 1

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Count a request while it is on its way."""
        with self.lock:
            self.pending += 1
        try:
            yield
        finally:
            with self.lock:
                self.pending -= 1


class Client:
    """One user's program: places orders and price jobs at a pace and cancels some, in a thread of its own."""

    def __init__(self, api: str, owner: str, token: str, seed: str, pace: float, told: Told) -> None:
        self._owner, self._told = owner, told
        self._random = random.Random(seed)
        self._pace = pace
        self._http = httpx.Client(
            base_url=api, headers={"Authorization": f"Bearer {token}"}, timeout=ANSWER_S, trust_env=False
        )
        self._due: list[tuple[float, Placed]] = []  # cancels to come
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"client-{owner}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Place nothing new."""
        self._stopping.set()

    def join(self, limit_s: float) -> bool:
        """Wait until the last request is answered and all that never ends by itself is cancelled."""
        self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._random.expovariate(self._pace)):
                self._place(self._next())
                self._cancel_due(time.monotonic())
            self._cancel_due(float("inf"))
        except Exception as error:  # noqa: BLE001 -- told at the end
            self._told.problems.append(f"a client of {self._owner} failed: {error!r}")
        finally:
            self._http.close()

    def _next(self) -> Placed:
        draw = self._random
        key = str(UUID(int=draw.getrandbits(128)))
        if draw.random() < 0.08:
            pairs = draw.sample(PAIRS, draw.randint(10, len(PAIRS)))  # some take half a second of work
            body = {"pairs": pairs, "window_s": draw.choice((1, 2, 3)), "method": "mean", "min_sources": 1}
            return Placed(self._owner, key, "/prices/average", body)
        return Placed(self._owner, key, "/order/limit", self._order())

    def _order(self) -> dict[str, Any]:
        draw, instrument = self._random, INSTRUMENTS[self._random.choice(SYMBOLS)]
        side = draw.choice(("sell", "buy"))
        mid = Decimal(START_USD[instrument.base] / START_USD[instrument.quote])
        # Of every three two cross at once; the others wait for the market to come to them, or in vain.
        away = Decimal(draw.choice((-0.05, -0.05, 0.0, 0.001, 0.1))) * (1 if side == "sell" else -1)
        lots = LEVEL_USD * draw.choice((0.05, 0.3, 1, 2, 5)) / START_USD[instrument.base] / float(instrument.lot)
        body: dict[str, Any] = {
            "symbol": instrument.symbol,
            "side": side,
            "price": _text(_floor(mid * (1 + away), instrument.tick)),
            "order_size": _text(max(1, int(lots)) * instrument.lot),
            "time_in_force": draw.choice(("GTD", "GTD", "GTD", "GTD", "GTC", "IOC", "FOK")),
        }
        if body["time_in_force"] == "GTD":
            body["timeout_s"] = draw.choice((1, 2, 3, 5, 8, 20))
        if draw.random() < 0.3:
            body["venues"] = draw.sample(sorted(instrument.venues & set(VENUES)), 1)
        return body

    def _place(self, placed: Placed) -> None:
        """Ask until there is a 202; then now and then once more: it must be the same job."""
        answer = self._insist("POST", placed.path, placed)
        placed.job_id = answer["job_id"]
        placed.order_id = answer["order"]["id"] if "order" in answer else None
        with self._told.lock:
            self._told.placed.append(placed)
        if self._random.random() < 0.1:
            again = self._insist("POST", placed.path, placed)
            if again["job_id"] != placed.job_id:
                self._told.problems.append(f"key {placed.key} gave {placed.job_id}, then {again['job_id']}")
        never_ends = placed.body.get("time_in_force") == "GTC"
        if placed.order_id and (never_ends or self._random.random() < 0.15):
            self._due.append((time.monotonic() + self._random.uniform(0.0, 6.0), placed))

    def _cancel_due(self, now: float) -> None:
        due = [each for each in self._due if each[0] <= now]
        self._due = [each for each in self._due if each[0] > now]
        for _, placed in due:
            answer = self._insist("DELETE", f"/orders/{placed.order_id}", None)
            placed.cancelled = "job_id" not in answer and answer.get("status") != httpx.codes.CONFLICT

    def _insist(self, method: str, path: str, placed: Placed | None) -> dict[str, Any]:
        """Ask until the answer is one: 202, or that a cancel came too late."""
        headers = {"Idempotency-Key": placed.key} if placed else {}
        while True:
            try:
                with self._told.asking():
                    answer = self._http.request(method, path, json=placed and placed.body, headers=headers)
            except httpx.HTTPError as error:
                self._told.count(type(error).__name__)
                time.sleep(PAUSE_S)
                continue
            self._told.count(str(answer.status_code))
            if answer.status_code == httpx.codes.ACCEPTED or (
                method == "DELETE" and answer.status_code == httpx.codes.CONFLICT
            ):
                answered: dict[str, Any] = answer.json()
                return answered
            if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                problem = f"{method} {path} {placed and placed.body} was answered {answer.status_code}: {answer.text}"
                raise AssertionError(problem)
            if answer.status_code == httpx.codes.INTERNAL_SERVER_ERROR:
                self._told.problems.append(f"{method} {path} was answered 500: {answer.text}")
            time.sleep(PAUSE_S)


def _floor(value: Decimal, step: Decimal) -> Decimal:
    return (value / step).to_integral_value(ROUND_FLOOR) * step


def _text(value: Decimal) -> str:
    return f"{value:f}"


class Listener:
    """One Socket.IO client, which reconnects with its cursor. It speaks the protocol itself: messages come in order.

    (Python's client gives each message a thread of its own, and they overtake one another.)
    """

    def __init__(self, notifier: str, owner: str, token: str, told: Told) -> None:
        self.owner = owner
        self.messages: list[dict[str, Any]] = []
        self.cursor = 0
        self.connections = 0
        self._url = f"{notifier.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket"
        self._token, self._told = token, told
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"listener-{owner}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._listen()
            except (OSError, websocket.WebSocketException):
                self._stopping.wait(0.2)

    def _listen(self) -> None:
        client = websocket.create_connection(self._url, timeout=5, enable_multithread=False)
        client.settimeout(0.5)
        heard_at = time.monotonic()
        try:
            while not self._stopping.is_set() and time.monotonic() - heard_at < SILENT_S:
                try:
                    packet = str(client.recv())
                except websocket.WebSocketTimeoutException:
                    continue
                heard_at = time.monotonic()
                if not packet or packet.startswith("44"):  # closed, or refused
                    self._stopping.wait(0.2)
                    return
                if packet.startswith("0"):
                    client.send("40" + json.dumps({"token": self._token, "last_seq": self.cursor}))
                elif packet.startswith("40"):
                    self.connections += 1
                elif packet == "2":
                    client.send("3")
                elif packet.startswith("42"):
                    self._take(*json.loads(packet[2:]))
        finally:
            client.shutdown()  # type: ignore[no-untyped-call] # the library ships half its types

    def _take(self, kind: str, message: dict[str, Any]) -> None:
        if kind == "resync":
            self._told.problems.append(f"{self.owner} was told to read anew at {self.cursor}: {message}")
        if "seq" not in message:
            return
        if message["seq"] != self.cursor + 1:
            self._told.problems.append(f"{self.owner} was sent {message['seq']} after {self.cursor}")
        self.cursor = message["seq"]
        self.messages.append(message)
