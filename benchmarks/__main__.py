"""Run the benchmarks: all of them, or those named (`python -m benchmarks accept filled idle`)."""

import sys
from collections.abc import Callable

from benchmarks import (
    accept,
    decode,
    feed,
    filled,
    idle,
    overload,
    peers,
    prices,
    resting_rate,
    scale,
    slow_bus,
    sustained,
    waiting_design,
)

BENCHMARKS: dict[str, Callable[[], None]] = {
    "accept": accept.main,
    "filled": filled.main,
    "idle": idle.main,
    "decode": decode.main,
    "feed": feed.main,
    "peers": peers.main,
    "prices": prices.main,
    "slow_bus": slow_bus.main,
    "resting_rate": resting_rate.main,
    "sustained": sustained.main,
    "waiting_design": waiting_design.main,
    "scale": scale.main,
    "overload": overload.main,
}

for name in sys.argv[1:] or BENCHMARKS:
    print(f"\n## {name}\n", flush=True)
    BENCHMARKS[name]()
