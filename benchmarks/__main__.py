"""Run the benchmarks: all of them, or those named (`python -m benchmarks accept filled idle`)."""

import sys
from collections.abc import Callable

from benchmarks import accept, decode, feed, filled, idle, peers, prices, slow_bus, stream

BENCHMARKS: dict[str, Callable[[], None]] = {
    "accept": accept.main,
    "filled": filled.main,
    "idle": idle.main,
    "decode": decode.main,
    "feed": feed.main,
    "peers": peers.main,
    "prices": prices.main,
    "slow_bus": slow_bus.main,
    "stream": stream.main,
}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"\n## {name}\n", flush=True)
    BENCHMARKS[name]()
