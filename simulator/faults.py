"""Faults on demand: what a venue and the network between may do, one object a venue."""

import time
from dataclasses import dataclass

FAULTS = ("drop", "stall", "garbage", "gap", "slow", "refuse")


@dataclass
class Faults:
    """What goes wrong now. `drop` cuts every connection; the others last for `seconds` or one frame.

    stall: nothing is sent, not even a pong (half-open); garbage: the next frame is cut in half;
    gap: the next trade is swallowed; slow: each frame waits `delay_s`; refuse: connections are refused.
    """

    stalled_until: float = 0.0
    refused_until: float = 0.0
    slow_until: float = 0.0
    delay_s: float = 0.0
    garbage: int = 0
    gaps: int = 0
    drops: int = 0

    def inject(self, fault: str, seconds: float = 5.0, delay_s: float = 0.5) -> None:
        """Let a fault begin. Raises ValueError for one that is not in FAULTS."""
        until = time.monotonic() + seconds
        match fault:
            case "drop":
                self.drops += 1
            case "stall":
                self.stalled_until = until
            case "garbage":
                self.garbage += 1
            case "gap":
                self.gaps += 1
            case "slow":
                self.slow_until, self.delay_s = until, delay_s
            case "refuse":
                self.refused_until = until
            case _:
                raise ValueError(f"unknown fault {fault!r}; one of {', '.join(FAULTS)}")

    @property
    def stalled(self) -> bool:
        """Whether nothing is sent now."""
        return time.monotonic() < self.stalled_until

    @property
    def refused(self) -> bool:
        """Whether connections are refused now."""
        return time.monotonic() < self.refused_until

    @property
    def delay(self) -> float:
        """Seconds that each frame waits now."""
        return self.delay_s if time.monotonic() < self.slow_until else 0.0
