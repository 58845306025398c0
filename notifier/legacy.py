"""`/ws/{exchange}/{ticker}` as another service had it: seven keys, every quote and trade (docs/coming-from.md)."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from models.bus.client import BusUnavailableError, connect_async, failures
from models.bus.latest import LatestPrice, decode_latest
from models.bus.legacy import ticker_form
from models.bus.names import latest_key, quotes_stream
from models.bus.quotes import decode, entries_of
from models.domain.instruments import Instrument, Instruments, Product, UnknownSymbolError
from models.domain.quotes import Mark, Quote, Trade
from models.domain.shards import shard_of
from models.metrics import is_loopback
from models.settings import Settings
from notifier.doors import Doors
from notifier.metrics import NotifierMetrics
from notifier.sockets import BAD_REQUEST, TRY_AGAIN, Closing, admit, conversation, converse

QUOTED_IN = {
    "binance": "USDT",
    "coinbase": "USD",
    "deribit": "USDT",
    "htx": "USDT",
    "kraken": "USD",
    "okx": "USDT",
}
KIND = "ticker"
WAITING_MAX = 10_000  # messages of a client that does not keep up
READ_MAX = 16  # batches at once: the event loop is others' too
RECENT = 8  # batches whose latest prices may not have been written when a client comes
BLOCK_MS = 1_000
GATHER_S = 0.005  # between two reads that found few: each costs 0.3 ms of CPU, whatever it brings
RETRY_S = 1.0
FULL = f"{WAITING_MAX} messages were left unread; connect again"
NOWHERE = b"0-0"
MISSED = "quotes were missed; connect again"

log = structlog.get_logger()


def found(exchange: str, ticker: str, instruments: Instruments) -> tuple[Instrument, Product]:
    """Return what an address names. Raises Closing with what would be right."""
    quoted_in = QUOTED_IN.get(exchange)
    if quoted_in is None:
        raise Closing(BAD_REQUEST, f"there is no exchange {exchange[:40]!r}; there are {', '.join(QUOTED_IN)}")
    try:
        instrument = instruments.resolve(f"{ticker[:40]}-{quoted_in}")
    except UnknownSymbolError as error:
        near = [symbol.split("-")[0] for symbol in error.near if symbol.endswith(f"-{quoted_in}")]
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise Closing(BAD_REQUEST, f"there is no ticker {ticker[:40]!r} against {quoted_in}{hint}") from error
    for product in instrument.products:
        if product.venue == exchange:
            return instrument, product
    others = ", ".join(name for name, quote in QUOTED_IN.items() if quote == quoted_in and name in instrument.venues)
    raise Closing(BAD_REQUEST, f"{exchange} has no {instrument.symbol}; these have: {others}")


class Client:
    """What waits for one client. When too much does, nothing more is added and the client is closed."""

    def __init__(self, metrics: NotifierMetrics) -> None:
        self._metrics = metrics
        self._waiting: asyncio.Queue[str] = asyncio.Queue(WAITING_MAX)
        self._end = asyncio.Event()
        self._reason = ""

    def put(self, message: str) -> None:
        """Add a message."""
        if self._end.is_set():
            return
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.end(FULL)

    def end(self, reason: str) -> None:
        """Close the connection: from here on it would have a hole."""
        self._reason = reason
        self._end.set()

    async def send(self, socket: WebSocket) -> None:
        """Send what comes."""
        while True:
            await socket.send_text(await self._waiting.get())
            self._metrics.told.labels(KIND).inc()

    async def ended(self) -> None:
        """Wait for the end. Raises Closing."""
        await self._end.wait()
        self._metrics.cut_off.inc()
        raise Closing(TRY_AGAIN, self._reason)


class Ticker:
    """One product as its exchange tells it, for all its clients."""

    def __init__(self, exchange: str, ticker: str) -> None:
        self.clients: set[Client] = set()
        self._names = exchange, ticker
        self._sides: tuple[Decimal | None, ...] = (None,) * 4
        self._last: Decimal | None = None
        self._early: list[tuple[tuple[int, int], Quote | Trade]] | None = []  # None once it has begun
        self._begun_at = (0, 0)

    def add(self, client: Client) -> None:
        """Add a client, whose first message is what is true now."""
        self.clients.add(client)
        if self._early is None:
            client.put(self._message())

    def begin(self, latest: LatestPrice | None, recent: Sequence[Quote | Trade], place: tuple[int, int]) -> None:
        """Take in what was true at a place of the stream, and then what has come after it.

        A batch is in the stream a moment before its latest prices are written, so the newest batches count too.
        """
        quoted_us = traded_us = 0
        if latest is not None:
            self._sides = (latest.bid_size, latest.bid, latest.ask, latest.ask_size)
            self._last = latest.last
            quoted_us, traded_us = latest.quote_time_us or 0, latest.last_time_us or 0
        for item in recent:
            if item.received_time_us >= (quoted_us if isinstance(item, Quote) else traded_us):
                self._note(item)
        early, self._early, self._begun_at = self._early or [], None, place
        for client in self.clients:
            client.put(self._message())
        for read_at, item in early:
            self.take(read_at, item)

    def take(self, place: tuple[int, int], item: Quote | Trade) -> None:
        """Tell every client of a quote or a trade; what was before the beginning is known."""
        if self._early is not None:
            self._early.append((place, item))
        elif place > self._begun_at and self._note(item):
            message = self._message()
            for client in self.clients:
                client.put(message)

    def _note(self, item: Quote | Trade) -> bool:
        if isinstance(item, Quote):
            self._sides = (item.bid_size, item.bid_price, item.ask_price, item.ask_size)
        elif item.before and self._last is not None:
            return False  # from before the subscription: no news where a price is known
        else:
            self._last = item.price
        return True

    def _message(self) -> str:
        bid_size, bid, ask, ask_size = self._sides
        told = ticker_form(*self._names, (bid, bid_size), self._last, (ask, ask_size))
        return orjson.dumps(told).decode()


def _place(entry_id: bytes) -> tuple[int, int]:
    time_ms, _, number = entry_id.partition(b"-")
    return int(time_ms), int(number or 0)


class Tail:
    """Reads one shard's stream while somebody wants something of it."""

    def __init__(self, bus: Redis, shard: int, market: str) -> None:
        self._bus = bus
        self._stream = quotes_stream(shard)
        self._market = market
        self._tickers: dict[tuple[str, str], Ticker] = {}
        self._clients: dict[Client, Ticker] = {}
        self._last_id: bytes | None = None
        self._started = asyncio.Event()
        self._away = False
        self._closed = False
        self._tasks = {asyncio.create_task(self._guarded(self._run()))}

    def __len__(self) -> int:
        return len(self._clients)

    def add(self, client: Client, instrument: Instrument, product: Product) -> None:
        """Add a client of a product."""
        ticker = self._tickers.get(_of(product))
        if ticker is None:
            ticker = self._tickers[_of(product)] = Ticker(product.venue, instrument.base)
            beginning = asyncio.create_task(self._guarded(self._begin(ticker, product, instrument.symbol)))
            self._tasks.add(beginning)
            beginning.add_done_callback(self._tasks.discard)
        self._clients[client] = ticker
        ticker.add(client)

    def remove(self, client: Client) -> None:
        """Remove a client."""
        ticker = self._clients.pop(client)
        ticker.clients.discard(client)
        if not ticker.clients:
            self._tickers = {name: each for name, each in self._tickers.items() if each is not ticker}

    def close(self) -> None:
        """End. To cancel is not enough: redis-py may answer in spite of it where an answer came at the same time."""
        self._closed = True
        for task in self._tasks:
            task.cancel()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- whatever it is, clients may not wait for ever
            log.warning("a stream is not told any more", stream=self._stream, error=repr(error))
            self._lose("something failed here; connect again")

    def _lose(self, reason: str) -> None:
        for client in self._clients:
            client.end(reason)
        self._tickers.clear()

    async def _run(self) -> None:
        """Read. While the bus is away it waits; where entries were missed, clients are closed."""
        while not self._closed:
            try:
                with failures():
                    if self._last_id is None:
                        newest: Any = await self._bus.xrevrange(self._stream, count=1)
                        self._last_id = newest[0][0] if newest else NOWHERE
                        self._started.set()
                    streams: Any = {self._stream: self._last_id}
                    entries = entries_of(await self._bus.xread(streams, count=READ_MAX, block=BLOCK_MS))
                    if entries and (self._away or len(entries) == READ_MAX):
                        await self._look_for_a_hole(self._last_id)
            except BusUnavailableError as error:
                if not self._away:
                    log.warning("a stream cannot be read", stream=self._stream, error=str(error))
                self._away = True
                await asyncio.sleep(RETRY_S)
                continue
            self._away = False
            for entry_id, fields in entries:
                self._last_id = entry_id
                for item in _items(fields):
                    ticker = self._tickers.get((item.venue, item.product_id))
                    if ticker is not None:
                        ticker.take(_place(entry_id), item)
            await asyncio.sleep(GATHER_S if len(entries) < READ_MAX else 0)

    async def _look_for_a_hole(self, read_to: bytes) -> None:
        """Close the clients where the stream begins after the place that was read to: it was trimmed, or emptied."""
        oldest: Any = await self._bus.xrange(self._stream, count=1)
        if read_to != NOWHERE and oldest and _place(oldest[0][0]) > _place(read_to):
            log.warning("quotes were missed", stream=self._stream)
            self._lose(MISSED)

    async def _begin(self, ticker: Ticker, product: Product, symbol: str) -> None:
        """Find what is true of a ticker now. It is among the others already, so what comes meanwhile is kept."""
        await self._started.wait()
        while not self._closed:
            pipeline = self._bus.pipeline()
            pipeline.xrevrange(self._stream, count=RECENT)
            pipeline.hgetall(latest_key(symbol))
            try:
                with failures():
                    entries, fields = await pipeline.execute()
                break
            except BusUnavailableError:
                await asyncio.sleep(RETRY_S)
        else:
            return
        latest = decode_latest(fields).get(product.venue)
        items = [item for _, batch in reversed(entries) for item in _items(batch)]
        recent = [item for item in items if (item.venue, item.product_id) == _of(product)]
        place = _place(entries[0][0] if entries else NOWHERE)
        ticker.begin(latest if latest is not None and latest.market == self._market else None, recent, place)


def _items(fields: Mapping[bytes, bytes]) -> list[Quote | Trade]:
    return [item for item in decode(fields[b"b"]) if not isinstance(item, Mark)]


def _of(product: Product) -> tuple[str, str]:
    return product.venue, product.id


class Tickers:
    """Serves the route. Without clients nothing is read."""

    def __init__(self, settings: Settings, doors: Doors) -> None:
        self._settings = settings
        self._doors = doors
        self._bus = connect_async(settings.bus)
        self._tails: dict[int, Tail] = {}
        self.route = WebSocketRoute("/ws/{exchange}/{ticker}", self._serve)
        doors.metrics.subscriptions.labels(KIND).set_function(lambda: sum(map(len, self._tails.values())))

    async def _serve(self, socket: WebSocket) -> None:
        await conversation(socket, self._talk(socket))

    async def close(self) -> None:
        """End."""
        for tail in self._tails.values():
            tail.close()
        await self._bus.aclose()

    async def _talk(self, socket: WebSocket) -> None:
        # The service that had this form asked for no token; nor do prices over HTTP. Beyond this machine one is needed.
        await admit(socket, self._doors, open_to_all=is_loopback(self._settings.host))
        path = socket.path_params
        instrument, product = found(path["exchange"].lower(), path["ticker"], await self._doors.instruments())
        shard = shard_of(instrument.symbol, await self._doors.shards())
        tail = self._tails.get(shard)
        if tail is None:
            tail = self._tails[shard] = Tail(self._bus, shard, self._settings.market.value)
        client = Client(self._doors.metrics)
        tail.add(client, instrument, product)
        try:
            await converse(socket, client.send(socket), client.ended())
        finally:
            tail.remove(client)
            if not tail:
                tail.close()
                del self._tails[shard]
