"""Rooms of market data over Socket.IO, with a notifier in a process of its own and Python's client."""

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from websockets.sync.client import ClientConnection, connect

from models.domain.candles import INTERVALS_S
from models.domain.instruments import INSTRUMENTS
from models.store.database import Database
from tests.integration.notifier.market import (
    NOW_US,
    signal,
    tell_candle,
    tell_price,
    tell_signals,
    tell_vwap,
)
from tests.integration.notifier.test_server import Client, happen, running_notifier, stored
from tests.integration.scraping import key, scrape
from tests.services import running_valkey

PRICE = "price:BTC-USDT"
LONG = "X" * 20_000  # a product id that makes a message large


def ask(client: Client, *rooms: str, name: str = "subscribe") -> dict[str, Any]:
    answer: dict[str, Any] = client.io.call(name, {"rooms": list(rooms)}, timeout=60)
    return answer


def until(holds: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def sent(address: str) -> float:
    """Return how many prices were sent until now."""
    return scrape(address).get(key("crossfill_market_messages_sent_total", kind="price"), 0)


def bids(client: Client, room: str = PRICE) -> list[str | None]:
    """Return what the binance bids of a room were, in order; None where there was none."""
    told = [message for name, message in list(client.sent) if name == "price" and message["room"] == room]
    return [message["prices"].get("binance", {}).get("bid") for message in told]


def test_who_joins_is_shown_what_is_there_and_then_what_changes(address: str, bus: redis.Redis) -> None:
    """Each kind of room has its event; a room without anything says so."""
    tell_price(bus, "30000.00")
    tell_vwap(bus, 2)
    tell_candle(bus, 7)
    tell_candle(bus, 99, interval_s=1)
    with Client(address) as client:
        rooms = [PRICE, "vwap:BTC-USDT", "candle:BTC-USDT:1m"]
        assert ask(client, *rooms) == {"rooms": rooms}
        [price], [vwap], [candle] = client.wait("price"), client.wait("vwap"), client.wait("candle")
        assert price == {
            "room": PRICE,
            "pair": "BTC-USDT",
            "market": "simulated",
            "prices": {
                "binance": {
                    "product_id": "BTCUSDT",
                    "bid": "30000",
                    "bid_size": "1.5",
                    "ask": "30000.1",
                    "ask_size": "2",
                    "last": "29999.9",
                    "live": True,
                    "time_us": NOW_US,
                    "last_time_us": NOW_US,
                }
            },
        }
        assert list(vwap["vwaps"]) == ["all"]
        assert vwap["vwaps"]["all"] == {
            "type": "vwap",
            "venue": "all",
            "pair": "BTC-USDT",
            "vwap": "0.6666666666666666666666666667",
            "window": 200,
            "points": 2,
            "size": "3",
            "from_us": 1,
            "until_us": 2,
            "market": "simulated",
        }
        assert (candle["interval"], list(candle["candles"])) == ("1m", ["okx"])
        assert candle["candles"]["okx"] == {
            "type": "candle",
            "venue": "okx",
            "pair": "BTC-USDT",
            "interval": "1m",
            "open_time_us": 60_000_000,
            "open": "10",
            "high": "12.5",
            "low": "9",
            "close": "11",
            "volume": "4",
            "quote_volume": "42",
            "vwap": "10.5",
            "taker_buy_volume": "1.5",
            "trades": 7,
            "revision": 0,
            "incomplete": False,
            "closed": False,
            "market": "simulated",
        }
        tell_price(bus, "30001")
        tell_vwap(bus, 3)
        tell_candle(bus, 8)
        assert client.wait("price", 2)[1]["prices"]["binance"]["bid"] == "30001"
        assert client.wait("vwap", 2)[1]["vwaps"]["all"]["points"] == 3
        assert client.wait("candle", 2)[1]["candles"]["okx"]["trades"] == 8
        ask(client, "price:ETH-USDT")
        assert client.wait("price", 3)[2] == {
            "room": "price:ETH-USDT",
            "pair": "ETH-USDT",
            "market": "simulated",
            "prices": {},
        }


def test_nothing_is_sent_where_nothing_changes(address: str, bus: redis.Redis) -> None:
    """The same values written again are no news, and another interval's candle is none for this one's room."""
    tell_candle(bus, 1)
    with Client(address) as client:
        ask(client, "candle:BTC-USDT:1m", PRICE)
        client.wait("candle")
        for number in range(20):
            tell_candle(bus, 1)
            tell_candle(bus, number, interval_s=1)
            time.sleep(0.05)
        tell_price(bus, "1")
        client.wait("price", 2)
        assert len(client.wait("candle")) == 1


def test_many_changes_are_one_message(address: str, bus: redis.Redis) -> None:
    """A room is told a few times a second, whatever happens in between, and ends with the newest."""
    with Client(address) as client:
        ask(client, PRICE)
        client.wait("price")
        started = time.monotonic()
        for number in range(1, 1_001):
            tell_price(bus, str(number))
        took_s = time.monotonic() - started
        until(lambda: bids(client)[-1] == "1000")
        assert len(client.wait("price")) <= 3 + 5 * took_s


@contextmanager
def slow_client(address: str, *rooms: str) -> Iterator[ClientConnection]:
    """A client of engine.io's own protocol that reads only when it is told to, with a small window."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    host, port = address.removeprefix("http://").split(":")
    plain.connect((host, int(port)))
    url = f"ws://{host}:{port}/socket.io/?EIO=4&transport=websocket"
    with connect(url, sock=plain, max_queue=1, compression=None, max_size=None, close_timeout=0) as client:
        client.recv()
        client.send('40{"token":"secret"}')
        while "ready" not in str(client.recv()):
            pass
        client.send("421" + json.dumps(["subscribe", {"rooms": rooms}]))
        yield client


def test_a_slow_client_is_sent_only_the_newest(address: str, bus: redis.Redis) -> None:
    """While it does not read, nothing is kept for it; when it reads again, what is newest comes, and its own events."""
    symbols = [instrument.symbol for instrument in itertools.islice(INSTRUMENTS, 30)]
    rooms = [f"price:{symbol}" for symbol in symbols]

    def tell(number: int) -> None:
        for symbol in symbols:
            tell_price(bus, str(number), symbol, LONG)

    tell(1)
    with Client(address):  # for it to be up
        pass
    before = sent(address)
    with slow_client(address, *rooms) as slow:
        numbers = itertools.count(2)
        until(lambda: sent(address) > before)
        counts = [before]
        while counts[-1:] != counts[-2:-1]:  # until its window is full
            for _ in range(20):
                tell(last := next(numbers))
                time.sleep(0.05)
            counts.append(sent(address))
        newest: dict[str, str] = {}
        while set(newest.values()) != {str(last)} or len(newest) < len(rooms):
            text = str(slow.recv(timeout=60))
            if text.startswith("42"):
                name, message = json.loads(text[2:])
                assert name == "price"
                newest[message["room"]] = message["prices"]["binance"]["bid"]
            elif text == "2":
                slow.send("3")


def test_own_events_come_while_rooms_are_busy(address: str, bus: redis.Redis, database: Database) -> None:
    """Each, in order, and the rooms go on."""
    stop = threading.Event()

    def busy() -> None:
        for number in itertools.count(1):
            tell_price(bus, str(number))
            tell_vwap(bus, number)
            if stop.wait(0.002):
                return

    thread = threading.Thread(target=busy)
    with Client(address) as client:
        [ready] = client.wait("ready")
        ask(client, PRICE, "vwap:BTC-USDT")
        thread.start()
        try:
            for _ in range(20):
                happen(database, 50)
            assert client.wait("order.accepted", 1_000) == stored(database, ready["last_seq"])
            seen = len(client.wait("price"))
            client.wait("price", seen + 2)
            client.wait("vwap", 3)
        finally:
            stop.set()
            thread.join()


def test_who_comes_again_is_shown_what_is_there(address: str, bus: redis.Redis) -> None:
    """A connection's rooms end with it; the next one joins and begins with what is true then."""
    tell_price(bus, "1")
    with Client(address) as client:
        ask(client, PRICE)
        client.wait("price")
    tell_price(bus, "2")
    with Client(address) as client:
        client.wait("ready")
        assert bids(client) == []
        ask(client, PRICE)
        client.wait("price")
        assert bids(client) == ["2"]


def reads(bus: redis.Redis) -> int:
    """Return how often hashes and streams were read."""
    stats = bus.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hgetall", "xread", "xrevrange"))


def idle(bus: redis.Redis) -> bool:
    """Say whether nothing is read for more than half a second."""
    before = reads(bus)
    time.sleep(0.6)
    return reads(bus) == before


def test_who_leaves_a_room_is_told_nothing_more(address: str, bus: redis.Redis) -> None:
    """With nobody in any room nothing is read from the bus."""
    tell_price(bus, "1")
    with Client(address) as client:
        client.wait("ready")
        until(lambda: idle(bus))  # what another test's client wanted of the signals is read for a second yet
        before = reads(bus)
        assert ask(client, PRICE, "vwap:BTC-USDT", "signal:BTC-USDT")["rooms"][1:] == [
            "vwap:BTC-USDT",
            "signal:BTC-USDT",
        ]
        client.wait("price")
        assert reads(bus) > before
        assert ask(client, PRICE, "signal:BTC-USDT", name="unsubscribe") == {"rooms": ["vwap:BTC-USDT"]}
        tell_price(bus, "2")
        tell_vwap(bus, 5)
        client.wait("vwap", 2)
        assert bids(client) == ["1"]
        assert ask(client, "vwap:BTC-USDT", name="unsubscribe") == {"rooms": []}
        until(lambda: idle(bus))


def test_who_asks_wrongly_joins_nothing(address: str) -> None:
    """The answer says what is right; the right rooms beside a wrong one are not joined either, nor one too many."""
    with Client(address) as client:
        assert ask(client, PRICE, "owner:local")["error"].startswith("'owner:local' is no room; rooms are price:PAIR")
        assert client.io.call("subscribe", timeout=60)["error"].startswith("give {")
        assert client.io.call("unsubscribe", PRICE, timeout=60) == {"rooms": []}
        assert client.io.call("subscribe", "price:btcusdt", timeout=60) == {"rooms": [PRICE]}
        symbols = [instrument.symbol for instrument in INSTRUMENTS][:15]
        rooms = [f"candle:{symbol}:{interval}" for symbol in symbols for interval in INTERVALS_S]
        assert len(ask(client, *rooms[:99])["rooms"]) == 100
        assert "it is in 100, and 1 more are too many" in ask(client, rooms[99])["error"]


def test_each_signal_comes_once(address: str, bus: redis.Redis) -> None:
    """Who joins is shown the latest of the pair as what was before; each later one comes, in order, of this market."""
    tell_signals(bus, signal(1), signal(2), signal(9, "ETH-USDT"), signal(8, market="replay"))
    with Client(address) as client:
        assert ask(client, "signal:BTC-USDT", "signal:LTC-BTC")["rooms"] == ["signal:BTC-USDT", "signal:LTC-BTC"]
        assert client.wait("signal.raised") == [
            {
                "room": "signal:BTC-USDT",
                "snapshot": True,
                "type": "signal",
                "strategy": "averages",
                "version": 1,
                "variant": "a",
                "venue": "all",
                "pair": "BTC-USDT",
                "interval": "1m",
                "open_time_us": 120_000_000,
                "cross": "golden_cross",
                "close": "11",
                "fast": "10.5",
                "slow": "10.25",
                "raised_us": 2,
                "market": "simulated",
            }
        ]
        tell_signals(bus, *map(signal, range(3, 203)), signal(1, "ETH-USDT"))
        came = client.wait("signal.raised", 201)
        assert sorted(message["raised_us"] for message in came) == list(range(2, 203))
        assert [message["snapshot"] for message in came].count(True) == 1
        with Client(address) as another:
            ask(another, "signal:BTC-USDT")
            [shown] = another.wait("signal.raised")
            assert (shown["raised_us"], shown["snapshot"]) == (202, True)


def test_rooms_pause_while_the_bus_is_away(home_database: tuple[str, Database], tmp_path: Path) -> None:
    """Clients stay connected, and are sent what is new when it is back."""
    database_url, database = home_database
    with running_valkey(tmp_path / "first") as url:
        password, port = url.split("@")[0].rsplit(":", 1)[1], int(url.rsplit(":", 1)[1].split("/")[0])
        notifier = running_notifier(database_url, url, tmp_path)
        address = notifier.__enter__()
        client = Client(address)
        bus = redis.Redis.from_url(url)
        tell_price(bus, "1")
        ask(client, PRICE, "signal:BTC-USDT")
        client.wait("price")
    try:
        bus.close()
        time.sleep(1.5)
        assert ask(client, "price:ETH-USDT")["rooms"][-1] == "price:ETH-USDT"
        with running_valkey(tmp_path / "second", port, password) as url, redis.Redis.from_url(url) as bus:
            tell_price(bus, "2")
            tell_signals(bus, signal(5))
            until(lambda: bids(client)[-1] == "2")
            client.wait("signal.raised")
            happen(database, 1)
            client.wait("order.accepted")
            assert [name for name, _ in client.sent].count("ready") == 1
    finally:
        client.io.disconnect()
        notifier.__exit__(None, None, None)


def test_who_is_told_what_is_counted(address: str, bus: redis.Redis) -> None:
    """Subscriptions as they are, messages for each client."""
    tell_price(bus, "1")
    with Client(address) as one, Client(address) as two:
        before = sent(address)
        ask(one, PRICE, "vwap:BTC-USDT")
        ask(two, PRICE)
        one.wait("price")
        one.wait("vwap")
        two.wait("price")
        told = scrape(address)
        assert told[key("crossfill_subscriptions", kind="price")] == 2
        assert told[key("crossfill_subscriptions", kind="vwap")] == 1
        assert sent(address) == before + 2
    until(lambda: scrape(address)[key("crossfill_subscriptions", kind="price")] == 0)
