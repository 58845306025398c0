"""The history is written in parts that are short on a slow bus, and no more of them than that takes."""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from models.bus.history import ENTRY, PART, decode_chunks, parts_of
from models.domain.history import Chunk, Print, Sample

ONE = Decimal(1)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).filter(any), max_size=8))
def test_parts_hold_everything_once_and_in_order(sizes: list[tuple[int, int]]) -> None:
    """No part is longer than PART, and no two that follow each other could have been one."""
    chunks = {
        f"S{place}": Chunk(
            "v",
            f"P{place}",
            7,
            tuple(Sample(time_us, ONE, None, None) for time_us in range(samples)),
            tuple(Print(time_us, "1", ONE, ONE) for time_us in range(prints)),
        )
        for place, (samples, prints) in enumerate(sizes)
    }
    parts = list(parts_of(chunks))
    for symbol, chunk in chunks.items():
        pieces = [part[symbol] for part in parts if symbol in part]
        assert tuple(each for piece in pieces for each in piece.samples) == chunk.samples
        assert tuple(each for piece in pieces for each in piece.prints) == chunk.prints
        assert {(piece.venue, piece.product_id, piece.token) for piece in pieces} == {("v", chunk.product_id, 7)}
    lengths = [[max(len(piece.samples), len(piece.prints)) for piece in part.values()] for part in parts]
    assert all(sum(each) <= PART for each in lengths)
    for first, second in pairwise(lengths):
        assert sum(first) + ENTRY * len(first) + second[0] + ENTRY > PART


def test_entries_that_were_written_before_sizes_and_sides_were_kept_are_read() -> None:
    """An upgrade finds two hours of them on the bus."""
    before = ["okx", "A", 7, [[1, "10", "11", None]], [[2, "9", "10.5", "3"]]]
    entry: Any = {b"b": msgspec.msgpack.encode(before)}
    sample, made = Sample(1, Decimal(10), Decimal(11), None), Print(2, "9", Decimal("10.5"), Decimal(3))
    assert decode_chunks([(b"1-0", entry)]) == [Chunk("okx", "A", 7, (sample,), (made,))]


def test_small_chunks_go_together() -> None:
    """A quiet venue's twenty products cost two round trips and not twenty."""
    chunk = Chunk("v", "p", 7, (Sample(1, ONE, None, None),), ())
    assert [len(part) for part in parts_of({str(number): chunk for number in range(20)})] == [10, 10]
