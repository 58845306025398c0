"""What the analyst tells of a symbol: sliding averages, candles that are still made, signals."""

from collections.abc import Mapping
from typing import Any

import msgspec
import redis

from models.bus.client import failures
from models.bus.names import SIGNALS, open_candles_key, vwap_key
from models.domain.candles import Candle
from models.domain.signals import Signal
from models.domain.vwap import Vwap

SIGNALS_MAX = 1_000  # in the stream; all of them are in the database

_vwap = msgspec.json.Decoder(Vwap)
_candle = msgspec.json.Decoder(Candle)
_signal = msgspec.json.Decoder(Signal)


def tell_vwaps(pipeline: Any, symbol: str, by_venue: Mapping[str, Vwap]) -> None:  # noqa: ANN401 -- redis's pipelines carry no types
    """Write a symbol's averages, within a pipeline."""
    told = {venue: msgspec.json.encode(vwap) for venue, vwap in by_venue.items()}
    pipeline.hset(vwap_key(symbol), mapping=told)


def tell_candles(pipeline: Any, symbol: str, by_name: Mapping[str, Candle]) -> None:  # noqa: ANN401 -- likewise
    """Write a symbol's candles that are still made, by venue and interval (`binance:1m`), within a pipeline."""
    told = {name: msgspec.json.encode(candle) for name, candle in by_name.items()}
    pipeline.hset(open_candles_key(symbol), mapping=told)


def tell_signal(pipeline: Any, signal: Signal) -> None:  # noqa: ANN401 -- likewise
    """Append a signal, within a pipeline."""
    pipeline.xadd(SIGNALS, {b"b": msgspec.json.encode(signal)}, maxlen=SIGNALS_MAX, approximate=True)


def decode_vwaps(fields: Mapping[Any, Any]) -> dict[str, Vwap]:
    """Return averages by venue from a hash as Redis gives it."""
    return {venue.decode(): _vwap.decode(text) for venue, text in fields.items()}


def decode_candles(fields: Mapping[Any, Any]) -> dict[str, Candle]:
    """Return candles by venue and interval from a hash as Redis gives it."""
    return {name.decode(): _candle.decode(text) for name, text in fields.items()}


def decode_signal(fields: Mapping[Any, Any]) -> Signal:
    """Return the signal of a stream's entry as Redis gives it."""
    return _signal.decode(fields[b"b"])


def read_vwaps(client: redis.Redis, symbol: str) -> dict[str, Vwap]:
    """Return a symbol's averages by venue. Raises BusUnavailableError."""
    with failures():
        return decode_vwaps(client.hgetall(vwap_key(symbol)))
