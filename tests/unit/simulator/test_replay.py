"""Sessions: the three forms, what is found, how pauses and rounds are played."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from simulator import binance, coinbase
from simulator.replay import BETWEEN_ROUNDS_S, PAUSE_S_MAX, Replay, SessionError, find, read

PRODUCTS = {"binance": ["BTCUSDT"], "coinbase": ["BTC-USD"]}


def _quote(number: int) -> str:
    return f'{{"stream":"btcusdt@bookTicker","data":{{"u":{number},"s":"BTCUSDT","b":"1","B":"2","a":"3","A":"4"}}}}'


def _trade(number: int) -> str:
    return f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1000,"s":"BTCUSDT","t":{number},"T":1000}}}}'


def _own(file: Path, frames: list[tuple[float, str]]) -> Path:
    with gzip.open(file, "wt") as lines:
        lines.writelines(json.dumps({"t": round(at_s * 1e9), "f": frame}) + "\n" for at_s, frame in frames)
    return file


def test_the_three_forms_read_alike(tmp_path: Path) -> None:
    """Own form, raw form, and frames with their times beside them."""
    frames = [(100.25, _quote(1)), (100.5, _quote(2))]
    own = _own(tmp_path / "binance_own.jsonl.gz", frames)
    raw = tmp_path / "binance_raw.raw.gz"
    with gzip.open(raw, "wt") as lines:
        lines.writelines(f"{round(at_s * 1e9)} {frame}\n" for at_s, frame in frames)
    alone = tmp_path / "binance_alone.jsonl"
    alone.write_text("".join(f"{frame}\n" for _, frame in frames))
    (tmp_path / "binance_alone.recv_ts.txt").write_text("".join(f"{at_s}\n" for at_s, _ in frames))
    assert list(read(own)) == list(read(raw)) == list(read(alone)) == frames


def test_a_file_counts_where_it_is_a_venues_and_of_a_pair_that_we_list(tmp_path: Path) -> None:
    """The venue is the beginning of the name; a folder may hold its files in `sessions`."""
    (tmp_path / "sessions").mkdir()
    good = _own(tmp_path / "sessions" / "binance_1.jsonl.gz", [(0, _quote(1))])
    _own(tmp_path / "sessions" / "kraken_1.jsonl.gz", [(0, _quote(1))])
    _own(tmp_path / "sessions" / "coinbase_1.jsonl.gz", [(0, '{"type":"ticker","product_id":"SKL-USD"}')])
    found = find(tmp_path, PRODUCTS, speed=1, loop=False)
    assert {venue: replay.files for venue, replay in found.items()} == {"binance": (good,)}
    assert find(good, PRODUCTS, speed=2, loop=True)["binance"] == Replay((good,), 2, loop=True)
    with pytest.raises(SessionError, match="no session of binance or coinbase"):
        find(tmp_path / "nothing", PRODUCTS, speed=1, loop=False)


def test_files_are_merged_by_time_and_long_pauses_are_cut(tmp_path: Path) -> None:
    """Two files of one time are one session; one of another day follows after a minute at most."""
    first = _own(tmp_path / "binance_1.jsonl.gz", [(100, _quote(1)), (102, _quote(3))])
    second = _own(tmp_path / "binance_2.jsonl.gz", [(101, _trade(2))])
    later = _own(tmp_path / "binance_0.jsonl.gz", [(90_000, _quote(9))])
    played = list(Replay((later, first, second), speed=2).frames(binance.WIRE))
    assert [frame for _, frame in played] == [_quote(1), _trade(2), _quote(3), _quote(9)]
    assert [at_s for at_s, _ in played] == [0, 0.5, 1, 1 + PAUSE_S_MAX / 2]


def test_a_session_is_played_unchanged(tmp_path: Path) -> None:
    """Without a loop frames are as recorded, and there is an end."""
    frames = [(1.0, _quote(5)), (2.0, _trade(6))]
    file = _own(tmp_path / "binance_1.jsonl.gz", frames)
    assert [frame for _, frame in Replay((file,)).frames(binance.WIRE)] == [frame for _, frame in frames]


def test_in_a_loop_ids_and_times_go_on_rising(tmp_path: Path) -> None:
    """Trade ids go on without a gap, update ids rise, the venue's time and the playing time move on."""
    file = _own(tmp_path / "binance_1.jsonl.gz", [(1, _quote(5)), (2, _trade(70)), (3, _trade(71)), (4, _quote(9))])
    played = list(islice(Replay((file,), loop=True).frames(binance.WIRE), 12))
    data = [json.loads(frame)["data"] for _, frame in played]
    assert [each["t"] for each in data if "t" in each] == [70, 71, 72, 73, 74, 75]
    updates = [each["u"] for each in data if "u" in each]
    assert updates == [5, 9, 10, 14, 15, 19]
    length_s = 3 + BETWEEN_ROUNDS_S
    assert [each["T"] for each in data if "T" in each] == [
        1000 + round(n * length_s * 1000) for n in (0, 0, 1, 1, 2, 2)
    ]
    assert [at_s for at_s, _ in played] == [n * length_s + at_s for n in range(3) for at_s in range(4)]


def test_a_coinbase_loop_begins_with_the_last_trade_again(tmp_path: Path) -> None:
    """The second round's last_match is the first round's last match."""
    frames = [
        f'{{"type":"{kind}","trade_id":{number},"product_id":"BTC-USD","sequence":{number * 10},'
        f'"time":"2026-09-02T07:44:1{number}.000000Z"}}'
        for kind, number in (("last_match", 5), ("match", 6), ("match", 7))
    ]
    file = _own(tmp_path / "coinbase_1.jsonl.gz", list(enumerate(frames)))
    played = [json.loads(frame) for _, frame in islice(Replay((file,), loop=True).frames(coinbase.WIRE), 9)]
    assert [each["trade_id"] for each in played] == [5, 6, 7, 7, 8, 9, 9, 10, 11]
    times = [each["time"] for each in played]
    assert times == sorted(times)
    assert len(set(times)) == 9


def test_a_recorder_that_was_killed_leaves_a_good_session(tmp_path: Path) -> None:
    """What is in an unfinished file is played."""
    file = _own(tmp_path / "binance_1.jsonl.gz", [(number, _quote(number)) for number in range(2_000)])
    file.write_bytes(file.read_bytes()[:-200])
    assert 0 < len(list(read(file))) < 2_000


def test_what_is_no_session_is_said(tmp_path: Path) -> None:
    """The sentence names the file and the line."""
    file = tmp_path / "binance_1.jsonl"
    file.write_text('{"t": 1, "f": "x"}\n{"result": null}\n')
    with pytest.raises(SessionError, match=r"binance_1\.jsonl, line 2"):
        list(read(file))
