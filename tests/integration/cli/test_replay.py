"""`crossfill replay`: the same bytes each time, what another rule gives, and real recordings against the oracle."""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.order_files import read_orders
from cli.playing import Rules, play_session
from cli.recordings import Session, Told, open_session
from exchanges.coinbase.products import parse
from models.domain.instruments import INSTRUMENTS, Instrument, Instruments
from models.domain.ledger import PRESENT
from models.domain.replay import Placing, Played
from tests.oracle import expected
from tests.recorded import Noted, snapshot, ticker, write, write_orders
from tests.services import ROOT

SILENCE_US = 3_000_000
RULES = Rules(PRESENT, SILENCE_US)
BTC, ETH = (f"sessions/binance_spot_{pair}_2024-08-08.raw.gz" for pair in ("btcusdt", "ethusdt"))
COINBASE = "sessions/coinbase_exchange_2021-04-17.jsonl.gz"
TIFS = ("GTD", "GTC", "IOC", "FOK")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A session of two venues and four pairs with a hole of ten seconds, and 120 orders."""
    random = Random(11)
    binance: list[tuple[float, str]] = []
    coinbase: list[tuple[float, str]] = []
    for number in range(1_200):
        at_s = number / 40 + (10 if number > 600 else 0)
        pair = random.choice(["LTC-BTC", "ETH-BTC", "LINK-BTC", "ADA-BTC"])
        prices = (f"0.00{random.randint(10, 14)}", str(random.randint(1, 9)), f"0.00{random.randint(15, 19)}", "2")
        if random.random() < 0.7:
            binance.append((at_s, ticker(number, *prices, pair=pair.replace("-", ""))))
        else:
            coinbase.append((at_s, snapshot(*prices, pair=pair)))
    (tmp_path / "session").mkdir()
    write(tmp_path / "session" / "binance_1.jsonl.gz", binance)
    write(tmp_path / "session" / "coinbase_1.jsonl.gz", coinbase)
    orders = [
        {
            "symbol": random.choice(["LTCBTC", "ETHBTC", "LINKBTC", "ADABTC"]),
            "side": (side := random.choice(["buy", "sell"])),
            "price": f"0.00{random.randint(11, 15) if side == 'sell' else random.randint(15, 18)}",
            "order_size": random.randint(1, 30),
            "time_in_force": random.choice(TIFS),
            "at": round(random.uniform(0, 35), 3),
            "client_order_id": f"mine-{number}",
        }
        for number in range(120)
    ]
    write_orders(tmp_path / "orders.jsonl", orders)
    return tmp_path


def command(*arguments: object, seed: str = "0") -> bytes:
    """Run the command in a process of its own and return what it printed."""
    environment = {**os.environ, "PYTHONHASHSEED": seed, "COLUMNS": "200"}
    words = [sys.executable, "-m", "cli", "replay", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=True).stdout


def run(*arguments: object) -> Any:
    """Run the command here."""
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


def test_fills_are_equal_to_the_byte(folder: Path) -> None:
    """Twice, on one, two and five processes, and with another seed of Python's hashes; the digest is the file's."""
    wanted = (folder / "session", "--orders", folder / "orders.jsonl")
    first = command(*wanted, "--json")
    assert command(*wanted, "--json", seed="1") == first
    assert command(*wanted, "--json", "--workers", 2, seed="2") == first
    assert command(*wanted, "--json", "--workers", 5, seed="3") == first
    shown = command(*wanted, "--out", folder / "fills.jsonl").decode()
    assert (folder / "fills.jsonl").read_bytes() == first
    assert shown.splitlines()[-1].endswith(hashlib.sha256(first).hexdigest())
    records = [json.loads(line) for line in first.splitlines()]
    assert len(records) == 120
    assert sum(len(each["splits"]) for each in records) > 100
    assert {each["state"] for each in records} >= {"filled", "expired"}
    assert records[0]["client_order_id"] == f"mine-{int(records[0]['order']) - 1}"


def test_the_summary_says_what_was_played(folder: Path) -> None:
    """The session, its length, the quotes of each venue, the holes and the rule."""
    shown = command(folder / "session", "--orders", folder / "orders.jsonl").decode()
    assert "session: 1,200 frames in 39.975 s from 2023-11-14T22:13:20.000000Z" in shown
    assert "of binance, " in shown
    assert "connections, because of holes: 2 of binance, 2 of coinbase" in shown
    assert "rule: hold-1s, 3 s of silence, version 1" in shown


# (seconds, size of the bid at 0.001), and how many of 20 each rule sells.
WHAT_IF: list[tuple[list[tuple[float, str]], dict[str, str]]] = [
    ([(0, "5"), (0.2, "5")], {"growth-only": "5", "no-hold": "5", "level-reset": "5", "each-quote": "10"}),
    ([(0, "5"), (0.2, "1"), (0.4, "5")], {"growth-only": "5", "no-hold": "9", "level-reset": "11", "each-quote": "11"}),
    ([(0, "5"), (0.2, "1"), (1.2, "5")], {"growth-only": "5", "no-hold": "9", "level-reset": "11", "each-quote": "11"}),
]
PRESENT_SELLS = ("5", "5", "9")


@pytest.mark.parametrize("case", range(3))
def test_another_rule_differs_where_it_should_and_only_there(case: int, tmp_path: Path) -> None:
    """A quote again, a flicker, a dip of a second: each order that another rule serves differently is shown."""
    quotes, sold = WHAT_IF[case]
    frames = [(at_s, ticker(number, "0.001", size)) for number, (at_s, size) in enumerate(quotes)]
    session = write(tmp_path / "binance_1.jsonl.gz", frames)
    orders = write_orders(tmp_path / "orders.jsonl", [{"order_size": 20}, {"order_size": 1, "price": "0.9"}])
    for rule, size in {PRESENT: PRESENT_SELLS[case], **sold}.items():
        result = run(session, "--orders", orders, "--replenish", rule, "--json")
        *differing, last = map(json.loads, result.stdout.splitlines())
        differs = size != PRESENT_SELLS[case]
        assert [each["order"] for each in differing] == ["1"] * differs
        assert (last["orders"], last["differ"], last["rules"]["other"]["replenish"]) == (2, int(differs), rule)
        [totals] = last["totals"]
        assert (totals["present"]["filled_size"], totals["other"]["filled_size"]) == (PRESENT_SELLS[case], size)
        if differs:
            got = [differing[0][which]["filled_size"] for which in ("present", "other")]
            assert got == [PRESENT_SELLS[case], size]


def test_another_silence_differs_where_it_should(tmp_path: Path) -> None:
    """Binance's last mark is five seconds after its last frame: 2.5 and 3.2 s later the limit decides."""
    session = write(tmp_path / "binance_1.jsonl.gz", [(0, ticker(1, "0.001", "5")), (9, ticker(2, "0.0001", "5"))])
    ioc = {"order_size": 1, "time_in_force": "IOC"}
    orders = write_orders(tmp_path / "orders.jsonl", [{**ioc, "at": 7.5}, {**ioc, "at": 8.2}])
    found = {}
    for silence in ("2s", "3s", "4s"):
        *differing, last = map(
            json.loads, run(session, "--orders", orders, "--silence", silence, "--json").stdout.splitlines()
        )
        found[silence] = [(each["order"], each["other"]["state"]) for each in differing]
        assert last["rules"]["other"]["silence_us"] == int(silence[0]) * 1_000_000
    assert found == {"2s": [("1", "expired")], "3s": [], "4s": [("2", "filled")]}
    shown = run(session, "--orders", orders, "--silence", "2s").stdout
    assert "1 of 2 orders are served differently by hold-1s, 2 s" in shown


def test_what_is_wrong_is_one_sentence(folder: Path) -> None:
    """Never a traceback; the status is 1."""
    session, orders = folder / "session", ("--orders", folder / "orders.jsonl")
    (folder / "binance_bad.jsonl").write_text("{}\n")
    (folder / "journal.jsonl").write_text('{"now": 1}\n')
    (folder / "empty").mkdir()
    wrong: list[tuple[list[Any], str]] = [
        ([session], "name a session and --orders FILE, or --journal PATH alone"),
        ([session, *orders, "--journal", folder], "name a session and --orders FILE, or --journal PATH alone"),
        ([folder / "nothing", *orders], "is not there: name a folder of sessions or one session"),
        ([folder / "empty", *orders], "no session of binance or"),
        ([folder / "binance_bad.jsonl", *orders], "binance_bad.jsonl, line 1: KeyError"),
        ([session, "--orders", folder / "none.csv"], "none.csv cannot be read: No such file"),
        ([session, *orders, "--replenish", "hold-2s"], "there is no such rule; one of hold-1s, growth-only"),
        ([session, *orders, "--silence", "0s"], "--silence 0s: give more than nothing"),
        ([session, *orders, "--timeout", "soon"], "--timeout soon: give a number and s, m or h"),
        ([session, *orders, "--out", folder / "no" / "file"], "cannot be written: No such file"),
        (["--journal", folder / "journal.jsonl"], "journal.jsonl does not begin with the book"),
        (["--journal", folder / "binance_none.jsonl"], "binance_none.jsonl cannot be read as a journal"),
        (["--journal", folder / "empty"], "holds no journal, as 000-000001.jsonl"),
    ]
    for arguments, sentence in wrong:
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert result.stderr.startswith("crossfill: "), result.stderr
        assert sentence in result.stderr
        assert result.stderr.count("\n") == 1


def _against_the_oracle(session: Session, placings: list[Placing]) -> list[Played]:
    """Return what became of the orders, after a look at each of them by the oracle, and on two processes."""
    symbols = sorted({placing.order.symbol for placing in placings})
    replay = Noted([session.instruments[symbol] for symbol in symbols], silence_us=SILENCE_US)
    played = replay.run(Told(session), placings, session.ended_us)
    right = expected(replay.journal, SILENCE_US)
    assert {each.order.id for each in played} == right.keys()
    for each in played:
        quotes = [(s.venue, s.product_id, s.price, s.size, s.token, s.quote_number) for _, s in each.splits]
        assert quotes == right[each.order.id]["splits"], each.order.id
        assert each.state.value == right[each.order.id]["state"], each.order.id
    assert play_session(session, placings, RULES, 2).played == played
    return played


def _orders(file: Path, session: Session, orders: list[dict[str, object]]) -> list[Placing]:
    asked = read_orders(write_orders(file, orders), session.instruments, session.begun_us, session.ended_us)
    return [each.placing(seq, 30_000_000) for seq, each in enumerate(asked, 1)]


def test_the_recorded_binance_session_is_played_as_the_oracle_says(recordings: Path, tmp_path: Path) -> None:
    """Real quotes of two pairs; each split's quote is the one of its number in the recording."""
    for name in (BTC, ETH):
        (tmp_path / Path(name).name).symlink_to(recordings / name)
    session, random = open_session(tmp_path), Random(5)
    orders: list[dict[str, object]] = []
    for _ in range(120):
        pair, price, around = random.choice([("BTC-USDT", 61_740, 60), ("ETH-USDT", 2_684, 3)])
        more = {"at": round(random.uniform(0, 340), 3), "time_in_force": random.choice(TIFS)}
        more |= {"timeout_s": 9} if more["time_in_force"] == "GTD" else {"cancel_at": 345}
        sizes = {"order_size": round(random.uniform(0.01, 9), 3), "price": price + random.randint(-around, around)}
        orders.append({"symbol": pair, "side": random.choice(["buy", "sell"]), **sizes, **more})
    played = _against_the_oracle(session, _orders(tmp_path / "orders", session, orders))
    lines = [line for name in (BTC, ETH) for line in gzip.decompress((recordings / name).read_bytes()).splitlines()]
    frames = sorted(line.split(b" ", 1) for line in lines if b"@bookTicker" in line[:60])
    shown = [json.loads(frame)["data"] for _, frame in frames]
    splits = [split for each in played for _, split in each.splits]
    assert len(splits) > 500
    for split in splits:
        quote = shown[split.quote_number - 1]
        side = "bB" if split.side == "sell" else "aA"
        assert quote["s"] == split.product_id
        assert [Decimal(quote[key]) for key in side] == [split.price, split.shown]


def test_the_recorded_coinbase_session_is_played_as_the_oracle_says(recordings: Path, tmp_path: Path) -> None:
    """Ten pairs of 2021, in the steps of a recorded list."""
    line = gzip.decompress((recordings / "instruments/coinbase_rest_products.txt.gz").read_bytes()).split(b"\n")[0]
    listed = {each.symbol: each for each in parse(line.partition(b": ")[2])}
    text = gzip.decompress((recordings / COINBASE).read_bytes()).decode()
    symbols = sorted({json.loads(frame).get("product_id", "") for frame in text.splitlines()} & listed.keys())
    known = Instruments(Instrument(each.base, each.quote, (each.product,)) for each in map(listed.get, symbols) if each)
    session, random = open_session(recordings / COINBASE, known), Random(3)
    first: dict[str, tuple[str, str]] = {}
    for frame in map(json.loads, text.splitlines()):
        if frame["type"] == "snapshot":
            first[frame["product_id"]] = (frame["bids"][0][0], frame["asks"][0][0])
    orders: list[dict[str, object]] = []
    for _ in range(150):
        symbol, side = random.choice(symbols), random.choice(["buy", "sell"])
        instrument, price = known[symbol], Decimal(first[symbol][side == "buy"])
        away = random.randint(-2, 2) * instrument.tick
        more = {"at": round(random.uniform(0, 30), 3), "time_in_force": random.choice(TIFS)}
        size = instrument.lot * random.randint(1, 5_000)
        orders.append({"symbol": symbol, "side": side, "price": str(price + away), "order_size": f"{size:f}", **more})
    played = _against_the_oracle(session, _orders(tmp_path / "orders", session, orders))
    assert len(symbols) >= 5
    assert sum(len(each.splits) for each in played) > 50
    assert INSTRUMENTS["BTC-USD"] not in list(known)
