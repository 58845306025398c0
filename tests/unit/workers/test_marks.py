"""Which marks count, whatever the clocks of other machines say."""

import pytest

from models.domain.quotes import Mark
from workers.marks import Marks

SECOND = 1_000_000
T0 = 1_790_000_000 * SECOND
LATE = 3 * SECOND // 2


def heard(marks: Marks, now_us: int, made_us: int, token: int = 1) -> bool:
    return marks.counts(Mark("binance", token, made_us), now_us)


@pytest.mark.parametrize("ahead_us", [0, -3600 * SECOND, 3600 * SECOND])
def test_a_mark_that_lay_about_does_not_count(ahead_us: int) -> None:
    """It is measured by the promptest of its connection, so a clock that is an hour off makes nobody late."""
    marks = Marks(LATE)
    for half_second in range(20):
        now_us = T0 + half_second * SECOND // 2
        assert heard(marks, now_us, now_us + ahead_us - 1_000)
    now_us = T0 + 30 * SECOND
    assert [heard(marks, now_us, now_us + ahead_us - late * SECOND) for late in (20, 3, 2, 1, 0)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_a_clock_that_is_set_back_is_believed_again() -> None:
    """For a while its marks look late, and after a minute at most they count."""
    marks, heard_at = Marks(LATE), []
    for half_second in range(400):
        now_us, back_us = T0 + half_second * SECOND // 2, 10 * SECOND if half_second >= 100 else 0
        if not heard(marks, now_us, now_us - back_us):
            heard_at.append(half_second)
    assert heard_at
    assert (min(heard_at), max(heard_at) < 100 + 2 * 61) == (100, True)


def test_a_newer_connection_begins_anew() -> None:
    """It may be read on another machine; what the older one goes on to say does not count."""
    marks = Marks(LATE)
    assert heard(marks, T0, T0)
    assert heard(marks, T0 + 1, T0 - 100 * SECOND, token=2)
    assert not heard(marks, T0 + 2, T0 + 2)
