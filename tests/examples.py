"""How many examples a property is tried with."""

import os


def examples(few: int) -> int:
    """Return how many: a few, which `make test` has time for, or as many as `CROSSFILL_TEST_EXAMPLES` says."""
    return int(os.environ.get("CROSSFILL_TEST_EXAMPLES", few))
