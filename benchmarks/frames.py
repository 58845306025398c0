"""Frames to measure with: what the seeded simulator would send, for each venue, with rising numbers."""

from collections.abc import Sequence

from exchanges.registry import PROTOCOLS
from models.domain.instruments import INSTRUMENTS, Instrument, Instruments
from simulator.market import MAJORS, TICK_US, Market
from simulator.registry import WIRES
from simulator.wire import Wire

START_US = 1_790_000_000_000_000
# The path of a venue's own address, which says in which form its frames come.
PATHS = {"binance": "/stream", "okx": "/ws/v5/public", "deribit": "/ws/api/v2"}


def majors(venue: str) -> list[str]:
    """Return the products of a venue's most traded pairs."""
    found = INSTRUMENTS.products_of(venue).items()
    return [product_id for product_id, instrument in found if _major(instrument)]


def _major(instrument: Instrument) -> bool:
    return {instrument.base, instrument.quote} <= MAJORS


def frames_of(venue: str, wanted: int, product_ids: Sequence[str]) -> tuple[list[str | bytes], list[str | bytes]]:
    """Return what the venue answers to our subscription, and then at least so many frames of its market."""
    wire: Wire = WIRES[venue]
    market = Market(Instruments(filter(_major, INSTRUMENTS)), [venue], 7, START_US)
    listings = market.of_venue(venue)
    session = wire.session(PATHS.get(venue, "/"), listings)
    first = [
        frame
        for request in PROTOCOLS[venue](None, product_ids, 1).subscribe_frames()
        for frame in session.answer(request, START_US)
    ]
    frames: list[str] = []
    now_us = START_US
    while len(frames) < wanted:
        now_us += TICK_US
        for event in market.tick(now_us):
            frames += session.frames(event)
    return [wire.encode(frame) for frame in first], [wire.encode(frame) for frame in frames]


def as_bytes(frame: str | bytes) -> bytes:
    """Return a frame as the collector reads it."""
    return frame if isinstance(frame, bytes) else frame.encode()
