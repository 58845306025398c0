"""What must hold at the end, whatever happened: asked of the database, the journals and the clients' own records."""

import json
import sqlite3
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import select

from models.store.database import Database
from models.store.events import as_message, events_after
from models.store.tables import jobs, orders, splits
from tests.chaos.load import Listener, Placed

ORDER_ENDS = {"order.filled", "order.expired", "order.cancelled", "order.rejected"}
JOB_ENDS = {"job.done", "job.failed"}
Level = tuple[str, str, str, Decimal]  # venue, product, side of the orders that take it, price
Seen = tuple[int, int]  # token and number of a quote


@dataclass(frozen=True)
class Record:
    """What the database says at the end."""

    jobs: list[Any]
    orders: list[Any]
    splits: list[Any]
    events: dict[str, list[dict[str, Any]]]  # by owner

    @classmethod
    def of(cls, database: Database, owners: Iterable[str]) -> "Record":
        """Read it."""
        with database.read() as connection:
            found = {owner: events_after(connection, owner, 0, 10_000_000) for owner in owners}
            return cls(
                list(connection.execute(select(jobs))),
                list(connection.execute(select(orders).order_by(orders.c.seq))),
                list(connection.execute(select(splits))),
                {owner: [as_message(row) for row in rows] for owner, rows in found.items()},
            )


def violations(record: Record, placed: Sequence[Placed], journal: Path) -> Iterator[str]:
    """Yield every broken promise, as a sentence."""
    yield from accepted_ended_once(record, placed)
    yield from orders_kept(record)
    yield from levels_kept(record, quotes_of(journal))
    yield from events_tell(record)


def accepted_ended_once(record: Record, placed: Sequence[Placed]) -> Iterator[str]:
    """Every 202 is one job, which reached exactly one end; and there is no job that nobody has a 202 for."""
    by_id = {job.id: job for job in record.jobs}
    order_of = {order.job_id: order for order in record.orders}
    told = [event for events in record.events.values() for event in events]
    ends = Counter(event["job_id"] for event in told if event["type"] in JOB_ENDS)
    order_ends = Counter(event["order_id"] for event in told if event["type"] in ORDER_ENDS)
    for each in placed:
        job = by_id.get(str(each.job_id))
        if job is None:
            yield f"job {each.job_id} was accepted and is gone"
            continue
        if job.state not in ("done", "failed") or job.ended_us is None or ends[job.id] != 1:
            yield f"job {job.id} is {job.state} and has {ends[job.id]} ends"
        order = order_of.get(job.id)
        if each.order_id is None:
            continue
        if order is None or order.id != each.order_id:
            yield f"order {each.order_id} was accepted and is gone"
        elif order.ended_us is None or order_ends[order.id] != 1:
            yield f"order {order.id} is {order.state} and has {order_ends[order.id]} ends"
        elif each.cancelled and order.cancel_us is None:
            yield f"the cancel of order {order.id} was accepted and is gone"
        elif each.body.get("time_in_force") == "GTC" and order.state == "expired":
            yield f"order {order.id} has no deadline and expired"
    known = Counter(each.job_id for each in placed)
    yield from (f"two keys have job {job_id}" for job_id, count in known.items() if count > 1)
    yield from (f"job {job.id} is there and nobody was told" for job in record.jobs if job.id not in known)


def orders_kept(record: Record) -> Iterator[str]:
    """No order over its size, outside its limit or filled from its deadline on."""
    mine: dict[int, list[Any]] = defaultdict(list)
    for split in record.splits:
        mine[split.order_seq].append(split)
    for order in record.orders:
        total = sum((split.size for split in mine[order.seq]), Decimal(0))
        if total != order.filled_size or total > order.size or (total == order.size) is not (order.state == "filled"):
            yield f"order {order.id} of {order.size} is {order.state}, {order.filled_size} filled, {total} in splits"
        if order.time_in_force == "FOK" and total not in (0, order.size):
            yield f"order {order.id} is FOK and was filled in part"
        for split in mine[order.seq]:
            better = split.price >= order.price if order.side == "sell" else split.price <= order.price
            if not better or (order.venues and split.venue not in order.venues.split(",")):
                yield f"split {split.id} at {split.price} of {split.venue} is outside of order {order.id}"
            if order.deadline_us is not None and split.created_us >= order.deadline_us:
                yield f"split {split.id} came after the deadline of order {order.id}"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a quote shows on one side; price None: nothing that counts."""

    seen: Seen
    price: Decimal | None
    size: Decimal


def quotes_of(folder: Path) -> dict[tuple[str, str, str], list[Shown]]:
    """Return what each side of each product showed, by token and number, as any owner saw it.

    Owners that were killed or overtaken count too: they may have seen more than they committed, but
    what they saw is what the venue showed. Between two quotes that one owner saw, another may have seen
    more; growth over all of them is never less than what each one saw grow.
    """
    found: dict[tuple[str, str, str], dict[Seen, Shown]] = defaultdict(dict)
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # the last words of one that was killed: its step never ran
            for item in entry["items"]:
                if item[0] == "quote":
                    _, venue, product, token, number, *sides, live = item[:10]
                    for side, price, size in (("sell", *sides[:2]), ("buy", *sides[2:])):
                        shows = live and price is not None and size is not None
                        shown = Shown((token, number), Decimal(price) if shows else None, Decimal(size or 0))
                        found[venue, product, side][token, number] = shown
    return {key: [quotes[seen] for seen in sorted(quotes)] for key, quotes in found.items()}


def levels_kept(record: Record, quotes: Mapping[tuple[str, str, str], Sequence[Shown]]) -> Iterator[str]:
    """No level was sold beyond what it showed, and each split comes from a quote that was there."""
    sold: dict[Level, list[Any]] = defaultdict(list)
    for split in record.splits:
        sold[split.venue, split.product_id, split.side, split.price].append(split)
    for level, taken in sold.items():
        shown = quotes.get(level[:3], [])
        total, allowed = sum((split.size for split in taken), Decimal(0)), _allowed(shown, level)
        if total > allowed:
            yield f"{total} were sold of {level}, which showed {allowed}"
        yield from _tiles(level, sorted(taken, key=_place), shown)


def _place(split: Any) -> tuple[int, ...]:
    return tuple(map(int, split.id.split("-")))


def _allowed(quotes: Sequence[Shown], level: Level) -> Decimal:
    """Return first size plus all growth of a level. A level better than the best price shows nothing."""
    _, _, side, price = level
    total = before = Decimal(0)
    for quote in quotes:
        if quote.price == price:
            total, before = total + max(Decimal(0), quote.size - before), quote.size
        elif quote.price is None or (quote.price < price if side == "sell" else quote.price > price):
            before = Decimal(0)
    return total


def _tiles(level: Level, taken: Sequence[Any], quotes: Sequence[Shown]) -> Iterator[str]:
    """Each split begins where the one before it ended, unless the level showed less in between."""
    _, _, side, price = level
    numbers = [quote.seen for quote in quotes]
    end, since = Decimal(0), (0, 0)
    for split in taken:
        seen = (split.token, split.quote_number)
        place = bisect_left(numbers, seen)
        quote = quotes[place] if place < len(quotes) and numbers[place] == seen else None
        if quote is None or quote.price != price or quote.size != split.shown:
            yield f"split {split.id} names a quote that nobody saw: {quote}"
        if split.taken_before + split.size > split.shown:
            yield f"split {split.id} takes more than is shown"
        between = quotes[bisect_right(numbers, since) : place + 1]
        forgotten = split.taken_before < end and any(_shows_less(each, side, price, end) for each in between)
        if split.taken_before != end and not forgotten:
            yield f"split {split.id} begins at {split.taken_before} of {level}, where {end} had been sold"
        end, since = split.taken_before + split.size, seen


def _shows_less(quote: Shown, side: str, price: Decimal, taken: Decimal) -> bool:
    if quote.price is None:
        return True
    if quote.price == price:
        return quote.size < taken
    return quote.price < price if side == "sell" else quote.price > price


def events_tell(record: Record) -> Iterator[str]:
    """Each owner's events are numbered without hole or double, and tell of each split once."""
    told: Counter[str] = Counter()
    for owner, events in record.events.items():
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            yield f"the events of {owner} have holes"
        told.update(event["split_id"] for event in events if event["type"] == "order.split")
    if told != Counter(split.id for split in record.splits):
        yield "the events do not tell of each split once"


def clients_told(record: Record, listeners: Iterable[Listener]) -> Iterator[str]:
    """Every client was sent exactly its owner's events, in order."""
    for listener in listeners:
        events = record.events[listener.owner]
        if listener.messages != events:
            yield f"a client of {listener.owner} was sent {len(listener.messages)} of {len(events)} events"


def file_is_whole(path: Path) -> Iterator[str]:
    """SQLite finds nothing wrong with its file."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            yield f"the database file is damaged: {found}"
