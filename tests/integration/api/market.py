"""A market on the bus, written by the test as collectors would."""

import time
from decimal import Decimal

from models.bus.client import connect
from models.bus.history import HistoryWriter
from models.bus.latest import CollectorState, LatestPrice
from models.bus.quotes import QuoteWriter
from models.domain.history import Chunk, Print, Sample, Span
from models.domain.instruments import INSTRUMENTS

SECOND_US = 1_000_000


def now_us() -> int:
    return time.time_ns() // 1000


class Bus:
    """What collectors have written."""

    def __init__(self, redis_url: str) -> None:
        self._client = connect(redis_url)
        self._quotes = QuoteWriter(self._client)
        self._history = HistoryWriter(self._client)

    def close(self) -> None:
        self._client.close()

    def quote(
        self,
        pair: str,
        venue: str,
        bid: object,
        ask: object,
        last: object = None,
        *,
        age_s: float = 0,
        connected: bool = True,
    ) -> None:
        """A venue's newest prices, and that its collector lives."""
        [product] = [each for each in INSTRUMENTS[pair].products if each.venue == venue]
        told_us, size = now_us() - int(age_s * SECOND_US), Decimal(1)
        prices = [None if value is None else Decimal(str(value)) for value in (last, bid, ask)]
        quote = (prices[1], size, prices[2], size)
        price = LatestPrice(venue, product.id, prices[0], told_us, *quote, True, told_us, "simulated")
        since = now_us() - 60 * SECOND_US if connected else None
        state = CollectorState(venue, 7, since, now_us(), "simulated", 100, 12.5, gaps=2, reconnects=1)
        self._quotes.write({}, {pair: price}, state)

    def remember(
        self,
        pair: str,
        venue: str,
        *samples: tuple[int, object],
        prints: tuple[tuple[int, object, object], ...] = (),
        lived: tuple[int, int],
        gaps: tuple[str, ...] = (),
    ) -> None:
        """What a connection saw: mids by time, trades, and how long it lived."""
        [product] = [each for each in INSTRUMENTS[pair].products if each.venue == venue]
        half = Decimal("0.5")
        mids = [(time_us, Decimal(str(mid))) for time_us, mid in samples]
        told = tuple(Sample(time_us, mid - half, mid + half, mid) for time_us, mid in mids)
        made = tuple(Print(at, str(at), Decimal(str(price)), Decimal(str(size))) for at, price, size in prints)
        chunk = Chunk(venue, product.id, 7, told, made)
        self._history.write({pair: chunk}, {}, Span(venue, 7, *lived, gaps), now_us())
