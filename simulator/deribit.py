"""Deribit's side of the wire: JSON-RPC, channels, heartbeats and credits (docs.deribit.com)."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from simulator.market import MINUTE_US, BookChanged, Candle, Event, IndexMoved, Listing, Top, Traded
from simulator.pasts import Answer, ParameterError, asked
from simulator.wire import Close, Renumber, Timing, Wire

CHANNELS_MAX = 500  # a call
TOOK_US = 93  # from a request to its answer
INTERVAL_S_MIN = 10  # of heartbeats
UNANSWERED_US = 10_000_000
IDLE_US = 60_500_000
VERSION = "1.2.26"
PACES = ("100ms", "agg2")
# A kind of channel -> the last parts that its names may have.
ENDS: dict[str, tuple[str, ...]] = {"quote": ("",), "deribit_price_index": ("",), "chart.trades": (".1",)}
ENDS |= {kind: tuple(f".{pace}" for pace in PACES) for kind in ("ticker", "trades", "book")}

_NAME = re.compile(rf"({'|'.join(map(re.escape, ENDS))})\.([^.]+)(|\.[^.]+)")
_CHANNEL = re.compile(r'("channel": ?")([^"]+)')
_INSTRUMENT = re.compile(r'"instrument_name": ?"([^"]+)"')
_TRADE_SEQ = re.compile(r'("trade_seq": ?)(\d+)')
_TRADE_ID = re.compile(r'("trade_id": ?"\D*)(\d+)')
_CHANGE_ID = re.compile(r'("(?:prev_)?change_id": ?)(\d+)')
_TIMESTAMP = re.compile(r'("timestamp": ?)(\d+)')
_MINUTE = re.compile(r'("tick": ?)(\d+)')

_encoder = msgspec.json.Encoder(decimal_format="number")


class RequestError(ValueError):
    """A request that the venue refuses, with its code for that and what more it says."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


@dataclass
class Credits:
    """What requests are paid with: each costs `cost`, and a pool fills up again by 10,000 a second."""

    cost: int
    pool: int
    left: float = 0.0
    counted_us: int | None = None

    def pay(self, now_us: int) -> None:
        """Pay for a request. Raises RequestError where the pool has not enough."""
        passed_us = 0 if self.counted_us is None else max(0, now_us - self.counted_us)
        self.left = self.pool if self.counted_us is None else min(self.pool, self.left + passed_us / 100)
        self.counted_us = now_us
        if self.left < self.cost:
            raise RequestError(10028, "too_many_requests")
        self.left -= self.cost


@dataclass
class Book:
    """What a connection knows of a book: its latest change, and the levels that it has."""

    change_id: int
    levels: set[tuple[str, Decimal]]


class Session:
    """One connection: its channels, and the heartbeat that it asked for."""

    def __init__(self, _target: str, listings: Mapping[str, Listing] | None) -> None:
        self._listings = listings
        self._channels: dict[str, None] = {}
        self._books: dict[str, Book] = {}
        self._credits, self._subscribe_credits = Credits(500, 50_000), Credits(3_000, 30_000)
        self._broke = False
        self._interval_us = 0
        self._beaten_us = 0
        self._tested_us: int | None = None  # when the test_request was sent that is not answered
        self._heard_us: int | None = None
        self._methods = {
            "public/subscribe": self._subscribe,
            "public/unsubscribe": self._unsubscribe,
            "public/unsubscribe_all": self._unsubscribe_all,
            "public/set_heartbeat": self._set_heartbeat,
            "public/disable_heartbeat": self._disable_heartbeat,
            "public/test": self._test,
            "public/hello": self._hello,
            "public/get_time": self._get_time,
        }

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._channels)

    def answer(self, text: str, now_us: int) -> list[str]:
        """Return the answer to a request, and the first messages of channels that begin with what there is."""
        self._heard_us = now_us
        number: dict[str, object] = {}
        before = set(self._channels)
        try:
            request = _request(text)
            number = {"id": request["id"]} if "id" in request else {}
            outcome: dict[str, object] = {"result": self._do(request, now_us)}
        except RequestError as error:
            outcome = {"error": error.error}
        times = {"usIn": now_us, "usOut": now_us + TOOK_US, "usDiff": TOOK_US, "testnet": False}
        answer = _dump({"jsonrpc": "2.0"} | number | outcome | times)
        return [answer, *(first for name in self._channels if name not in before for first in self._first(name))]

    def _do(self, request: dict[str, Any], now_us: int) -> object:
        """Do what is asked and return the result. Raises RequestError."""
        name, params = request.get("method"), request.get("params") or {}
        try:
            (self._subscribe_credits if name == "public/subscribe" else self._credits).pay(now_us)
        except RequestError:
            self._broke = True
            raise
        method = self._methods.get(name) if isinstance(name, str) else None
        if method is None:
            raise RequestError(-32601, "Method not found")
        if not isinstance(params, dict):
            raise _invalid("params", "wrong format")
        return method(params, now_us)

    def _subscribe(self, params: dict[str, Any], _now_us: int) -> list[str]:
        names = _names(params)
        if self._listings is not None and any(name.endswith(".raw") for name in names):
            raise RequestError(13778, "raw_subscriptions_not_available_for_unauthorized")
        # What there is not is left out without a word.
        taken = sorted({name for name in names if self._is_channel(name)})
        self._channels.update(dict.fromkeys(taken))
        return taken

    def _is_channel(self, name: str) -> bool:
        if self._listings is None:
            return True
        match = _NAME.fullmatch(name)
        listing = self._listings.get(match[2]) if match else None
        if match is None or listing is None or match[3] not in ENDS[match[1]]:
            return False
        return listing.product.price_only is (match[1] == "deribit_price_index")

    def _unsubscribe(self, params: dict[str, Any], _now_us: int) -> list[str]:
        given = sorted({name for name in _names(params) if name in self._channels})
        for name in given:
            del self._channels[name]
            self._books.pop(name, None)
        return given

    def _unsubscribe_all(self, _params: dict[str, Any], _now_us: int) -> str:
        self._channels.clear()
        self._books.clear()
        return "ok"

    def _set_heartbeat(self, params: dict[str, Any], now_us: int) -> str:
        interval_s = params.get("interval")
        if not isinstance(interval_s, int | float) or not interval_s >= INTERVAL_S_MIN:
            raise _invalid("interval", f"must be a number of at least {INTERVAL_S_MIN}")
        self._interval_us, self._beaten_us = int(interval_s * 1_000_000), now_us
        return "ok"

    def _disable_heartbeat(self, _params: dict[str, Any], _now_us: int) -> str:
        self._interval_us, self._tested_us = 0, None
        return "ok"

    def _test(self, _params: dict[str, Any], _now_us: int) -> dict[str, str]:
        self._tested_us = None
        return {"version": VERSION}

    def _hello(self, _params: dict[str, Any], _now_us: int) -> dict[str, str]:
        return {"version": VERSION}

    def _get_time(self, _params: dict[str, Any], now_us: int) -> int:
        return now_us // 1000

    def _first(self, name: str) -> list[str]:
        """Return what a new channel begins with: what there is of a book and its best prices, and of an index."""
        match = _NAME.fullmatch(name)
        if self._listings is None or match is None:
            return []
        kind, listing = match[1], self._listings[match[2]]
        data: dict[str, Any]
        if kind == "deribit_price_index":
            data = _index(IndexMoved(listing.product, listing.index, listing.time_us))
        elif kind == "book":
            bids, asks = listing.levels("buy"), listing.levels("sell")
            levels = {(side, price) for side, held in (("buy", bids), ("sell", asks)) for price, _ in held}
            self._books[name] = Book(listing.sequence, levels)
            data = _book(listing.product.id, listing.time_us, "snapshot", listing.sequence) | {
                "bids": [["new", _number(price), _number(size)] for price, size in bids],
                "asks": [["new", _number(price), _number(size)] for price, size in asks],
            }
        elif kind in ("quote", "ticker"):
            (bid, bid_size), (ask, ask_size) = listing.levels("buy")[0], listing.levels("sell")[0]
            top = Top(bid, bid_size, ask, ask_size)
            now = BookChanged(listing.product, listing.sequence, top, (), listing.time_us)
            data = _quote(now) if kind == "quote" else _ticker(now, listing.last_trade)
        else:
            return []
        return [_told(name, data)]

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event."""
        product_id = event.product.id
        if isinstance(event, IndexMoved):
            return self._tell((f"deribit_price_index.{product_id}",), lambda: _index(event))
        if isinstance(event, Traded):
            trades = self._tell(_paces("trades", product_id), lambda: [_trade(event)])
            return trades + self._tell((f"chart.trades.{product_id}.1",), lambda: _candle(event.candle))
        listing = self._listings.get(product_id) if self._listings is not None else None
        quotes = self._tell((f"quote.{product_id}",), lambda: _quote(event))
        tickers = self._tell(
            _paces("ticker", product_id), lambda: _ticker(event, listing.last_trade if listing else None)
        )
        books = [_told(name, self._change(name, event)) for name in _paces("book", product_id) if name in self._books]
        return quotes + tickers + books

    def _tell(self, names: Iterable[str], data: Callable[[], object]) -> list[str]:
        wanted = [name for name in names if name in self._channels]
        told = data() if wanted else None
        return [_told(name, told) for name in wanted]

    def _change(self, name: str, event: BookChanged) -> dict[str, Any]:
        """Return what changed in a book since this connection heard of it last."""
        book, sides = self._books[name], {"buy": list[list[object]](), "sell": list[list[object]]()}
        for side, price, size in event.changes:
            word = "delete" if not size else "change" if (side, price) in book.levels else "new"
            sides[side].append([word, _number(price), _number(size)])
            (book.levels.add if size else book.levels.discard)((side, price))
        before, book.change_id = book.change_id, event.sequence
        head = _book(event.product.id, event.time_us, "change", event.sequence)
        return head | {"bids": sides["buy"], "asks": sides["sell"], "prev_change_id": before}

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, or None where its channel was not asked for, at whatever pace.

        It gets the name that this connection asked for: a recording of `.raw` serves `.100ms` too.
        """
        match = _CHANNEL.search(frame)
        if match is None or match[2] in self._channels:
            return frame if match else None
        mine = _subject(match[2])
        asked = next((name for name in self._channels if mine is not None and _subject(name) == mine), None)
        return None if asked is None else f"{frame[: match.start(2)]}{asked}{frame[match.end(2) :]}"

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:  # noqa: ARG002 -- no recording has its own
        """Return a heartbeat in each interval, with a test_request unless one is still unanswered."""
        if not self._interval_us or now_us - self._beaten_us < self._interval_us:
            return []
        self._beaten_us = now_us
        kinds = ["heartbeat"]
        if self._tested_us is None:
            self._tested_us = now_us
            kinds.append("test_request")
        return [_dump({"params": {"type": kind}, "method": "heartbeat", "jsonrpc": "2.0"}) for kind in kinds]

    def overdue(self, now_us: int) -> Close | None:
        """Return why the venue closes: too many requests, a test_request unanswered, or nothing going on."""
        if self._broke:
            return Close(1008, "too_many_requests")
        if self._tested_us is not None and now_us - self._tested_us >= UNANSWERED_US:
            return Close(4000, "heartbeat close")
        if self._heard_us is None or self.subscribed or self._interval_us:
            self._heard_us = now_us
        return Close(1001, "") if now_us - self._heard_us >= IDLE_US else None


def _request(text: str) -> dict[str, Any]:
    """Return a request. Raises RequestError."""
    try:
        request = json.loads(text)
    except ValueError as error:
        raise RequestError(11050, "bad_request", "invalid json") from error
    if not isinstance(request, dict):
        raise RequestError(11050, "bad_request", "invalid json")
    return request


def _names(params: dict[str, Any]) -> list[str]:
    """Return the channels that a request names. Raises RequestError."""
    names = params.get("channels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _invalid("channels", "must be a list of names")
    if len(names) > CHANNELS_MAX:
        raise _invalid("channels", f"must be at most {CHANNELS_MAX}")
    return names


def _invalid(param: str, reason: str) -> RequestError:
    return RequestError(-32602, "Invalid params", {"reason": reason, "param": param})


def _subject(name: str) -> tuple[str, str] | None:
    match = _NAME.fullmatch(name)
    return (match[1], match[2]) if match else None


def _paces(kind: str, product_id: str) -> Iterable[str]:
    return (f"{kind}.{product_id}.{pace}" for pace in PACES)


def _dump(message: object) -> str:
    return _encoder.encode(message).decode()


def _told(channel: str, data: object) -> str:
    return _dump({"jsonrpc": "2.0", "method": "subscription", "params": {"channel": channel, "data": data}})


def _number(value: Decimal) -> Decimal:
    """Return a number as the venue writes it: 92288.0, and 0.0013."""
    shown = value.normalize()
    return shown.quantize(Decimal("0.1")) if shown == shown.to_integral_value() else shown


def _index(event: IndexMoved) -> dict[str, Any]:
    return {
        "timestamp": event.time_us // 1000,
        "price": _number(event.price),
        "index_name": event.product.id,
    }


def _best(top: Top) -> dict[str, Decimal]:
    return {
        "best_ask_price": _number(top.ask),
        "best_bid_price": _number(top.bid),
        "best_ask_amount": _number(top.ask_size),
        "best_bid_amount": _number(top.bid_size),
    }


def _quote(event: BookChanged) -> dict[str, Any]:
    return {"timestamp": event.time_us // 1000, "instrument_name": event.product.id} | _best(event.top)


def _ticker(event: BookChanged, last: Traded | None) -> dict[str, Any]:
    top = event.top
    mid = (top.bid + top.ask) / 2
    stats = (
        {
            "high": _number(last.high),
            "low": _number(last.low),
            "price_change": round((last.price / last.open - 1) * 100, 4),
            "volume": _number(last.volume),
            "volume_usd": round(last.turnover, 2),
            "volume_notional": round(last.turnover, 4),
        }
        if last
        else {}
    )
    return {
        "timestamp": event.time_us // 1000,
        "state": "open",
        "stats": stats,
        "index_price": round(mid, 4),
        "instrument_name": event.product.id,
        "last_price": _number(last.price) if last else None,
        "min_price": round(mid * Decimal("0.98"), 1),
        "max_price": round(mid * Decimal("1.02"), 1),
        "mark_price": round(mid, 4),
    } | _best(top)


def _book(product_id: str, time_us: int, kind: str, change_id: int) -> dict[str, Any]:
    return {"timestamp": time_us // 1000, "type": kind, "change_id": change_id, "instrument_name": product_id}


def _trade(trade: Traded) -> dict[str, Any]:
    mid = round((trade.top.bid + trade.top.ask) / 2, 4)
    return {
        "timestamp": trade.time_us // 1000,
        "price": _number(trade.price),
        "direction": trade.taker_side,
        "index_price": mid,
        "instrument_name": trade.product.id,
        "trade_seq": trade.trade_id,
        "amount": _number(trade.size),
        "mark_price": mid,
        "tick_direction": 0 if trade.taker_side == "buy" else 2,
        "trade_id": str(trade.sequence),  # of the whole venue: it rises, but not by one
    }


def _candle(candle: Candle) -> dict[str, Any]:
    return {
        "volume": _number(candle.volume),
        "tick": candle.start_us // 1000,
        "open": _number(candle.open),
        "low": _number(candle.low),
        "high": _number(candle.high),
        "cost": _number(candle.turnover),
        "close": _number(candle.close),
    }


def is_trade(frame: str) -> bool:
    """Say whether a frame is a trade's."""
    return '"channel":"trades.' in frame


def renumbered(frame: str, renumber: Renumber, later_us: int) -> str:
    """Return a recorded frame with other ids, and times that are so much later; candles go by whole minutes."""
    match = _INSTRUMENT.search(frame)
    if match:
        name = match[1]
        frame = _TRADE_SEQ.sub(lambda m: f"{m[1]}{renumber(f'{name} seq', int(m[2]))}", frame)
        frame = _TRADE_ID.sub(lambda m: f"{m[1]}{renumber(f'{name} trade', int(m[2]))}", frame)
        frame = _CHANGE_ID.sub(lambda m: f"{m[1]}{renumber(f'{name} change', int(m[2]))}", frame)
    frame = _MINUTE.sub(lambda m: f"{m[1]}{int(m[2]) + later_us // 60_000_000 * 60_000}", frame)
    return _TIMESTAMP.sub(lambda m: f"{m[1]}{int(m[2]) + later_us // 1000}", frame)


RESOLUTIONS_MIN = {"1": 1, "5": 5, "15": 15, "60": 60, "1D": 1_440}
CHART_MAX = 5_000


def past(target: str, listings: Mapping[str, Listing], now_us: int) -> Answer | None:
    """Answer GET /api/v2/public/get_tradingview_chart_data: columns, oldest first. An index has no candles."""
    wanted = asked(target)
    if wanted.path != "/api/v2/public/get_tradingview_chart_data":
        return None
    listing = listings.get(wanted.given.get("instrument_name", ""))
    minutes = RESOLUTIONS_MIN.get(wanted.given.get("resolution", ""))
    try:
        start_us, end_us = (wanted.number(f"{name}_timestamp") * 1_000 for name in ("start", "end"))
    except ParameterError:
        minutes = None
    if listing is None or listing.product.price_only or minutes is None:
        return Answer({"jsonrpc": "2.0", "error": {"code": -32602, "message": "Invalid params"}}, 400)
    length_us = minutes * MINUTE_US
    made = listing.candles(length_us, max(start_us, end_us - CHART_MAX * length_us), end_us + 1, now_us)
    columns = {
        **{name: [float(getattr(each, name)) for each in made] for name in ("open", "high", "low", "close", "volume")},
        "cost": [float(each.turnover) for each in made],
        "ticks": [each.start_us // 1_000 for each in made],
    }
    return Answer({"jsonrpc": "2.0", "result": {"status": "ok" if made else "no_data", **columns}})


WIRE = Wire(
    "deribit",
    # The credits of a session refuse before this does.
    Timing(messages_per_s_max=150),
    session=Session,
    is_trade=is_trade,
    renumbered=renumbered,
    first_again=False,
    novelty=(
        '{"jsonrpc":"2.0","method":"subscription",'
        '"params":{"channel":"novelty.BTC_USDC","data":{"instrument_name":"BTC_USDC"}}}'
    ),
    rename=('"data":', '"payload":'),
    past=past,
)
