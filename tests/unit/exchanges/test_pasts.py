"""Candles of the past: what each venue is asked, and what of its answers is believed.

The answers are written by hand in the shapes of the venues' documentation, not recorded.
"""

import json
from decimal import Decimal
from typing import Any

import pytest

from exchanges.pasts import AnswerError, read_past
from exchanges.registry import PASTS
from models.domain.candles import INTERVALS_S
from models.domain.pasts import PastCandle

HOUR_S = 3_600
HOUR_US = HOUR_S * 1_000_000
T_S = 1_790_272_800  # 2026-09-24T18:00:00Z
T_MS, T_US = T_S * 1_000, T_S * 1_000_000
END_US = T_US + 2 * HOUR_US
NOW_US = END_US + 600_000_000

PRICES = ("84446.05", "84500.1", "84400", "84460.00")  # open, high, low, close
LATER = ("84460", "84460", "84301.5", "84310")


def kraken(*rows: list[Any], error: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"error": list(error), "result": {"XXBTZUSD": list(rows), "last": T_S}}


def htx(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"ch": "market.btcusdt.kline.60min", "status": "ok", "ts": T_MS, "data": list(rows)}


def deribit(**columns: list[Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "result": {"status": "ok", **columns}, "usIn": 1, "usOut": 2, "testnet": False}


ANSWERS: dict[str, Any] = {
    "binance": [
        [T_MS, *PRICES, "12.5", T_MS + HOUR_S * 1000 - 1, "1055000.25", 42, "6.0", "506000.1", "0"],
        [T_MS + HOUR_S * 1000, *LATER, "0.5", T_MS + 2 * HOUR_S * 1000 - 1, "42155", 3, "0", "0", "0", "new field"],
        [T_MS + 2 * HOUR_S * 1000, *LATER, "0.1", T_MS + 3 * HOUR_S * 1000 - 1, "8431", 1, "0", "0", "0"],
    ],
    "coinbase": [
        [T_S + HOUR_S, 84301.5, 84460, 84460, 84310, 0.5],
        [T_S, 84400, 84500.1, 84446.05, 84460.00, 12.5],
    ],
    "kraken": kraken(
        [T_S, *PRICES, "84455.1", "12.5", 42],
        [T_S + HOUR_S, *LATER, "84350.0", "0.5", 3],
        [T_S + 2 * HOUR_S, *LATER, "84350.0", "0.1", 1],
    ),
    "htx": htx(
        {"id": T_S + 2 * HOUR_S, **dict.fromkeys(("open", "close", "low", "high"), 84310), "amount": 0.1}
        | {"vol": 8431, "count": 1},
        {"id": T_S + HOUR_S, "open": 84460, "close": 84310, "low": 84301.5, "high": 84460, "amount": 0.5}
        | {"vol": 42155, "count": 3},
        {"id": T_S, "open": 84446.05, "close": 84460.00, "low": 84400, "high": 84500.1, "amount": 12.5}
        | {"vol": 1055000.25, "count": 42},
    ),
    "okx": {
        "code": "0",
        "msg": "",
        "data": [
            [str(T_MS + 2 * HOUR_S * 1000), *LATER, "0.1", "8431", "8431", "0"],
            [str(T_MS + HOUR_S * 1000), *LATER, "0.5", "42155", "42155", "1"],
            [str(T_MS), *PRICES, "12.5", "1055000.25", "1055000.25", "1"],
        ],
    },
    "deribit": deribit(
        ticks=[T_MS, T_MS + HOUR_S * 1000, T_MS + 2 * HOUR_S * 1000],
        open=[84446.05, 84460, 84310],
        high=[84500.1, 84460, 84310],
        low=[84400, 84301.5, 84310],
        close=[84460.00, 84310, 84310],
        volume=[12.5, 5e-1, 0.1],
        cost=[1055000.25, 42155, 8431],
    ),
}
TOLD = {  # quote volume and trades, where the venue tells them
    "binance": (("1055000.25", 42), ("42155", 3)),
    "coinbase": ((None, None), (None, None)),
    "kraken": ((None, 42), (None, 3)),
    "htx": (("1055000.25", 42), ("42155", 3)),
    "okx": (("1055000.25", None), ("42155", None)),
    "deribit": (("1055000.25", None), ("42155", None)),
}
# What is asked of each for [T, T + 2 h) at T + 2 h 10 min.
PATHS = {
    "binance": (
        "BTCUSDT",
        f"/api/v3/klines?symbol=BTCUSDT&interval=1h&startTime={T_MS}&endTime={T_MS + 7_199_999}&limit=1000",
    ),
    "coinbase": (
        "BTC-USD",
        "/products/BTC-USD/candles?granularity=3600&start=2026-09-24T18:00:00Z&end=2026-09-24T19:00:00Z",
    ),
    "kraken": ("BTC/USD", f"/0/public/OHLC?pair=XBTUSD&interval=60&since={T_S - 1}"),
    "htx": ("btcusdt", "/market/history/kline?symbol=btcusdt&period=60min&size=3"),
    "okx": (
        "BTC-USDT",
        f"/api/v5/market/history-candles?instId=BTC-USDT&bar=1H&after={T_MS + 7_200_000}&before={T_MS - 1}&limit=100",
    ),
    "deribit": (
        "BTC_USDC",
        (
            "/api/v2/public/get_tradingview_chart_data?instrument_name=BTC_USDC"
            f"&start_timestamp={T_MS}&end_timestamp={T_MS + 7_199_999}&resolution=60"
        ),
    ),
}


def read(venue: str, answer: object, interval_s: int = HOUR_S) -> list[PastCandle]:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return read_past(PASTS[venue], body, interval_s, T_US, END_US)


@pytest.mark.parametrize("venue", list(PASTS))
def test_an_answer_is_read_oldest_first_and_only_what_was_asked_for(venue: str) -> None:
    """Whatever its order there; the candle that is still made is left out, and numbers are exact."""
    found = read(venue, ANSWERS[venue])
    assert [each.open_time_us for each in found] == [T_US, T_US + HOUR_US]
    for candle, prices, volume, told in zip(found, (PRICES, LATER), ("12.5", "0.5"), TOLD[venue], strict=True):
        assert (candle.open, candle.high, candle.low, candle.close) == tuple(map(Decimal, prices))
        assert candle.volume == Decimal(volume)
        assert (candle.quote_volume, candle.trades) == (told[0] and Decimal(told[0]), told[1])


@pytest.mark.parametrize("venue", list(PASTS))
def test_a_venue_is_asked_in_its_own_words(venue: str) -> None:
    """For a product in its own name, and an interval and times in its own units."""
    product_id, path = PATHS[venue]
    assert PASTS[venue].request(product_id, HOUR_S, T_US, END_US, NOW_US) == path


@pytest.mark.parametrize("venue", list(PASTS))
def test_only_intervals_of_ours_are_asked_for(venue: str) -> None:
    """Seconds are not: averages of them are warm in minutes by themselves."""
    assert set(PASTS[venue].names) <= set(INTERVALS_S.values()) - {1}
    assert {60, 300, 900, HOUR_S} <= set(PASTS[venue].names)


@pytest.mark.parametrize("venue", list(PASTS))
@pytest.mark.parametrize(
    "body", [b"", b"<html>busy</html>", b"null", b"[[]]", b'{"result": 1}', b"[" * 100_000, b"\xff"]
)
def test_what_is_no_answer_is_named(venue: str, body: bytes) -> None:
    """Whatever stands in it, nothing of it is believed."""
    with pytest.raises(AnswerError, match="not what it should be"):
        read(venue, body)


@pytest.mark.parametrize("venue", list(PASTS))
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_an_answer_that_was_cut_off_is_not_believed_in_part(venue: str, cut: float) -> None:
    """One that ends in the middle tells nothing."""
    body = json.dumps(ANSWERS[venue]).encode()
    with pytest.raises(AnswerError):
        read(venue, body[: int(len(body) * cut)])


@pytest.mark.parametrize("venue", list(PASTS))
def test_candles_of_another_interval_are_none(venue: str) -> None:
    """Their times do not lie on its grid: the venue understood something else."""
    with pytest.raises(AnswerError, match="it opens at"):
        read(venue, ANSWERS[venue], 86_400)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(["NaN", "84500", "84400", "84460", "12.5"], id="a price that is no number"),
        pytest.param(["0", "84500", "0", "84460", "12.5"], id="a price of nothing"),
        pytest.param(["84446", "84450", "84400", "84460", "12.5"], id="a close above the highest price"),
        pytest.param(["84446", "84500", "84450", "84460", "12.5"], id="an open below the lowest price"),
        pytest.param(["84446", "84500", "84400", "84460", "-1"], id="a negative volume"),
        pytest.param(["84446", "1E+900000", "84400", "84460", "12.5"], id="a price that fills memory"),
    ],
)
def test_one_candle_that_is_none_spoils_the_answer(row: list[str]) -> None:
    """Rather nothing than a part of what nobody can judge."""
    good = ANSWERS["binance"]
    with pytest.raises(AnswerError, match="not what it should be"):
        read("binance", [[T_MS, *row, T_MS + 1, "1", 1], good[1]])


def test_two_candles_of_one_time_are_none() -> None:
    """Nobody knows which one counts."""
    with pytest.raises(AnswerError, match="one time"):
        read("coinbase", [*ANSWERS["coinbase"], [T_S, 84400, 84500.1, 84446.05, 84461, 12.5]])


def test_columns_of_different_lengths_are_none() -> None:
    """Deribit's columns belong together row by row."""
    with pytest.raises(AnswerError, match=r"shorter|longer"):
        read("deribit", {**ANSWERS["deribit"], "result": {**ANSWERS["deribit"]["result"], "close": [1]}})


@pytest.mark.parametrize(
    ("venue", "answer", "sentence", "crowded"),
    [
        ("kraken", {"error": ["EGeneral:Too many requests"]}, "EGeneral:Too many requests", True),
        ("kraken", {"error": ["EQuery:Unknown asset pair"]}, "EQuery:Unknown asset pair", False),
        ("htx", {"status": "error", "err-code": "invalid-parameter", "err-msg": "invalid symbol"}, "invalid", False),
        ("okx", {"code": "50011", "msg": "Too Many Requests", "data": []}, "code 50011: Too Many Requests", True),
        ("okx", {"code": "51001", "msg": "Instrument ID does not exist", "data": []}, "does not exist", False),
        ("deribit", {"error": {"code": 10028, "message": "too_many_requests"}}, "too_many_requests", True),
        ("deribit", {"error": {"code": -32602, "message": "Invalid params"}}, "Invalid params", False),
    ],
)
def test_a_complaint_is_told_in_the_venues_words(venue: str, answer: object, sentence: str, *, crowded: bool) -> None:
    """And whether it says that it is asked too often, which comes with the status 200 too."""
    with pytest.raises(AnswerError, match=sentence) as raised:
        read(venue, answer)
    assert raised.value.crowded is crowded


@pytest.mark.parametrize(
    ("venue", "empty"),
    [
        ("binance", []),
        ("coinbase", []),
        ("kraken", kraken()),
        ("htx", htx()),
        ("okx", {"code": "0", "msg": "", "data": []}),
        ("deribit", {"result": {"status": "no_data", "ticks": []}}),
    ],
)
def test_a_past_without_trades_is_no_mistake(venue: str, empty: object) -> None:
    """There are no candles of it."""
    assert read(venue, empty) == []
