"""A simulated venue inside the test, that notes every frame which it sends; and what those frames say."""

import asyncio
import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.domain.instruments import INSTRUMENTS, Instruments
from simulator import binance, coinbase, deribit, htx, kraken, okx
from simulator.market import Event, Listing, Market
from simulator.server import Venue
from simulator.wire import Close, Session, Wire

WIRES = {wire.name: wire for wire in (binance.WIRE, coinbase.WIRE, kraken.WIRE, htx.WIRE, okx.WIRE, deribit.WIRE)}
# Large and tiny prices, where the venue has both.
SYMBOLS = {
    "binance": ("BTC-USDT", "LTC-BTC", "XRP-BTC"),
    "coinbase": ("BTC-USD", "ETH-USD", "LTC-BTC"),
    "kraken": ("BTC-USD", "LTC-BTC", "TRX-BTC"),
    "htx": ("BTC-USDT", "LTC-BTC", "DOGE-BTC"),
    "okx": ("BTC-USDT", "ETH-USD", "XRP-USD"),
    "deribit": ("BTC-USDT", "BTC-USDC", "ETH-USDC"),
}
TICK_S = 0.005  # ten times as fast as the market is elsewhere, so that a few seconds are enough

Said = dict[str, str]


class Noted:
    """A session whose frames are noted."""

    def __init__(self, session: Session, frames: list[str]) -> None:
        self._session = session
        self._frames = frames

    @property
    def subscribed(self) -> bool:
        return self._session.subscribed

    def answer(self, text: str, now_us: int) -> list[str]:
        return self._note(self._session.answer(text, now_us))

    def frames(self, event: Event) -> list[str]:
        return self._note(self._session.frames(event))

    def recorded(self, frame: str) -> str | None:
        return self._session.recorded(frame)

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:
        return self._note(self._session.heartbeats(now_us, replaying=replaying))

    def overdue(self, now_us: int) -> Close | None:
        return self._session.overdue(now_us)

    def _note(self, frames: list[str]) -> list[str]:
        self._frames += frames
        return frames


@dataclass
class Simulated:
    """A venue that listens at a port of loopback; `frames` are those that it sent."""

    name: str
    port: int = 0
    frames: list[str] = field(default_factory=list)

    def products(self) -> dict[str, str]:
        """Return the names that the venue gives to its symbols."""
        return {
            symbol: product.id
            for symbol in SYMBOLS[self.name]
            for product in INSTRUMENTS[symbol].products
            if product.venue == self.name
        }

    def said(self, kind: str, channel: str | None = None) -> dict[str, list[Said]]:
        """Return what the frames said, by product: its quotes (of a channel, where it has several) or its trades."""
        found: dict[str, list[Said]] = {}
        for frame in self.frames:
            for what, source, said in _said(self.name, frame):
                if what == kind and channel in (None, source):
                    found.setdefault(said.pop("product"), []).append(said)
        return found


@contextlib.contextmanager
def simulated(name: str, tls: ssl.SSLContext | None = None) -> Iterator[Simulated]:
    """Run a venue on a free port, in a thread of its own; with `tls` behind a proxy that ends it."""
    noted = Simulated(name)
    ready, stopped = threading.Event(), threading.Event()

    def session(target: str, listings: Mapping[str, Listing] | None) -> Session:
        return Noted(WIRES[name].session(target, listings), noted.frames)

    serving = _serve(replace(WIRES[name], session=session), noted, tls, ready, stopped)
    thread = threading.Thread(target=asyncio.run, args=(serving,))
    thread.start()
    try:
        assert ready.wait(10)
        yield noted
    finally:
        stopped.set()
        thread.join(10)
        assert not thread.is_alive()


async def _serve(
    wire: Wire, noted: Simulated, tls: ssl.SSLContext | None, ready: threading.Event, stopped: threading.Event
) -> None:
    market = Market(Instruments(INSTRUMENTS[symbol] for symbol in SYMBOLS[noted.name]), [wire.name], 7, _now_us())
    venue = Venue(wire, market.of_venue(wire.name))
    server = await venue.listen(0)
    noted.port = next(iter(server.sockets)).getsockname()[1]
    proxy = await _end_tls(noted.port, tls) if tls else None
    if proxy:
        noted.port = proxy.sockets[0].getsockname()[1]
    ready.set()
    beaten_us = 0
    while not stopped.is_set():
        await asyncio.sleep(TICK_S)
        now_us = _now_us()
        if venue.busy:
            venue.tell(market.tick(now_us))
        if now_us - beaten_us >= 1_000_000:
            venue.beat(now_us)
            beaten_us = now_us
    if proxy:
        proxy.close()
    server.close()
    await server.wait_closed()
    pipes = asyncio.all_tasks() - {asyncio.current_task()}  # the proxy's, which end with their connections
    await asyncio.gather(*pipes)


async def _end_tls(port: int, tls: ssl.SSLContext) -> asyncio.Server:
    """Listen with TLS, and pass on what comes to a port without it."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)


def _now_us() -> int:
    return time.time_ns() // 1000


def _named(fields: Mapping[str, Any], **names: str) -> Said:
    return {name: fields[theirs] for name, theirs in names.items()}


Reading = Iterator[tuple[str, str, Said]]  # "quote" or "trade", the channel, the numbers as they were sent


def _said(venue: str, frame: str) -> Reading:
    """Yield what a frame says, read without the project's own protocols."""
    parsed = json.loads(frame, parse_float=str, parse_int=str) if frame.startswith("{") else {}
    yield from READINGS[venue](parsed)


def _binance(frame: dict[str, Any]) -> Reading:
    data = frame.get("data", frame)
    if data.get("e") in ("trade", "aggTrade"):
        said = _named(data, product="s", price="p", size="q", id="t" if data["e"] == "trade" else "a")
        yield "trade", data["e"], {**said, "side": "sell" if data["m"] else "buy"}
    elif "u" in data:
        yield "quote", "bookTicker", _named(data, product="s", bid="b", bid_size="B", ask="a", ask_size="A")


def _coinbase(frame: dict[str, Any]) -> Reading:
    if frame["type"] == "match":
        said = _named(frame, product="product_id", price="price", size="size", id="trade_id")
        yield "trade", "matches", {**said, "side": "sell" if frame["side"] == "buy" else "buy"}  # the maker's
    elif frame["type"] == "ticker":
        best = {"bid": "best_bid", "bid_size": "best_bid_size", "ask": "best_ask", "ask_size": "best_ask_size"}
        yield "quote", "ticker", _named(frame, product="product_id", **best)


def _kraken(frame: dict[str, Any]) -> Reading:
    for data in frame.get("data", ()):
        if frame["channel"] == "trade":
            yield (
                "trade",
                "trade",
                _named(data, product="symbol", price="price", size="qty", id="trade_id", side="side"),
            )
        elif frame["channel"] == "ticker":
            names = {"bid": "bid", "bid_size": "bid_qty", "ask": "ask", "ask_size": "ask_qty"}
            yield "quote", "ticker", _named(data, product="symbol", **names)


def _htx(frame: dict[str, Any]) -> Reading:
    _, product, channel = frame.get("ch", "..").split(".", 2)
    tick = frame.get("tick", {})
    if channel == "trade.detail":
        for data in tick["data"]:
            said = _named(data, price="price", size="amount", id="tradeId", side="direction")
            yield "trade", channel, {"product": product, **said}
    elif channel == "detail":
        names = {"open": "open", "high": "high", "low": "low", "last": "close", "volume": "amount", "turnover": "vol"}
        yield "quote", channel, {"product": product, **_named(tick, **names)}
    elif channel == "ticker":
        said = _named(tick, bid="bid", bid_size="bidSize", ask="ask", ask_size="askSize")
        yield "quote", channel, {"product": product, **said}


def _okx(frame: dict[str, Any]) -> Reading:
    channel, product = (frame.get("arg", {}).get(name, "") for name in ("channel", "instId"))
    for data in frame.get("data", ()):
        if channel == "trades":
            yield "trade", channel, _named(data, product="instId", price="px", size="sz", id="tradeId", side="side")
        elif channel == "bbo-tbt":
            (bid, bid_size, *_), (ask, ask_size, *_) = data["bids"][0], data["asks"][0]
            said = {"bid": bid, "bid_size": bid_size, "ask": ask, "ask_size": ask_size}
            yield "quote", channel, {"product": product, **said}
        elif channel == "tickers":
            yield (
                "quote",
                channel,
                _named(data, product="instId", bid="bidPx", bid_size="bidSz", ask="askPx", ask_size="askSz"),
            )


def _deribit(frame: dict[str, Any]) -> Reading:
    channel, _, _ = frame.get("params", {}).get("channel", "").partition(".")
    if channel == "trades":
        for data in frame["params"]["data"]:
            names = {"price": "price", "size": "amount", "id": "trade_id", "side": "direction"}
            yield "trade", channel, _named(data, product="instrument_name", **names)
    elif channel == "quote":
        names = {
            f"{side}{ours}": f"best_{side}_{theirs}"
            for side in ("bid", "ask")
            for ours, theirs in (("", "price"), ("_size", "amount"))
        }
        yield "quote", channel, _named(frame["params"]["data"], product="instrument_name", **names)


READINGS: dict[str, Callable[[dict[str, Any]], Reading]] = {
    "binance": _binance,
    "coinbase": _coinbase,
    "kraken": _kraken,
    "htx": _htx,
    "okx": _okx,
    "deribit": _deribit,
}
