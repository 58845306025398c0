"""How often the ledger's rule mattered in the recorded session, for a taker who always takes all there is.

`python -m benchmarks.ledger_memory`; the recording is found by CROSSFILL_MARKET_DATA.
"""

import gzip
import json
import sys
from decimal import Decimal

from models.domain.ledger import RULES, Ledger
from models.domain.orders import Side
from tests.services import market_data

RECORDING = "sessions/binance_spot_btcusdt_2024-08-08.raw.gz"
LOT = Decimal("0.00001")
TICK = Decimal("0.01")


def _sold(ledger: Ledger, quotes: list[tuple[int, int, int]]) -> tuple[int, int]:
    """Return what a greedy taker gets, in lots, and in how many fills."""
    sold = fills = 0
    for now_us, price, size in quotes:
        ledger.show(now_us, price, size)
        available = ledger.left
        if available:
            ledger.take(available)
            sold += available
            fills += 1
    return sold, fills


def main() -> None:
    """Print what each rule sells on the recorded bids."""
    folder = market_data()
    if folder is None:
        sys.exit("no recorded market data: set CROSSFILL_MARKET_DATA")
    quotes = []
    with gzip.open(folder / RECORDING, "rt") as lines:
        for line in lines:
            stamp, _, frame = line.partition(" ")
            if "@bookTicker" in frame:
                data = json.loads(frame)["data"]
                quotes.append((int(stamp) // 1000, int(Decimal(data["b"]) / TICK), int(Decimal(data["B"]) / LOT)))
    print(f"{len(quotes)} quotes; bids of BTCUSDT, all taken whenever something is left")
    for name, rule in RULES.items():
        sold, fills = _sold(rule(Side.SELL), quotes)
        print(f"{name:<12} {sold * LOT:>14} BTC in {fills} fills")


if __name__ == "__main__":
    main()
