"""The last two hours of the market: a stream of chunks for each symbol, and one of spans for each venue.

They are bounded by time. Entries are numbered by Redis's clock, some seconds after what they tell.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import redis

from models.bus.client import failures
from models.bus.names import candles_stream, history_stream, spans_stream
from models.domain.candles import VenueCandle
from models.domain.history import Chunk, Span

KEPT_S = 7_200
CHUNK_S = 2.0  # what a chunk holds, about
KEYFRAME_S = 60.0  # a quiet product's prices are told again so often, so that nobody looks back further
LATE_S = 10.0  # from the time of what is told to the number of its entry, clocks included
PART = 30  # samples, and trades, that are written at once
ENTRY = 2  # samples are about as long as the rest of an entry
SETTLED_S = CHUNK_S + 1.0  # after so long a window's chunks are there

Told = TypeVar("Told", Chunk, Span)

_encoder = msgspec.msgpack.Encoder(decimal_format="string")
_chunk = msgspec.msgpack.Decoder(Chunk)
_span = msgspec.msgpack.Decoder(Span)
_candles = msgspec.msgpack.Decoder(list[VenueCandle])


class HistoryWriter:
    """A collector's side."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._streams: set[str] = set()

    def write(
        self,
        chunks: Mapping[str, Chunk],
        candles: Mapping[str, Sequence[VenueCandle]],
        span: Span | None,
        now_us: int,
    ) -> None:
        """Append chunks and the venue's own candles by symbol, and the span in which they were seen.

        Raises BusUnavailableError. Where Redis is out of memory, the older half of what was written here is
        given up first: a shorter history is better than a bus that takes no quotes.
        """
        oldest = _entry_ms(now_us, KEPT_S)
        told = {history_stream(symbol): _encoder.encode(chunk) for symbol, chunk in chunks.items()}
        told |= {candles_stream(symbol): _encoder.encode(list(made)) for symbol, made in candles.items()}
        if span is not None:
            told[spans_stream(span.venue)] = _encoder.encode(span)
        self._streams |= told.keys()
        with failures():
            pipeline = self._client.pipeline(transaction=False)
            for stream, message in told.items():
                pipeline.xadd(stream, {b"b": message}, minid=oldest)
            try:
                pipeline.execute()
            except redis.exceptions.OutOfMemoryError:
                for stream in self._streams:
                    pipeline.xtrim(stream, minid=_entry_ms(now_us, KEPT_S / 2), approximate=False)
                pipeline.execute()
                raise


def parts_of(chunks: Mapping[str, Chunk]) -> Iterator[dict[str, Chunk]]:
    """Yield chunks by symbol in parts, none of which keeps a slow bus busy for long. They come in order.

    Small ones go together: a round trip costs more than what it carries.
    """
    part: dict[str, Chunk] = {}
    room = PART
    for symbol, chunk in chunks.items():
        for start in range(0, max(len(chunk.samples), len(chunk.prints)), PART):
            place = slice(start, start + PART)
            piece = msgspec.structs.replace(chunk, samples=chunk.samples[place], prints=chunk.prints[place])
            size = ENTRY + max(len(piece.samples), len(piece.prints))
            if part and size > room:
                yield part
                part, room = {}, PART
            part[symbol] = piece
            room -= size
    if part:
        yield part


def read_chunks(client: redis.Redis, symbol: str, start_us: int, end_us: int) -> list[Chunk]:
    """Return what may say something of a window of a symbol. Raises BusUnavailableError."""
    return [chunk for _, chunk in numbered_chunks(client, symbol, start_us, end_us)]


def numbered_chunks(client: redis.Redis, symbol: str, start_us: int, end_us: int) -> list[tuple[bytes, Chunk]]:
    """Return the same with the numbers of their entries. Raises BusUnavailableError."""
    return _between(client, history_stream(symbol), start_us, end_us, _chunk)


def read_spans(client: redis.Redis, venue: str, start_us: int, end_us: int) -> list[Span]:
    """Return when a venue's connections lived, around a window. Raises BusUnavailableError."""
    return [span for _, span in numbered_spans(client, venue, start_us, end_us)]


def numbered_spans(client: redis.Redis, venue: str, start_us: int, end_us: int) -> list[tuple[bytes, Span]]:
    """Return the same with the numbers of their entries. Raises BusUnavailableError."""
    return _between(client, spans_stream(venue), start_us, end_us, _span)


def _between(
    client: redis.Redis, stream: str, start_us: int, end_us: int, decoder: msgspec.msgpack.Decoder[Told]
) -> list[tuple[bytes, Told]]:
    with failures():
        entries: Any = client.xrange(stream, *entry_range(start_us, end_us))
    return [(entry, decoder.decode(fields[b"b"])) for entry, fields in entries]


def kept_from_ms(client: redis.Redis, stream: str) -> int:
    """Return from when on a stream's entries are kept, or the end of time for none. Raises BusUnavailableError."""
    with failures():
        entries: Any = client.xrange(stream, count=1)
    return int(entries[0][0].split(b"-")[0]) if entries else 1 << 62


def symbols_kept(client: redis.Redis) -> list[str]:
    """Return the symbols of which there is a history, in order. Raises BusUnavailableError."""
    return _named(client, history_stream(""))


def venues_kept(client: redis.Redis) -> list[str]:
    """Return the venues of which there are spans, in order. Raises BusUnavailableError."""
    return _named(client, spans_stream(""))


def _named(client: redis.Redis, prefix: str) -> list[str]:
    with failures():
        return sorted({key.decode().removeprefix(prefix) for key in client.scan_iter(f"{prefix}*", count=1_000)})


def chunks_after(client: redis.Redis, symbol: str, after: bytes, count: int) -> list[tuple[bytes, Chunk | None]]:
    """Return the first entries of a symbol's history after one (b"0-0": from the first), with their numbers.

    None stands for an entry that cannot be decoded. Raises BusUnavailableError.
    """
    return _after(client, history_stream(symbol), after, count, _chunk)


def spans_after(client: redis.Redis, venue: str, after: bytes, count: int) -> list[tuple[bytes, Span | None]]:
    """Return the same of the times in which a venue's connections lived. Raises BusUnavailableError."""
    return _after(client, spans_stream(venue), after, count, _span)


def _after(
    client: redis.Redis, stream: str, after: bytes, count: int, decoder: msgspec.msgpack.Decoder[Told]
) -> list[tuple[bytes, Told | None]]:
    with failures():
        entries: Any = client.xrange(stream, min=b"(" + after, count=count)

    def told(message: bytes) -> Told | None:
        try:
            return decoder.decode(message)
        except msgspec.DecodeError:
            return None

    return [(entry, told(fields[b"b"])) for entry, fields in entries]


def read_candles(client: redis.Redis, symbol: str, start_us: int, end_us: int) -> list[VenueCandle]:
    """Return what venues told of a symbol's candles around a window, in order. Raises BusUnavailableError."""
    with failures():
        entries: Any = client.xrange(candles_stream(symbol), *entry_range(start_us, end_us))
    return [candle for _, fields in entries for candle in _candles.decode(fields[b"b"])]


def decode_chunks(entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Chunk]:
    """Return the chunks of a stream's entries as Redis gives them."""
    return [_chunk.decode(fields[b"b"]) for _, fields in entries]


def decode_spans(entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Span]:
    """Return the spans of a stream's entries as Redis gives them."""
    return [_span.decode(fields[b"b"]) for _, fields in entries]


def _entry_ms(now_us: int, kept_s: float) -> int:
    """Return the number of the oldest entry that may tell of the last seconds."""
    return (now_us // 1000) - int((kept_s + KEYFRAME_S + LATE_S) * 1000)


def entry_range(start_us: int, end_us: int) -> tuple[int, int]:
    """Return the numbers (ms) between which entries may tell of a window."""
    first = start_us // 1000 - int((KEYFRAME_S + LATE_S) * 1000)
    return max(0, first), end_us // 1000 + int((CHUNK_S + LATE_S) * 1000)
