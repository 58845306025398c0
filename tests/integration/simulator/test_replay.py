"""Recorded sessions through the wire, and through the protocols that the collectors use."""

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path

from websockets.sync.client import connect

from exchanges.binance.protocol import Binance
from exchanges.coinbase.protocol import Coinbase
from exchanges.protocol import Acknowledged, Event, Gap, Heartbeat, Unknown, VenueError
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Quote, Trade
from simulator import binance, coinbase
from simulator.replay import Replay, find, read
from tests.integration.simulator.running import running

BTC = "sessions/binance_spot_btcusdt_2024-08-08.raw.gz"
ETH = "sessions/binance_spot_ethusdt_2024-08-08.raw.gz"
COINBASE = "sessions/coinbase_exchange_2021-04-17.jsonl.gz"


def _recorded(file: Path, *channels: str) -> list[str]:
    starts = tuple(f'{{"{key}":"{channel}"' for key in ("stream", "type") for channel in channels)
    return [frame for _, frame in read(file) if frame.startswith(starts)]


def _listen(url: str, protocol: Binance | Coinbase, enough: int, frames: list[str] | None = None) -> list[Event]:
    """Read so many frames of a venue as a collector does; keep the frames."""
    events: list[Event] = []
    seen = 0
    until = time.monotonic() + 60
    with connect(url, max_size=None, close_timeout=0.5) as client:
        for frame in protocol.subscribe_frames():
            client.send(frame)
        while seen < enough and time.monotonic() < until:
            text = str(client.recv(timeout=20))
            if frames is not None:
                frames.append(text)
            if not text.startswith('{"result":null'):
                seen += 1
                events += protocol.decode(text.encode(), 0)
    return events


def _no_complaints(events: Sequence[Event]) -> None:
    refused = [event for event in events if isinstance(event, Acknowledged) and event.refused]
    assert [event for event in events if isinstance(event, Unknown | VenueError | Gap)] + refused == []


def test_binance_plays_what_was_recorded(recordings: Path) -> None:
    """All bookTicker and trade frames of both sessions come, each product's in recorded order, unchanged."""
    files = (recordings / BTC, recordings / ETH)
    expected = [frame for file in files for frame in _recorded(file, "btcusdt@bookTicker", "ethusdt@trade")]
    with running(binance.WIRE, Replay(files, speed=100_000)) as venue:
        with connect(f"{venue.url}/stream?streams=btcusdt@bookTicker/ethusdt@trade") as client:
            played = [str(client.recv(timeout=20)) for _ in expected]
        for symbol in ("BTCUSDT", "ETHUSDT"):
            mark = f'"s":"{symbol}"'
            assert [frame for frame in played if mark in frame] == [frame for frame in expected if mark in frame]


def test_a_session_keeps_its_own_timing(recordings: Path) -> None:
    """At ten times the speed, the frames of the first ten recorded seconds take one."""
    session = [(at_s, frame) for at_s, frame in read(recordings / BTC) if "@bookTicker" in frame[:40]]
    count = sum(at_s - session[0][0] <= 10 for at_s, _ in session)
    with (
        running(binance.WIRE, Replay((recordings / BTC,), speed=10)) as venue,
        connect(f"{venue.url}/ws/btcusdt@bookTicker") as client,
    ):
        client.recv(timeout=30)
        started = time.monotonic()
        for _ in range(count - 1):
            client.recv(timeout=30)
        assert 0.9 < time.monotonic() - started < 9


def test_every_connection_plays_from_the_start(recordings: Path) -> None:
    """Whoever subscribes gets the first frame first, however late it comes."""
    [first, second, *_] = _recorded(recordings / BTC, "btcusdt@bookTicker")
    with running(binance.WIRE, Replay((recordings / BTC,), speed=50)) as venue:
        for pause_s in (0, 1):
            with connect(f"{venue.url}/stream") as client:
                time.sleep(pause_s)
                client.send('{"method":"SUBSCRIBE","params":["btcusdt@bookTicker"],"id":1}')
                client.recv(timeout=30)
                assert [client.recv(timeout=30) for _ in range(2)] == [first, second]


def test_a_loop_drops_nothing_at_the_turn(recordings: Path, tmp_path: Path) -> None:
    """A collector's protocol takes each quote and trade of every round, and sees no gap."""
    short = tmp_path / "binance_short.raw.gz"
    with gzip.open(recordings / BTC, "rt") as lines, gzip.open(short, "wt") as out:
        out.writelines(line for _, line in zip(range(500), lines, strict=False))
    once = len(_recorded(short, "btcusdt@bookTicker", "btcusdt@trade"))
    with running(binance.WIRE, Replay((short,), speed=200, loop=True)) as venue:
        events = _listen(venue.url + "/stream", Binance(None, ["BTCUSDT"], 1), once * 4)
    _no_complaints(events)
    said = [event for event in events if isinstance(event, Quote | Trade)][: once * 4]
    rounds = [said[number * once : (number + 1) * once] for number in range(4)]
    shown = [
        [(e.bid_price, e.bid_size, e.ask_price) if isinstance(e, Quote) else (e.price, e.size) for e in each]
        for each in rounds
    ]
    assert shown[0] == shown[1] == shown[2] == shown[3]


def test_coinbase_plays_what_was_recorded_and_beats(recordings: Path) -> None:
    """The session of 2021, which has no heartbeats: they are added, agree with the trades, and a loop leaves no gap."""
    file = recordings / COINBASE
    products = sorted({json.loads(frame)["product_id"] for frame in _recorded(file, "last_match")})
    wanted = _recorded(file, "snapshot", "l2update", "ticker", "match", "last_match")
    frames: list[str] = []
    with running(coinbase.WIRE, Replay((file,), speed=8, loop=True)) as venue:
        events = _listen(venue.url, Coinbase(None, products, 1), 11_500, frames)
    _no_complaints(events)
    assert any(isinstance(event, Heartbeat) for event in events)
    played = [frame for frame in frames if '"subscriptions"' not in frame and '"heartbeat"' not in frame]
    # The loop's first round has the times and numbers of the recording.
    assert played[: len(wanted)] == wanted
    assert len(played) > len(wanted)


def test_the_recordings_are_found(recordings: Path) -> None:
    """Binance's two sessions are of pairs that we list; Coinbase's, of 2021, is not."""
    products = {venue: list(INSTRUMENTS.products_of(venue)) for venue in ("binance", "coinbase")}
    found = find(recordings, products, speed=1, loop=False)
    assert {venue: [file.name for file in replay.files] for venue, replay in found.items()} == {
        "binance": [BTC.rpartition("/")[2], ETH.rpartition("/")[2]],
    }


def test_the_synthetic_market_satisfies_the_protocols() -> None:
    """Both protocols read it without a complaint, for some seconds of all products."""
    for wire, make, path in ((binance.WIRE, Binance, "/stream"), (coinbase.WIRE, Coinbase, "")):
        products = list(INSTRUMENTS.products_of(wire.name))
        with running(wire) as venue:
            events = _listen(venue.url + path, make(None, products, 1), 250)
        _no_complaints(events)
        quotes = {event.product_id for event in events if isinstance(event, Quote)}
        assert len(products) / 2 < len(quotes) <= len(products)
        assert any(isinstance(event, Trade) and not event.before for event in events)
