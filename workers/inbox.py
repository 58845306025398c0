"""Where quotes wait for the loop: bounded, because under pressure the newest quote counts and no backlog."""

import threading
import time
from collections.abc import Sequence

from models.domain.quotes import BusItem, Mark, Quote

ITEMS_MAX = 10_000


class Inbox:
    """Items from a reader thread, and wake-ups, for the one loop that waits for either."""

    def __init__(self, items_max: int = ITEMS_MAX) -> None:
        self.conflated = 0
        self._items_max = items_max
        self._items: list[BusItem] = []
        self._since = 0.0  # when the oldest of them came
        self._woken = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def oldest_age_s(self) -> float:
        """Return how long the oldest item has waited; 0 where none does."""
        with self._changed:
            return time.monotonic() - self._since if self._items else 0.0

    def put(self, items: Sequence[BusItem]) -> None:
        """Add items in order; beyond the bound only the newest quote of each product is kept."""
        with self._changed:
            if not self._items:
                self._since = time.monotonic()
            self._items.extend(item for item in items if isinstance(item, Quote | Mark))
            if len(self._items) > self._items_max:
                kept = conflate(self._items)
                self.conflated += len(self._items) - len(kept)
                self._items = kept
            self._changed.notify()

    def wake(self) -> None:
        """Say that rows are due."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def wait(self, until: float) -> tuple[list[BusItem], bool]:
        """Return the items that have come, and whether rows are due; wait for either until a monotonic time."""
        with self._changed:
            while not self._items and not self._woken:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            items, woken = self._items, self._woken
            self._items, self._woken = [], False
            return items, woken


def conflate(items: Sequence[BusItem]) -> list[BusItem]:
    """Return the newest item of each product and each venue's newest mark, in order."""
    newest: dict[tuple[str, ...], int] = {}
    for place, item in enumerate(items):
        newest[(item.venue, item.product_id) if isinstance(item, Quote) else (item.venue,)] = place
    return [items[place] for place in sorted(newest.values())]
