"""From a frame to the finished domain objects, beside `json.loads` of the same frames, for each venue.

On recorded frames of the channels that we read, where there are some (CROSSFILL_MARKET_DATA), and on
those of the seeded simulator.
"""

import base64
import json
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.frames import as_bytes, frames_of, majors
from exchanges.registry import PROTOCOLS
from models.domain.quotes import Quote, Trade
from simulator.replay import read
from tests.services import market_data

FRAMES = 20_000
ROUNDS = 5
# Recorded frames of our channels: the session, a mark of the channel, and the products.
RECORDED = {
    "binance": ("binance_spot_btcusdt_2024-08-08.raw.gz", ("@bookTicker", "@trade"), ["BTCUSDT"]),
    "coinbase": ("coinbase_exchange_2021-04-17.jsonl.gz", ("l2update", "match", "ticker", "snapshot"), None),
    "htx": ("htx_2021-04-17.gzip_frames.b64.txt", (".trade.detail",), None),
    "okx": ("okx_2022-05-13.jsonl", ('"channel":"trades"',), ["BTC-USDT", "BTC-USD-220527", "UNI-USD-SWAP"]),
}


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


def measure(venue: str, products: list[str], before: list[bytes], frames: list[bytes]) -> tuple[float, float, int]:
    """Return microseconds a frame for our decoding and for json.loads, and how many objects were made."""
    made = 0

    def warm() -> None:
        protocol = PROTOCOLS[venue](None, products, 1)
        for frame in before:
            protocol.decode(frame, 1)

    def ours() -> None:
        nonlocal made
        protocol = PROTOCOLS[venue](None, products, 1)
        for frame in before:
            protocol.decode(frame, 1)
        decode, made = protocol.decode, 0
        for frame in frames:
            for event in decode(frame, 1):
                made += isinstance(event, Quote | Trade)

    once = _best_us(warm, len(frames))
    return _best_us(ours, len(frames)) - once, _best_us(_json(venue, frames), len(frames)), made


def _recorded(folder: Path, venue: str) -> tuple[list[str], list[bytes]]:
    name, marks, products = RECORDED[venue]
    file = folder / "sessions" / name
    if products is None:
        stem = name.split(".")[0]
        sent = json.loads((file.with_name(f"{stem}.meta.json")).read_text())["sent"]
        products = sorted(set(_products(json.loads(each["frame"]) for each in sent)))
    if venue == "htx":  # as they were on the wire
        packed = [base64.b64decode(line) for line in file.read_text().split()]
        return products, [each for each in packed if any(mark.encode() in zlib.decompress(each, 31) for mark in marks)]
    return products, [frame.encode() for _, frame in read(file) if any(mark in frame for mark in marks)]


def _products(requests: Iterator[dict[str, list[str]]]) -> Iterator[str]:
    for request in requests:
        if "product_ids" in request:
            yield from request["product_ids"]
        elif "sub" in request:
            yield str(request["sub"]).split(".")[1]


def main() -> None:
    """Print a table."""
    print("| venue | frames | us a frame | json.loads | ratio | objects in 100 |\n|---|---|--:|--:|--:|--:|")
    folder = market_data()
    for venue in PROTOCOLS:
        kinds = {"simulated": (majors(venue), *_simulated(venue))}
        if folder is not None and venue in RECORDED:
            products, frames = _recorded(folder, venue)
            kinds["recorded"] = (products, [], frames)
        for kind, (products, before, frames) in kinds.items():
            ours, plain, made = measure(venue, products, before, frames)
            share = 100 * made / len(frames)
            print(f"| {venue} | {kind} | {ours:.2f} | {plain:.2f} | {plain / ours:.2f} | {share:.0f} |", flush=True)


def _simulated(venue: str) -> tuple[list[bytes], list[bytes]]:
    first, rest = frames_of(venue, FRAMES, majors(venue))
    return [as_bytes(frame) for frame in first], [as_bytes(frame) for frame in rest]
