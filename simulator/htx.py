"""HTX's side of the wire: topics, its own pings, and numbers in Java's notation (huobiapi/docs, branch v1_en)."""

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from simulator.market import MINUTE_US, BookChanged, Candle, Event, Listing, Traded
from simulator.pasts import Answer, ParameterError, asked
from simulator.wire import Close, Renumber, Timing, Wire

CHANNELS = ("bbo", "trade.detail", "kline.1min", "depth.step0", "detail", "ticker")
ASKED = ("trade.detail", "kline.1min")  # what a `req` may ask for
BETWEEN_REQ_US = 100_000  # a `req` that comes sooner after the one before is refused
# Each 5 s, and each second while one is unanswered. We are asked once a second, not quite on it.
PING_MS, PING_AGAIN_MS = 4_500, 500
OVERDUE_MS = 15_500
_TOPIC = re.compile(r"market\.(\w+)\.([\w.]+)")
_FRAME = re.compile(r'\{"ch":"(market\.(\w+)\.[\w.]+)"')
_COUNTERS = re.compile(r'"(seqId|tradeId|version)":(\d+)')
_MILLISECONDS = re.compile(r'"(ts|quoteTime)":(\d+)')
_CANDLE = re.compile(r'("tick":\{"id":)(\d+)')


class RequestError(ValueError):
    """A request that the venue refuses."""


class Session:
    """One connection: the topics it asked for, and the pings that it has not answered."""

    def __init__(self, _target: str, listings: Mapping[str, Listing] | None) -> None:
        self._listings = listings
        self._topics: dict[str, None] = {}
        self._pings: list[int] = []  # unanswered, each with the time in milliseconds that is its value
        self._pinged_ms: int | None = None
        self._asked_us: int | None = None

    @property
    def subscribed(self) -> bool:
        """Whether anything was asked for."""
        return bool(self._topics)

    def answer(self, text: str, now_us: int) -> list[str]:
        """Return the answer to a request and, of a new topic, how it stands; to a ping a pong; to a pong nothing."""
        now_ms = now_us // 1000
        shown: dict[str, object] = {}
        try:
            request = _request(text)
            if "pong" in request:
                if request["pong"] in self._pings:
                    self._pings.clear()
                return []
            if "ping" in request:
                return [_dump({"pong": request["ping"]})]
            shown = {"id": request["id"]} if "id" in request else {}
            if "sub" in request:
                return self._subscribe(str(request["sub"]), shown, now_ms)
            if "unsub" in request:
                return self._unsubscribe(str(request["unsub"]), shown, now_ms)
            return self._asked(str(request["req"]), shown, now_us)
        except RequestError as error:
            told = {"err-code": "bad-request", "err-msg": str(error)}
            return [_dump({"status": "error", "ts": now_ms, **shown, **told})]

    def _subscribe(self, topic: str, shown: dict[str, object], now_ms: int) -> list[str]:
        product_id, channel = self._parts(topic)
        answer = _dump({**shown, "status": "ok", "subbed": topic, "ts": now_ms})
        if topic in self._topics:
            return [answer]
        self._topics[topic] = None
        if self._listings is None:
            return [answer]
        return [answer, _push(topic, now_ms, _standing(channel, self._listings[product_id]))]

    def _unsubscribe(self, topic: str, shown: dict[str, object], now_ms: int) -> list[str]:
        if topic not in self._topics:
            raise RequestError("unsub with not subbed topic")
        del self._topics[topic]
        return [_dump({**shown, "status": "ok", "unsubbed": topic, "ts": now_ms})]

    def _asked(self, topic: str, shown: dict[str, object], now_us: int) -> list[str]:
        product_id, channel = self._parts(topic)
        if channel not in ASKED:
            raise RequestError(f"invalid topic {topic}")
        before_us, self._asked_us = self._asked_us, now_us
        if before_us is not None and 0 <= now_us - before_us < BETWEEN_REQ_US:
            raise RequestError(f"429 too many request topic is {topic}")
        data = ""
        if self._listings is not None:
            last = self._listings[product_id].last_trade
            data = _trade(last) if channel == "trade.detail" else _kline(last.candle)
        head = _dump({**shown, "status": "ok", "ts": now_us // 1000, "rep": topic})
        return [f'{head[:-1]},"data":[{data}]}}']

    def _parts(self, topic: str) -> tuple[str, str]:
        """Return the product and the channel of a topic. Raises RequestError for one that there is not."""
        match = _TOPIC.fullmatch(topic)
        if match is None or match[2] not in CHANNELS:
            raise RequestError(f"invalid topic {topic}")
        if self._listings is not None and match[1] not in self._listings:
            raise RequestError(f"invalid symbol {match[1]}")
        return match[1], match[2]

    def frames(self, event: Event) -> list[str]:
        """Return the frames in which this connection hears of an event."""
        return [
            _push(topic, event.time_us // 1000, tick)
            for channel, tick in self._ticks(event)
            if (topic := f"market.{event.product.id}.{channel}") in self._topics
        ]

    def _ticks(self, event: Event) -> Iterator[tuple[str, str]]:
        """Yield what the channels of a product say of an event; see `heartbeats` for depth."""
        if isinstance(event, Traded):
            yield "trade.detail", _trades(event)
            yield "kline.1min", _kline(event.candle)
            yield "detail", _detail(event)
        elif isinstance(event, BookChanged):
            top = event.top
            sides = ((top.bid, top.bid_size), (top.ask, top.ask_size))
            yield "bbo", _bbo(event.product.id, event.sequence, *sides, event.time_us)
            if self._listings is not None and event.product.id in self._listings:
                yield "ticker", _ticker(self._listings[event.product.id])

    def recorded(self, frame: str) -> str | None:
        """Return a recorded frame, or None where it was not asked for; pings are the session's own."""
        match = _FRAME.match(frame)
        return frame if match is not None and match[1] in self._topics else None

    def heartbeats(self, now_us: int, *, replaying: bool) -> list[str]:
        """Return the whole book of each depth topic, which comes once a second, and a ping where one is due."""
        frames = []
        now_ms = now_us // 1000
        if self._listings is not None and not replaying:
            for topic in self._topics:
                product_id, channel = self._parts(topic)
                if channel == "depth.step0":
                    frames.append(_push(topic, now_ms, _depth(self._listings[product_id])))
        wait_ms = PING_MS if len(self._pings) < 2 else PING_AGAIN_MS  # noqa: PLR2004 -- the second is 5 s after the first
        # A clock that went back (the skew is over) pings at once.
        if self._pinged_ms is None or not 0 <= now_ms - self._pinged_ms < wait_ms:
            self._pinged_ms = now_ms
            self._pings.append(now_ms)
            frames.append(_dump({"ping": now_ms}))
        return frames

    def overdue(self, now_us: int) -> Close | None:
        """Return the close of a connection that left a ping unanswered for 15.5 s."""
        if self._pings and now_us // 1000 - self._pings[0] >= OVERDUE_MS:
            return Close(1003, "ping check expired")
        return None


def _request(text: str) -> dict[str, object]:
    """Return a request of any of the five kinds. Raises RequestError."""
    try:
        request = json.loads(text)
    except ValueError as error:
        raise RequestError("not json, is not json string") from error
    if not isinstance(request, dict) or not request.keys() & {"sub", "unsub", "req", "ping", "pong"}:
        raise RequestError("invalid topic")
    return request


def _number(value: Decimal) -> str:
    """Return a number as Java writes its doubles: with one decimal at least, and a power of ten where far from 1."""
    if not value:
        return "0.0"
    power = value.adjusted()
    plain = -4 < power < 7  # noqa: PLR2004 -- from 1e-3 to below 1e7
    text = format((value if plain else value.scaleb(-power)).normalize(), "f")
    return f"{text if '.' in text else text + '.0'}{'' if plain else f'E{power}'}"


def _object(**fields: Decimal | int | str) -> str:
    """Return fields as a JSON object: Decimals in Java's notation, and texts, which are JSON already."""
    told = (f'"{name}":{_number(value) if isinstance(value, Decimal) else value}' for name, value in fields.items())
    return f"{{{','.join(told)}}}"


def _push(topic: str, now_ms: int, tick: str) -> str:
    return f'{{"ch":"{topic}","ts":{now_ms},"tick":{tick}}}'


def _standing(channel: str, listing: Listing) -> str:
    """Return how a topic stands: what a new subscription begins with."""
    last = listing.last_trade
    match channel:
        case "bbo":
            bid, ask = listing.levels("buy")[0], listing.levels("sell")[0]
            return _bbo(listing.product.id, listing.sequence, bid, ask, listing.time_us)
        case "trade.detail":
            return _trades(last)
        case "kline.1min":
            return _kline(last.candle)
        case "depth.step0":
            return _depth(listing)
        case "detail":
            return _detail(last)
        case _:
            return _ticker(listing)


def _bbo(product_id: str, number: int, bid: tuple[Decimal, Decimal], ask: tuple[Decimal, Decimal], time_us: int) -> str:
    sides = {"ask": ask[0], "askSize": ask[1], "bid": bid[0], "bidSize": bid[1]}
    return _object(seqId=number, **sides, quoteTime=time_us // 1000, symbol=f'"{product_id}"')


def _number_of(trade: Traded) -> int:
    """Return the id of a trade's moment, of twelve digits."""
    return 10**11 + trade.sequence


def _trade(trade: Traded) -> str:
    # An id of 28 digits, which neither 64 bits nor a double can hold.
    return _object(
        id=f"{_number_of(trade)}{trade.trade_id:016}",
        ts=trade.time_us // 1000,
        tradeId=trade.trade_id,
        amount=trade.size,
        price=trade.price,
        direction=f'"{trade.taker_side}"',
        isRpiTrade="false",
    )


def _trades(trade: Traded) -> str:
    return _object(id=_number_of(trade), ts=trade.time_us // 1000, data=f"[{_trade(trade)}]")


def _kline(candle: Candle) -> str:
    prices = {"open": candle.open, "close": candle.close, "low": candle.low, "high": candle.high}
    volumes = {"amount": candle.volume, "vol": candle.turnover}
    return _object(id=candle.start_us // 1_000_000, **prices, **volumes, count=candle.trades)


def _day(trade: Traded) -> dict[str, Decimal | int | str]:
    prices = {"low": trade.low, "high": trade.high, "open": trade.open, "close": trade.price}
    return {**prices, "vol": trade.turnover, "amount": trade.volume, "count": trade.trades}


def _detail(trade: Traded) -> str:
    return _object(id=_number_of(trade), **_day(trade), version=_number_of(trade))


def _ticker(listing: Listing) -> str:
    (bid, bid_size), (ask, ask_size) = listing.levels("buy")[0], listing.levels("sell")[0]
    last = listing.last_trade
    sides = {"bid": bid, "bidSize": bid_size, "ask": ask, "askSize": ask_size}
    return _object(**_day(last), **sides, lastPrice=last.price, lastSize=last.size)


def _depth(listing: Listing) -> str:
    sides = {
        name: f"[{','.join(f'[{_number(price)},{_number(size)}]' for price, size in listing.levels(side))}]"
        for name, side in (("bids", "buy"), ("asks", "sell"))
    }
    return _object(**sides, version=10**11 + listing.sequence, ts=listing.time_us // 1000)


def _dump(message: dict[str, object]) -> str:
    return json.dumps(message, separators=(",", ":"))


def is_trade(frame: str) -> bool:
    """Say whether a frame is a trade's."""
    match = _FRAME.match(frame)
    return match is not None and match[1].endswith(".trade.detail")


def renumbered(frame: str, renumber: Renumber, later_us: int) -> str:
    """Return a recorded frame with other ids, and times that are so much later."""
    match = _FRAME.match(frame)
    if match is None:
        return frame
    topic, product_id = match.groups()
    frame = _COUNTERS.sub(lambda m: f'"{m[1]}":{renumber(f"{product_id} {m[1]}", int(m[2]))}', frame)
    frame = _MILLISECONDS.sub(lambda m: f'"{m[1]}":{int(m[2]) + later_us // 1000}', frame)
    if ".kline." in topic:
        frame = _CANDLE.sub(lambda m: f"{m[1]}{int(m[2]) + later_us // 60_000_000 * 60}", frame)
    return frame


def encode(text: str) -> bytes:
    """Return what goes over the wire: one gzip member."""
    return gzip.compress(text.encode(), compresslevel=1, mtime=0)


PERIODS_MIN = {"1min": 1, "5min": 5, "15min": 15, "30min": 30, "60min": 60, "4hour": 240}
KLINES_MAX = 2_000


def past(target: str, listings: Mapping[str, Listing], now_us: int) -> Answer | None:
    """Answer GET /market/history/kline: the newest ones, newest first, in numbers that are no texts."""
    wanted = asked(target)
    if wanted.path != "/market/history/kline":
        return None
    listing, minutes = listings.get(wanted.given.get("symbol", "")), PERIODS_MIN.get(wanted.given.get("period", ""))
    if listing is None:
        return _refused("invalid symbol", now_us)
    try:
        size = wanted.number("size", 150)
    except ParameterError:
        size = 0
    if minutes is None or not 0 < size <= KLINES_MAX:
        return _refused("invalid period or size", now_us)
    length_us = minutes * MINUTE_US
    first_us = now_us - now_us % length_us - (size - 1) * length_us
    rows = [
        {
            "id": candle.start_us // 1_000_000,
            **{name: float(getattr(candle, name)) for name in ("open", "close", "low", "high")},
            "amount": float(candle.volume),
            "vol": float(candle.turnover),
            "count": candle.trades,
        }
        for candle in reversed(listing.candles(length_us, first_us, now_us + 1, now_us))
    ]
    topic = f"market.{listing.product.id}.kline.{wanted.given['period']}"
    return Answer({"ch": topic, "status": "ok", "ts": now_us // 1_000, "data": rows})


def _refused(message: str, now_us: int) -> Answer:
    told = {"status": "error", "err-code": "invalid-parameter", "err-msg": message, "data": None}
    return Answer({**told, "ts": now_us // 1_000})


WIRE = Wire(
    "htx",
    Timing(messages_per_s_max=1_000),  # no limit is stated, and a request asks for one topic only
    session=Session,
    is_trade=is_trade,
    renumbered=renumbered,
    first_again=True,
    novelty='{"ch":"market.btcusdt.novelty","ts":1788335110454,"tick":{}}',
    rename=('"tick":', '"ticks":'),
    encode=encode,
    past=past,
)
