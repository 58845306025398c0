"""`crossfill candles`, `rebuild`, `signals`, `strategies` and `average --method vwap`, against a served API."""

import csv
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from cli.main import app
from models.archive.files import Archive
from models.bus.client import connect
from models.domain.candles import Candle
from models.domain.instruments import INSTRUMENTS
from models.domain.signals import Cross, Signal
from models.domain.strategies import GOLDEN_CROSS
from models.settings import Settings
from models.store.candles import Check, Series, note_checks, upsert_candles
from models.store.database import Database
from models.store.events import rfc3339
from models.store.owners import ensure_owner
from models.store.pasts import PastRow, put_pasts
from models.store.schema import fix_shards
from models.store.signals import insert_signals
from models.store.strategies import put_strategy
from tests.integration.api.market import now_us
from tests.integration.api.serving import serving
from tests.integration.api.test_archive import VENUES, archived, due, lived, trade
from workers.jobs import run_due

MINUTE_US = 60_000_000
THEN_US = 1_700_000_040_000_000
SIGNAL = Signal(
    *("golden-cross", 2, "a", "all", "BTC-USDT", 3_600, THEN_US // 3_600_000_000 * 3_600_000_000, Cross.DEATH),
    *(Decimal("63508.21246562233476760748024"), Decimal(99), Decimal(100), THEN_US, "simulated"),
)


@pytest.fixture(autouse=True)
def database(database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The database of an API that the command line finds."""
    opened = Database.open(database_url)
    fix_shards(opened, 1)
    ensure_owner(opened, "local", "admin", "secret")
    monkeypatch.setenv("CROSSFILL_DATABASE_URL", database_url)
    monkeypatch.setenv("CROSSFILL_BROKER_URL", redis_url)
    monkeypatch.setenv("CROSSFILL_HOME", str(tmp_path))
    monkeypatch.setenv("CROSSFILL_TOKEN", "secret")
    monkeypatch.setenv("COLUMNS", "200")
    with serving(Settings()) as client:
        monkeypatch.setenv("CROSSFILL_URL", str(client.base_url))
        yield opened
    opened.close()


def minute(number: int, **values: Any) -> Candle:
    one = {"venue": "okx", "symbol": "BTC-USDT", "interval_s": 60, "market": "simulated", "trades": 3}
    prices = dict.fromkeys(("open", "high", "low", "close"), Decimal("63508.21246562233476760748024"))
    sizes = {"volume": Decimal(3), "quote_volume": Decimal(301), "taker_buy_volume": Decimal("0.5")}
    return Candle(**{**one, **prices, **sizes, "open_time_us": THEN_US + number * MINUTE_US, **values})


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, done.output
    return done.output


def test_candles_are_a_table(database: Database) -> None:
    """Oldest first, numbers rounded to fit, what is special of one beside it, and how they compare."""
    upsert_candles(database, [minute(0), minute(2, revision=2, incomplete=True)])
    note_checks(database, [Check(Series("simulated", "okx", "BTC-USDT", 60), 9, 1)])
    lines = run("candles", "btcusdt", "--venue", "okx").splitlines()
    assert lines[0].strip() == "BTC-USDT, 1m, okx, simulated market"
    rows = [line.split() for line in lines if "11-14 " in line]
    assert [row[1] for row in rows] == ["22:14", "22:15", "22:16"]
    assert rows[0][2:] == [*["63508.21247"] * 4, "3", "3"]
    assert rows[1][-3:] == ["0", "0,", "incomplete"]
    assert rows[2][-4:] == ["3,", "incomplete,", "revision", "2"]
    assert lines[-1] == "9 compared with the venue's own, 1 of them differ"
    one = ["--start", "2023-11-14T22:15:00Z", "--end", "2023-11-14T22:16:00Z"]
    found = run("candles", "btcusdt", "--venue", "okx", *one)
    assert (found.count("11-14 "), found.count("11-14 22:15")) == (1, 1)
    assert "63508" not in run("candles", "btcusdt", "--venue", "okx", "--start", "-5m")


def test_candles_are_csv_or_json_where_that_is_wanted(database: Database) -> None:
    """With all digits."""
    upsert_candles(database, [minute(0), minute(2)])
    rows = list(csv.DictReader(io.StringIO(run("candles", "BTC-USDT", "--venue", "okx", "--no-fill", "--csv"))))
    assert [row["close"] for row in rows] == ["63508.21246562233476760748024"] * 2
    answer = json.loads(run("candles", "BTC-USDT", "--venue", "okx", "--json", "--limit", "2"))
    assert [candle["trades"] for candle in answer["candles"]] == [0, 3]


def test_what_is_wrong_or_missing_is_one_sentence(database: Database) -> None:
    """As the API says it."""
    assert run("candles", "BTC-USDT", "--interval", "1h") == "there is no 1h candle of BTC-USDT over all venues yet\n"
    wrong = run("candles", "BTC-USDT", "--interval", "2h", status=1)
    assert wrong == "crossfill: interval: '2h' is unknown; one of 1s, 1m, 5m, 15m, 1h, 4h, 1d\n"
    assert run("candles", "BTC-USDT", "--start", "-5x", status=1).startswith("crossfill: --start 5x: give a number")
    empty = CliRunner().invoke(app, ["candles", "BTC-USDT", "--interval", "1h", "--csv"])
    assert empty.stderr == "crossfill: there is no 1h candle of BTC-USDT over all venues yet\n"
    assert (empty.exit_code, empty.stdout.count("\n")) == (0, 1)
    assert run("signals", "--pair", "LTCBTX", status=1).startswith("crossfill: unknown symbol 'LTCBTX'; did you mean")


def test_signals_are_a_table(database: Database) -> None:
    """Newest first, each with its strategy's version and variant."""
    assert run("signals") == "no signal was raised yet in the simulated market\n"
    insert_signals(database, [SIGNAL])
    assert run("signals", "--strategy", "other").startswith("no signal of what is asked for was raised yet")
    [line] = [line for line in run("signals", "--pair", "btcusdt").splitlines() if "BTC-USDT" in line]
    assert line.split() == [
        *("11-14", "22:14:00", "BTC-USDT", "death", "cross", "golden-cross", "2a", "all", "1h"),
        "63508.21247",
    ]
    assert json.loads(run("signals", "--json"))["signals"][0]["close"] == "63508.21246562233476760748024"


def test_strategies_and_their_report_are_tables(database: Database) -> None:
    """Each variant on a line of its own; the report ends with what it shows, in sentences."""
    assert "no strategy 'golden-cross'; there is none yet" in run("strategy", "report", "golden-cross", status=1)
    put_strategy(database, GOLDEN_CROSS)
    lines = [line.split() for line in run("strategies").splitlines()]
    warm = ["0", "of", str(len(list(INSTRUMENTS)))]
    assert ["golden-cross", "1", "all", "1h", "a:", "SMA", "50/200", "a:", *warm, "all"] in lines
    assert ["b:", "EMA", "50/200,", "seed", "sma", "b:", *warm] in lines
    series = Series("simulated", "all", "BTC-USDT", 3_600)
    refused = PastRow(series=series._replace(venue="okx"), problem="the answer is 503")
    put_pasts(database, [PastRow(series=series, closes=150), refused])
    shown_warm = [line.split() for line in run("strategy", "warmth", "golden-cross").splitlines()]
    assert ["a", "BTC-USDT", "all", "150", "200", "okx:", "the", "answer", "is", "503"] in shown_warm
    assert ["b", "ETH-USDT", "all", "not", "counted", "yet", "1000"] in shown_warm
    assert json.loads(run("strategies", "--json"))["strategies"][0]["version"] == 1
    one = SIGNAL.open_time_us
    upsert_candles(
        database,
        [
            minute(0, venue="all", interval_s=3_600, open_time_us=one + hour * 3_600_000_000, close=Decimal(close))
            for hour, close in enumerate((100, 90))
        ],
    )
    insert_signals(database, [replace(SIGNAL, version=1, close=Decimal(100))])
    shown = run("strategy", "report", "golden-cross", "--pair", "BTCUSDT")
    assert "golden-cross 1, BTC-USDT, 1h, simulated market: 1 signal" in shown
    # A death cross before a fall by a tenth; the bars after it are not there yet.
    assert ["a", "0", "g,", "1", "d", "1", "1", "in", "1", "0", "1000.00", "0.00"] in [
        line.split() for line in shown.splitlines()
    ]
    assert ["5", "0", "in", "0", "1", "-"] in [line.split() for line in shown.splitlines()]
    assert "a less b after 20 bars: too few signals to tell: 0 and 0" in shown
    assert json.loads(run("strategy", "report", "golden-cross", "--json", "--version", "1"))["signals"] == 1


def test_a_strategy_is_stopped(database: Database) -> None:
    """The list says so; one that there is not is told with those that there are."""
    put_strategy(database, GOLDEN_CROSS)
    assert run("strategy", "delete", "golden-cross").startswith("golden-cross 1 is stopped, since 20")
    assert "1, stopped" in run("strategies")
    complaint = run("strategy", "delete", "silver", status=1)
    assert complaint.startswith("crossfill: there is no strategy 'silver'; there are golden-cross")


@contextmanager
def worker(database: Database) -> Iterator[None]:
    """Work the jobs that come, in a thread."""
    ended, bus = threading.Event(), connect(Settings().bus)

    def work() -> None:
        while not ended.wait(0.05):
            due(database)
            run_due(database, bus, Settings())

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        bus.close()


def test_the_past_is_asked_for_from_the_command_line(database: Database) -> None:
    """As jobs that are followed to their end: an average of the trades, and candles made anew."""
    day_us = now_us() // 86_400_000_000 * 86_400_000_000 - 2 * 86_400_000_000
    archive = Archive(Settings().archive, "simulated")
    archived(archive, "coinbase", trade(day_us, 1, "100.1", 2), trade(day_us + 1, 2, "100.2", "0.3"))
    lived(archive, day_us, day_us + 3_600_000_000)
    window = ("--start", str(rfc3339(day_us)), "--window", "1h")
    venues = [text for venue in VENUES for text in ("--venue", venue)]
    with worker(database):
        lines = run("average", "BTC-USD", "--method", "vwap", *window, *venues).splitlines()
        assert lines[0] == "BTC-USD 100.1130434782608695652173913"
        assert ["coinbase", "100.1130435", "2.3", "2", "100.0", "%"] in [line.split() for line in lines]
        assert ["kraken", "-", "0", "0", "100.0", "%"] in [line.split() for line in lines]
        assert run("rebuild", "BTC-USD", *window, "--interval", "1h").endswith(
            ", 1h: 2 candles made anew, 2 of them differed and were stored\n"
        )
        nothing = run("average", "ETH-USD", "--method", "vwap", "--window", "60s")
        assert "nothing was traded in this time, or it is not in the archive" in nothing
    wrong = run("rebuild", "BTC-USD", *window, "--interval", "2h", status=1)
    assert wrong == "crossfill: intervals: '2h' is unknown; one of 1s, 1m, 5m, 15m, 1h, 4h, 1d\n"


def test_a_strategy_is_put_from_a_file(database: Database, tmp_path: Path) -> None:
    """The same again is the version that it was; what is wrong is one sentence."""
    file = tmp_path / "quick.json"
    file.write_text('{"interval": "1s", "variants": {"a": {"kind": "sma", "fast": 5, "slow": 20}}}')
    first = run("strategy", "put", "quick", str(file))
    assert first.startswith("quick 1, of ")
    assert run("strategy", "put", "quick", str(file)) == first
    for text, sentence in {
        '{"variants": {}, "interval": "2s"}': "crossfill: variants: must be 1 to 8, and there are 0\n",
        '{"interval":\n}': f"crossfill: {file}, line 2, column 1: expecting value\n",
        "[]": "crossfill: the body must be a JSON object",
    }.items():
        file.write_text(text)
        assert run("strategy", "put", "quick", str(file), status=1).startswith(sentence)
    assert run("strategy", "put", "quick", str(tmp_path), status=1).endswith("cannot be read: Is a directory\n")
