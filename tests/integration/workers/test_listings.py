"""The venues' lists, fetched from a local server that answers with what was recorded, or does what a test says."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from cli.up import _refresh_lists
from cli.valkey import free_port
from exchanges.registry import LISTS, PROTOCOLS
from models.domain.instruments import INSTRUMENTS, Instruments
from models.domain.quotes import Market
from models.settings import Settings
from models.store.database import Database
from models.store.listings import instruments
from tests.listings import FILES, recorded_list
from tests.services import ROOT
from workers import listings
from workers.collector import collector_of
from workers.listings import lists_of, refresh

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database.open(database_url)
    yield opened
    opened.close()


@contextmanager
def answering(answers: dict[str, Answer]) -> Iterator[dict[str, str]]:
    """Serve the lists of venues, and yield their addresses."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers[self.path.strip("/")](self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield {venue: f"http://127.0.0.1:{server.server_port}/{venue}" for venue in answers}
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def body(content: bytes, *, status: int = 200, length: int | None = None) -> Answer:
    """Answer with a body, which may be shorter than it is said to be."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Answer byte by byte, without end."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Answer nothing for longer than anybody waits."""
    time.sleep(2)


def stored(database: Database) -> Instruments:
    with database.read() as connection:
        return instruments(connection)


def test_the_recorded_lists_are_stored(database: Database, recordings: Path) -> None:
    """Each venue's products of our pairs are those of its list; a venue that was not asked keeps the bundled ones."""
    answers = {venue: body(recorded_list(recordings, venue)) for venue in FILES}
    with answering(answers) as urls, capture_logs() as logs:
        assert refresh(database, urls) == {}
    assert logs == []
    made = stored(database)
    lists = {
        venue: {each.product.id: each for each in LISTS[venue][1](recorded_list(recordings, venue))} for venue in FILES
    }
    for instrument in made:
        for product in instrument.books:
            if product.venue in FILES:
                each = lists[product.venue][product.id]
                assert (each.symbol, each.trading) == (instrument.symbol, True)
                assert product.tick <= each.product.tick
                assert product.lot <= each.product.lot
                assert product.min_size == each.product.min_size
                assert product.evidence.startswith("listed by the venue on 20")
            else:
                assert product in INSTRUMENTS[instrument.symbol].products


FIRST = (
    b'[{"id":"LTC-BTC","base_currency":"LTC","quote_currency":"BTC","quote_increment":"0.0000001",'
    b'"base_increment":"0.1","status":"online"}]'
)
OTHER = FIRST.replace(b"LTC", b"SHIB")
HALTED = FIRST.replace(b'"online"', b'"delisted"')
RENAMED = FIRST.replace(b'"id":"LTC-BTC"', b'"id":"LTC:BTC"')


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param(body(b"no", status=404), "404", id="no list there"),
        pytest.param(body(b"no", status=503), "503", id="the venue is down"),
        pytest.param(body(b"<html>"), "JSON", id="not JSON"),
        pytest.param(body(b"\xff\xfe"), "malformed", id="not even text"),
        pytest.param(body(b""), "truncated", id="nothing"),
        pytest.param(body(b'{"code":1}'), "Expected `array`", id="another form"),
        pytest.param(body(b"[]"), "none of our pairs is in it", id="empty"),
        pytest.param(body(OTHER), "none of our pairs is in it", id="other pairs only"),
        pytest.param(body(HALTED), "none of our pairs trades by it", id="nothing trades"),
        pytest.param(body(RENAMED), "none of our pairs trades by it", id="our products are not in it"),
        pytest.param(body(FIRST.replace(b"0.1", b"x")), "Invalid decimal", id="a number that is none"),
        pytest.param(body(FIRST, length=1_000), "bytes too early", id="cut short"),
        pytest.param(body(b"x" * 2_001), "larger than", id="too large"),
        pytest.param(drip, "10", id="too slow"),
        pytest.param(hang, "10", id="silent"),
        pytest.param(lambda handler: handler.wfile.write(b"SSH-2.0\r\n"), "SSH", id="no HTTP"),
        pytest.param(lambda handler: handler.connection.close(), "", id="hung up"),
    ],
)
def test_a_venue_that_fails_keeps_its_former_list(
    answer: Answer, why: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one warning that says why; the others' lists are taken all the same."""
    kraken = b'{"result":{"XLTCXXBT":{"wsname":"LTC/XBT","pair_decimals":9,"lot_decimals":8,"ordermin":"1"}}}'
    with answering({"coinbase": body(FIRST)}) as urls:
        assert refresh(database, urls) == {}
    before = [each for each in stored(database)["LTC-BTC"].products if each.venue == "coinbase"]
    monkeypatch.setattr(listings, "BYTES_MAX", 2_000)  # limits that a test can reach
    if answer in (drip, hang):
        monkeypatch.setattr(listings, "TIMEOUT_S", 0.5)
        why = "0.5 s"
    with answering({"coinbase": answer, "kraken": body(kraken)}) as urls, capture_logs() as logs:
        failures = refresh(database, urls)
    assert set(failures) == {"coinbase"}
    assert why in failures["coinbase"]
    assert [(each["log_level"], each["venue"], each["error"]) for each in logs] == [
        ("warning", "coinbase", failures["coinbase"])
    ]
    after = stored(database)["LTC-BTC"].products
    assert [each for each in after if each.venue == "coinbase"] == before
    assert [str(each.tick) for each in after if each.venue == "kraken"] == ["1E-9"]


def test_a_database_that_is_away_is_a_failure_too(tmp_path: Path) -> None:
    """Nothing is raised."""
    database = Database.open(f"sqlite:///{tmp_path / 'nowhere' / 'crossfill.db'}")
    with answering({"coinbase": body(FIRST)}) as urls:
        assert "database" in refresh(database, urls)["coinbase"]
    database.close()


def test_only_a_live_market_asks_the_venues() -> None:
    """By https, and not those that are read at other addresses than their own."""
    assert lists_of(Settings()) == lists_of(Settings(market=Market.REPLAY)) == {}
    live = lists_of(Settings(market=Market.LIVE))
    assert set(live) == set(PROTOCOLS) == set(LISTS)
    assert all(url.startswith("https://") for url in live.values())
    some = Settings(market=Market.LIVE, venues="okx,kraken,other", venue_urls={"okx": "ws://127.0.0.1:1"})
    assert set(lists_of(some)) == {"kraken"}


@pytest.mark.parametrize(("market", "scheduled"), [("live", [21600.0]), ("simulated", []), ("replay", [])])
def test_the_task_is_scheduled_in_a_live_market_only(market: str, scheduled: list[float], tmp_path: Path) -> None:
    """Every six hours; the worker knows the task in any market."""
    program = """
import json
from workers.celery import app
app.loader.import_default_modules()
plans = [each["schedule"] for each in app.conf.beat_schedule.values() if each["task"] == "listing.refresh"]
print(json.dumps([plans, "listing.refresh" in app.tasks]))
"""
    environment = {**os.environ, "CROSSFILL_MARKET": market, "CROSSFILL_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == [scheduled, True]


def test_a_collector_of_a_live_market_reads_what_is_listed(database: Database, database_url: str) -> None:
    """One of another market reads the bundled products."""
    with answering({"coinbase": body(FIRST)}) as urls:
        refresh(database, urls)
    for market, products in ((Market.LIVE, {"LTC-BTC"}), (Market.SIMULATED, set(INSTRUMENTS.products_of("coinbase")))):
        settings = Settings(market=market, database_url=database_url).model_copy()
        made = collector_of("coinbase", settings, database)._settings
        assert set(made.instruments.products_of("coinbase")) == products
        frames = "".join(made.make(1).subscribe_frames())
        assert ("BTC-USD" in frames) is (market is not Market.LIVE)
        assert "LTC-BTC" in frames


@pytest.fixture
def _logging() -> Iterator[None]:
    """Leaves the process's way of logging as it was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("_logging")
def test_up_refreshes_and_says_what_failed(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, nothing raised."""
    parse = LISTS["coinbase"][1]
    settings = Settings(market=Market.LIVE, venues="coinbase", database_url=database_url)
    # The registry's addresses are the venues' own: no test may go there.
    with answering({"coinbase": body(FIRST)}) as urls:
        monkeypatch.setitem(LISTS, "coinbase", (urls["coinbase"], parse))
        _refresh_lists(settings)
    assert capsys.readouterr() == ("", "")
    assert "coinbase" not in stored(database)["BTC-USD"].venues
    monkeypatch.setitem(LISTS, "coinbase", (f"http://127.0.0.1:{free_port()}", parse))
    _refresh_lists(settings)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("crossfill up: without these venues' lists")
    assert "refused" in said.err


def test_a_collector_subscribes_to_the_chosen_pairs_alone(database: Database) -> None:
    """CROSSFILL_PAIRS; none of the others is spoken of to the venue."""
    chosen = collector_of("coinbase", Settings(pairs="BTCUSD,ETH-BTC"), database)._settings.make(0)
    asked = " ".join(chosen.subscribe_frames())
    assert '"BTC-USD"' in asked
    assert '"ETH-BTC"' in asked
    assert '"ETH-USD"' not in asked
    assert '"ETH-USD"' in " ".join(collector_of("coinbase", Settings(), database)._settings.make(0).subscribe_frames())
