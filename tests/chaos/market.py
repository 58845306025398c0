"""What the analyst must have made of the market: whoever is killed, a candle says what was traded, or that it may not.

A witness reads beside the analyst, by a connection of its own: every batch that the collectors wrote, and the pairs'
topics. What collectors wrote is recomputed here in the plainest way.
"""

import json
import threading
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import redis
from sqlalchemy import select

from models.bus.client import connect
from models.bus.names import quotes_stream, topic_stream
from models.bus.quotes import decode
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Trade
from models.domain.signals import Signal
from models.store.candles import filled
from models.store.database import Database
from models.store.signals import read_signals
from models.store.tables import candles
from tests.chaos.processes import SHARDS

READ_MAX = 500
BLOCK_MS = 200
# What was raised so shortly before Redis forgot everything may be stored and untold: two things failed at once.
UNTOLD_US = 15_000_000
MARKET = "simulated"

SYMBOL_OF = {(product.venue, product.id): each.symbol for each in INSTRUMENTS for product in each.products}
Key = tuple[str, str, int, int]  # venue, symbol, interval in seconds, open time
Figures = tuple[Decimal | int, ...]


@dataclass(frozen=True)
class Telling:
    """A record of a pair's topic: when Redis took it, and what it is the telling of."""

    at_ms: int
    kind: str
    what: tuple[Any, ...]
    value: Mapping[str, Any]


@dataclass
class Seen:
    """What the witness read, and when Redis forgot what it had been told (its clock, ms)."""

    trades: defaultdict[str, list[tuple[int, Trade]]] = field(default_factory=lambda: defaultdict(list))
    tellings: list[Telling] = field(default_factory=list)
    forgot_ms: list[int] = field(default_factory=list)

    def life(self, at_ms: int) -> int:
        """Return which of Redis' lives a moment belongs to; in each it remembers all that it was told."""
        return bisect_right(self.forgot_ms, at_ms)


class Witness:
    """Reads it all in a thread of its own, through every death of Redis."""

    def __init__(self, redis_url: str) -> None:
        self.seen = Seen()
        self._client = connect(redis_url, timeout_s=2)
        pairs = [topic_stream(instrument.symbol) for instrument in INSTRUMENTS]
        self._after: dict[Any, Any] = dict.fromkeys([*map(quotes_stream, range(SHARDS)), *pairs], "0-0")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(10)
        self._client.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                answer: Any = self._client.xread(self._after, count=READ_MAX, block=BLOCK_MS)
            except redis.RedisError:  # it is down
                self._stopping.wait(0.05)
                continue
            for stream, entries in answer or ():
                name = stream.decode()
                self._after[name] = entries[-1][0]
                for number, fields in entries:
                    self._take(name, int(number.split(b"-")[0]), fields)

    def _take(self, stream: str, at_ms: int, fields: Mapping[bytes, bytes]) -> None:
        if stream.startswith("quotes:"):
            for item in decode(fields[b"b"]):
                symbol = SYMBOL_OF.get((item.venue, item.product_id)) if isinstance(item, Trade) else None
                if isinstance(item, Trade) and symbol is not None and not item.before:
                    self.seen.trades[symbol].append((at_ms, item))
        elif (kind := fields[b"kind"].decode()) in _IDENTITY:
            value = json.loads(fields[b"value"])
            what = (kind, *(value[name] for name in _IDENTITY[kind]))
            self.seen.tellings.append(Telling(at_ms, kind, what, value))


_IDENTITY = {
    "trade": ("venue", "product_id", "trade_id", "time_us"),
    "candle": ("venue", "pair", "interval", "open_time_us", "revision"),
    "signal": ("strategy", "version", "variant", "venue", "pair", "interval", "open_time_us"),
}


def stored_candles(database: Database) -> list[Candle]:
    """Return the newest revision of every stored candle, each series in order of time."""
    names = [name for name in Candle.__struct_fields__ if name != "closed"]
    query = select(*(candles.c[name] for name in names)).order_by(*candles.primary_key.columns)
    with database.read() as connection:
        rows = connection.execute(query)
        return list({tuple(row[:4]): Candle(*row) for row in rows}.values())


def violations(database: Database, seen: Seen) -> Iterator[str]:
    """Yield every broken promise, as a sentence."""
    found = stored_candles(database)
    yield from candles_right(found, {symbol: [trade for _, trade in told] for symbol, told in seen.trades.items()})
    yield from told_once(seen)
    yield from trades_told(seen)
    with database.read() as connection:
        signals = [row.signal for row in read_signals(connection, MARKET, 1_000_000)]
    yield from signals_told({_what(signal): signal.raised_us for signal in signals}, seen)


def _what(signal: Signal) -> tuple[Any, ...]:
    named = (signal.strategy, signal.version, signal.variant, signal.venue, signal.symbol)
    return ("signal", *named, _NAMES[signal.interval_s], signal.open_time_us)


_NAMES = {seconds: name for name, seconds in INTERVALS_S.items()}


def candles_right(stored: Iterable[Candle], trades: Mapping[str, Sequence[Trade]]) -> Iterator[str]:
    """Whoever reads candles is told what collectors wrote, or that some of it may be missing.

    Of seconds only those are judged that are stored: one without trades has no row, nor has one that nobody saw.
    """
    right = {key: figures for symbol, told in trades.items() for key, figures in _recomputed(symbol, told)}
    series: dict[tuple[str, str, int], list[Candle]] = defaultdict(list)
    for candle in stored:
        series[candle.venue, candle.symbol, candle.interval_s].append(candle)
    for name, made in series.items():
        for candle in made if name[2] == 1 else filled(made, name[2] * 1_000_000):
            told = _figures(candle) if candle.trades else (0,)
            known = right.get((*name, candle.open_time_us), (0,))
            if told != known and not candle.incomplete:
                yield f"the candle {name} of {candle.open_time_us} is {told}, and {known} was traded"


def _recomputed(symbol: str, trades: Sequence[Trade]) -> Iterator[tuple[Key, Figures]]:
    once: dict[tuple[str, str, str, int], Trade] = {}
    for trade in trades:
        once.setdefault((trade.venue, trade.product_id, trade.trade_id, _time_us(trade)), trade)
    parts: dict[Key, list[Trade]] = defaultdict(list)
    for trade in once.values():
        for interval_s in INTERVALS_S.values():
            open_us = _time_us(trade) // (interval_s * 1_000_000) * (interval_s * 1_000_000)
            for venue in (trade.venue, EVERY_VENUE):
                parts[venue, symbol, interval_s, open_us].append(trade)
    for key, part in parts.items():
        # Sorting is stable: of trades of one time that which came first opens, and that which came last closes.
        part.sort(key=_time_us)
        prices = [trade.price for trade in part]
        sizes = [(trade.size, trade.size * trade.price, trade.size * (trade.taker_side == "buy")) for trade in part]
        volumes = (sum(each, Decimal(0)) for each in zip(*sizes, strict=True))
        yield key, (prices[0], max(prices), min(prices), prices[-1], *volumes, len(part))


def _time_us(trade: Trade) -> int:
    return trade.received_time_us if trade.exchange_time_us is None else trade.exchange_time_us


def _figures(candle: Candle) -> Figures:
    volumes = (candle.volume, candle.quote_volume, candle.taker_buy_volume)
    return (candle.open, candle.high, candle.low, candle.close, *volumes, candle.trades)


def told_once(seen: Seen) -> Iterator[str]:
    """A trade, a revision of a candle and a signal are told once, unless Redis has forgotten that they were.

    Even then two tellings of one revision agree, unless one of them says that trades may be missing.
    """
    lives: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    whole: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for telling in seen.tellings:
        lives[telling.what].append(seen.life(telling.at_ms))
        if telling.kind == "candle" and not telling.value["incomplete"]:
            before = whole.setdefault(telling.what, telling.value)
            if before != telling.value:
                yield f"{telling.what} was told as {before} and as {telling.value}"
    yield from (f"{what} was told twice" for what, each in lives.items() if len(set(each)) < len(each))


def trades_told(seen: Seen) -> Iterator[str]:
    """Every trade is told, from the first to the last that is told of its pair in one of Redis' lives."""
    told = {telling.what for telling in seen.tellings if telling.kind == "trade"}
    for symbol, trades in seen.trades.items():
        by_life: dict[int, dict[tuple[Any, ...], bool]] = defaultdict(dict)
        for at_ms, trade in trades:
            what = ("trade", trade.venue, trade.product_id, trade.trade_id, _time_us(trade))
            by_life[seen.life(at_ms)][what] = what in told
        for each in by_life.values():
            known = list(each.values())
            if not any(known):
                continue
            first, last = known.index(True), len(known) - known[::-1].index(True)
            for what in [what for what, is_told in list(each.items())[first:last] if not is_told]:
                yield f"{what} of {symbol} was never told, and later ones were"


def signals_told(raised: Mapping[tuple[Any, ...], int], seen: Seen) -> Iterator[str]:
    """What is told of signals is stored; what is stored was told, unless Redis forgot everything just then."""
    told = {telling.what for telling in seen.tellings if telling.kind == "signal"}
    yield from (f"{what} was told and is not stored" for what in told - raised.keys())
    for what in raised.keys() - told:
        if not any(0 <= forgot_ms * 1_000 - raised[what] < UNTOLD_US for forgot_ms in seen.forgot_ms):
            yield f"{what} is stored and was never told"
