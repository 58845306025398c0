"""What a recording tells, as the venue's collector would have."""

import json
from pathlib import Path

from cli.recordings import Told, open_session
from models.domain.quotes import Mark, Quote
from tests.recorded import BEGUN_S, snapshot, ticker, write

BEGUN_US = BEGUN_S * 1_000_000
Line = tuple[float, str, str, int, int | None]


def told(path: Path) -> list[Line]:
    """(seconds, kind, venue, token, number) of all that was told."""
    return [
        ((now_us - BEGUN_US) / 1e6, type(item).__name__, item.venue, item.token, getattr(item, "number", None))
        for now_us, items in Told(open_session(path))
        for item in items
    ]


def test_quotes_come_as_they_were_received_and_marks_twice_a_second(tmp_path: Path) -> None:
    """A connection is marked with its first frame; its quotes are numbered from 1."""
    frames = [(0.0, ticker(1, "0.001", "1")), (0.2, ticker(2, "0.001", "2")), (1.0, ticker(3, "0.001", "3"))]
    write(tmp_path / "binance_1.jsonl.gz", frames)
    assert told(tmp_path) == [
        (0.0, "Mark", "binance", 1, None),
        (0.0, "Quote", "binance", 1, 1),
        (0.2, "Quote", "binance", 1, 2),
        (0.5, "Mark", "binance", 1, None),
        (1.0, "Quote", "binance", 1, 3),
    ]


def test_a_hole_ends_the_marks_and_the_connection(tmp_path: Path) -> None:
    """Binance is given up after five seconds without a frame; what comes a year later is a new connection's."""
    later_s = 31_536_000.25
    frames = [(at_s, ticker(number, "0.001", "1")) for number, at_s in enumerate([0.0, later_s, later_s + 0.3])]
    lines = told(write(tmp_path / "binance_1.jsonl.gz", frames))
    marks = [at_s for at_s, kind, *_ in lines if kind == "Mark"]
    assert marks == [*(step / 2 for step in range(11)), later_s, later_s + 0.25]
    assert [line[1:] for line in lines[-4:]] == [
        ("Mark", "binance", 2, None),
        ("Quote", "binance", 2, 1),
        ("Mark", "binance", 2, None),
        ("Quote", "binance", 2, 2),
    ]


def test_venues_are_merged_by_the_time_of_receipt_and_then_by_name(tmp_path: Path) -> None:
    """However many files a venue has."""
    write(tmp_path / "coinbase_1.jsonl.gz", [(0.1, snapshot("0.001", "1"))])
    write(tmp_path / "binance_2.jsonl.gz", [(0.1, ticker(1, "0.001", "1"))])
    write(tmp_path / "binance_1.jsonl.gz", [(0.0, ticker(1, "1", "1", pair="ETHBTC")), (0.2, ticker(2, "0.001", "1"))])
    quotes = [(at_s, venue, number) for at_s, kind, venue, _, number in told(tmp_path) if kind == "Quote"]
    assert quotes == [(0.0, "binance", 1), (0.1, "binance", 2), (0.1, "coinbase", 1), (0.2, "binance", 3)]


def test_a_book_that_lost_a_part_is_not_believed_until_it_is_told_anew(tmp_path: Path) -> None:
    """A collector would connect again; the recording's changes then have no book until its next snapshot."""
    match: dict[str, object] = {"type": "match", "product_id": "LTC-BTC", "side": "buy", "size": "1", "price": "0.9"}
    match |= {"maker_order_id": "a", "taker_order_id": "b", "sequence": 1, "time": "2023-11-14T22:13:20.000000Z"}
    changes = [["buy", "0.002", "1"]]
    change = {"type": "l2update", "product_id": "LTC-BTC", "changes": changes, "time": match["time"]}
    frames = [
        (0.0, snapshot("0.001", "1")),
        (0.1, json.dumps(match | {"trade_id": 5})),
        (0.2, json.dumps(match | {"trade_id": 7})),
        (0.3, json.dumps(change)),
        (0.4, snapshot("0.003", "1")),
    ]
    assert told(write(tmp_path / "coinbase_1.jsonl.gz", frames)) == [
        (0.0, "Mark", "coinbase", 1, None),
        (0.0, "Quote", "coinbase", 1, 1),
        (0.2, "Mark", "coinbase", 2, None),
        (0.4, "Quote", "coinbase", 2, 1),
    ]


def test_a_clock_that_went_back_is_taken_for_its_newest_time(tmp_path: Path) -> None:
    """Frames keep their order, and time never goes back."""
    frames = [(1.0, ticker(1, "0.001", "1")), (0.5, ticker(2, "0.001", "2")), (1.1, ticker(3, "0.001", "3"))]
    session = open_session(write(tmp_path / "binance_1.jsonl.gz", frames))
    assert (session.begun_us, session.ended_us) == (BEGUN_US + 500_000, BEGUN_US + 1_100_000)
    moments = [(now_us, item) for now_us, items in Told(session) for item in items]
    assert [now_us for now_us, _ in moments] == sorted(now_us for now_us, _ in moments)
    assert [str(item.bid_size) for _, item in moments if isinstance(item, Quote)] == ["1", "2", "3"]
    assert isinstance(moments[0][1], Mark)
