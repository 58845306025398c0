"""Run the benchmarks: all of them, or those named (`python -m benchmarks accept filled idle`)."""

import sys
from collections.abc import Callable

from benchmarks import accept, decode, feed, filled, idle, outcomes, peers, prices, resting_rate, slow_bus

BENCHMARKS: dict[str, Callable[[], None]] = {
    "accept": accept.main,
    "filled": filled.main,
    "idle": idle.main,
    "decode": decode.main,
    "feed": feed.main,
    "outcomes": outcomes.main,
    "peers": peers.main,
    "prices": prices.main,
    "slow_bus": slow_bus.main,
    "resting_rate": resting_rate.main,
}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"\n## {name}\n", flush=True)
    BENCHMARKS[name]()
