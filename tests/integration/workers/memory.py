"""What a collector reaches the system by, in memory: for tests of what it does with a connection."""

from collections.abc import Mapping, Sequence

import redis

from models.bus.history import HistoryWriter
from models.domain.candles import VenueCandle
from models.domain.history import Chunk, Span


class Held:
    """A lease that nobody else wants."""

    def hold(self) -> bool:
        return True

    def release(self) -> None:
        return None


class MemoryHistory(HistoryWriter):
    """Keeps what a collector remembers."""

    def __init__(self) -> None:
        super().__init__(redis.Redis())
        self.chunks: list[Chunk] = []
        self.candles: list[VenueCandle] = []
        self.spans: list[Span] = []

    def write(
        self,
        chunks: Mapping[str, Chunk],
        candles: Mapping[str, Sequence[VenueCandle]],
        span: Span | None,
        now_us: int,
    ) -> None:
        self.chunks += chunks.values()
        self.candles += [candle for told in candles.values() for candle in told]
        if span is not None:
            self.spans.append(span)
