"""From a frame to the finished object: ours beside cryptofeed's handler and ccxt.pro's, on the same frames.

Best bid and ask, and trades, where the peer reads the channel that we read. cryptofeed has an
interpreter of its own (3.13, ours need not be), ccxt another one: see tests/peers.
"""

import base64
import json
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from benchmarks.frames import as_bytes, frames_of, majors
from exchanges.registry import PROTOCOLS
from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Quote, Trade
from tests.peers import clients

MADE, FRAMES = 40_000, 5_000  # frames of all channels, and of the one that is measured
ROUNDS = 5
AIMS = {"cryptofeed": 2, "ccxt": 10}
# By what a frame of the channel holds near its beginning.
CHANNELS = {
    ("binance", "quotes"): "@bookTicker",
    ("binance", "trades"): "@trade",
    ("coinbase", "quotes"): '"type":"l2update"',
    ("coinbase", "trades"): '"type":"match"',
    ("kraken", "quotes"): '{"channel":"book"',
    ("kraken", "trades"): '{"channel":"trade"',
    ("htx", "quotes"): '.bbo"',
    ("htx", "trades"): '.trade.detail"',
    ("okx", "quotes"): '"channel":"bbo-tbt"',
    ("okx", "trades"): '"channel":"trades"',
    ("deribit", "quotes"): '"channel":"quote.',
    ("deribit", "trades"): '"channel":"trades.',
}
ADVANCED = "it speaks Coinbase's other API, Advanced Trade"
BOOKS = "our best bid and ask come from levels, its from `ticker`"
NOT_COMPARED = {
    ("cryptofeed", "coinbase", "quotes"): ADVANCED,
    ("cryptofeed", "coinbase", "trades"): ADVANCED,
    ("ccxt", "coinbase", "quotes"): BOOKS,
    ("cryptofeed", "kraken", "quotes"): BOOKS,
    ("ccxt", "kraken", "quotes"): BOOKS,
    ("cryptofeed", "htx", "quotes"): "it reads `ticker`, we read `bbo`",
    ("cryptofeed", "okx", "quotes"): "it reads `tickers`, we read `bbo-tbt`",
}
_TRADE_ID = re.compile(r'"t":(\d+)')


def _text(frame: str | bytes) -> str:
    return frame if isinstance(frame, str) else zlib.decompress(frame, 31).decode()


def _for_cryptofeed(frame: str | bytes) -> str | bytes:
    """Return a frame as cryptofeed asks for it: of Binance, the same trade in the channel `aggTrade`."""
    if isinstance(frame, bytes) or "@trade" not in frame:
        return frame
    frame = frame.replace("@trade", "@aggTrade").replace('"e":"trade"', '"e":"aggTrade"')
    return _TRADE_ID.sub(r'"a":\1,"f":\1,"l":\1', frame)


def ours(venue: str, kind: str, first: Sequence[str | bytes], frames: Sequence[str | bytes]) -> float:
    """Return microseconds a frame."""
    wanted = Quote if kind == "quotes" else Trade
    times = []
    for number in range(ROUNDS + 1):
        protocol = PROTOCOLS[venue](None, majors(venue), 1)
        for frame in first:
            protocol.decode(as_bytes(frame), 1)
        decode, read = protocol.decode, [as_bytes(frame) for frame in frames]
        if number == 0:  # each frame makes what the peers make of it
            assert all(any(isinstance(event, wanted) for event in decode(frame, 1)) for frame in read)
            continue
        started = time.perf_counter()
        for frame in read:
            for _ in decode(frame, 1):
                pass
        times.append(time.perf_counter() - started)
    return min(times) / len(frames) * 1e6


@cache
def _python(peer: str) -> Path | str:
    """Return a peer's interpreter, or why there is none."""
    try:
        if peer == "ccxt":
            return clients.interpreter("requirements.txt")
        newest = clients.python_since(3, 13)
        if newest is None:
            return "the newest cryptofeed needs Python 3.13"
        return clients.interpreter("newest.txt", newest)
    except pytest.skip.Exception as why:
        return str(why)


def theirs(peer: str, venue: str, kind: str, frames: Sequence[str | bytes], folder: Path) -> float | str:
    """Return microseconds a frame, or why it cannot be said."""
    python = NOT_COMPARED.get((peer, venue, kind)) or _python(peer)
    if isinstance(python, str):
        return python
    known = {each.symbol: pid for pid, each in INSTRUMENTS.products_of(venue).items() if pid in majors(venue)}
    binary = isinstance(frames[0], bytes)
    told = {
        "venue": venue,
        "kind": kind,
        "products": known,
        "binary": binary,
        "frames": [base64.b64encode(as_bytes(frame)).decode() if binary else frame for frame in frames],
    }
    path = folder / "frames.json"
    path.write_text(json.dumps(told))
    script = Path(__file__).with_name("peers_decode.py")
    done = subprocess.run([python, script, peer, path], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{peer} on {venue}, {kind}: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    # Else they have not read what they were given, and are fast for that.
    assert answer["made"] >= len(frames), (peer, venue, kind, answer)
    return float(answer["us"])


def main() -> None:
    """Print a table."""
    print(f"Microseconds a frame; ours in Python {sys.version.split()[0]}.\n")
    print("| venue | channel | ours | cryptofeed | ratio | ccxt | ratio |\n|---|---|--:|--:|--:|--:|--:|")
    reasons: dict[str, list[str]] = {}
    below: list[str] = []
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name:
        for venue in PROTOCOLS:
            first, rest = frames_of(venue, MADE, majors(venue))
            for kind in ("quotes", "trades"):
                mark = CHANNELS[venue, kind]
                frames = [frame for frame in rest if mark in _text(frame)[:120]][:FRAMES]
                peers = {"cryptofeed": [_for_cryptofeed(frame) for frame in frames], "ccxt": frames}
                if all((peer, venue, kind) in NOT_COMPARED for peer in peers):
                    own = None
                else:
                    own = ours(venue, kind, first, frames)
                cells = ["-" if own is None else f"{own:.2f}"]
                for peer, given in peers.items():
                    took = theirs(peer, venue, kind, given, Path(name))
                    if isinstance(took, str) or own is None:
                        reasons.setdefault(f"{peer}: {took}", []).append(f"{venue} {kind}")
                        cells += ["-", "-"]
                        continue
                    cells += [f"{took:.2f}", f"{took / own:.1f}"]
                    if took / own < AIMS[peer]:
                        below.append(f"{venue} {kind} against {peer} ({took / own:.1f})")
                print(f"| {venue} | {kind} | {' | '.join(cells)} |", flush=True)
    print()
    for reason, rows in reasons.items():
        print(f"Not compared, {', '.join(rows)}: {reason}.")
    aims = ", ".join(f"{times} x {peer}'s" for peer, times in AIMS.items())
    print(f"Aims ({aims}): {'reached' if not below else 'NOT REACHED by ' + ', '.join(below)}")
