"""`crossfill vwap` on a Coinbase of our own, which says what the test wants and is cut off in between."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner
from websockets.sync.server import Server, ServerConnection, serve

from cli.legacy import Config, Publisher
from cli.main import app
from models.bus.kafka import KafkaReader
from simulator.registry import WIRES
from tests.integration.simulator.running import running
from tests.kafka import running_kafka
from tests.services import ROOT

Told = tuple[str, int, str, str, str]  # type, trade id, product, price, size
_DIVIDE = Context(prec=28, rounding=ROUND_HALF_EVEN)


class Exchange:
    """Answers each connection with the next of its acts, and ends it where another one follows."""

    def __init__(self, *acts: list[Told]) -> None:
        self._acts = list(acts)
        self.asked: list[str] = []
        self._server: Server = serve(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = Thread(target=self._server.serve_forever)
        self._thread.start()

    def _serve(self, connection: ServerConnection) -> None:
        self.asked.append(str(connection.recv()))
        act = self._acts.pop(0)
        for kind, number, product, price, size in act:
            told = {"type": kind, "trade_id": number, "product_id": product, "price": price, "size": size}
            connection.send(json.dumps({**told, "side": "buy", "time": "2026-11-21T12:00:00.000000Z"}))
        if not self._acts:
            for _ in connection:  # until the client goes
                pass

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSFILL_HOME", str(tmp_path))
    for name in ("CROSSFILL_VENUE_URLS", "CROSSFILL_BUS_URL", "CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: str, status: int = 0) -> tuple[list[str], str]:
    done = CliRunner().invoke(app, ["vwap", *arguments])
    assert done.exit_code == status, done.output
    return done.stdout.splitlines(), done.stderr


def matches(first: int, *trades: tuple[str, str, str]) -> list[Told]:
    return [("match", number, *trade) for number, trade in enumerate(trades, first)]


def exact(trades: list[tuple[str, str]]) -> str:
    size = sum((Fraction(size) for _, size in trades), Fraction(0))
    value = sum((Fraction(price) * Fraction(size) for price, size in trades), Fraction(0)) / size
    digits = _DIVIDE.divide(Decimal(value.numerator), Decimal(value.denominator))
    text = format(digits, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def test_each_match_prints_its_products_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 28 digits, over the window; the trade before the subscription counts for nothing."""
    trades = [("BTC-USD", f"635{number}.2{number}", f"0.0{number}7") for number in range(1, 10)]
    exchange = Exchange([("last_match", 9, "BTC-USD", "1", "100"), *matches(10, *trades)])
    monkeypatch.setenv("CROSSFILL_VENUE_URLS", json.dumps({"coinbase": exchange.url}))
    try:
        lines, complaint = run("btc-usd", "--window", "4", "--count", "9")
    finally:
        exchange.close()
    pairs = [trade[1:] for trade in trades]
    assert lines == [f"[BTC-USD] {exact(pairs[max(0, end - 4) : end])}" for end in range(1, 10)]
    assert complaint == ""
    asked = json.loads(exchange.asked[0])
    assert (asked["product_ids"], asked["channels"]) == (["BTC-USD"], ["matches", "heartbeat"])


def test_a_lost_connection_is_opened_again_and_the_window_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is told a second time is not counted a second time."""
    first = matches(10, ("ETH-BTC", "2", "1"), ("ETH-BTC", "4", "1"))
    second: list[Told] = [("last_match", 11, "ETH-BTC", "4", "1"), first[1], ("match", 12, "ETH-BTC", "6", "1")]
    exchange = Exchange(first, second)
    monkeypatch.setenv("CROSSFILL_VENUE_URLS", json.dumps({"coinbase": exchange.url}))
    try:
        lines, _ = run("ETH-BTC", "--count", "3")
    finally:
        exchange.close()
    assert lines == ["[ETH-BTC] 2", "[ETH-BTC] 3", "[ETH-BTC] 4"]


def test_the_running_simulator_is_found(tmp_path: Path) -> None:
    """By the ports of the state folder; that its prices are made up is said beside them."""
    with running(WIRES["coinbase"]) as venue:
        port = int(venue.url.rsplit(":", 1)[1])
        (tmp_path / "ports.json").write_text(json.dumps({"coinbase": port}))
        lines, note = run("BTC-USD", "ETH-USD", "--count", "2")
        assert all(line.startswith(("[BTC-USD] ", "[ETH-USD] ")) for line in lines)
        assert "not today's prices" in note
        assert "did you mean BTC-USD" in run("BTC-USX", status=1)[1]
    assert "nobody serves Coinbase at" in run("BTC-USD", status=1)[1]
    (tmp_path / "ports.json").unlink()
    assert "nobody serves Coinbase here" in run("BTC-USD", status=1)[1]


def test_bad_input_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window out of range, no product, one that the venue refuses, a pair that it does not list."""
    with running(WIRES["coinbase"]) as venue:
        monkeypatch.setenv("CROSSFILL_VENUE_URLS", json.dumps({"coinbase": venue.url}))
        for window in ("0", "-1", "1000001"):
            assert f"from 1 to 1000000, not {window}" in run("BTC-USD", "--window", window, status=1)[1]
        assert run(status=1)[1] == "crossfill: name a product, as BTC-USD\n"
        assert "Coinbase refuses matches:FOO-BAR" in run("FOO-BAR", status=1)[1]
        assert "unknown symbol 'foo'" in run("foo", status=1)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_quietly(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """With status 0, having printed each line as it came."""
    exchange = Exchange(matches(1, ("BTC-USD", "2", "1")))
    monkeypatch.setenv("CROSSFILL_VENUE_URLS", json.dumps({"coinbase": exchange.url}))
    command = [sys.executable, "-m", "cli", "vwap", "BTC-USD"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "[BTC-USD] 2\n"
        process.send_signal(number)
        output, complaint = process.communicate(timeout=20)
    exchange.close()
    assert (process.returncode, output, complaint) == (0, "", "")


@pytest.fixture
def kafka() -> Iterator[str]:
    with running_kafka() as made:
        yield made.brokers


def taken(brokers: str, count: int) -> list[tuple[bytes | None, bytes | None]]:
    reader = KafkaReader(brokers, ["BTC-USD"], beginning=True)
    found: list[tuple[bytes | None, bytes | None]] = []
    while len(found) < count:
        message = reader._consumer.poll(1)
        found += [] if message is None else [(message.key(), message.value())]
    reader.close()
    return found


def test_the_config_file_chooses_it_all(kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, window, products and where each is published: the topic is the product, the value the text."""
    bitcoins = matches(1, ("BTC-USD", "1", "1"), ("BTC-USD", "2", "1"), ("BTC-USD", "3", "1"))
    exchange = Exchange([bitcoins[0], *matches(1, ("ETH-USD", "7", "1")), *bitcoins[1:]])
    conf = {
        "ws_url": exchange.url,
        "max_size": 2,
        "products": ["BTC-USD", "ETH-USD"],
        "brokers": {kafka.split(",", maxsplit=1)[0]: ["BTC-USD"]},
        "log_level": "ERROR",
        "kafka_time": 0,
    }
    (tmp_path / "conf.json").write_text(json.dumps(conf, indent=1))
    monkeypatch.setenv("CONFIG_FILE", str(tmp_path / "conf.json"))
    try:
        lines, _ = run("--count", "4")
    finally:
        exchange.close()
    assert lines == ["[BTC-USD] 1", "[ETH-USD] 7", "[BTC-USD] 1.5", "[BTC-USD] 2.5"]
    assert taken(kafka, 3) == [(b"BTC-USD", b"1"), (b"BTC-USD", b"1.5"), (b"BTC-USD", b"2.5")]
    (tmp_path / "conf.json").write_text('{\n "max_size": 0}')
    assert (
        run(status=1)[1] == f"crossfill: {tmp_path / 'conf.json'}, line 2: max_size: 0 is out of range; 1 to 1000000\n"
    )


def test_kafka_time_publishes_the_newest_so_often(kafka: str) -> None:
    """At once, and then when it is time or the end; a product that is named nowhere is not published."""
    publisher = Publisher(Config(brokers={kafka.split(",", maxsplit=1)[0]: ("BTC-USD",)}, kafka_time=3_600))
    for text in ("1", "2"):
        publisher.tell("BTC-USD", text)
    publisher.tell("ETH-USD", "7")
    publisher.tick()
    for text in ("3", "4"):
        publisher.tell("BTC-USD", text)
        publisher.tick()
    publisher.close()
    assert taken(kafka, 2) == [(b"BTC-USD", b"2"), (b"BTC-USD", b"4")]
