import pytest

from models.store.jobs import ATTEMPTS_MAX, retry_after_us


@pytest.mark.parametrize(
    ("attempt", "wait_us"),
    [(1, 2_000_000), (2, 4_000_000), (3, 8_000_000), (4, 16_000_000), (5, None), (6, None)],
)
def test_rests_grow_until_the_last_attempt(attempt: int, wait_us: int | None) -> None:
    """There are five attempts."""
    assert ATTEMPTS_MAX == 5
    assert retry_after_us(attempt) == wait_us
