"""How a command that runs until Ctrl-C ends: with what it has begun."""

import signal
import threading


def ending() -> threading.Event:
    """Return what Ctrl-C or SIGTERM sets; the same again interrupts at once."""
    ended = threading.Event()

    def end(number: int, _frame: object) -> None:
        signal.signal(number, signal.default_int_handler)
        ended.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    return ended
