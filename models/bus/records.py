"""What stands in the records of topics: JSON objects, with decimals as plain text and times in microseconds.

The fields are those of HTTP answers and of the notifier's rooms too, which write times as RFC 3339.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from models.bus.topics import Kind, Record
from models.domain.candles import EVERY_VENUE, INTERVALS_S, Candle
from models.domain.decimals import plain
from models.domain.instruments import Instrument
from models.domain.quotes import Quote, Trade
from models.domain.signals import Signal
from models.domain.vwap import Vwap

INTERVAL_NAMES = {seconds: name for name, seconds in INTERVALS_S.items()}

_encode = msgspec.json.Encoder().encode


def trade_records(trade: Trade, symbol: str, market: str) -> list[Record]:
    """Return a trade for its venue's topic and its pair's."""
    return _both(Kind.TRADE, trade.venue, symbol, trade_fields(trade, symbol, market))


def quote_record(quote: Quote, symbol: str, market: str) -> Record:
    """Return a quote for its pair's topic."""
    return _one(Kind.QUOTE, symbol, symbol, quote_fields(quote, symbol, market))


def ticker_record(quote: Quote, instrument: Instrument, last: Decimal | None) -> Record:
    """Return a quote for its venue's topic, with the product's last price."""
    return Record(quote.venue, instrument.symbol, Kind.TICKER, _encode(ticker_fields(quote, instrument.base, last)))


def vwap_records(vwap: Vwap) -> list[Record]:
    """Return an average for its venue's topic and its pair's; that of every venue for its pair's alone."""
    return _both(Kind.VWAP, vwap.venue, vwap.symbol, vwap_fields(vwap))


def candle_records(candle: Candle) -> list[Record]:
    """Return a candle for its venue's topic and its pair's; that of every venue for its pair's alone."""
    return _both(Kind.CANDLE, candle.venue, candle.symbol, candle_fields(candle))


def signal_record(signal: Signal) -> Record:
    """Return a signal for its pair's topic."""
    return _one(Kind.SIGNAL, signal.symbol, signal.symbol, signal_fields(signal))


def trade_fields(trade: Trade, symbol: str, market: str) -> dict[str, Any]:
    """Return what a trade says. Its time is the venue's, or where the venue sends none that of its arrival."""
    told_us = trade.exchange_time_us
    return {
        "venue": trade.venue,
        "pair": symbol,
        "product_id": trade.product_id,
        "trade_id": trade.trade_id,
        "price": plain(trade.price),
        "size": plain(trade.size),
        "taker_side": trade.taker_side,
        "time_us": trade.received_time_us if told_us is None else told_us,
        "received_us": trade.received_time_us,
        "market": market,
    }


def quote_fields(quote: Quote, symbol: str, market: str) -> dict[str, Any]:
    """Return what a quote says; a side that is empty is null. Its time is as a trade's."""
    told_us = quote.exchange_time_us
    return {
        "venue": quote.venue,
        "pair": symbol,
        "product_id": quote.product_id,
        "bid_price": _plain(quote.bid_price),
        "bid_size": _plain(quote.bid_size),
        "ask_price": _plain(quote.ask_price),
        "ask_size": _plain(quote.ask_size),
        "live": quote.live,
        "time_us": quote.received_time_us if told_us is None else told_us,
        "received_us": quote.received_time_us,
        "market": market,
    }


def ticker_fields(quote: Quote, base: str, last: Decimal | None) -> dict[str, str | None]:
    """Return the seven keys of a ticker, with every digit that the exchange sent."""
    return {
        "exchange": quote.venue,
        "ticker": base,
        "best_bid_quantity": _as_sent(quote.bid_size),
        "best_bid_price": _as_sent(quote.bid_price),
        "last_price": _as_sent(last),
        "best_offer_quantity": _as_sent(quote.ask_size),
        "best_offer_price": _as_sent(quote.ask_price),
    }


def vwap_fields(vwap: Vwap) -> dict[str, Any]:
    """Return what an average says; null where nothing was traded."""
    return {
        "venue": vwap.venue,
        "pair": vwap.symbol,
        "vwap": _plain(vwap.value),
        "window": vwap.window,
        "points": vwap.points,
        "size": plain(vwap.size),
        "from_us": vwap.from_us,
        "until_us": vwap.until_us,
        "market": vwap.market,
    }


def candle_fields(candle: Candle) -> dict[str, Any]:
    """Return what a candle says; its interval by its name (`1m`)."""
    return {
        "venue": candle.venue,
        "pair": candle.symbol,
        "interval": INTERVAL_NAMES[candle.interval_s],
        "open_time_us": candle.open_time_us,
        "open": plain(candle.open),
        "high": plain(candle.high),
        "low": plain(candle.low),
        "close": plain(candle.close),
        "volume": plain(candle.volume),
        "quote_volume": plain(candle.quote_volume),
        "vwap": _plain(candle.vwap),
        "taker_buy_volume": plain(candle.taker_buy_volume),
        "trades": candle.trades,
        "revision": candle.revision,
        "incomplete": candle.incomplete,
        "closed": candle.closed,
        "market": candle.market,
    }


def signal_fields(signal: Signal) -> dict[str, Any]:
    """Return what a signal says; its interval by its name."""
    return {
        "strategy": signal.strategy,
        "version": signal.version,
        "variant": signal.variant,
        "venue": signal.venue,
        "pair": signal.symbol,
        "interval": INTERVAL_NAMES[signal.interval_s],
        "open_time_us": signal.open_time_us,
        "cross": signal.cross.value,
        "close": plain(signal.close),
        "fast": plain(signal.fast),
        "slow": plain(signal.slow),
        "raised_us": signal.raised_us,
        "market": signal.market,
    }


def _both(kind: Kind, venue: str, symbol: str, fields: Mapping[str, Any]) -> list[Record]:
    of_pair = _one(kind, symbol, symbol, fields)
    return [of_pair] if venue == EVERY_VENUE else [Record(venue, symbol, kind, of_pair.value), of_pair]


def _one(kind: Kind, topic: str, symbol: str, fields: Mapping[str, Any]) -> Record:
    return Record(topic, symbol, kind, _encode({"type": kind.value, **fields}))


def _plain(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _as_sent(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")
