"""Audit: what must hold of records, orders, splits and levels. Pure.

Whoever verifies recomputes hashes, fills, sums and levels from what is stored; each check yields what does
not hold, one sentence each. What that proves, and what it cannot: docs/audit.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from itertools import groupby, pairwise
from typing import Any

from models.domain.averages import quotient
from models.domain.decimals import EXACT, plain
from models.domain.ledger import MEMORY_US, RULE_VERSION
from models.domain.orders import (
    IllegalTransitionError,
    JobState,
    OrderState,
    Side,
    TimeInForce,
    check_transition,
    job_state_of,
)
from models.domain.records import (
    GENESIS,
    AuditedOrder,
    AuditedSplit,
    Head,
    Link,
    Progress,
    Record,
    chained,
    read_record,
)

SymbolOf = Callable[[str, str], str | None]  # of a venue and its product; None where it is not known


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that does not hold: the rule's name, the id that it is about, and a sentence with both values."""

    rule: str
    subject: str
    sentence: str


# The chain


def check_link(link: Link) -> Iterator[Violation]:
    """Yield what does not hold of a row alone: its hash, its record, the order that it is filed under."""
    found = chained(link.previous, link.shard, link.number, link.record)
    if found != link.hash:
        yield Violation("chain.hash", link.id, f"{link.id} was changed: it has the hash {link.hash}, not {found}")
    try:
        record = read_record(link.record)
    except ValueError as error:
        yield Violation("chain.record", link.id, f"{link.id} cannot be read: {error}")
        return
    if record.order.seq != link.order_seq:
        yield Violation(
            "chain.order",
            link.id,
            f"{link.id} is filed under order {link.order_seq} and is of order {record.order.seq} ({record.order.id})",
        )
    if record.rules != RULE_VERSION:
        yield Violation("chain.rules", link.id, f"{link.id} was made by rules {record.rules}; these are {RULE_VERSION}")


def check_chain(shard: int, links: Iterable[Link], head: Head | None, kept: Mapping[int, str]) -> Iterator[Violation]:
    """Yield what does not hold of a shard's rows in the order of their numbers.

    `head` is the one that the database has, None where it has no such shard; `kept` are hashes by number
    that somebody wrote down before.
    """
    number, previous, place = 0, GENESIS, (-1, -1)
    missing = dict(kept)
    for link in links:
        if link.number != number + 1:
            which = f"records {number + 1} to {link.number - 1}" if link.number > number + 1 else f"record {number + 1}"
            yield Violation("chain.number", link.id, f"{which} of shard {shard} before {link.id} are missing")
        elif link.previous != previous:
            sentence = f"{link.id} follows the hash {link.previous}, and the record before it has {previous}"
            yield Violation("chain.previous", link.id, sentence)
        yield from check_link(link)
        here = _place(link)
        if here is not None and here <= place:
            sentence = (
                f"{link.id} is outcome {here[1]} of epoch {here[0]}, after outcome {place[1]} of epoch {place[0]}"
            )
            yield Violation("chain.order_of_outcomes", link.id, sentence)
        wanted = missing.pop(link.number, link.hash)
        if wanted != link.hash:
            yield Violation(
                "chain.kept", link.id, f"{link.id} has the hash {link.hash}; the one that was kept is {wanted}"
            )
        number, previous, place = link.number, link.hash, here or place
    subject = f"the chain of shard {shard}"
    if head is None:
        yield Violation("chain.shard", subject, f"{subject} has {number} records, and the database has no such shard")
    elif (head.number, head.hash) != (number, previous):
        sentence = f"{subject} ends with {number}:{previous}, and its head is {head.number}:{head.hash}"
        yield Violation("chain.head", subject, sentence)
    for wanted_number, wanted in sorted(missing.items()):
        if wanted_number == 0 and wanted == GENESIS:
            continue
        sentence = f"{subject} ends at record {number}; the head {wanted_number}:{wanted} was kept, so rows are cut off"
        yield Violation("chain.cut", subject, sentence)


def _place(link: Link) -> tuple[int, int] | None:
    try:
        record = read_record(link.record)
    except ValueError:
        return None
    return record.epoch, record.number


# One order


@dataclass(frozen=True, slots=True)
class OrderNow:
    """An order's rows as they are now. `chained_from`: outcomes of later epochs of its shard are in the log."""

    order: AuditedOrder
    progress: Progress
    shard: int
    market: str
    ended_us: int | None
    job_state: JobState
    job_result: dict[str, Any] | None
    chained_from: int = 0
    before_the_log: bool = False  # it was accepted before there was an audit log


def check_order(
    now: OrderNow,
    links: Sequence[Link],
    splits: Sequence[AuditedSplit],
    symbol_of: SymbolOf,
) -> Iterator[Violation]:
    """Yield what does not hold of one order: its sums, each split, and log and tables against each other."""
    records = list(_readable(links))
    fees = {record.splits[0].place[:3]: record.fee_bps for _, record in records if record.splits}
    yield from _check_sums(now, splits)
    for split in splits:
        yield from check_split(now, split, fees.get(split.place[:3]), symbol_of)
    yield from _check_records(now, records)
    yield from _check_both_ways(now, records, splits)


def _readable(links: Iterable[Link]) -> Iterator[tuple[Link, Record]]:
    for link in links:
        try:
            yield link, read_record(link.record)
        except ValueError:  # said where the chain is checked
            continue


def _check_sums(now: OrderNow, splits: Sequence[AuditedSplit]) -> Iterator[Violation]:
    order, progress, subject = now.order, now.progress, f"order {now.order.id}"
    with localcontext(EXACT):
        size = sum((split.size for split in splits), Decimal(0))
        value = sum((split.price * split.size for split in splits), Decimal(0))
    mean = quotient(value, size) if size else None
    for name, is_now, found in (
        ("filled_size", progress.filled_size, size),
        ("filled_value", progress.filled_value, value),
        ("avg_price", progress.avg_price, mean),
    ):
        if is_now != found:
            sentence = f"{subject} has {name} {_said(is_now)}; its splits make {_said(found)}"
            yield Violation(f"order.{name}", subject, sentence)
    if size > order.size:
        yield Violation("order.size", subject, f"{subject} is for {_said(order.size)} and got {_said(size)}")
    if (size == order.size) is not (progress.state is OrderState.FILLED):
        sentence = f"{subject} is {progress.state.value} with {_said(size)} of {_said(order.size)}"
        yield Violation("order.state", subject, sentence)
    if progress.state.ended is (now.ended_us is None):
        yield Violation("order.end", subject, f"{subject} is {progress.state.value} and ended at {now.ended_us}")
    if order.time_in_force is TimeInForce.FOK and size not in (0, order.size):
        yield Violation("order.fok", subject, f"{subject} is FOK and got {_said(size)} of {_said(order.size)}")
    yield from _check_job(now, subject)


def _check_job(now: OrderNow, subject: str) -> Iterator[Violation]:
    progress = now.progress
    expected = job_state_of(progress.state)
    if now.job_state is not expected:
        yield Violation("job.state", subject, f"the job of {subject} is {now.job_state.value}, not {expected.value}")
    result = None
    if progress.state.ended:
        result = {
            "order_id": now.order.id,
            "state": progress.state.value,
            "reason": progress.reason.value if progress.reason else None,
            "filled_size": plain(progress.filled_size),
            "avg_price": None if progress.avg_price is None else plain(progress.avg_price),
        }
    if now.job_result != result:
        yield Violation("job.result", subject, f"the job of {subject} has the result {now.job_result}, not {result}")


def check_split(
    now: OrderNow, split: AuditedSplit, fee_bps: Decimal | None, symbol_of: SymbolOf
) -> Iterator[Violation]:
    """Yield what does not hold of one split by its own provenance. `fee_bps` None: the fee's rule is not known."""
    order, subject = now.order, f"split {split.id}"
    limit, price, size = _said(order.limit), _said(split.price), _said(split.size)
    if (split.price < order.limit) if order.side is Side.SELL else (split.price > order.limit):
        yield Violation("split.limit", subject, f"{subject} is at {price}, outside of the limit {limit} ({order.side})")
    if split.size <= 0 or split.price <= 0:
        yield Violation("split.size", subject, f"{subject} is of {size} at {price}")
    with localcontext(EXACT):
        left = split.shown - split.taken_before
        fee = None if fee_bps is None else split.price * split.size * fee_bps / 10_000
    if split.size > left or split.taken_before < 0:
        shown = f"{_said(split.taken_before)} of {_said(split.shown)} had been taken before"
        yield Violation("split.shown", subject, f"{subject} is of {size}, and {shown}")
    if fee is not None and split.fee != fee:
        yield Violation(
            "split.fee", subject, f"{subject} has the fee {_said(split.fee)}; by the rule it is {_said(fee)}"
        )
    if order.deadline_us is not None and split.created_us >= order.deadline_us:
        sentence = f"{subject} was made at {split.created_us}, and the deadline was {order.deadline_us}"
        yield Violation("split.deadline", subject, sentence)
    yield from _check_belongs(now, split, symbol_of)


def _check_belongs(now: OrderNow, split: AuditedSplit, symbol_of: SymbolOf) -> Iterator[Violation]:
    """Check that a split is from where its order may be filled."""
    order, subject = now.order, f"split {split.id}"
    if split.side is not order.side:
        yield Violation("split.side", subject, f"{subject} is a {split.side}, order {order.id} a {order.side}")
    symbol = symbol_of(split.venue, split.product_id)
    if symbol not in (None, order.symbol):
        product = f"{split.product_id} of {split.venue}, which is {symbol}"
        yield Violation(
            "split.product", subject, f"{subject} is from {product}; order {order.id} is for {order.symbol}"
        )
    if order.venues is not None and split.venue not in order.venues:
        sentence = f"{subject} is from {split.venue}; order {order.id} allows {', '.join(order.venues)}"
        yield Violation("split.venue", subject, sentence)
    if split.market != now.market:
        sentence = f"{subject} is of the {split.market} market, order {order.id} of the {now.market} one"
        yield Violation("split.market", subject, sentence)
    if split.place[0] != now.shard:
        yield Violation("split.id", subject, f"{subject} is not an id of shard {now.shard}, where order {order.id} is")


def _check_records(now: OrderNow, records: Sequence[tuple[Link, Record]]) -> Iterator[Violation]:
    """Check that an order's records tell one story from its acceptance to what its row says."""
    subject, before = f"order {now.order.id}", Progress(OrderState.QUEUED, Decimal(0), Decimal(0))
    if now.before_the_log and records:
        before = records[0][1].before
    elif now.before_the_log:
        return
    for link, record in records:
        for name in AuditedOrder.__struct_fields__:
            logged, stored = getattr(record.order, name), getattr(now.order, name)
            if logged != stored:
                sentence = f"{subject} has {name} {_said(stored)}; {link.id} says {_said(logged)}"
                yield Violation(f"order.{name}", subject, sentence)
        if link.shard != now.shard:
            yield Violation("order.shard", subject, f"{subject} is of shard {now.shard}, and has {link.id}")
        told = (record.before.state, record.before.filled_size, record.before.filled_value)
        if told != (before.state, before.filled_size, before.filled_value):
            sentence = f"{link.id} finds {subject} {_progress(record.before)}; it was {_progress(before)}"
            yield Violation("record.before", link.id, sentence)
        yield from _check_step(link, record, subject)
        before = record.after
    if before != now.progress:
        sentence = f"{subject} is {_progress(now.progress)}; the log says {_progress(before)}"
        yield Violation("order.progress", subject, sentence)
    last = records[-1][1].time_us if records else None
    if now.ended_us is not None and records and now.ended_us != last:
        sentence = f"{subject} ended at {now.ended_us}; its last record is of {last}"
        yield Violation("order.ended_us", subject, sentence)


def _check_step(link: Link, record: Record, subject: str) -> Iterator[Violation]:
    before, after = record.before, record.after
    try:
        if after.state is not before.state or before.state.ended:
            check_transition(record.order.id, before.state, after.state)
    except IllegalTransitionError as error:
        yield Violation("record.state", link.id, f"{link.id}: {error}")
    with localcontext(EXACT):
        size = sum((split.size for split in record.splits), before.filled_size)
        value = sum((split.price * split.size for split in record.splits), before.filled_value)
    if (size, value) != (after.filled_size, after.filled_value):
        stated = f"{_said(after.filled_size)} worth {_said(after.filled_value)}"
        sentence = f"{link.id} leaves {subject} with {stated}; its splits make {_said(size)} worth {_said(value)}"
        yield Violation("record.after", link.id, sentence)
    if (after.reason is None) is not (not after.state.ended or after.state is OrderState.FILLED):
        sentence = f"{link.id} leaves {subject} {after.state.value} for the reason {_said(after.reason)}"
        yield Violation("record.reason", link.id, sentence)
    prefix = (link.shard, record.epoch, record.number)
    for index, split in enumerate(record.splits):
        right = ("-".join(map(str, (*prefix, index))), record.order.seq, record.time_us, record.market)
        found = (split.id, split.order_seq, split.created_us, split.market)
        if found != right:
            yield Violation("record.split", link.id, f"{link.id} has {_said(found)} for its split {_said(right)}")


def _check_both_ways(
    now: OrderNow, records: Sequence[tuple[Link, Record]], splits: Sequence[AuditedSplit]
) -> Iterator[Violation]:
    logged = {split.id: (link, split) for link, record in records for split in record.splits}
    stored = {split.id: split for split in splits}
    for split_id, split in stored.items():
        subject = f"split {split_id}"
        if split_id not in logged:
            if not 0 <= split.place[1] <= now.chained_from:
                yield Violation("split.inserted", subject, f"{subject} of order {now.order.id} is not in the audit log")
            continue
        link, told = logged[split_id]
        for name in AuditedSplit.__struct_fields__:
            is_now, was = getattr(split, name), getattr(told, name)
            if is_now != was:
                sentence = f"{subject} has {name} {_said(is_now)}; {link.id} says {_said(was)}"
                yield Violation("split.changed", subject, sentence)
    for split_id in logged.keys() - stored.keys():
        link, told = logged[split_id]
        sentence = f"split {split_id} of order {now.order.id} is missing: {link.id} has {_said(told.size)}"
        yield Violation("split.deleted", f"split {split_id}", f"{sentence} at {_said(told.price)}")


def check_orphans(seq: int, links: Sequence[Link], splits: Sequence[AuditedSplit]) -> Iterator[Violation]:
    """Yield that records or splits are of an order which is not in the table `orders`."""
    subject = f"order {seq} (accept sequence)"
    of = [f"{link.id}" for link in links] + [f"split {split.id}" for split in splits]
    yield Violation("order.deleted", subject, f"{subject} is missing, and {of[0]} is of it (1 of {len(of)})")


# Across orders


def check_levels(splits: Iterable[AuditedSplit]) -> Iterator[Violation]:
    """Yield where splits overlap or leave something out on a level.

    `splits` come level by level and within one by epoch and quote (token, number). Of one quote they follow
    one another by what was taken before: that falls only with a new quote, because a level that came to show
    less has nothing left until it grows. So this is the order in which the book made them.
    """
    for _, level in groupby(splits, key=lambda split: split.level):
        before: AuditedSplit | None = None
        for _, quote in groupby(level, key=lambda split: (split.place[1], split.token, split.quote_number)):
            taken = sorted(quote, key=lambda split: split.taken_before)
            for one, other in pairwise(taken):
                yield from _check_same_quote(one, other)
            for split in taken:
                yield from _check_tile(before, split)
                before = split


def _check_same_quote(one: AuditedSplit, other: AuditedSplit) -> Iterator[Violation]:
    for name in ("shown", "exchange_time_us", "received_time_us"):
        first, second = getattr(one, name), getattr(other, name)
        if first != second:
            quote = f"quote {one.token}:{one.quote_number}"
            sentence = f"split {one.id} has {name} {_said(first)} of {quote}, split {other.id} has {_said(second)}"
            yield Violation("quote.same", f"split {other.id}", sentence)


def _check_tile(before: AuditedSplit | None, split: AuditedSplit) -> Iterator[Violation]:
    subject, begins = f"split {split.id}", split.taken_before
    with localcontext(EXACT):
        ended = before.taken_before + before.size if before is not None else Decimal(0)
    after = f"split {before.id} ended at {_said(ended)}" if before is not None else "it is the first on its level"
    if before is not None and before.place[1] == split.place[1] and split.created_us < before.created_us:
        sentence = f"{subject} was made at {split.created_us}, before split {before.id} at {before.created_us}"
        yield Violation("level.time", subject, f"{sentence}, whose quote is older")
    if begins > ended:
        yield Violation("level.gap", subject, f"{subject} begins at {_said(begins)} of its level, and {after}")
    elif before is not None and begins < ended:
        apart_us = split.created_us - before.created_us
        quotes = {(each.place[1], each.token, each.quote_number) for each in (before, split)}
        if len(quotes) == 1 or apart_us < MEMORY_US:
            why = "with the same quote" if len(quotes) == 1 else f"{apart_us} us before, too short to have shown less"
            sentence = f"{subject} begins at {_said(begins)} of its level, and {after} {why}"
            yield Violation("level.overlap", subject, sentence)


def _said(value: object) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _progress(progress: Progress) -> str:
    mean = "" if progress.avg_price is None else f" at {_said(progress.avg_price)} on average"
    reason = "" if progress.reason is None else f" ({progress.reason.value})"
    return f"{progress.state.value}{reason} with {_said(progress.filled_size)}{mean}"
