"""From a frame to the finished domain objects, beside `json.loads` of the same frames, for each venue."""

import json
import time
import zlib
from collections.abc import Callable, Sequence

from benchmarks.frames import as_bytes, frames_of, majors
from exchanges.registry import PROTOCOLS
from models.domain.quotes import Quote, Trade

FRAMES = 20_000
ROUNDS = 5


def _best_us(work: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times) / count * 1e6


def _json(venue: str, frames: Sequence[bytes]) -> Callable[[], object]:
    if venue == "htx":  # decompression on both sides
        return lambda: [json.loads(zlib.decompress(frame, 31)) for frame in frames]
    return lambda: [json.loads(frame) for frame in frames]


def measure(venue: str) -> tuple[float, float, int]:
    """Return microseconds a frame for our decoding and for json.loads, and how many objects were made."""
    products = majors(venue)
    first, rest = frames_of(venue, FRAMES, products)
    before, frames = [as_bytes(frame) for frame in first], [as_bytes(frame) for frame in rest]
    made = 0

    def ours() -> None:
        nonlocal made
        protocol = PROTOCOLS[venue](None, products, 1)
        for frame in before:
            protocol.decode(frame, 1)
        decode, made = protocol.decode, 0
        for frame in frames:
            for event in decode(frame, 1):
                made += isinstance(event, Quote | Trade)

    def warm() -> None:
        protocol = PROTOCOLS[venue](None, products, 1)
        for frame in before:
            protocol.decode(frame, 1)

    once = _best_us(warm, len(frames))
    return _best_us(ours, len(frames)) - once, _best_us(_json(venue, frames), len(frames)), made


def main() -> None:
    """Print a table."""
    print("| venue | decode, us a frame | json.loads | ratio | objects in 100 frames |\n|---|--:|--:|--:|--:|")
    for venue in PROTOCOLS:
        ours, plain, made = measure(venue)
        print(f"| {venue} | {ours:.2f} | {plain:.2f} | {plain / ours:.2f} | {100 * made / FRAMES:.0f} |", flush=True)
