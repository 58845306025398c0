"""A book's run as the audit finds it stored: records in their chain, orders, splits."""

from dataclasses import replace
from decimal import Decimal
from itertools import groupby
from typing import Any

import msgspec

from models.domain.audit import OrderNow, Violation, check_chain, check_levels, check_order
from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS, Instruments
from models.domain.journal import read
from models.domain.ledger import Ledger
from models.domain.orders import JobState, Order, OrderState, job_state_of
from models.domain.outcomes import Level, Outcome
from models.domain.quotes import Market
from models.domain.records import GENESIS, AuditedOrder, AuditedSplit, Head, Link, Progress, chained, read_record
from models.store.outcomes import _Written
from models.store.shards import Lease

PAIRS = Instruments([INSTRUMENTS["LTC-BTC"]])


class Stored:
    """What outcomes leave in the tables."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.orders: dict[int, OrderNow] = {}
        self.splits: dict[int, list[AuditedSplit]] = {}

    def accept(self, order: Order) -> None:
        facts = AuditedOrder(
            order.seq,
            order.id,
            order.symbol,
            order.side,
            order.price,
            order.size,
            order.time_in_force,
            tuple(sorted(order.venues)) if order.venues else None,
            order.deadline_us,
        )
        nothing = Progress(OrderState.QUEUED, Decimal(0), Decimal(0))
        self.orders[order.seq] = OrderNow(facts, nothing, 0, "simulated", None, JobState.QUEUED, None)
        self.splits[order.seq] = []

    def commit(self, outcome: Outcome, epoch: int, number: int) -> None:
        written = _Written(outcome, Lease(0, "owner", epoch), number, Market.SIMULATED, Decimal("2.5"))
        seq, record = outcome.order.seq, written.record()
        before = self.links[-1].hash if self.links else GENESIS
        place = len(self.links) + 1
        self.links.append(Link(0, place, seq, record, before, chained(before, 0, place, record)))
        self.splits[seq] += [msgspec.convert(row, AuditedSplit) for row in written.split_rows]
        self.orders[seq] = replace(
            self.orders[seq],
            progress=read_record(record).after,
            ended_us=written.ended_us,
            job_state=job_state_of(outcome.state),
            job_result=written.result,
        )

    @property
    def head(self) -> Head:
        last = self.links[-1] if self.links else Link(0, 0, 0, "", "", GENESIS)
        return Head(0, last.number, last.hash)

    def violations(self) -> list[Violation]:
        found = list(check_chain(0, self.links, self.head, {}))
        for seq, now in self.orders.items():
            links = [link for link in self.links if link.order_seq == seq]
            splits = sorted(self.splits[seq], key=lambda split: split.place)
            found += check_order(now, links, splits, symbol_of)
        return found + list(check_levels(self.by_level()))

    def by_level(self) -> list[AuditedSplit]:
        every = [split for splits in self.splits.values() for split in splits]
        return sorted(every, key=lambda each: (each.level, each.place[1], each.token, each.quote_number))

    def rules(self) -> set[str]:
        return {each.rule for each in self.violations()}


def symbol_of(venue: str, product_id: str) -> str | None:
    instrument = INSTRUMENTS.of_product(venue, product_id)
    return None if instrument is None else instrument.symbol


def stored_of(journal: list[dict[str, Any]], restart_every: int = 1_000, ledger: Any = Ledger) -> Stored:
    """Give a journal to a book, which is dropped and made anew from what was committed every so many steps."""
    stored = Stored()
    levels: dict[object, Level] = {}
    working: dict[int, Order] = {}
    disabled: set[str] = set()
    for number, chunk in groupby(enumerate(journal), key=lambda each: each[0] // restart_every):
        book = Book(PAIRS, levels=[each for each in levels.values() if each.taken], disabled=disabled, ledger=ledger)
        outcomes = 0
        for _, entry in chunk:
            step = read(entry)
            for order in step["orders"]:
                stored.accept(order)
            if outcomes == 0 and number:
                step["orders"] = [*working.values(), *step["orders"]]
            for switch in step["switches"]:
                (disabled.discard if switch.enabled else disabled.add)(switch.venue)
            result = book.step(**step)
            for outcome in result.outcomes:
                stored.commit(outcome, number + 1, outcomes)
                outcomes += 1
                order = outcome.order
                now = stored.orders[order.seq].progress
                changed = msgspec.structs.replace(
                    order, state=now.state, filled_size=now.filled_size, filled_value=now.filled_value
                )
                if now.state.ended:
                    working.pop(order.seq, None)
                else:
                    working[order.seq] = changed
            if result.outcomes:
                levels |= {(each.venue, each.product_id, each.side, each.price): each for each in result.levels}
            outcomes = max(outcomes, 1)  # the working orders were given with the first step
    return stored
