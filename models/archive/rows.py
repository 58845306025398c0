"""Entries of the bus as tables, and back. Numbers are exact: decimals of 18 or 38 digits, times integers of us."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import pyarrow as pa

from models.archive.layout import Entry, Kind
from models.domain.decimals import EXACT
from models.domain.history import Chunk, Print, Sample, Span

# A number of more digits before or after the point is no price: its row is left out, and counted.
WHOLE_MAX, SCALE_MAX = 19, 18
NARROW, WIDE = 18, 38  # digits of a decimal that is an integer of 64 bits, and of the widest there is
Told = TypeVar("Told", Sample, Print)

_PLACE = [("entry_ms", pa.int64()), ("entry_seq", pa.int32()), ("place", pa.int32())]
DECIMALS: Mapping[Kind, tuple[str, ...]] = {
    Kind.TRADES: ("price", "size"),
    Kind.QUOTES: ("bid_price", "bid_size", "ask_price", "ask_size", "last_price"),
    Kind.SPANS: (),
}
# The other columns, in order; the decimals stand before the last four.
_COLUMNS: Mapping[Kind, list[tuple[str, Any]]] = {
    Kind.TRADES: [
        ("time_us", pa.int64()),
        ("received_time_us", pa.int64()),
        ("exchange_time_us", pa.int64()),
        ("product_id", pa.string()),
        ("trade_id", pa.string()),
        ("taker_side", pa.string()),
        ("token", pa.int64()),
        *_PLACE,
    ],
    Kind.QUOTES: [("time_us", pa.int64()), ("product_id", pa.string()), ("token", pa.int64()), *_PLACE],
    Kind.SPANS: [
        ("from_us", pa.int64()),
        ("until_us", pa.int64()),
        ("gaps", pa.list_(pa.string())),
        ("token", pa.int64()),
        *_PLACE,
    ],
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a column's numbers are: digits before the point at most, and after it."""

    whole: int = 0
    scale: int = 0

    def over(self, other: "Shape") -> "Shape":
        """Return a shape that has room for both."""
        return Shape(max(self.whole, other.whole), max(self.scale, other.scale))

    @property
    def type(self) -> Any:  # noqa: ANN401 -- pyarrow's types carry no types
        """The narrowest decimal type with room for it. Raises ValueError where there is none."""
        digits = NARROW if self.whole + self.scale <= NARROW else WIDE
        return pa.decimal128(digits, self.scale)


@dataclass
class Rows:
    """Rows of one kind, gathered entry by entry."""

    kind: Kind
    columns: dict[str, list[Any]] = field(default_factory=dict)
    refused: int = 0

    def __post_init__(self) -> None:
        self.columns = {name: [] for name in self.names}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns, in order."""
        others = [name for name, _ in _COLUMNS[self.kind]]
        return (*others[:-4], *DECIMALS[self.kind], *others[-4:])

    def __len__(self) -> int:
        return len(self.columns["token"])

    def add(self, entry: Entry, chunk: Chunk) -> None:
        """Take in what an entry tells: its trades or its best quotes, by this object's kind."""
        if self.kind is Kind.TRADES:
            for place, made in enumerate(chunk.prints):
                time_us = made.time_us if made.exchange_time_us is None else made.exchange_time_us
                texts = (chunk.product_id, made.trade_id)
                numbers = (made.price, made.size)
                times = (time_us, made.time_us, made.exchange_time_us)
                self._append((*times, *texts, made.taker_side), numbers, (chunk.token, *entry, place))
            return
        for place, each in enumerate(chunk.samples):
            numbers_ = (each.bid, each.bid_size, each.ask, each.ask_size, each.last)
            self._append((each.time_us, chunk.product_id), numbers_, (chunk.token, *entry, place))

    def add_span(self, entry: Entry, span: Span) -> None:
        """Take in from when until when a connection lived."""
        self._append((span.from_us, span.until_us, list(span.gaps)), (), (span.token, *entry, 0))

    def _append(self, head: tuple[Any, ...], numbers: tuple[Decimal | None, ...], tail: tuple[int, ...]) -> None:
        made = [None if number is None else EXACT.normalize(number) for number in numbers]
        if not all(map(_fits, made)):
            self.refused += 1
            return
        for column, value in zip(self.columns.values(), (*head, *made, *tail), strict=True):
            column.append(value)

    def table(self) -> Any:  # noqa: ANN401 -- pyarrow carries no types
        """Return the rows as an Arrow table, each decimal in the narrowest type that holds its column."""
        types = dict(_COLUMNS[self.kind])
        types |= {name: _shape(self.columns[name]).type for name in DECIMALS[self.kind]}
        arrays = [pa.array(self.columns[name], types[name]) for name in self.names]
        return pa.Table.from_arrays(arrays, names=list(self.names))


def _fits(number: Decimal | None) -> bool:
    if not number:
        return True
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -SCALE_MAX and number.adjusted() < WHOLE_MAX


def _shape(numbers: Iterable[Decimal | None]) -> Shape:
    whole = scale = 0
    for number in numbers:
        if number:
            whole = max(whole, number.adjusted() + 1)
            scale = max(scale, -number.as_tuple().exponent)  # type: ignore[operator] # only NaN's is no integer
    return Shape(whole, scale)


def chunks_of(
    market: str, venue: str, trades: Sequence[Mapping[str, Any]], quotes: Sequence[Mapping[str, Any]]
) -> dict[Entry, Chunk]:
    """Return rows of a venue as the chunks that they were, by entry. Rows come in any order, and perhaps twice."""
    made: dict[tuple[Entry, str, int], tuple[dict[int, Sample], dict[int, Print]]] = {}

    def of(row: Mapping[str, Any]) -> tuple[dict[int, Sample], dict[int, Print]]:
        key = Entry(row["entry_ms"], row["entry_seq"]), row["product_id"], row["token"]
        return made.setdefault(key, ({}, {}))

    for row in quotes:
        prices = row["bid_price"], row["ask_price"], row["last_price"]
        of(row)[0][row["place"]] = Sample(row["time_us"], *prices, row["bid_size"], row["ask_size"])
    for row in trades:
        told = row["price"], row["size"], row["taker_side"], row["exchange_time_us"]
        of(row)[1][row["place"]] = Print(row["received_time_us"], row["trade_id"], *told)
    return {
        entry: Chunk(venue, product_id, token, _ordered(samples), _ordered(prints), market)
        for (entry, product_id, token), (samples, prints) in made.items()
    }


def _ordered(by_place: Mapping[int, Told]) -> tuple[Told, ...]:
    return tuple(by_place[place] for place in sorted(by_place))


def spans_of(market: str, venue: str, rows: Iterable[Mapping[str, Any]]) -> dict[Entry, Span]:
    """Return rows of a venue as the spans that they were, by entry."""
    return {
        Entry(row["entry_ms"], row["entry_seq"]): Span(
            venue, row["token"], row["from_us"], row["until_us"], tuple(row["gaps"]), market
        )
        for row in rows
    }
