"""How long to wait before the next attempt."""

from random import uniform


def full_jitter(attempt: int, base_s: float = 1.0, cap_s: float = 60.0) -> float:
    """Return a random wait between 0 and an exponentially growing bound.

    `attempt` counts failures in a row from 0. Full jitter spreads many clients evenly (Exponential
    Backoff And Jitter, AWS Architecture Blog, 2015).
    """
    return uniform(0, min(cap_s, base_s * 2 ** min(attempt, 30)))  # noqa: S311 -- not for secrets
