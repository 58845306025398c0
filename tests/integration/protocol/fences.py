"""Each fence of the protocol, taken out: by weaker parts handed to the world, or by patching the store."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Connection, insert, true, update

from models.domain.book import Book
from models.domain.offers import Venue
from models.domain.outcomes import StepResult
from models.domain.quotes import Quote
from models.store import orders as store_orders
from models.store import outcomes as store_outcomes
from models.store import shards as store_shards
from models.store.bulk import Bulk
from models.store.database import CommitUnknownError
from models.store.events import NewEvent
from models.store.shards import Lease
from models.store.tables import events, orders, owners, shards
from tests.integration.protocol.world import Loop, Plan


def epoch(patch: pytest.MonkeyPatch) -> None:
    """An outcome transaction asks for its shard only, not for its owner and epoch."""

    def anybody(lease: Lease) -> tuple[ColumnElement[bool], ...]:
        return (shards.c.shard == lease.shard,)

    patch.setattr(store_outcomes, "held", anybody)


def order_row(patch: pytest.MonkeyPatch) -> None:
    """An outcome is written whatever the order's row says before it."""
    this = store_outcomes._THIS_ORDER
    names = ("state", "reason", "filled_size", "filled_value", "avg_price", "ended_us")
    whatever = update(orders).where(orders.c.seq == this.c.seq).values({name: this.c[name] for name in names})
    patch.setattr(store_outcomes, "_UPDATE_ORDERS", Bulk(this, whatever))


def lease_expiry(patch: pytest.MonkeyPatch) -> None:
    """A shard is claimed though its lease runs."""
    patch.setattr(store_shards, "or_", lambda *_: true())


def new_epoch(patch: pytest.MonkeyPatch) -> None:
    """A claim leaves the epoch as it is."""

    class _Same:
        def __init__(self, statement: Any) -> None:
            self.statement = statement

        def where(self, *conditions: Any) -> "_Same":
            return _Same(self.statement.where(*conditions))

        def values(self, **values: Any) -> Any:
            if "epoch" in values:
                values["epoch"] = shards.c.epoch
            return self.statement.values(**values)

    patch.setattr(store_shards, "update", lambda table: _Same(update(table)))


def levels_stored(patch: pytest.MonkeyPatch) -> None:
    """What was taken from levels is not written."""
    patch.setattr(store_outcomes, "_write_levels", lambda *_: None)


def event_counter(patch: pytest.MonkeyPatch) -> None:
    """Events are numbered by a counter that no rollback takes back."""
    counters: dict[tuple[int, str], count[int]] = defaultdict(lambda: count(1))

    def append(connection: Connection, new: Sequence[NewEvent], time_us: int) -> None:
        for event in new:
            seq = next(counters[id(connection.engine), event.owner_id])
            connection.execute(update(owners).where(owners.c.id == event.owner_id).values(event_seq=seq))
            row = {"owner_id": event.owner_id, "seq": seq, "type": event.type.value, "created_us": time_us}
            row |= {"job_id": event.job_id, "order_id": event.order_id, "payload": event.payload}
            connection.execute(insert(events), [row])

    patch.setattr(store_outcomes, "append", append)
    patch.setattr(store_orders, "append", append)


class TokenlessBook(Book):
    """Believes every connection."""

    def _admit(self, venue: Venue, token: int) -> bool:
        super()._admit(venue, token)
        return True


class NumberlessBook(Book):
    """Believes every quote of the connection."""

    def _take_quote(self, quote: Quote) -> None:
        product = self._venues[quote.venue].products[quote.product_id]
        product.number = 0
        super()._take_quote(quote)


class TrustingLoop(Loop):
    """Takes a COMMIT of unknown outcome for one that was done."""

    def commit(self, result: StepResult) -> None:
        try:
            super().commit(result)
        except CommitUnknownError:
            self.number += len(result.outcomes)


@dataclass(frozen=True)
class Fence:
    """What is taken out, and what is seen then."""

    name: str
    seen: tuple[str, ...]  # what violations begin with
    first: int = 0  # a seed that sees it, as of this writing; others are tried after it
    plan: Plan = field(default_factory=Plan)
    patches: tuple[Callable[[pytest.MonkeyPatch], None], ...] = ()


FENCES = (
    Fence("epoch in the outcome transaction", ("level", "twice"), 4, patches=(epoch,)),
    Fence("order row, where the epoch is gone too", ("size", "end", "events"), patches=(epoch, order_row)),
    Fence("expiry of a lease", ("a running lease",), patches=(lease_expiry,)),
    Fence("new epoch of each claim", ("events", "end", "due"), patches=(new_epoch,)),
    Fence("token of a connection", ("level", "twice"), plan=Plan(make_book=TokenlessBook)),
    Fence("tokens loaded", ("token",), plan=Plan(load_tokens=False)),
    Fence("number of a quote", ("level", "twice"), 23, Plan(make_book=NumberlessBook)),
    Fence("levels stored", ("level", "twice"), patches=(levels_stored,)),
    Fence("levels loaded", ("level", "twice"), plan=Plan(load_levels=False)),
    Fence("book dropped after an unknown COMMIT", ("end", "due"), 24, Plan(loop=TrustingLoop)),
    Fence("event counter in the transaction", ("events",), 1, patches=(event_counter,)),
    Fence("idempotency key", ("key",), plan=Plan(keys=False)),
)
