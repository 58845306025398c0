"""Sessions of a test's own making, in the form that `crossfill record` writes; and a replay that keeps a journal."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.domain.journal import entry
from models.domain.replay import Replay

BEGUN_S = 1_700_000_000


def ticker(number: int, bid: str, bid_size: str, ask: str = "0.9", ask_size: str = "1", pair: str = "LTCBTC") -> str:
    """A frame of Binance's best bid and ask."""
    data = {"u": number, "s": pair, "b": bid, "B": bid_size, "a": ask, "A": ask_size}
    return json.dumps({"stream": f"{pair.lower()}@bookTicker", "data": data}, separators=(",", ":"))


def snapshot(bid: str, bid_size: str, ask: str = "0.9", ask_size: str = "1", pair: str = "LTC-BTC") -> str:
    """A frame of Coinbase's whole book."""
    levels = {"bids": [[bid, bid_size]], "asks": [[ask, ask_size]]}
    return json.dumps({"type": "snapshot", "product_id": pair, **levels})


def write(file: Path, frames: Iterable[tuple[float, str]]) -> Path:
    """Write frames with the seconds since BEGUN_S at which they came."""
    with gzip.open(file, "wt") as lines:
        lines.writelines(json.dumps({"t": round((BEGUN_S + at_s) * 1e9), "f": frame}) + "\n" for at_s, frame in frames)
    return file


def write_orders(file: Path, orders: Iterable[dict[str, object]]) -> Path:
    """Write orders as JSON lines: sales of LTC-BTC at 0.001 that wait for ever, unless they say otherwise."""
    plain = {"symbol": "LTC-BTC", "side": "sell", "price": "0.001", "time_in_force": "GTC"}
    file.write_text("".join(json.dumps({**plain, **order}) + "\n" for order in orders))
    return file


class Noted(Replay):
    """Notes what each step of its books was given, as a loop's journal does."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.journal: list[dict[str, Any]] = []

    def step(self, symbol: str, now_us: int, **inputs: Any) -> None:
        given = (inputs.get(name, ()) for name in ("items", "switches", "cancels", "orders"))
        self.journal.append(entry(now_us, *given))
        super().step(symbol, now_us, **inputs)
