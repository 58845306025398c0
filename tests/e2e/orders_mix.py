"""Orders of every class that the main job must serve, and how to tell from the end which class one fell into."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

CLASSES = (
    "one_quote",
    "three_quotes",
    "two_venues",
    "partly_then_expired",
    "expired_empty",
    "cancelled_while_working",
    "ioc_remainder",
    "fok_refused",
    "larger_than_shown",
)
PER_CLASS = 36
# Far from any price of the session: an order with these limits crosses at once, or never.
CROSSING = {"sell": "10000.00", "buy": "250000.00"}
RELAXED = {"sell": "20000.00", "buy": "240000.00"}  # crosses too, but behind the others in price priority
CALM = {"sell": "10.00", "buy": "900.00"}
NEVER = {"sell": "900000.00", "buy": "1.00"}


@dataclass(frozen=True)
class Placed:
    """An order as it was posted."""

    intent: str
    body: dict[str, Any]
    cancel: bool = False


@dataclass
class Ended:
    """An order as the API shows it at the end."""

    order: dict[str, Any]
    splits: list[dict[str, Any]] = field(default_factory=list)

    def classes(self, largest_shown: Decimal) -> set[str]:
        """Return every class that this order fell into, judged by what happened to it."""
        order, splits = self.order, self.splits
        quotes = {(split["venue"], split["token"], split["quote_number"]) for split in splits}
        filled, end = bool(splits), (order["state"], order["reason"])
        found = {
            "one_quote": order["state"] == "filled" and len(quotes) == 1,
            "three_quotes": order["state"] == "filled" and len(quotes) >= 3,
            "two_venues": len({split["venue"] for split in splits}) >= 2,
            "partly_then_expired": filled and end == ("expired", "deadline"),
            "expired_empty": not filled and end == ("expired", "deadline"),
            "cancelled_while_working": order["state"] == "cancelled",
            "ioc_remainder": filled and end == ("expired", "ioc"),
            "fok_refused": not filled and end == ("expired", "fok"),
            "larger_than_shown": filled and Decimal(order["size"]) > largest_shown,
        }
        return {name for name, holds in found.items() if holds}


def _order(intent: str, number: int) -> Placed:
    side = "sell" if number % 2 else "buy"
    binance: dict[str, Any] = {"symbol": "BTCUSDT", "venues": ["binance"]}
    # A book that nobody else of the mix trades in, so that something is left to be had at once.
    calm: dict[str, Any] = {"symbol": "LTC-USD", "venues": ["coinbase"]}
    size_step = Decimal(number % 7) / 10
    bodies: dict[str, dict[str, Any]] = {
        "one_quote": {"order_size": str(Decimal(10 + number) / 10_000), "price": CROSSING[side], **binance},
        "three_quotes": {"order_size": str(3 + size_step), "price": CROSSING[side], "timeout_s": 60, **binance},
        "two_venues": {"order_size": str(2 + size_step), "price": CROSSING[side], "timeout_s": 60},
        "partly_then_expired": {"order_size": "60", "price": RELAXED[side], "timeout_s": 2, **binance},
        "expired_empty": {"order_size": "1", "price": NEVER[side], "timeout_s": 1 + number % 3},
        "cancelled_while_working": {"order_size": "1", "price": NEVER[side], "time_in_force": "GTC"},
        "ioc_remainder": {"order_size": "4000", "price": CALM[side], "time_in_force": "IOC", **calm},
        "fok_refused": {"order_size": "400", "price": CROSSING[side], "time_in_force": "FOK"},
        "larger_than_shown": {"order_size": str(12 + size_step), "price": RELAXED[side], "timeout_s": 20, **binance},
    }
    body = {"symbol": "BTCUSDT", "side": side, **bodies[intent]}
    return Placed(intent, body, cancel=intent == "cancelled_while_working")


def mix() -> Iterator[Placed]:
    """Yield PER_CLASS orders of each class, interleaved, so that they compete; twice as many of the hard ones."""
    for number in range(PER_CLASS):
        for intent in CLASSES:
            yield _order(intent, number)
        yield _order("one_quote", number + 1)
        yield _order("partly_then_expired", number + 1)
        yield _order("ioc_remainder", number + 1)
