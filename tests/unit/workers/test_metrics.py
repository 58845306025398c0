import time
from decimal import Decimal
from random import Random

from models.domain.book import Book
from models.domain.instruments import INSTRUMENTS
from models.domain.orders import Order, Reason, Side, TimeInForce
from models.domain.outcomes import VenueSwitch
from models.domain.quotes import BusItem, Mark, Quote
from workers.inbox import Inbox
from workers.metrics import Account, Tally, of_venues

SECOND_US = 1_000_000
VENUES = ("binance", "coinbase", "kraken")


def test_the_book_counts_why_orders_wait_as_it_tells_each_of_them() -> None:
    """In every state of venues, on both sides, for every set of venues: the counts are those of the orders' reasons."""
    random, instrument, seen = Random(4), INSTRUMENTS["BTC-USDT"], set()
    products = {product.venue: product.id for product in instrument.books if product.venue in VENUES}
    for _ in range(40):
        book, now_us = Book(INSTRUMENTS), SECOND_US
        items: list[BusItem] = []
        for venue in random.sample(VENUES, random.randint(0, 3)):
            if venue not in products:
                continue
            items.append(Mark(venue, 1, now_us))
            bid = 1_000 + random.randint(-3, 3)
            sides = (Decimal(bid), Decimal(random.randint(0, 2)), Decimal(bid + 1), Decimal(random.randint(0, 2)))
            live = random.random() > 0.2
            items.append(
                Quote(venue, products[venue], 1, 1, *sides, live=live, exchange_time_us=None, received_time_us=0)
            )
        off = [VenueSwitch(venue, enabled=False) for venue in random.sample(VENUES, random.randint(0, 2))]
        book.step(now_us, items=items, switches=off)
        orders = [
            Order(
                seq=seq,
                id=str(seq),
                job_id=str(seq),
                owner_id="ann",
                symbol=instrument.symbol,
                side=random.choice(list(Side)),
                price=Decimal(1_000 + random.randint(-6, 6)),
                size=Decimal(3),
                time_in_force=TimeInForce.GTC,
                venues=random.choice([None, frozenset(random.sample(sorted(products), 1))]),
                deadline_us=None,
            )
            for seq in range(1, 41)
        ]
        book.step(now_us, orders=orders)
        if random.random() < 0.2:
            book.step(now_us + 10 * SECOND_US)
        one_by_one = [reason for order in orders if (reason := book.waiting_reason(order.seq)) is not None]
        assert book.waiting_counts() == {reason: one_by_one.count(reason) for reason in set(one_by_one)}
        assert sum(book.waiting_counts().values()) == len(book)
        seen |= set(one_by_one)
    assert seen == {
        Reason.TAKEN_BY_OTHERS,
        Reason.OUTSIDE_LIMIT,
        Reason.NOT_LIVE,
        Reason.VENUE_STALE,
        Reason.VENUE_DISABLED,
        Reason.NO_QUOTE_YET,
    }


def test_the_inbox_tells_how_long_its_oldest_item_has_waited() -> None:
    """From when it came; newer ones do not change that, and an empty one has waited for nothing."""
    inbox = Inbox()
    assert (len(inbox), inbox.oldest_age_s()) == (0, 0)
    inbox.put([Mark("okx", 1, 1)])
    time.sleep(0.05)
    inbox.put([Mark("okx", 1, 2)])
    assert len(inbox) == 2
    assert inbox.oldest_age_s() >= 0.05
    inbox.wait(time.monotonic())
    assert (len(inbox), inbox.oldest_age_s()) == (0, 0)


def test_a_stand_by_tells_that_it_is_not_connected_and_nothing_else() -> None:
    """Its counters would be those of nobody."""
    told = {family.name: family.samples for family in of_venues({"okx": Account()})}
    assert [(sample.labels, sample.value) for sample in told.pop("crossfill_venue_connected")] == [
        ({"venue": "okx"}, 0)
    ]
    assert [samples for samples in told.values() if samples] == []


def test_attempts_are_counted_by_kind_and_end() -> None:
    """What a forked child counts is told by its parent (tests/integration/workers/test_metrics.py)."""
    tally = Tally(["average", "candle"])
    for _ in range(3):
        tally.add("candle", "put_back")
    [family] = tally.collect()
    counted = {(each.labels["kind"], each.labels["end"]): each.value for each in family.samples if each.value}
    assert counted == {("candle", "put_back"): 3}
