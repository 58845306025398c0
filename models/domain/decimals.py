"""Decimal numbers as text, the way every answer and event writes them."""

from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow


def plain(value: Decimal) -> str:
    """Return a number in plain notation, without exponent and without zeros that say nothing."""
    text = str(value)  # a third of format's time, and the same unless it has an exponent
    if "E" in text:
        text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# Room for any product of two scaled numbers (19 digits each) and for sums of many of them: with it
# prices times sizes are exact.
EXACT = Context(prec=80, traps=[InvalidOperation, DivisionByZero, Overflow, Inexact])
# For sums that nothing may stop: exact for all that a market says, and a venue's nonsense of hundreds of
# digits is rounded.
WIDE = Context(prec=200)
