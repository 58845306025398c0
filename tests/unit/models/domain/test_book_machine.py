"""The book, driven at random step by step, against the oracle that shares no code with it.

After each step both must agree: outcomes with every split and its provenance, levels, what rests, the
next deadline. `make test` runs a few examples; the nightly form, thousands:
`CROSSFILL_TEST_EXAMPLES=5000 make test ARGS=tests/unit/models/domain/test_book_machine.py`.
A failure prints the steps that lead to it, as code.
"""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.examples import examples
from tests.unit.models.domain.book_machine import BookMachine

EXAMPLES = examples(60)
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_book_agrees_with_the_oracle_after_every_step() -> None:
    """Whatever comes in whichever order, through restarts and lost commits, and however steps are split."""
    run_state_machine_as_test(BookMachine, settings=SETTINGS)


def test_the_book_prunes_as_the_oracle_does() -> None:
    """Of levels behind the best price the nearest are remembered: here two a side, so that it happens often."""

    class Forgetful(BookMachine):
        hidden_max = 2

    run_state_machine_as_test(Forgetful, settings=settings(SETTINGS, max_examples=EXAMPLES // 2))
