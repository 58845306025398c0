"""Raw WebSockets, with a notifier in a process of its own and the client of `websockets`."""

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
import uvicorn
from starlette.routing import Router, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from cli.valkey import free_port
from models.bus.names import quotes_stream
from models.bus.quotes import QuoteWriter, encode
from models.store.database import Database
from notifier.legacy import QUOTED_IN, WAITING_MAX
from notifier.sockets import Pinged, conversation, converse
from tests.integration.notifier.market import latest, quote, stream, tell_price, trade
from tests.integration.notifier.test_rooms import LONG, sent, until
from tests.integration.notifier.test_server import running_notifier
from tests.integration.scraping import key, scrape

KEYS = [
    "exchange",
    "ticker",
    "best_bid_quantity",
    "best_bid_price",
    "last_price",
    "best_offer_quantity",
    "best_offer_price",
]
SIGNED = {"Authorization": "Bearer secret"}


def up(address: str) -> str:
    """Wait until the notifier answers; return the address of its raw sockets."""
    deadline = time.monotonic() + 60
    while True:
        try:
            httpx.get(f"{address}/")
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return address.replace("http", "ws") + "/ws"


def opened(url: str, *, window: int | None = None, headers: dict[str, str] = SIGNED) -> ClientConnection:
    """Return a client; one with a window of so many bytes reads no more of what it was not asked for."""
    plain = None
    if window is not None:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        host, port = url.removeprefix("ws://").split("/")[0].split(":")
        plain.connect((host, int(port)))
    return connect(
        url,
        sock=plain,
        additional_headers=headers,
        compression=None,
        max_size=None,
        max_queue=None if window is None else 1,
    )


def heard(client: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(client.recv(timeout=60))
    return message


def the_end(client: ClientConnection) -> tuple[list[dict[str, Any]], int, str]:
    """Return what came before the end, and the code and reason of it."""
    said = []
    closed: ConnectionClosed | None = None
    while closed is None:
        try:
            said.append(heard(client))
        except ConnectionClosed as error:
            closed = error
    assert closed.rcvd is not None
    return said, closed.rcvd.code, closed.rcvd.reason


def test_prices_come_as_plain_json(address: str, bus: redis.Redis) -> None:
    """What is there at once, then each change, by header or by address; as in the rooms of the same name."""
    tell_price(bus, "30000.10")
    url = f"{up(address)}/prices?pairs=BTC-USDT,ethusdt"
    before = sent(address)
    with opened(url) as client, opened(f"{url}&token=another", headers={}) as another:
        first = {message["room"]: message for message in (heard(client), heard(client))}
        assert first["price:ETH-USDT"]["prices"] == {}
        assert first["price:BTC-USDT"]["prices"]["binance"]["bid"] == "30000.1"
        assert len({heard(another)["room"], heard(another)["room"]}) == 2
        tell_price(bus, "30001")
        assert heard(client) == heard(another)
        told = scrape(address)
        assert told[key("crossfill_subscriptions", kind="price")] == 4
        assert sent(address) == before + 6
    until(lambda: scrape(address)[key("crossfill_subscriptions", kind="price")] == 0)


def test_who_may_not_read_is_told_why(address: str) -> None:
    """The handshake is taken first, since browsers are told nothing of one that was refused."""
    url, before = up(address), scrape(address)
    for query, headers, code, words in (
        ("pairs=BTC-USDT", {}, 4401, "give a token"),
        ("pairs=BTC-USDT&token=wrong", {}, 4401, "nobody's"),
        ("pairs=BTC-USDT", {"Authorization": "Bearer wrong"}, 4401, "nobody's"),
    ):
        with opened(f"{url}/prices?{query}", headers=headers) as client:
            said, ended, reason = the_end(client)
            assert (said, ended) == ([], code)
            assert words in reason
    for path, words in (
        ("prices?pairs=BTC-USDT,BTC-USDTT", "'price:BTC-USDTT': unknown symbol"),
        ("prices", "name the pairs"),
        ("binanze/BTC", "there is no exchange 'binanze'; there are binance, coinbase"),
        ("binance/BTCC", "there is no ticker 'BTCC' against USDT; did you mean BTC"),
        ("kraken/USDT-BTC", "there is no ticker"),
        ("okx/ATOM", "okx has no ATOM-USDT; these have: binance, htx"),
    ):
        with opened(f"{url}/{path}") as client:
            said, ended, reason = the_end(client)
            assert ended == 4400
            assert words in said[0]["error"]
            assert said[0]["error"].startswith(reason[:100])
    told = scrape(address)
    for reason, count in (("no_token", 1), ("token", 2)):
        name = key("crossfill_clients_refused_total", reason=reason)
        assert told[name] == before.get(name, 0) + count


def test_a_slow_reader_of_prices_is_told_the_newest(address: str, bus: redis.Redis) -> None:
    """Nothing is kept for it; when it reads again, what is newest comes."""
    numbers = itertools.count(1)
    long = LONG * 40
    tell_price(bus, "0", product_id=long)
    url = up(address)
    before = sent(address)
    with opened(f"{url}/prices?pairs=BTC-USDT", window=8_192) as slow:
        until(lambda: sent(address) > before)
        counts = [before]
        while counts[-1:] != counts[-2:-1]:  # until its window is full
            for _ in range(20):
                tell_price(bus, str(newest := next(numbers)), product_id=long)
                time.sleep(0.05)
            counts.append(sent(address))
        came: list[str] = []
        while came[-1:] != [str(newest)]:
            came.append(heard(slow)["prices"]["binance"]["bid"])
        assert len(came) <= counts[-1] - before + 2


def test_each_quote_and_trade_comes_in_seven_keys(address: str, bus: redis.Redis) -> None:
    """In order, all of them, with the zeros that the exchange sent; first what is true now."""
    url = f"{up(address)}/binance/btc"
    stream(bus, [quote(1), trade(2, "29999.00")])
    with opened(url, headers={}) as client:
        first = json.loads(client.recv(timeout=60), object_pairs_hook=list)
        assert first == list(
            zip(KEYS, ["binance", "BTC", "1.500", "1.50", "29999.00", "0.00010000", "30000.10"], strict=True)
        )
        numbers = range(3, 2_003)
        for start in numbers[::100]:
            others = [quote(start, venue="okx", product_id="BTC-USDT"), quote(start, product_id="ETHUSDT")]
            stream(bus, [*others, *map(quote, range(start, start + 100))])
        with opened(url) as later:
            came = [heard(client) for _ in numbers]
            assert [message["best_bid_price"] for message in came] == [f"{number}.50" for number in numbers]
            assert {message["last_price"] for message in came} == {"29999.00"}
            assert heard(later)["best_bid_price"].endswith(".50")
        stream(bus, [trade(3_000, "29998.10"), trade(3_001, "1", before=True), trade(3_002, "29998.20")])
        assert [heard(client)["last_price"] for _ in range(2)] == ["29998.10", "29998.20"]
        assert scrape(address)[key("crossfill_subscriptions", kind="ticker")] == 1
    until(lambda: scrape(address)[key("crossfill_subscriptions", kind="ticker")] == 0)


def test_what_is_not_known_is_null_and_the_latest_price_comes_first(address: str, bus: redis.Redis) -> None:
    """At each exchange against the currency that it has; a quote that is newer than the latest price counts more."""
    url = up(address)
    for exchange, quoted_in in QUOTED_IN.items():
        with opened(f"{url}/{exchange}/BTC") as client:
            assert heard(client) == dict.fromkeys(KEYS) | {"exchange": exchange, "ticker": "BTC"}
        assert quoted_in == ("USD" if exchange in ("coinbase", "kraken") else "USDT")
    price = latest("30000.10", told_us=quote(5).received_time_us)
    QuoteWriter(bus).write({0: [quote(4)]}, {"BTC-USDT": price})
    with opened(f"{url}/binance/BTC") as client:
        assert (told := heard(client))["best_bid_price"] == "30000.10"
        assert told["last_price"] == "29999.90"
    stream(bus, [quote(6)])
    with opened(f"{url}/binance/BTC") as client:
        assert heard(client)["best_bid_price"] == "6.50"


def test_nothing_is_missed_while_clients_come(address: str, bus: redis.Redis) -> None:
    """Whenever one comes, from its first message on it is told every quote."""
    url = f"{up(address)}/binance/BTC"
    stop = threading.Event()
    written = itertools.count(1)

    def write() -> None:
        writer = QuoteWriter(bus)
        while not stop.is_set():
            number = next(written)
            price = latest(f"{number}.50", told_us=quote(number).received_time_us)
            writer.write({0: [quote(number)]}, {"BTC-USDT": price})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            with opened(url) as one, opened(url) as two:
                for client in (one, two):
                    numbers = [int(heard(client)["best_bid_price"].removesuffix(".50")) for _ in range(100)]
                    assert numbers == list(range(numbers[0], numbers[0] + 100))
    finally:
        stop.set()
        thread.join()


def test_who_does_not_keep_up_is_closed_without_a_hole(address: str, bus: redis.Redis) -> None:
    """What it reads before the end has no gap; others are told everything."""
    url, cut_off = f"{up(address)}/binance/BTC", key("crossfill_clients_cut_off_total")
    before = scrape(address)[cut_off]
    with opened(url) as quick, opened(url, window=8_192) as slow:
        heard(quick)
        counts = [0]
        number, total = 1, WAITING_MAX * 5

        def read() -> None:
            for _ in range(total):
                heard(quick)
                counts[0] += 1

        reader = threading.Thread(target=read)
        reader.start()
        while number <= total:
            stream(bus, list(map(quote, range(number, number + 500))))
            number += 500
            until(partial(lambda number: counts[0] >= number - 2_000, number))
        reader.join(120)
        assert counts[0] == total
        said, code, reason = the_end(slow)
        assert code == 1013
        assert f"{WAITING_MAX} messages were left unread" in reason
        numbers = [int(message["best_bid_price"].removesuffix(".50")) for message in said[1:]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert 0 < len(numbers) < total - WAITING_MAX
        assert scrape(address)[cut_off] == before + 1


def test_who_missed_something_is_closed(address: str, bus: redis.Redis) -> None:
    """A stream that was emptied meanwhile has a hole; it is not hidden, and who comes again is told what is true."""
    url = f"{up(address)}/binance/BTC"
    with opened(url) as client:
        heard(client)
        stream(bus, [quote(1)])
        heard(client)
        with bus.pipeline(transaction=True) as pipeline:
            for _ in range(30):
                pipeline.xadd(quotes_stream(0), {b"b": encode([])}, maxlen=16, approximate=False)
            pipeline.execute()
        said, code, reason = the_end(client)
        assert (said, code) == ([], 1013)
        assert "quotes were missed" in reason
    stream(bus, [quote(40)])
    with opened(url) as client:
        assert heard(client)["best_bid_price"] == "40.50"


def test_beyond_this_machine_a_token_is_needed(
    home_database: tuple[str, Database], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the form that had none too; a wrong one is refused everywhere."""
    monkeypatch.setenv("CROSSFILL_HOST", "0.0.0.0")
    with running_notifier(home_database[0], redis_url, tmp_path) as address:
        url = f"{up(address)}/binance/BTC"
        with opened(url, headers={}) as client:
            assert the_end(client)[1] == 4401
        with opened(f"{url}?token=secret", headers={}) as client:
            assert list(heard(client)) == KEYS


@pytest.fixture
def pinging() -> Iterator[str]:
    """A server that pings each 0.2 s; at /full it writes for as long as it can."""

    async def quiet(websocket: WebSocket) -> None:
        await conversation(websocket, converse(websocket, asyncio.sleep(60)))

    async def full(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(LONG)

    app = Router([WebSocketRoute("/quiet", quiet), WebSocketRoute("/full", full)])
    port = free_port()
    config = uvicorn.Config(app, port=port, ws=Pinged, ws_ping_interval=0.2, ws_ping_timeout=2, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    yield f"127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_dead_clients_go(pinging: str) -> None:
    """Who answers no ping is ended, also while it leaves unread what was written; who does stays."""
    host, port = pinging.split(":")

    def dead(path: str) -> socket.socket:
        plain = socket.create_connection((host, int(port)))
        lines = [f"GET {path} HTTP/1.1", f"Host: {pinging}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]
        plain.sendall("\r\n".join(lines).encode())
        assert plain.recv(12) == b"HTTP/1.1 101"
        return plain

    with connect(f"ws://{pinging}/quiet") as alive, closing(dead("/quiet")), closing(dead("/full")):
        until(lambda: connections(int(port)) == 1)
        with pytest.raises(TimeoutError):
            alive.recv(timeout=3)


def connections(port: int) -> int:
    """Return how many connections this process holds as the server of a port."""
    held = psutil.Process().net_connections("tcp")
    return sum(each.status == "ESTABLISHED" and each.laddr.port == port for each in held)


def test_nothing_is_read_for_nobody(address: str, bus: redis.Redis) -> None:
    """The stream is read while somebody wants it and no longer, whatever comes at the moment in which they go."""

    def reads() -> int:
        stats = bus.info("commandstats")
        return int(stats.get("cmdstat_xread", {"calls": 0})["calls"])

    def write(stop: threading.Event) -> None:
        with redis.Redis(connection_pool=bus.connection_pool) as writer:
            for number in itertools.count(1):
                stream(writer, [quote(number)])
                if stop.wait(0.002):
                    return

    url, stop = f"{up(address)}/binance/BTC", threading.Event()
    thread = threading.Thread(target=write, args=[stop])
    thread.start()
    for _ in range(20):
        with opened(url) as client:
            heard(client)
            heard(client)
    stop.set()
    thread.join()
    until(lambda: scrape(address)[key("crossfill_subscriptions", kind="ticker")] == 0)
    before = reads()
    for number in range(3):
        stream(bus, [quote(number)])
        time.sleep(0.1)
    assert reads() == before
