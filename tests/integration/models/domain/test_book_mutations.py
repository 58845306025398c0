"""The state machine finds faults: each of these lines of the book or its ledger, made wrong, is found.

`make test` tries some of them; all, in a minute or two:
`CROSSFILL_TEST_EXAMPLES=600 make test ARGS=tests/integration/models/domain/test_book_mutations.py`.
"""

import os
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from models.domain import book, ledger, offers
from tests.unit.models.domain.book_machine import BookMachine

# No shrinking: it need not be explained, and the same examples every time.
SETTINGS = settings(
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)

MUTATIONS = [
    (ledger, "MEMORY_US = 1_000_000", "MEMORY_US = 500_000"),
    (ledger, "now_us - since >= MEMORY_US", "now_us - since > MEMORY_US"),
    (ledger, "if shown >= taken:", "if shown > taken:"),
    (ledger, "(size >= self.taken[top]) if", "True if"),
    (ledger, "self.left -= size", "pass"),
    (ledger, "left = self.shown - self.taken.get(self.best, 0) if", "left = self.shown if"),
    (ledger, "(level - price) * self.sign < 0", "(level - price) * self.sign <= 0"),
    (ledger, "self._short_since.get(level, (now_us, 0))", "(now_us, 0)"),
    (ledger, "if shown:", "if not shown:"),
    (ledger, "        self._short_since.clear()\n", ""),
    (ledger, "price) :] if self.sign > 0", "price) :] if self.sign < 0"),
    (book, "return token == venue.token", "return True"),
    (book, "quote.number <= product.number", "not quote.number"),
    (book, "product.token == quote.token and quote.number", "quote.number"),
    (book, "venue.marked_us >= self._silence_us", "venue.marked_us > self._silence_us"),
    (book, "first_us <= symbol.now_us", "first_us < symbol.now_us"),
    (book, "order.deadline_us <= symbol.now_us", "order.deadline_us < symbol.now_us"),
    (offers, "else _ceiling(price, tick)", "else int(price // tick)"),
    (offers, "int(size // self.lot)", "_ceiling(size, self.lot)"),
    (book, "key=lambda each: each.venue)", "key=lambda each: each.venue, reverse=True)"),
    (offers, "offer.reach > best.reach", "offer.reach < best.reach"),
    (offers, "if key < self.head:", "if True:"),
    (offers, "        if at == 0:\n", "        if False:\n"),
    (offers, "self.ledger.left and self.product.open else", "self.ledger.left else"),
    (offers, "if not (ledger.left and self.product.open):", "if not ledger.left:"),
    (offers, "        if not ledger.left:\n", "        if False:\n"),
    (offers, "elif not moved and", "elif"),
    (offers, " and not ledger.taken:", ":"),
    (book, "self._fillable(resting) < left", "self._fillable(resting) <= left"),
    (book, "elif cancelled:", "elif False:"),
    (book, "if product is not None and level.taken:", "if product is None:"),
    (book, "order.size - order.filled_size)", "order.size)"),
    (book, "venue.enabled and venue.fed", "venue.fed"),
    (book, "if not quote.live:", "if False:"),
    (book, "queue.head < first and", "queue.head < inf and"),
    (book, "symbol.now_us, act, about = inputs.popleft()", "symbol.now_us, act, about = inputs.pop()"),
]


TRIED = MUTATIONS if "CROSSFILL_TEST_EXAMPLES" in os.environ else MUTATIONS[::8]


def _source(module: ModuleType) -> str:
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:  # noqa: PTH123 -- a path from the interpreter
        return file.read()


def _made(source: str) -> ModuleType:
    made = ModuleType("mutant")
    sys.modules[made.__name__] = made  # dataclasses look their module up
    exec(compile(source, "mutant", "exec"), made.__dict__)
    return made


def _mutant(module: ModuleType, right: str, wrong: str) -> ModuleType:
    """Return the module with one line made wrong; of the offers, a book that is made of them."""
    source = _source(module)
    assert source.count(right) == 1, "the line has changed: so must the mutation"
    made = _made(source.replace(right, wrong))
    if module is not offers:
        return made
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, offers.__name__, made)
        return _made(_source(book))


def _run(parts: dict[str, Any], examples: int = 4_000) -> None:
    machine = type("Mutant", (BookMachine,), parts)
    run_state_machine_as_test(machine, settings=settings(SETTINGS, max_examples=examples))


def test_the_right_lines_pass() -> None:
    """The examples that find the faults, or most of them, find none in the book as it is."""
    _run({}, examples=400)


@pytest.mark.parametrize(("module", "right", "wrong"), TRIED, ids=[wrong.strip() for _, _, wrong in TRIED])
def test_a_wrong_line_is_found(module: ModuleType, right: str, wrong: str) -> None:
    """The oracle disagrees with the mutant sooner or later."""
    mutant: Any = _mutant(module, right, wrong)
    try:
        with pytest.raises(Exception):  # noqa: B017, PT011 -- whatever breaks first
            _run({"make_ledger": mutant.Ledger} if module is ledger else {"make_book": mutant.Book})
    finally:
        del sys.modules["mutant"]
