import pytest

from models.domain.events import EventType
from models.store.events import EventRow, as_message, rfc3339


@pytest.mark.parametrize(
    ("time_us", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_790_000_000_000_001, "2026-09-21T14:13:20.000001Z"),
        (1_790_000_000_999_999, "2026-09-21T14:13:20.999999Z"),
        (None, None),
    ],
)
def test_times_are_rfc_3339_to_the_microsecond(time_us: int | None, expected: str | None) -> None:
    """Always six digits and Z, so that texts sort as times do."""
    assert rfc3339(time_us) == expected


def test_a_message_is_the_row_and_its_payload() -> None:
    """Common keys come first, then what the kind of event says."""
    row = EventRow("ann", 7, EventType.ORDER_FILLED, 0, "job", "order", {"reason": None})
    assert list(as_message(row).items()) == [
        ("seq", 7),
        ("type", "order.filled"),
        ("time", "1970-01-01T00:00:00.000000Z"),
        ("job_id", "job"),
        ("order_id", "order"),
        ("reason", None),
    ]
