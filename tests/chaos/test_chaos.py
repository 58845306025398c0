"""One short seeded run on SQLite. `make chaos` runs longer ones, on PostgreSQL too."""

import os

from tests.chaos.run import run

SEED = int(os.environ.get("CROSSFILL_CHAOS_SEED", "1"))
LOAD_S = 26.0


def test_nothing_is_lost_and_nothing_sold_twice_whatever_is_killed() -> None:
    """Each kind of process is hit with work in flight, and every promise holds, hot and after a cold start."""
    report = run(SEED, "sqlite", LOAD_S, patient=False)
    assert not report.failed, str(report)
