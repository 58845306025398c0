"""Every name that more than one process uses in Redis and Celery."""

from enum import StrEnum


class Queue(StrEnum):
    """Queues that are there whatever the number of shards; orders have one a shard (`orders_queue`)."""

    JOBS = "jobs"
    HOUSEKEEPING = "housekeeping"  # what may never wait behind jobs; fulfilment workers have a thread for it


class Task(StrEnum):
    """Celery tasks, in the imperative."""

    ORDER_PLACE = "order.place"
    ORDER_SWEEP = "order.sweep"
    EVENT_PRUNE = "event.prune"
    JOB_RUN = "job.run"
    DATABASE_CHECKPOINT = "database.checkpoint"
    LISTING_REFRESH = "listing.refresh"
    AUDIT_TELL = "audit.tell"
    CANDLES_FETCH = "candles.fetch"


COLLECTORS = "collectors"  # hash: venue -> state of its collector
SIGNALS = "signals"  # stream: what strategies say
ANALYST = "analyst"  # key: who reads the market for everybody, see models.bus.leases
PUBLISHED = "analyst:published"  # hash: shard -> the last batch of its stream of which everything is published
STATE = "analyst:state"  # hash: what a restart of the analyst begins with
PENDING = "analyst:pending"  # list: closed candles that are not in the database yet
KEEPER = "analyst:keeper"  # key: who took of them last
FORGOTTEN = "analyst:forgotten"  # counter: of those that left the list
HINTS = "hints"  # pub/sub channel: owners who have something to look at


def orders_queue(shard: int) -> str:
    """Return the Celery queue that wakes a shard's owner."""
    return f"orders.{shard}"


def quotes_stream(shard: int) -> str:
    """Return the stream of a shard's quotes, trades and marks."""
    return f"quotes:{shard}"


def current_key(shard: int) -> str:
    """Return the hash of each product's newest quote in a shard."""
    return f"current:{shard}"


def latest_key(symbol: str) -> str:
    """Return the hash of a symbol's latest prices by venue."""
    return f"latest:{symbol}"


def history_stream(symbol: str) -> str:
    """Return the stream of what was seen of a symbol, in chunks."""
    return f"history:{symbol}"


def candles_stream(symbol: str) -> str:
    """Return the stream of the candles that venues tell of a symbol."""
    return f"candles:{symbol}"


def spans_stream(venue: str) -> str:
    """Return the stream of the times in which a venue's connections lived."""
    return f"spans:{venue}"


def vwap_key(symbol: str) -> str:
    """Return the hash of a symbol's sliding averages by venue."""
    return f"vwap:{symbol}"


def open_candles_key(symbol: str) -> str:
    """Return the hash of a symbol's candles that are still made, by venue and interval (`binance:1m`)."""
    return f"candle:{symbol}"


def window_key(series: str) -> str:
    """Return the list of the trades in a series' sliding window, oldest first."""
    return f"window:{series}"


def topic_stream(topic: str) -> str:
    """Return the stream of a topic, which is named as a venue or as a symbol is."""
    return f"topic:{topic}"


def past_key(venue: str) -> str:
    """Return the key that is there while a venue is asked for its past, or may not be asked again yet."""
    return f"past:{venue}"


def venue_lease_key(venue: str) -> str:
    """Return the key of the one collector that reads a venue."""
    return f"collector:{venue}"
