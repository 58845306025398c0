"""Recording from the simulator, and playing what was recorded."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from websockets.sync.server import ServerConnection, serve

from exchanges.registry import PROTOCOLS
from models.domain.instruments import UnknownSymbolError
from models.domain.quotes import Quote
from workers.recorder import RecordError, record

TICKER = '{"stream":"ltcbtc@bookTicker","data":{"u":%d,"s":"LTCBTC","b":"0.001","B":"1","a":"0.002","A":"2"}}'


@contextmanager
def venue(frames: int, *, then_closes: bool) -> Iterator[str]:
    """Run a server that answers a subscription with so many frames; yield its address."""

    def handle(connection: ServerConnection) -> None:
        connection.recv()
        for number in range(frames):
            connection.send(TICKER % number)
        if not then_closes:
            for _ in connection:
                pass

    with serve(handle, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(5)


def session(file: Path) -> list[dict[str, object]]:
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


def test_a_session_holds_every_frame_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, as it was sent, decodable again; beside it stands what it was."""
    with venue(5, then_closes=False) as url:
        monkeypatch.setenv("CROSSFILL_VENUE_URLS", json.dumps({"binance": url}))
        file = record("binance", ["ltc-btc"], 0.5, tmp_path / "new")
    lines = session(file)
    assert [line["f"] for line in lines] == [TICKER % number for number in range(5)]
    times = [int(str(line["t"])) for line in lines]
    assert times == sorted(times)
    protocol = PROTOCOLS["binance"](None, ["LTCBTC"], 1)
    events = [event for line in lines for event in protocol.decode(str(line["f"]).encode(), 1)]
    assert [type(event) for event in events] == [Quote] * 5
    meta = json.loads(file.with_name(file.name.replace(".jsonl.gz", ".meta.json")).read_text())
    assert (meta["venue"], meta["products"], meta["frames"]) == ("binance", ["LTCBTC"], 5)
    assert meta["sent"] == list(protocol.subscribe_frames())


def test_what_came_before_the_connection_broke_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says how much and where."""
    with venue(3, then_closes=True) as url:
        monkeypatch.setenv("CROSSFILL_VENUE_URLS", json.dumps({"binance": url}))
        with pytest.raises(RecordError, match="broke after 3 frames"):
            record("binance", ["LTCBTC"], 30, tmp_path)
    [file] = tmp_path.glob("*.jsonl.gz")
    assert len(session(file)) == 3
    assert len(list(tmp_path.glob("*.meta.json"))) == 1


def test_what_cannot_be_recorded_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown venue, a pair that it does not list, a pair that nobody knows, nobody there."""
    monkeypatch.setenv("CROSSFILL_VENUE_URLS", '{"binance": "ws://127.0.0.1:1"}')
    with pytest.raises(RecordError, match="unknown venue"):
        record("nowhere", ["LTC-BTC"], 1, tmp_path)
    with pytest.raises(RecordError, match="binance does not list BTC-USD; it is listed by coinbase"):
        record("binance", ["BTC-USD"], 1, tmp_path)
    with pytest.raises(UnknownSymbolError):
        record("binance", ["FOO-BAR"], 1, tmp_path)
    with pytest.raises(RecordError, match="cannot be read"):
        record("binance", ["LTC-BTC"], 1, tmp_path)
    assert list(tmp_path.iterdir()) == []
