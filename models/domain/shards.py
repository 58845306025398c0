"""Which shard a symbol belongs to."""

from zlib import crc32


def shard_of(symbol: str, shards: int) -> int:
    """Return the shard of a canonical symbol: the same on every machine and in every release."""
    return crc32(symbol.encode()) % shards
