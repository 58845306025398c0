"""What must hold of a database once everything that was promised should be done."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from operator import itemgetter

from sqlalchemy import Connection, select

from models.domain.orders import OrderState
from models.domain.quotes import BusItem, Quote
from models.store import book as stored
from models.store.tables import events, jobs, orders, owners, splits
from tests.integration.protocol.world import LOT, SHARD_OF, TICK, World

ENDED = {state.value for state in OrderState if state.ended}
Place = tuple[str, str, str]  # venue, product, side


def violations(world: World) -> list[str]:
    """Return one sentence for each violation; each begins with the name of what does not hold."""
    with world.database.read() as connection:
        return [
            *world.violations,
            *_promises(world, connection),
            *_orders(connection),
            *_levels(world, connection),
            *_tokens(world, connection),
            *_events(connection),
        ]


def _promises(world: World, connection: Connection) -> Iterator[str]:
    known = {row.id: row for row in connection.execute(select(orders))}
    for _, order_id in world.promised:
        if order_id not in known:
            yield f"promise: {order_id} was accepted and is gone"
    ends = {row.id: row for row in connection.execute(select(jobs))}
    for row in known.values():
        job = ends[row.job_id]
        if row.ended_us is None or row.state not in ENDED:
            yield f"end: {row.id} is {row.state} though all is over"
        elif job.ended_us is None or job.state != ("failed" if row.state == "rejected" else "done"):
            yield f"end: the job of {row.id} is {job.state}, its order {row.state}"
    for request, times in Counter(ends[row.job_id].task_id for row in known.values()).items():
        if times > 1:
            yield f"key: request {request} became {times} orders"
    for shard in SHARD_OF.values():
        if stored.queued(connection, shard, 1) or stored.cancels(connection, shard):
            yield f"due: something is left in shard {shard}"


def _orders(connection: Connection) -> Iterator[str]:
    sold: dict[int, Decimal] = defaultdict(Decimal)
    rows = {row.seq: row for row in connection.execute(select(orders))}
    for split in connection.execute(select(splits)):
        order = rows[split.order_seq]
        sold[order.seq] += split.size
        if (split.price < order.price) if order.side == "sell" else (split.price > order.price):
            yield f"limit: split {split.id} at {split.price}, limit {order.price}"
        if order.deadline_us is not None and split.created_us >= order.deadline_us:
            yield f"deadline: split {split.id} is after it"
        if order.venues is not None and split.venue not in order.venues.split(","):
            yield f"venues: split {split.id} at {split.venue}"
        if order.ended_us is not None and split.created_us > order.ended_us:
            yield f"end: split {split.id} is after it"
    for seq, order in rows.items():
        if sold[seq] > order.size:
            yield f"size: {order.id} got {sold[seq]} of {order.size}"
        if sold[seq] != order.filled_size:
            yield f"size: {order.id} says {order.filled_size}, its splits {sold[seq]}"
        if (order.filled_size == order.size) is not (order.state == "filled"):
            yield f"size: {order.id} is {order.state} with {order.filled_size} of {order.size}"


def _levels(world: World, connection: Connection) -> Iterator[str]:
    """The splits of one quote lie side by side in what it showed; those of a level, in its first size and growth."""
    sold: dict[tuple[Place, Decimal], Decimal] = defaultdict(Decimal)
    parts: dict[tuple[Place, Decimal, int, int], list[tuple[Decimal, Decimal, str]]] = defaultdict(list)
    for split in connection.execute(select(splits)):
        place = (split.venue, split.product_id, split.side)
        quote = world.published[split.venue, split.product_id].get((split.token, split.quote_number))
        if quote is None or (split.price, split.shown) != _side(quote, split.side):
            yield f"quote: split {split.id} is not of the quote that it names"
        sold[place, split.price] += split.size
        part = (split.taken_before, split.taken_before + split.size, split.id)
        parts[place, split.price, split.token, split.quote_number].append(part)
        if part[1] > split.shown:
            yield f"shown: split {split.id} takes up to {part[1]} of {split.shown}"
    for at, mine in parts.items():
        mine.sort()
        for (_, end, first), (start, _, second) in pairwise(mine):
            if start < end:
                yield f"twice: splits {first} and {second} sold the same units of {at}"
    allowed = allowances(world)
    for (place, price), size in sold.items():
        if size > allowed[place, price]:
            yield f"level: {size} sold on {place} at {price}, which showed {allowed[place, price]}"


def _side(quote: Quote, side: str) -> tuple[Decimal, Decimal]:
    price, size = (quote.bid_price, quote.bid_size) if side == "sell" else (quote.ask_price, quote.ask_size)
    assert price is not None
    assert size is not None
    assert price % TICK == size % LOT == 0
    return price, size


def allowances(world: World) -> dict[tuple[Place, Decimal], Decimal]:
    """Return first size plus growth of each level, as the books were shown it, one after the other.

    A quote counts where its connection is the newest that the book has heard of, and it is newer than the
    product's last. What an overtaken owner goes on to see counts for nothing.
    """
    allowed: dict[tuple[Place, Decimal], Decimal] = defaultdict(Decimal)
    showing: dict[Place, dict[Decimal, Decimal]] = defaultdict(dict)
    for numbered in world.journals.values():
        journals = [journal for _, journal in sorted(numbered, key=itemgetter(0))]
        ends = [journal[0][0] for journal in journals[1:]]
        for journal, end in zip(journals, [*ends, world.now_us], strict=True):
            for quote in _believed([item for when, items in journal if when <= end for item in items]):
                for side in ("buy", "sell"):
                    place = (quote.venue, quote.product_id, side)
                    price, size = _side(quote, side)
                    levels = showing[place]
                    for better in [p for p in levels if (p > price if side == "sell" else p < price)]:
                        del levels[better]
                    allowed[place, price] += max(Decimal(0), size - levels.get(price, Decimal(0)))
                    levels[price] = size
    return allowed


def _tokens(world: World, connection: Connection) -> Iterator[str]:
    """No owner believes a connection of which an owner before it knew, when it loaded, that it was overtaken."""
    overtaken: dict[tuple[int, int], dict[str, int]] = {}  # by shard and epoch: the newest tokens heard before it
    for shard, numbered in world.journals.items():
        for epoch, journal in numbered:
            heard: dict[str, int] = defaultdict(int)
            for earlier in (each for number, each in numbered if number < epoch):
                for item in (item for when, items in earlier if when < journal[0][0] for item in items):
                    heard[item.venue] = max(heard[item.venue], item.token)
            overtaken[shard, epoch] = heard
    for split in connection.execute(select(splits)):
        shard, epoch, *_ = map(int, split.id.split("-"))
        newest = overtaken[shard, epoch][split.venue]
        if split.token < newest:
            yield f"token: split {split.id} is of connection {split.token}, which {newest} had overtaken"


def _believed(items: list[BusItem]) -> Iterator[Quote]:
    tokens: dict[str, int] = defaultdict(int)
    last: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for item in items:
        tokens[item.venue] = max(tokens[item.venue], item.token)
        if not isinstance(item, Quote) or item.token < tokens[item.venue]:
            continue
        if (item.token, item.number) > last[item.venue, item.product_id]:
            last[item.venue, item.product_id] = (item.token, item.number)
            yield item


def _events(connection: Connection) -> Iterator[str]:
    parts = defaultdict(list)
    for row in connection.execute(select(splits.c.order_seq, splits.c.id)):
        parts[row.order_seq].append(row.id)
    told = defaultdict(list)
    for owner in connection.execute(select(owners)):
        mine = connection.execute(select(events).where(events.c.owner_id == owner.id).order_by(events.c.seq)).all()
        if [row.seq for row in mine] != list(range(1, owner.event_seq + 1)):
            yield f"events: those of {owner.id} have a hole or a double"
        for row in mine:
            told[row.order_id].append(row)
    for order in connection.execute(select(orders)):
        kinds = Counter(row.type for row in told[order.id])
        ends = [kind for kind in kinds.elements() if kind.removeprefix("order.") in ENDED]
        if ends != ([f"order.{order.state}"] if order.state in ENDED else []) or kinds["order.accepted"] != 1:
            yield f"events: {order.id} is {order.state}; told were {dict(kinds)}"
        if kinds["job.done"] + kinds["job.failed"] != len(ends) or kinds["order.working"] > 1:
            yield f"events: the job of {order.id} was told {dict(kinds)}"
        said = [row.payload["split_id"] for row in told[order.id] if row.type == "order.split"]
        if said != sorted(parts[order.seq], key=lambda split_id: [int(part) for part in split_id.split("-")]):
            yield f"events: the splits of {order.id} were told as {said}"
