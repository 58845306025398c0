"""The venues' lists of instruments as they were recorded."""

import gzip
from pathlib import Path

# Deribit's recorded list is from before it had spot.
FILES = {
    "binance": "binance_rest_exchangeInfo.txt.gz",
    "coinbase": "coinbase_rest_products.txt.gz",
    "kraken": "kraken_rest_AssetPairs.txt.gz",
    "htx": "htx_rest_symbols.txt.gz",
    "okx": "okx_rest_instruments_spot.json",
}


def recorded_list(recordings: Path, venue: str) -> bytes:
    """Return the body of a venue's list."""
    content = (recordings / "instruments" / FILES[venue]).read_bytes()
    if FILES[venue].endswith(".json"):
        return content
    return gzip.decompress(content).splitlines()[0].partition(b": ")[2]
