from decimal import Decimal

import pytest

from models.store.rows import average


@pytest.mark.parametrize(
    ("value", "size", "expected"),
    [
        ("0", "0", None),
        ("10", "4", "2.5"),
        ("1", "3", "0.3333333333333333333333333333"),
        ("2", "3", "0.6666666666666666666666666667"),
        ("0.00000000000000000000000000025", "2", "0.000000000000000000000000000125"),
        ("100", "1", "100"),
    ],
)
def test_an_average_has_28_significant_digits(value: str, size: str, expected: str | None) -> None:
    """Half-even, without any float; None where nothing was filled."""
    assert average(Decimal(value), Decimal(size)) == (None if expected is None else Decimal(expected))
