"""What answers look like. Prices and sizes are texts, times RFC 3339 in UTC; JSON numbers would lose digits."""

from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.domain.averages import Method, quotient
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle
from models.domain.decimals import plain
from models.domain.orders import OrderState, Reason
from models.domain.pasts import PastCandle
from models.domain.signals import Signal
from models.domain.sources import Consolidated, Input, Source
from models.domain.vwap import Vwap
from models.store.events import rfc3339
from models.store.rows import JobRow, OrderRow, SplitRow


class LimitOrder(BaseModel):
    """The body of POST /order/limit. Numbers may be JSON numbers or texts; either is taken exactly."""

    model_config = ConfigDict(extra="forbid")

    symbol: str = Field(examples=["LTCBTC"])
    order_size: str | float = Field(examples=[1000])
    price: str | float = Field(examples=[0.0001])
    side: str = Field(default="sell", examples=["sell", "buy"])
    venues: list[str] | None = Field(default=None, examples=[["binance"]])
    time_in_force: str = Field(default="GTD", examples=["GTD", "GTC", "IOC", "FOK"])
    timeout_s: str | float | None = Field(default=None, examples=[30])
    client_order_id: str | None = None


class AverageRequest(BaseModel):
    """The body of POST /prices/average: one `pair`, or `pairs` for one job with parts."""

    model_config = ConfigDict(extra="forbid")

    pair: str | None = Field(default=None, examples=["BTC-USDT"])
    pairs: list[str] | None = None
    method: Method = Method.CLAMPED_MEAN
    input: Input = Input.MID
    venues: list[str] | None = Field(default=None, examples=[["binance", "okx"]])
    min_sources: int | None = None
    window_s: str | float = Field(examples=[60])
    start: str = Field(default="now", examples=["now", "2026-11-21T12:00:00Z"])


class VwapRequest(BaseModel):
    """The body of POST /vwap: one `pair` or `pairs`, and a past window, which ends at `end` or after `window_s`."""

    model_config = ConfigDict(extra="forbid")

    pair: str | None = Field(default=None, examples=["BTC-USDT"])
    pairs: list[str] | None = None
    venues: list[str] | None = Field(default=None, examples=[["binance", "okx"]])
    start: str = Field(examples=["2026-11-21T12:00:00Z"])
    end: str | None = Field(default=None, examples=["2026-11-21T13:00:00Z"])
    window_s: str | float | None = Field(default=None, examples=[3600])


class CandlesRequest(VwapRequest):
    """The body of POST /candles/rebuild: the same, and one `interval`, or `intervals`; without them all of them."""

    interval: str | None = Field(default=None, examples=["1m"])
    intervals: list[str] | None = None


class VariantRequest(BaseModel):
    """Two moving averages of closing prices. `seed` is what an exponential one begins with: sma or first."""

    kind: str = Field(examples=["sma", "ema"])
    fast: int = Field(examples=[50])
    slow: int = Field(examples=[200])
    seed: str | None = None


class StrategyRequest(BaseModel):
    """The body of PUT /strategies/{name}. Without `pairs`: all of them."""

    model_config = ConfigDict(extra="forbid")

    interval: str = Field(default="1h", examples=list(INTERVALS_S))
    venue: str = Field(default=EVERY_VENUE, examples=[EVERY_VENUE, "binance"])
    pairs: list[str] | None = Field(default=None, examples=[["BTC-USDT"]])
    variants: dict[str, VariantRequest] = Field(examples=[{"a": {"kind": "sma", "fast": 50, "slow": 200}}])


def order_json(row: OrderRow) -> dict[str, Any]:
    """Return an order as every answer shows it."""
    waiting = Reason.QUEUED.value if row.state is OrderState.QUEUED else None
    return {
        "id": row.id,
        "job_id": row.job_id,
        "symbol": row.symbol,
        "side": row.side.value,
        "size": plain(row.size),
        "price": plain(row.price),
        "time_in_force": row.time_in_force.value,
        "venues": list(row.venues) if row.venues else None,
        "client_order_id": row.client_order_id,
        "state": row.state.value,
        "reason": row.reason.value if row.reason else waiting,
        "filled_size": plain(row.filled_size),
        "remaining_size": plain(row.remaining_size),
        "avg_price": plain(row.avg_price) if row.avg_price is not None else None,
        "market": row.market,
        "created": rfc3339(row.created_us),
        "deadline": rfc3339(row.deadline_us),
        "ended": rfc3339(row.ended_us),
    }


def split_json(row: SplitRow) -> dict[str, Any]:
    """Return a split with the quote that it came from."""
    return {
        "id": row.id,
        "venue": row.venue,
        "product_id": row.product_id,
        "price": plain(row.price),
        "size": plain(row.size),
        "fee": plain(row.fee),
        "token": row.token,
        "quote_number": row.quote_number,
        "shown": plain(row.shown),
        "taken_before": plain(row.taken_before),
        "exchange_time": rfc3339(row.exchange_time_us),
        "received_time": rfc3339(row.received_time_us),
        "time": rfc3339(row.created_us),
        "market": row.market,
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _ms(value_us: int | None) -> int | None:
    return None if value_us is None else value_us // 1000


def source_json(source: Source) -> dict[str, Any]:
    """Return a venue's part in a consolidated price; `reason` is null where it counts."""
    seen = source.seen
    shown: dict[str, Any] = {
        "venue": seen.venue,
        "product_id": seen.product_id,
        "raw_price": _text(seen.price),
        "adjusted_price": _text(source.adjusted_price),
        "quote_age_ms": _ms(seen.quote_age_us),
        "connection_age_ms": _ms(seen.connection_age_us),
        "weight": plain(source.weight.normalize()),
        "reason": source.reason,
    }
    if seen.convert_by is not None:
        price = None if seen.conversion is None else plain(seen.conversion.price)
        shown["conversion"] = {"pair": seen.convert_by, "price": price}
    return shown


def consolidated_json(answer: Consolidated) -> dict[str, Any]:
    """Return a consolidated price with its sources; where it is withheld, `value` is null and `problem` says why."""
    shown: dict[str, Any] = {
        "value": _text(answer.value),
        "sources": [source_json(source) for source in answer.sources],
    }
    if answer.confidence is not None:
        shown["confidence"] = plain(answer.confidence)
    return shown if answer.problem is None else {**shown, "problem": answer.problem}


def job_json(row: JobRow, flower_url: str) -> dict[str, Any]:
    """Return a job, with a link to the Celery task that carried it (Flower's memory is short)."""
    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state.value,
        "created": rfc3339(row.created_us),
        "ended": rfc3339(row.ended_us),
        "due": rfc3339(row.due_us),
        "payload": row.payload,
        "progress": row.progress,
        "result": row.result,
        "error": row.error,
        "task_id": row.task_id,
        "task_url": f"{flower_url}/task/{row.task_id}" if row.task_id else None,
    }


INTERVAL_NAMES = {interval_s: name for name, interval_s in INTERVALS_S.items()}


def candle_json(candle: Candle) -> dict[str, Any]:
    """Return a candle; which series it is of stands beside it."""
    return {
        "open_time": rfc3339(candle.open_time_us),
        "open": plain(candle.open),
        "high": plain(candle.high),
        "low": plain(candle.low),
        "close": plain(candle.close),
        "volume": plain(candle.volume),
        "quote_volume": plain(candle.quote_volume),
        "vwap": _text(candle.vwap),
        "taker_buy_volume": plain(candle.taker_buy_volume),
        "trades": candle.trades,
        "revision": candle.revision,
        "incomplete": candle.incomplete,
        "closed": candle.closed,
    }


def told_json(candle: PastCandle) -> dict[str, Any]:
    """Return a candle as its venue tells it; what it does not say is null."""
    prices = {name: plain(getattr(candle, name)) for name in ("open", "high", "low", "close", "volume")}
    vwap = None if candle.quote_volume is None else quotient(candle.quote_volume, candle.volume)
    return {
        "open_time": rfc3339(candle.open_time_us),
        **prices,
        "quote_volume": _text(candle.quote_volume),
        "vwap": _text(vwap),
        "taker_buy_volume": None,
        "trades": candle.trades,
        "revision": 0,
        "incomplete": False,
        "closed": True,
    }


def vwap_json(venue: str, vwap: Vwap, window: int | str) -> dict[str, Any]:
    """Return a sliding average; `window` is a number of trades, or the name of a time."""
    return {
        "venue": venue,
        "vwap": _text(vwap.value),
        "window": window,
        "points": vwap.points,
        "size": plain(vwap.size),
        "from": rfc3339(vwap.from_us),
        "until": rfc3339(vwap.until_us),
    }


def signal_json(signal: Signal) -> dict[str, Any]:
    """Return a signal, with the candle at whose close it was raised."""
    return {
        "strategy": signal.strategy,
        "version": signal.version,
        "variant": signal.variant,
        "venue": signal.venue,
        "pair": signal.symbol,
        "interval": INTERVAL_NAMES.get(signal.interval_s, f"{signal.interval_s}s"),
        "open_time": rfc3339(signal.open_time_us),
        "cross": signal.cross.value,
        "close": plain(signal.close),
        "fast": plain(signal.fast),
        "slow": plain(signal.slow),
        "raised": rfc3339(signal.raised_us),
        "market": signal.market,
    }
