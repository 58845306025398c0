"""The simulator on the wire, read by a plain WebSocket client, frame for frame."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from socket import create_connection
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import websocket

from tests.services import ROOT

RECORDING = "sessions/binance_spot_btcusdt_2024-08-08.raw.gz"


def start(*arguments: str) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    process = subprocess.Popen([sys.executable, "-m", "simulator", *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())["ports"]


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(10) == 0
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    """The ports of a simulator with a synthetic market."""
    process, found = start()
    yield found
    end(process)


class Socket:
    """A connection that speaks JSON."""

    def __init__(self, port: int, path: str = "/") -> None:
        self.raw = websocket.create_connection(f"ws://127.0.0.1:{port}{path}", timeout=8)

    def send(self, message: Any) -> None:
        self.raw.send(message if isinstance(message, str) else json.dumps(message))

    def read(self) -> Any:
        return json.loads(self.raw.recv(), parse_float=Decimal)

    def read_until(self, wanted: str, key: str = "type") -> Any:
        for _ in range(2_000):
            message = self.read()
            if message.get(key) == wanted:
                return message
        raise AssertionError(wanted)

    def __enter__(self) -> "Socket":  # noqa: PYI034 -- nobody inherits from it
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()
        self.raw.shutdown()  # type: ignore[no-untyped-call] # close() leaves the socket of a broken connection


def test_binance_wraps_payloads_in_the_combined_form(ports: dict[str, int]) -> None:
    """BookTicker and trade have the keys and the eight decimals of the venue; update ids rise."""
    with Socket(ports["binance"], "/stream?streams=btcusdt@bookTicker/btcusdt@trade") as socket:
        seen: dict[str, list[Any]] = {"btcusdt@bookTicker": [], "btcusdt@trade": []}
        while not all(len(each) > 2 for each in seen.values()):
            frame = socket.read()
            assert set(frame) == {"stream", "data"}
            seen[frame["stream"]].append(frame["data"])
    for quote in seen["btcusdt@bookTicker"]:
        assert list(quote) == ["u", "s", "b", "B", "a", "A"]
        assert all(len(quote[key].partition(".")[2]) == 8 for key in "bBaA")
        assert Decimal(quote["b"]) < Decimal(quote["a"])
    assert all(a["u"] < b["u"] for a, b in pairwise(seen["btcusdt@bookTicker"]))
    assert list(seen["btcusdt@trade"][0]) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
    assert all(b["t"] == a["t"] + 1 for a, b in pairwise(seen["btcusdt@trade"]))


def test_binance_answers_requests(ports: dict[str, int]) -> None:
    """SUBSCRIBE, LIST_SUBSCRIPTIONS, UNSUBSCRIBE and SET_PROPERTY are answered as the venue does."""
    with Socket(ports["binance"], "/ws") as socket:
        socket.send({"method": "SUBSCRIBE", "params": ["nothing@here"], "id": 1})
        assert socket.read() == {"result": None, "id": 1}  # unknown, and taken without a word
        socket.send({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert socket.read() == {"result": ["nothing@here"], "id": 2}
        socket.send({"method": "UNSUBSCRIBE", "params": ["nothing@here"], "id": "three"})
        assert socket.read() == {"result": None, "id": "three"}
        socket.send({"method": "SET_PROPERTY", "params": ["combined", True], "id": 4})
        assert socket.read() == {"result": None, "id": 4}
        socket.send({"method": "SUBSCRIBE", "params": ["ethusdt@bookTicker"], "id": 5})
        assert socket.read()["id"] == 5
        assert socket.read()["stream"] == "ethusdt@bookTicker"


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("{", 3),
        ("{}", 2),
        ('{"method": "DANCE", "id": 1}', 2),
        ('{"method": "SUBSCRIBE", "params": 5, "id": 1}', 2),
        ('{"method": "SET_PROPERTY", "params": ["colour", 1], "id": 1}', 0),
        ('{"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}', 1),
    ],
)
def test_binance_complains(ports: dict[str, int], request_text: str, code: int) -> None:
    """Bad requests get the venue's codes and the connection stays."""
    with Socket(ports["binance"], "/ws") as socket:
        socket.send(request_text)
        assert socket.read()["code"] == code
        socket.send({"method": "LIST_SUBSCRIPTIONS", "id": 2})
        assert socket.read()["result"] == []


def test_coinbase_acknowledges_with_the_whole_list(ports: dict[str, int]) -> None:
    """`level2_batch` is echoed as `level2_50`; a snapshot comes before updates, and they agree with a book."""
    with Socket(ports["coinbase"]) as socket:
        socket.send({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["level2_batch", "heartbeat"]})
        ack = socket.read()
        assert ack["type"] == "subscriptions"
        assert [channel["name"] for channel in ack["channels"]] == ["level2_50", "heartbeat"]
        snapshot = socket.read_until("snapshot")
        levels = {
            "buy": {Decimal(price): Decimal(size) for price, size in snapshot["bids"]},
            "sell": {Decimal(price): Decimal(size) for price, size in snapshot["asks"]},
        }
        for _ in range(10):
            for side, price, size in socket.read_until("l2update")["changes"]:
                levels[side][Decimal(price)] = Decimal(size)
                if not Decimal(size):
                    del levels[side][Decimal(price)]
            assert max(levels["buy"]) < min(levels["sell"])
        assert socket.read_until("heartbeat")["product_id"] == "BTC-USD"


def test_coinbase_trades_by_the_makers_side(ports: dict[str, int]) -> None:
    """A trade comes as `match` with the maker's side and as `ticker` with the taker's."""
    with Socket(ports["coinbase"]) as socket:
        socket.send({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["matches", "ticker"]})
        match = socket.read_until("match")
        ticker = socket.read_until("ticker")
        assert ticker["trade_id"] == match["trade_id"]
        assert {match["side"], ticker["side"]} == {"buy", "sell"}
        assert socket.read_until("match")["trade_id"] == match["trade_id"] + 1


@pytest.mark.parametrize(
    ("request_body", "words"),
    [
        ("{", "Malformed"),
        ('{"type": "dance", "channels": []}', "Type has to be"),
        ('{"type": "subscribe", "product_ids": ["NO-PE"], "channels": ["ticker"]}', "not a valid product"),
        ('{"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["full"]}', "authentication"),
        ('{"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["nope"]}', "not a valid channel"),
    ],
)
def test_coinbase_complains(ports: dict[str, int], request_body: str, words: str) -> None:
    """Bad requests get an error frame with the reason."""
    with Socket(ports["coinbase"]) as socket:
        socket.send(request_body)
        error = socket.read()
        assert error["type"] == "error"
        assert words in error.get("reason", "") + error["message"]


def test_coinbase_closes_who_asks_for_nothing(ports: dict[str, int]) -> None:
    """Five seconds without a subscription end the connection."""
    with Socket(ports["coinbase"]) as socket:
        opcode, _ = socket.raw.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE


def _fault(port: int, **body: Any) -> int:
    request = Request(f"http://127.0.0.1:{port}/faults", json.dumps(body).encode(), method="POST")
    try:
        with urlopen(request, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def test_faults_on_demand(ports: dict[str, int]) -> None:
    """Drop cuts, garbage halves a frame, gap swallows a trade, refuse keeps the door shut."""
    control = ports["control"]
    assert _fault(control, venue="binance", fault="dance") == 400
    with Socket(ports["binance"], "/ws/btcusdt@trade") as socket:
        before = socket.read()["t"]
        assert _fault(control, venue="binance", fault="gap") == 200
        ids = [before]
        while len(ids) < 60 and not any(b - a > 1 for a, b in pairwise(ids)):
            ids.append(socket.read()["t"])
            if len(ids) % 10 == 0:
                _fault(control, venue="binance", fault="gap")
        assert any(b - a > 1 for a, b in pairwise(ids))
        assert _fault(control, venue="binance", fault="garbage") == 200
        with pytest.raises(json.JSONDecodeError):
            socket.read_until("never", "e")
        assert _fault(control, venue="binance", fault="drop") == 200
        with pytest.raises((websocket.WebSocketException, OSError)):
            socket.read_until("never", "e")
    assert _fault(control, venue="binance", fault="refuse", seconds=1) == 200
    url = f"ws://127.0.0.1:{ports['binance']}/ws"
    with (
        create_connection(("127.0.0.1", ports["binance"])) as plain,
        pytest.raises(websocket.WebSocketBadStatusException),
    ):
        websocket.create_connection(url, socket=plain)
    time.sleep(1.1)
    with Socket(ports["binance"], "/ws"):
        pass


def test_a_replay_is_the_recording(recordings: Path) -> None:
    """Every frame of the streams asked for comes, in order, as it was recorded."""
    process, ports = start("--replay", str(recordings / RECORDING), "--speed", "10000")
    wanted = []
    with gzip.open(recordings / RECORDING, "rt") as lines:
        wanted = [
            frame for _, _, frame in (line.rstrip("\n").partition(" ") for line in lines) if "@trade" in frame[:40]
        ]
    try:
        with Socket(ports["binance"], "/stream?streams=btcusdt@trade") as socket:
            got = [socket.raw.recv() for _ in wanted]
        assert got == wanted
    finally:
        end(process)
