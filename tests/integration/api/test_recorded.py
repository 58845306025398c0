"""A recorded session's trades, through windows, candles, crosses, bus and record, as the API tells them."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from exchanges.binance.protocol import Binance
from models.bus.analysis import tell_candles, tell_vwaps
from models.bus.client import connect
from models.domain.candles import INTERVALS_S, Candle, CandleMaker, MakerState
from models.domain.moving_averages import Kind, Seed
from models.domain.quotes import Trade
from models.domain.signals import Signal
from models.domain.strategies import Crosses, Strategy, Variant
from models.domain.vwap import SlidingVwap
from models.store.candles import upsert_candles
from models.store.database import Database
from models.store.events import rfc3339
from models.store.signals import insert_signals
from models.store.strategies import put_strategy

RECORDING = "sessions/binance_spot_btcusdt_2024-08-08.raw.gz"
GRACE_S = 2
NAMES = {interval_s: name for name, interval_s in INTERVALS_S.items()}
QUICK = Strategy(
    "quick", {"a": Variant(Kind.SMA, 5, 20), "b": Variant(Kind.EMA, 5, 20, Seed.SMA)}, interval="1s", venue="binance"
)


def frames(recordings: Path) -> Iterator[tuple[int, bytes]]:
    with gzip.open(recordings / RECORDING) as lines:
        for line in lines:
            time_ns, _, frame = line.partition(b" ")
            yield int(time_ns) // 1000, frame.strip()


@pytest.fixture
def said(recordings: Path, client: httpx.Client, database: Database, redis_url: str) -> list[Signal]:
    """What was traded is on the bus and in the record; the signals that were raised."""
    protocol, sliding = Binance(None, ["BTCUSDT"], 1), SlidingVwap(200)
    events = [event for at_us, frame in frames(recordings) for event in protocol.decode(frame, at_us)]
    trades = [event for event in events if isinstance(event, Trade)]
    maker = CandleMaker("binance", "BTC-USDT", "simulated", MakerState(trades[0].exchange_time_us or 0))
    crosses = [Crosses(QUICK, name) for name in QUICK.variants]
    told: list[Candle] = []
    raised: list[Signal] = []
    for trade in trades:
        time_us = trade.exchange_time_us or 0
        sliding.add(trade.price, trade.size, time_us, trade.trade_id)
        maker.trade(trade.price, trade.size, trade.taker_side, time_us)
        for candle in maker.advance(time_us):
            told.append(candle)
            if candle.interval_s == 1:
                raised += [signal for each in crosses if (signal := each.close(candle, time_us))]
    upsert_candles(database, told)
    put_strategy(database, QUICK)
    assert insert_signals(database, raised) == raised
    with connect(redis_url) as bus, bus.pipeline() as pipeline:
        tell_vwaps(pipeline, "BTC-USDT", {"binance": sliding.vwap("binance", "BTC-USDT", "simulated")})
        still = {f"binance:{NAMES[each.interval_s]}": each for each in maker.open_candles()}
        tell_candles(pipeline, "BTC-USDT", still)
        pipeline.execute()
    return raised


def traded(recordings: Path) -> list[dict[str, Any]]:
    """Return the session's trades as Binance wrote them, by a plain reading of the file."""
    read = (json.loads(frame, parse_float=Decimal) for _, frame in frames(recordings) if b"@trade" in frame)
    return [each["data"] for each in read]


def test_candles_of_a_session_are_those_of_a_plain_count(
    said: list[Signal], recordings: Path, client: httpx.Client
) -> None:
    """Each minute and each second, also the ones that are still made, and nothing is missing between them."""
    for interval_s in (1, 60, 3_600):
        grouped = defaultdict(list)
        for trade in traded(recordings):
            grouped[trade["T"] // 1000 // interval_s * interval_s].append(trade)
        # What ended within the grace period is neither closed nor what is made now.
        newest = max(grouped)
        waiting = [start_s for start_s in grouped if newest - GRACE_S < start_s + interval_s <= newest]
        for start_s in waiting:
            del grouped[start_s]
        answer = client.get(f"/candles/BTC-USDT?venue=binance&interval={NAMES[interval_s]}&limit=1000&fill=false")
        shown = answer.json()["candles"]
        assert [each["open_time"] for each in shown] == [rfc3339(start_s * 1_000_000) for start_s in sorted(grouped)]
        for each, start_s in zip(shown, sorted(grouped), strict=True):
            prices = [Decimal(trade["p"]) for trade in grouped[start_s]]
            sizes = [Decimal(trade["q"]) for trade in grouped[start_s]]
            bought = [Decimal(trade["q"]) for trade in grouped[start_s] if not trade["m"]]
            assert [Decimal(each[name]) for name in ("open", "high", "low", "close", "volume")] == [
                *(prices[0], max(prices), min(prices), prices[-1], sum(sizes)),
            ]
            assert Decimal(each["quote_volume"]) == sum(price * size for price, size in zip(prices, sizes, strict=True))
            assert (each["trades"], Decimal(each["taker_buy_volume"])) == (len(prices), sum(bought))


def test_the_average_of_the_last_trades_is_theirs(said: list[Signal], recordings: Path, client: httpx.Client) -> None:
    """To the last digit."""
    last = traded(recordings)[-200:]
    size = sum(Decimal(trade["q"]) for trade in last)
    [shown] = client.get("/vwap/BTCUSDT?window=200").json()["venues"]
    assert (shown["points"], Decimal(shown["size"])) == (200, size)
    assert Decimal(shown["vwap"]) == sum(Decimal(trade["p"]) * Decimal(trade["q"]) for trade in last) / size
    assert (shown["from"], shown["until"]) == (rfc3339(last[0]["T"] * 1000), rfc3339(last[-1]["T"] * 1000))


def test_signals_of_a_session_and_what_they_were_worth(said: list[Signal], client: httpx.Client) -> None:
    """All of them, page by page, and the report counts each."""
    assert {signal.variant for signal in said} == {"a", "b"}
    pages = [client.get("/signals?limit=7").json()]
    while (cursor := pages[-1]["next_cursor"]) is not None:
        pages.append(client.get(f"/signals?limit=7&cursor={cursor}").json())
    shown = [each for page in pages for each in page["signals"]]
    assert [(each["variant"], each["open_time"]) for each in shown] == [
        (signal.variant, rfc3339(signal.open_time_us)) for signal in reversed(said)
    ]
    report = client.get("/strategies/quick/report").json()
    for variant in report["variants"]:
        count = sum(signal.variant == variant["variant"] for signal in said)
        assert variant["golden"] + variant["death"] == count
        assert all(each["signals"] + each["pending"] + each["missing"] == count for each in variant["returns"])
        assert variant["returns"][0]["signals"] == count > 5
