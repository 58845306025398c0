"""The rules by which what was taken is forgotten, one against the other, quote by quote."""

import pytest

from models.domain.ledger import PRESENT, RULES, Ledger
from models.domain.orders import Side

SECOND = 1_000_000
# What is left to be sold after each quote, for a taker who always takes all of it: (time in s, price, size).
SHOWN = {
    "repeated": [(0, 100, 5), (0.1, 100, 5)],
    "grown": [(0, 100, 5), (0.1, 100, 7)],
    "flickered": [(0, 100, 5), (0.1, 100, 1), (0.2, 100, 5)],
    "short for a second": [(0, 100, 5), (0.1, 100, 1), (1.2, 100, 1), (1.3, 100, 5)],
    "hidden": [(0, 100, 5), (0.1, 101, 1), (5, 100, 5)],
    "left behind": [(0, 100, 5), (0.1, 99, 3), (1.2, 99, 3), (1.3, 100, 5)],
}
SOLD = {
    "repeated": {PRESENT: 5, "growth-only": 5, "no-hold": 5, "level-reset": 5, "each-quote": 10},
    "grown": {PRESENT: 7, "growth-only": 7, "no-hold": 7, "level-reset": 12, "each-quote": 12},
    "flickered": {PRESENT: 5, "growth-only": 5, "no-hold": 9, "level-reset": 11, "each-quote": 11},
    "short for a second": {PRESENT: 9, "growth-only": 5, "no-hold": 9, "level-reset": 11, "each-quote": 12},
    "hidden": {PRESENT: 6, "growth-only": 6, "no-hold": 6, "level-reset": 11, "each-quote": 11},
    "left behind": {PRESENT: 13, "growth-only": 8, "no-hold": 13, "level-reset": 13, "each-quote": 16},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", SHOWN)
def test_each_rule_sells_what_it_says(case: str, rule: str) -> None:
    """A greedy seller gets from each rule exactly what that rule believes to be new."""
    ledger, sold = RULES[rule](Side.SELL), 0
    for at_s, price, size in SHOWN[case]:
        now_us = int(at_s * SECOND)
        ledger.show(now_us, price, size)
        left = ledger.left
        sold += left
        if left:
            ledger.take(left)
    assert sold == SOLD[case][rule]


def test_the_loops_rule_is_the_present_one() -> None:
    """What a loop's book uses unless told otherwise has the name of the present rule."""
    assert RULES[PRESENT] is Ledger
