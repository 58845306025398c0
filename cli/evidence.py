"""A recorded session as the evidence that a split's quote was shown: looked up quote by quote."""

import heapq
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from decimal import Decimal, localcontext
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

from exchanges.registry import PROTOCOLS
from models.domain.audit import Violation
from models.domain.decimals import EXACT, plain
from models.domain.instruments import Instruments
from models.domain.orders import Side
from models.domain.quotes import Market, Quote
from models.domain.records import AuditedSplit
from simulator.replay import find, read

EDGE_US = 1_000_000  # two connections hear a quote at different moments
QUOTES_AT_ONCE = 10_000

_Key = tuple[Side, Decimal, Decimal]


class Recording:
    """The quotes of recorded sessions of some venues, in a database on the disk that ends with it.

    Raises SessionError where there is no session, or one that cannot be read.
    """

    def __init__(self, path: Path, known: Instruments) -> None:
        self._spans: dict[str, tuple[int, int]] = {}
        replays = find(path, {venue: known.products_of(venue) for venue in PROTOCOLS}, speed=1, loop=False)
        # The empty name is SQLite's for a file that nobody else sees and that goes with the connection.
        self._quotes = sqlite3.connect("")
        try:
            self._quotes.execute("CREATE TABLE quotes (product, side, price, size, time_us, place)")
            for venue, replay in replays.items():
                self._index(venue, replay.files, known)
            self._quotes.execute("CREATE INDEX shown ON quotes (product, side, price, size, place)")
        except BaseException:
            self._quotes.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._quotes.close()

    def _index(self, venue: str, files: Iterable[Path], known: Instruments) -> None:
        protocol = PROTOCOLS[venue](None, list(known.products_of(venue)), 1)
        place, rows = 0, []
        for time_s, frame in heapq.merge(*map(read, files), key=itemgetter(0)):
            time_us = round(time_s * 1e6)
            self._spans[venue] = (self._spans.get(venue, (time_us, 0))[0], time_us)
            for quote in protocol.decode(frame.encode(), time_us):
                if isinstance(quote, Quote) and quote.live:
                    place += 1
                    rows += [(*row, place) for row in _rows(quote, known)]
            if len(rows) >= QUOTES_AT_ONCE:
                self._write(rows)
        self._write(rows)

    def _write(self, rows: list[tuple[object, ...]]) -> None:
        self._quotes.executemany("INSERT INTO quotes VALUES (?, ?, ?, ?, ?, ?)", rows)
        rows.clear()

    def covers(self, split: AuditedSplit) -> bool:
        """Say whether a split's quote must be in the session.

        A replay was made from it, whenever that was; of another market only what was received while it was recorded.
        """
        span = self._spans.get(split.venue)
        if span is None or split.market == Market.REPLAY:
            return span is not None
        return span[0] + EDGE_US <= split.received_time_us <= span[1] - EDGE_US

    def check(self, splits: Iterable[AuditedSplit]) -> Iterator[Violation]:
        """Yield which splits' quotes are not in the session, or not in the order of their numbers.

        `splits` are covered, and come product by product, within one by epoch and quote.
        """
        for _, connection in groupby(splits, key=lambda each: (each.venue, each.product_id, each.place[1], each.token)):
            place = 0
            for _, quote in groupby(connection, key=lambda each: each.quote_number):
                shown = {(each.side, each.price, each.shown): each for each in quote}
                found = self._find(shown, place)
                if found is not None:
                    place = found
                    continue
                split = next(iter(shown.values()))
                anywhere = self._find(shown, 0) is not None
                missing = "only before the quotes that came earlier" if anywhere else "not"
                told = f"quote {split.token}:{split.quote_number}, {plain(split.shown)} at {plain(split.price)}"
                at = "" if split.exchange_time_us is None else f" of {split.exchange_time_us}"
                sentence = f"split {split.id} is from {told}{at} at {split.venue}, which is {missing} in the session"
                yield Violation("session.order" if anywhere else "session.quote", f"split {split.id}", sentence)

    def _find(self, shown: dict[_Key, AuditedSplit], after: int) -> int | None:
        """Return the first place after one at which the session has all that a quote is said to show."""
        query = (
            "SELECT place FROM quotes WHERE product = ? AND side = ? AND price = ? AND size = ? AND place > ? "
            "AND time_us IS ? ORDER BY place"
        )
        (split, *others) = shown.values()
        with closing(self._quotes.execute(query, (*_key(split), after, split.exchange_time_us))) as places:
            for (place,) in places:
                if all(self._has(other, place) for other in others):
                    return int(place)
        return None

    def _has(self, split: AuditedSplit, place: int) -> bool:
        query = "SELECT 1 FROM quotes WHERE product = ? AND side = ? AND price = ? AND size = ? AND place = ?"
        return self._quotes.execute(query, (*_key(split), place)).fetchone() is not None


def _key(split: AuditedSplit) -> tuple[str, str, str, str]:
    return f"{split.venue} {split.product_id}", split.side.value, plain(split.price), plain(split.shown)


def _rows(quote: Quote, known: Instruments) -> Iterator[tuple[object, ...]]:
    """Yield what a quote shows to either side, rounded as the book does it: so that less is sold."""
    instrument = known.of_product(quote.venue, quote.product_id)
    if instrument is None:
        return
    for side, price, size in (
        (Side.SELL, quote.bid_price, quote.bid_size),
        (Side.BUY, quote.ask_price, quote.ask_size),
    ):
        if price is None or size is None:
            continue
        with localcontext(EXACT):
            level = _stepped(price, instrument.tick, up=side is Side.BUY)
            shown = _stepped(size, instrument.lot, up=False)
        yield f"{quote.venue} {quote.product_id}", side.value, plain(level), plain(shown), quote.exchange_time_us


def _stepped(value: Decimal, step: Decimal, *, up: bool) -> Decimal:
    whole, rest = divmod(value, step)
    return (whole + 1 if rest and up else whole) * step
