"""Faults that spoil frames; those that need connections are tested with them."""

import math

import pytest

from simulator.binance import WIRE
from simulator.faults import FAULTS, Faults

TRADE = '{"e":"trade","t":1}'
QUOTE = '{"u":1}'


def test_a_gap_swallows_the_next_trades_only() -> None:
    """`count` trades are not sent, quotes are."""
    faults = Faults(WIRE)
    faults.inject("gap", count=2)
    assert [faults.spoil(frame) for frame in (QUOTE, TRADE, QUOTE, TRADE, TRADE)] == [[QUOTE], [], [QUOTE], [], [TRADE]]


def test_garbage_is_the_next_frame_cut_in_half() -> None:
    """The frame arrives, but is no JSON."""
    faults = Faults(WIRE)
    faults.inject("garbage")
    assert [faults.spoil(QUOTE) for _ in range(2)] == [[QUOTE[:3]], [QUOTE]]


def test_clear_ends_what_lasts() -> None:
    """After `clear` nothing is wrong."""
    faults = Faults(WIRE)
    for fault in ("slow", "refuse", "gap", "garbage"):
        faults.inject(fault)
    assert faults.delay_s == 0.5
    assert faults.lasts_s("refuse") > 4
    faults.inject("clear")
    assert faults.delay_s == 0
    assert faults.lasts_s("refuse") == 0
    assert faults.spoil(TRADE) == [TRADE]


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, 3_601])
def test_times_have_limits(seconds: float) -> None:
    """A fault lasts for a positive, bounded time."""
    with pytest.raises(ValueError, match="seconds"):
        Faults(WIRE).inject("slow", seconds=seconds)


def test_an_unknown_fault_is_refused() -> None:
    """The sentence lists those that there are."""
    with pytest.raises(ValueError, match=", ".join(FAULTS)):
        Faults(WIRE).inject("flood")
