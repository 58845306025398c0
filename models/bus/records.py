"""What stands in the records of topics: JSON objects, as in models.bus.forms, and where each of them goes."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from models.bus.forms import candle_form, signal_form, vwap_form
from models.bus.legacy import ticker_form
from models.bus.topics import Kind, Record
from models.domain.candles import EVERY_VENUE, Candle
from models.domain.decimals import plain
from models.domain.instruments import Instrument
from models.domain.quotes import Quote, Trade
from models.domain.signals import Signal
from models.domain.vwap import Vwap

_encode = msgspec.json.Encoder().encode


def trade_records(trade: Trade, symbol: str, market: str) -> list[Record]:
    """Return a trade for its venue's topic and its pair's."""
    return _both(Kind.TRADE, trade.venue, symbol, trade_form(trade, symbol, market))


def quote_record(quote: Quote, symbol: str, market: str) -> Record:
    """Return a quote for its pair's topic."""
    return _one(Kind.QUOTE, symbol, symbol, quote_form(quote, symbol, market))


def ticker_record(quote: Quote, instrument: Instrument, last: Decimal | None) -> Record:
    """Return a quote for its venue's topic, with the product's last price."""
    bid, ask = (quote.bid_price, quote.bid_size), (quote.ask_price, quote.ask_size)
    form = ticker_form(quote.venue, instrument.base, bid, last, ask)
    return Record(quote.venue, instrument.symbol, Kind.TICKER, _encode(form))


def vwap_records(vwap: Vwap) -> list[Record]:
    """Return an average for its venue's topic and its pair's; that of every venue for its pair's alone."""
    return _both(Kind.VWAP, vwap.venue, vwap.symbol, vwap_form(vwap))


def candle_records(candle: Candle) -> list[Record]:
    """Return a candle for its venue's topic and its pair's; that of every venue for its pair's alone."""
    return _both(Kind.CANDLE, candle.venue, candle.symbol, candle_form(candle))


def signal_record(signal: Signal) -> Record:
    """Return a signal for its pair's topic."""
    return _one(Kind.SIGNAL, signal.symbol, signal.symbol, signal_form(signal))


def trade_form(trade: Trade, symbol: str, market: str) -> dict[str, Any]:
    """Return what a trade says. Its time is the venue's, or where the venue sends none that of its arrival."""
    told_us = trade.exchange_time_us
    return {
        "type": Kind.TRADE.value,
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


def quote_form(quote: Quote, symbol: str, market: str) -> dict[str, Any]:
    """Return what a quote says; a side that is empty is null. Its time is as a trade's."""
    told_us = quote.exchange_time_us
    return {
        "type": Kind.QUOTE.value,
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


def _both(kind: Kind, venue: str, symbol: str, fields: Mapping[str, Any]) -> list[Record]:
    of_pair = _one(kind, symbol, symbol, fields)
    return [of_pair] if venue == EVERY_VENUE else [Record(venue, symbol, kind, of_pair.value), of_pair]


def _one(kind: Kind, topic: str, symbol: str, fields: Mapping[str, Any]) -> Record:
    return Record(topic, symbol, kind, _encode(fields))


def _plain(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)
