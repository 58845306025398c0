"""Recording: one connection's frames into the session format of docs/sessions.md."""

import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path

import websocket

from exchanges.registry import PROTOCOLS
from models.domain.errors import CrossfillError
from models.domain.instruments import INSTRUMENTS
from models.settings import Settings

CONNECT_TIMEOUT_S = 10
RECEIVE_TIMEOUT_S = 1


class RecordError(CrossfillError):
    """There is nothing to record; the sentence says why."""


def record(venue: str, pairs: Sequence[str], duration_s: float, out: Path) -> Path:
    """Record a venue's frames for some seconds and return the session's file.

    Raises RecordError for a venue or pair that cannot be read and where the connection fails (what
    came before a later failure is kept), UnknownSymbolError for a pair that nobody knows.
    """
    if venue not in PROTOCOLS:
        raise RecordError(f"unknown venue {venue!r}; one of {', '.join(PROTOCOLS)}")
    products = [_product(venue, pair) for pair in pairs]
    settings = Settings()
    protocol = PROTOCOLS[venue](settings.venue_urls.get(venue), products, 0)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    file = out / f"{venue}_{stamp}.jsonl.gz"
    out.mkdir(parents=True, exist_ok=True)
    started = time.time_ns()
    sent = list(protocol.subscribe_frames())
    count, problem = 0, None
    try:
        connection = websocket.create_connection(protocol.url(), timeout=CONNECT_TIMEOUT_S)
        try:
            for frame in sent:
                connection.send(frame)
            connection.settimeout(RECEIVE_TIMEOUT_S)
            count, problem = _write(connection, file, time.monotonic() + duration_s)
        finally:
            connection.close()
    except (websocket.WebSocketException, OSError) as error:
        raise RecordError(f"{protocol.url()} cannot be read: {error}") from error
    meta = {
        "venue": venue,
        "url": protocol.url(),
        "products": products,
        "sent": sent,
        "started_ns": started,
        "frames": count,
    }
    file.with_name(f"{venue}_{stamp}.meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    if problem is not None:
        raise RecordError(f"the connection broke after {count} frames, which are in {file}: {problem}") from problem
    return file


def _product(venue: str, pair: str) -> str:
    instrument = INSTRUMENTS.resolve(pair)
    for product in instrument.products:
        if product.venue == venue:
            return product.id
    raise RecordError(
        f"{venue} does not list {instrument.symbol}; it is listed by {', '.join(sorted(instrument.venues))}"
    )


def _write(connection: websocket.WebSocket, file: Path, until: float) -> tuple[int, Exception | None]:
    """Write what comes; return the number of frames, and what ended it before its time."""
    count = 0
    with gzip.open(file, "wt") as lines:
        while time.monotonic() < until:
            try:
                frame = connection.recv()
            except websocket.WebSocketTimeoutException:
                continue
            except (websocket.WebSocketException, OSError) as error:
                return count, error
            if frame:
                text = frame if isinstance(frame, str) else frame.decode()
                lines.write(json.dumps({"t": time.time_ns(), "f": text}) + "\n")
                count += 1
    return count, None
