"""What a market's trades say, end to end: recorded traffic through simulator, collectors, analyst, API and notifier.

What is right is computed from the session's own text, by code that shares nothing with the analyst's.
"""

import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import socketio
from websockets.sync.client import connect

from models.bus.names import topic_stream
from tests.e2e.system import System, environment_of, recorded_synthetic, running_system
from tests.services import MARKET_DATA, ROOT, market_data

RECORDING = "binance_spot_btcusdt_2024-08-08.raw.gz"
PLAYED_S = 180  # of the recording
PAUSES = 3  # of a minute each, the longest that a replay makes: meanwhile the system starts and clients come
SPEED = 10
RECORDED_S = 20  # of the simulator's market, where there is no recording
LIMIT_S = 180
WINDOW = 200
MARGIN_US = 3_000_000  # before the newest trade: what ends later may be still made
SCALE = 10**16  # of prices and sizes, whose product is then a whole number
VWAP = "vwap/BTC-USDT"
MINUTES = "candles/BTC-USDT?interval=1m&limit=1000"
SECONDS = "candles/BTC-USDT?interval=1s&limit=1000&venue=binance&fill=false"
ASKED = [VWAP, MINUTES, SECONDS]
ROOMS = ["price:BTC-USDT", "vwap:BTC-USDT", "candle:BTC-USDT:1m"]


@dataclass(frozen=True)
class Traded:
    """A trade as the session has it."""

    number: int
    price: str
    size: str
    time_us: int
    taker_side: str


@dataclass
class Run:
    """What was asked and heard of a replay, from the system's start to the session's end."""

    trades: list[Traded]
    quotes: list[tuple[str, ...]]
    answers: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    rooms: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tickers: list[dict[str, Any]] = field(default_factory=list)

    def told(self, topic: str, kind: str) -> list[dict[str, Any]]:
        """Return the records of a topic, in its order."""
        return [each["value"] for each in self.records if (each["topic"], each["kind"]) == (topic, kind)]

    @property
    def first(self) -> int:
        """The place of the first trade that was told: the system starts while the session is played."""
        return next(at for at, each in enumerate(self.trades) if each.number == self._first_number)

    @property
    def _first_number(self) -> int:
        return int(self.told("BTC-USDT", "trade")[0]["trade_id"])


def _lines(session: Path) -> Iterator[tuple[int, str]]:
    with gzip.open(session, "rt") as lines:
        for line in lines:
            if line.startswith("{"):
                entry = json.loads(line)
                yield entry["t"], entry["f"]
            else:
                time_ns, _, frame = line.rstrip("\n").partition(" ")
                yield int(time_ns), frame


def _read(session: Path) -> tuple[list[Traded], list[tuple[str, ...]]]:
    trades, quotes = [], []
    for _, text in _lines(session):
        frame = json.loads(text)
        stream, data = frame.get("stream", ""), frame.get("data", {})
        if stream == "btcusdt@trade":
            side = "sell" if data["m"] else "buy"
            trades.append(Traded(data["t"], data["p"], data["q"], data["T"] * 1_000, side))
        elif stream == "btcusdt@bookTicker":
            quotes.append(tuple(data[key] for key in "BbaA"))
    return trades, quotes


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with one session in it, and whether it is recorded or synthetic."""
    folder, recorded = tmp_path_factory.mktemp("session"), market_data()
    kind = "synthetic" if recorded is None else "recorded"
    found = recorded_synthetic(folder, RECORDED_S) if recorded is None else recorded / "sessions" / RECORDING
    session = folder / "session" / RECORDING
    session.parent.mkdir()
    lines = [*_lines(found)]
    begun_ns = lines[0][0]
    quote = next(frame for _, frame in lines if "@bookTicker" in frame)
    pauses = [(begun_ns - each * 60 * 10**9, quote) for each in range(PAUSES, 0, -1)]
    played = [(time_ns, frame) for time_ns, frame in lines if time_ns < begun_ns + PLAYED_S * 10**9]
    with gzip.open(session, "wt") as written:
        written.writelines(f"{time_ns} {frame}\n" for time_ns, frame in pauses + played)
    return session, kind


@pytest.fixture(autouse=True)
def _said(session: tuple[Path, str], record_property: Callable[[str, object], None]) -> None:
    record_property(MARKET_DATA, session[1])


@pytest.fixture(scope="module")
def run(session: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Play the session once, with a client of each kind; the tests look at what they were told."""
    folder = tmp_path_factory.mktemp("analytics")
    path, _ = session
    made = Run(*_read(path), rooms={room: [] for room in ROOMS})
    arguments = ("--replay", str(path.parent), "--speed", str(SPEED))
    environment = {"CROSSFILL_TOPIC_LENGTH": "1000000"}
    with (
        running_system(folder / "home", *arguments, environment=environment) as system,
        system.client() as client,
        _joined(system, made),
        _listening(system, made),
    ):
        _until(lambda: _newest(client) == made.trades[-1].time_us)
        _until(lambda: _settled(client, made))
        for asked in ASKED:
            made.answers[asked] = client.get(f"/{asked}").raise_for_status().json()
        made.records = _consumed(system)
        _until(lambda: _until_us(made) == made.trades[-1].time_us)
    return made


def _newest(client: httpx.Client) -> int | None:
    found = [each["until"] for each in client.get("/vwap/BTC-USDT").json()["venues"]]
    return _us(found[0]) if found else None


def _settled(client: httpx.Client, run: Run) -> bool:
    """Say whether the last second that has closed is stored."""
    last_us = max(opened for opened in _candles(run.trades, 1_000_000) if _is_due(opened, 1, run.trades))
    return last_us in {_us(each["open_time"]) for each in client.get(f"/{SECONDS}").json()["candles"] if each["closed"]}


def _is_due(opened_us: int, interval_s: int, trades: list[Traded]) -> bool:
    return opened_us + interval_s * 1_000_000 <= trades[-1].time_us - MARGIN_US


def _until_us(run: Run) -> object:
    heard = run.rooms["vwap:BTC-USDT"]
    return heard[-1]["vwaps"]["binance"]["until_us"] if heard and "binance" in heard[-1]["vwaps"] else None


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


@contextmanager
def _joined(system: System, run: Run) -> Iterator[None]:
    """Keep what a client in the rooms is told."""
    client = socketio.Client()
    client.on("*", lambda _, message: run.rooms[message["room"]].append(message) if "room" in message else None)
    client.connect(system.notifier, auth={"token": system.token}, transports=["websocket"])
    try:
        assert sorted(client.call("subscribe", {"rooms": ROOMS})["rooms"]) == sorted(ROOMS)
        yield
    finally:
        client.disconnect()


@contextmanager
def _listening(system: System, run: Run) -> Iterator[None]:
    """Keep what a raw WebSocket is told."""
    begun, ended = threading.Event(), threading.Event()

    def listen() -> None:
        with connect(f"{system.notifier.replace('http', 'ws')}/ws/binance/BTC") as raw:
            while not ended.is_set():
                with suppress(TimeoutError):
                    run.tickers.append(json.loads(raw.recv(timeout=0.5)))
                    begun.set()

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        ended.set()
        thread.join()


def _consumed(system: System) -> list[dict[str, Any]]:
    """Return what `crossfill consume` prints of all that was told by now."""
    environment = environment_of(system.home)
    port = json.loads((system.home / "ports.json").read_text())["redis"]
    password = (system.home / "redis_password").read_text().strip()
    records: list[dict[str, Any]] = []
    with redis.Redis(port=port, password=password) as client:
        for topic in ("BTC-USDT", "binance"):
            command = [sys.executable, "-m", "cli", "consume", "--topic", topic, "--from", "beginning", "--json"]
            command += ["--count", str(client.xlen(topic_stream(topic)))]
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True
            )
            records += map(json.loads, done.stdout.splitlines())
    return records


def _averages(trades: list[Traded]) -> list[str]:
    """Return the average of the last trades at each of them, from exact sums, rounded once."""
    rounding = Context(prec=28, rounding=ROUND_HALF_EVEN)
    prices, sizes = ([int(Decimal(getattr(each, name)) * SCALE) for each in trades] for name in ("price", "size"))
    values = list(accumulate((price * size for price, size in zip(prices, sizes, strict=True)), initial=0))
    totals = list(accumulate(sizes, initial=0))
    found = []
    for end in range(1, len(trades) + 1):
        start = max(0, end - WINDOW)
        exact = Decimal(values[end] - values[start]), Decimal((totals[end] - totals[start]) * SCALE)
        found.append(format(rounding.divide(*exact), "f"))
    return found


def _candles(trades: list[Traded], length_us: int) -> dict[int, tuple[object, ...]]:
    """Return the candles in which something was traded, by their opening."""
    found: dict[int, tuple[object, ...]] = {}
    for number, group in groupby(trades, lambda each: each.time_us // length_us):
        some = list(group)
        prices, sizes = ([Decimal(getattr(each, name)) for each in some] for name in ("price", "size"))
        bought = sum((size for size, each in zip(sizes, some, strict=True) if each.taker_side == "buy"), Decimal(0))
        worth = sum((price * size for price, size in zip(prices, sizes, strict=True)), Decimal(0))
        ends = prices[0], max(prices), min(prices), prices[-1]
        found[number * length_us] = (*ends, sum(sizes, Decimal(0)), worth, bought, len(some))
    return found


def _figures(candle: dict[str, Any]) -> tuple[object, ...]:
    names = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume")
    return (*(Decimal(candle[name]) for name in names), candle["trades"])


def test_most_of_the_session_was_heard(run: Run) -> None:
    """What is missing is what was played before the analyst was there."""
    assert len(run.trades) - run.first > len(run.trades) / 2


@pytest.mark.parametrize("topic", ["BTC-USDT", "binance"])
def test_a_topic_has_every_trade_once(run: Run, topic: str) -> None:
    """In order, from the first one that was heard to the session's last, as the exchange told it."""
    told = run.told(topic, "trade")
    assert [(int(each["trade_id"]), each["time_us"], each["taker_side"]) for each in told] == [
        (each.number, each.time_us, each.taker_side) for each in run.trades[run.first :]
    ]
    assert [(Decimal(each["price"]), Decimal(each["size"])) for each in told] == [
        (Decimal(each.price), Decimal(each.size)) for each in run.trades[run.first :]
    ]
    assert {each["market"] for each in told} == {"replay"}


def test_each_average_is_exact(run: Run) -> None:
    """At every trade, of the venue and of all, on both topics; and what the API told at the end."""
    right = [Decimal(each) for each in _averages(run.trades[run.first :])]
    for topic, venue in (("BTC-USDT", "binance"), ("BTC-USDT", "all"), ("binance", "binance")):
        assert [Decimal(each["vwap"]) for each in run.told(topic, "vwap") if each["venue"] == venue] == right
    answer = run.answers[VWAP]
    window = run.trades[run.first :][-WINDOW:]
    for each in (answer["merged"], answer["venues"][0]):
        assert (Decimal(each["vwap"]), each["points"]) == (right[-1], len(window))
        assert Decimal(each["size"]) == sum(Decimal(trade.size) for trade in window)
        assert (_us(each["from"]), _us(each["until"])) == (window[0].time_us, window[-1].time_us)


@pytest.mark.parametrize(("asked", "interval_s"), [(MINUTES, 60), (SECONDS, 1)])
def test_candles_are_those_of_the_trades(run: Run, asked: str, interval_s: int) -> None:
    """All that have closed, and only the first may be incomplete: the system began within it."""
    heard = run.trades[run.first :]
    right = _candles(heard, interval_s * 1_000_000)
    shown = {_us(each["open_time"]): each for each in run.answers[asked]["candles"] if each["closed"]}
    due = {opened for opened in right if _is_due(opened, interval_s, heard)}
    assert due <= shown.keys()
    assert {opened: _figures(each) for opened, each in shown.items() if each["trades"]} == {
        opened: right[opened] for opened in shown.keys() & right.keys()
    }
    assert {opened for opened, each in shown.items() if each["incomplete"]} <= {min(right)}
    assert {each["revision"] for each in shown.values()} <= {0}


def test_rooms_told_what_is_true_at_the_end(run: Run) -> None:
    """The last message of each room has the last quote, the last trade and the last average."""
    price = run.rooms["price:BTC-USDT"][-1]["prices"]["binance"]
    shown = tuple(Decimal(price[name]) for name in ("bid_size", "bid", "ask", "ask_size"))
    assert shown == tuple(map(Decimal, run.quotes[-1]))
    assert Decimal(price["last"]) == Decimal(run.trades[-1].price)
    vwaps = run.rooms["vwap:BTC-USDT"][-1]["vwaps"]
    assert vwaps["all"]["vwap"] == vwaps["binance"]["vwap"] == run.answers[VWAP]["merged"]["vwap"]
    candles = [each["candles"]["binance"] for each in run.rooms["candle:BTC-USDT:1m"] if each["candles"]]
    assert [each["open_time_us"] for each in candles] == sorted(each["open_time_us"] for each in candles)
    assert candles[-1]["open_time_us"] >= run.trades[-1].time_us // 60_000_000 * 60_000_000


def test_a_raw_websocket_has_every_trade_as_the_exchange_sent_it(run: Run) -> None:
    """Each is the last price in its turn, with every digit; the quotes are those of the session, in its order."""
    assert {(each["exchange"], each["ticker"]) for each in run.tickers} == {("binance", "BTC")}
    lasts = [last for last, _ in groupby(each["last_price"] for each in run.tickers) if last is not None]
    right = [price for price, _ in groupby(each.price for each in run.trades)]
    assert len(lasts) > min(20, len(right) / 2)
    assert lasts == right[-len(lasts) :]
    names = ("best_bid_quantity", "best_bid_price", "best_offer_price", "best_offer_quantity")
    quotes = iter(run.quotes)
    heard = [told for told, _ in groupby(tuple(each[name] for name in names) for each in run.tickers)]
    assert all(any(quote == told for quote in quotes) for told in heard)
    assert heard[-1] == run.quotes[-1]
