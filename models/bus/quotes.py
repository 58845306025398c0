"""Quotes, trades and marks on their way from collectors to the owners of shards.

Each shard has a bounded stream of batches and a hash with each product's newest quote: an owner that
starts reads the hash first and then the stream from there on, so a quiet product is not forgotten.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis

from models.bus.client import failures
from models.bus.latest import CollectorState, LatestPrice
from models.bus.names import COLLECTORS, current_key, latest_key, quotes_stream
from models.domain.quotes import BusItem, Quote

BATCHES_MAX = 5_000  # in a stream; beyond it the oldest go
READ_MAX = 64  # batches taken at once

_encoder = msgspec.msgpack.Encoder(decimal_format="string")
_items = msgspec.msgpack.Decoder(list[BusItem])
_quote = msgspec.msgpack.Decoder(Quote)


def encode(items: Sequence[BusItem]) -> bytes:
    """Return items as one message of the stream."""
    return _encoder.encode(items)


def decode(message: bytes) -> list[BusItem]:
    """Return the items of a message, with Decimals from their text."""
    return _items.decode(message)


class QuoteWriter:
    """A collector's side: writes batches, newest quotes and latest prices in one round trip."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def write(
        self,
        by_shard: Mapping[int, Sequence[BusItem]],
        latest: Mapping[str, LatestPrice],
        state: CollectorState | None = None,
        current: Mapping[int, Sequence[Quote]] | None = None,
    ) -> None:
        """Append items to the streams of their shards and keep what is newest.

        `latest` is by symbol. `current` are quotes that are still true and were written before: they go
        into the hash of newest quotes again, not into the stream, so that a Redis that was emptied
        knows quiet products again. Raises BusUnavailableError; what was being written is then
        unknown, and must not be written again: the current quotes are, under new numbers.
        """
        with failures():
            pipeline = self._client.pipeline(transaction=False)
            for shard, items in by_shard.items():
                pipeline.xadd(quotes_stream(shard), {b"b": encode(items)}, maxlen=BATCHES_MAX, approximate=True)
                _keep(pipeline, shard, [item for item in items if isinstance(item, Quote)])
            for shard, quotes in (current or {}).items():
                _keep(pipeline, shard, quotes)
            for symbol, price in latest.items():
                pipeline.hset(latest_key(symbol), price.venue, msgspec.json.encode(price))
            if state is not None:
                pipeline.hset(COLLECTORS, state.venue, msgspec.json.encode(state))
            pipeline.execute()


def _keep(pipeline: Any, shard: int, quotes: Sequence[Quote]) -> None:  # noqa: ANN401 -- redis's pipelines carry no types
    """Remember the newest quote of each product of a shard; the last one counts."""
    newest = {f"{quote.venue}:{quote.product_id}": quote for quote in quotes}
    if newest:
        pipeline.hset(current_key(shard), mapping={name: _encoder.encode(quote) for name, quote in newest.items()})


class QuoteReader:
    """An owner's side: first each product's newest quote, then the stream from there on."""

    def __init__(self, client: redis.Redis, shard: int) -> None:
        self._client = client
        self._stream = quotes_stream(shard)
        self._current = current_key(shard)
        self._last_id: bytes | None = None

    def read(self, block_ms: int) -> list[BusItem]:
        """Return what has come since the last call, waiting up to `block_ms` for something.

        Raises BusUnavailableError; the next call starts again with the newest quotes. Quotes may
        come twice then; their numbers tell.
        """
        try:
            with failures():
                if self._last_id is None:
                    return self._start()
                answer = self._client.xread({self._stream: self._last_id}, count=READ_MAX, block=block_ms)
        except Exception:
            self._last_id = None
            raise
        batches = entries_of(answer)
        if not batches:
            return []
        self._last_id = batches[-1][0]
        return [item for _, fields in batches for item in decode(fields[b"b"])]

    def _start(self) -> list[BusItem]:
        newest: Any = self._client.xrevrange(self._stream, count=READ_MAX)
        self._last_id = newest[0][0] if newest else b"0"
        values: Any = self._client.hvals(self._current)
        # A batch that Redis held up may have been worked after a newer one, and have the last word in the hash.
        batches = [decode(fields[b"b"]) for _, fields in reversed(newest)]
        quotes = [item for batch in batches for item in batch if isinstance(item, Quote)]
        quotes += [_quote.decode(text) for text in values]
        # Quotes of one connection in the order of their numbers, older connections first.
        quotes.sort(key=lambda quote: (quote.venue, quote.token, quote.number))
        last = {(quote.venue, quote.product_id): quote for quote in quotes}
        return [quote for quote in quotes if last[quote.venue, quote.product_id] is quote]


def entries_of(answer: object) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the entries of the one stream that was read, whichever protocol answered."""
    if not answer:
        return []
    if isinstance(answer, dict):
        [streams] = answer.values()
        return streams[0] if streams and isinstance(streams[0], list) else streams
    assert isinstance(answer, list)
    entries: list[tuple[bytes, dict[bytes, bytes]]] = answer[0][1]
    return entries
