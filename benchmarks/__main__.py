"""Run the benchmarks: all of them, or those named (`python -m benchmarks accept filled idle`)."""

import sys
from importlib import import_module

BENCHMARKS = (
    "accept",
    "backlog",
    "overload",
    "filled",
    "sustained",
    "waiting_design",
    "book",
    "resting",
    "resting_rate",
    "outcomes",
    "scale",
    "idle",
    "decode",
    "feed",
    "peers",
    "stream",
    "slow_bus",
    "prices",
    "candles",
    "rooms",
    "history",
    "ledger_memory",
    "topics",
    "vwap",
    "analysis",
)

asked = sys.argv[1:] or BENCHMARKS
if unknown := set(asked) - set(BENCHMARKS):
    sys.exit(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
for name in asked:
    print(f"\n## {name}\n", flush=True)
    import_module(f"benchmarks.{name}").main()
