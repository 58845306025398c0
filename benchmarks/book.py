"""The book alone: quotes a second of one core that cross no order, and that each fill something.

Quotes are made beforehand. Those that cross nothing move one of two sides' sizes, or both, and the prices of ten
symbols half of the time, with a thousand orders resting far away. Those that cross grow a level by what one order
takes: either one order takes all of it, or each quote fills an order of its own. CPU time, the best of the rounds.
"""

import random
import time
from collections.abc import Callable, Sequence
from decimal import Decimal

from models.domain.book import Book
from models.domain.instruments import Instrument, Instruments, Product
from models.domain.orders import Order, Side, TimeInForce
from models.domain.quotes import Mark, Quote

BATCHES = (1, 100, 1_000)
AIMS = {"cross nothing": 500_000, "fill one order in parts": 200_000, "fill an order each": 200_000}
TICK, LOT, HALF = Decimal("0.01"), Decimal("0.00000001"), Decimal("0.5")
T0 = 1_000_000_000_000_000


def instruments(count: int) -> Instruments:
    """Return so many pairs, each listed by two venues."""
    return Instruments(
        Instrument(
            f"S{number}",
            "USD",
            (Product("binance", f"S{number}USD", TICK, LOT), Product("kraken", f"S{number}/USD", TICK, LOT)),
        )
        for number in range(count)
    )


def quotes(count: int, symbols: int) -> list[Quote]:
    """Return quotes of Binance that walk at random around 64,123.41, as decoded from texts."""
    chance = random.Random(1)
    ticks = [6_412_341] * symbols
    sizes = [["1", "1"] for _ in range(symbols)]
    made = []
    for number in range(1, count + 1):
        symbol = chance.randrange(symbols)
        ticks[symbol] += chance.choice((-1, 0, 0, 1))
        for side in chance.choice(((0,), (0,), (1,), (1,), (0, 1))):
            sizes[symbol][side] = f"{chance.randrange(1, 10**9) / 10**8:.8f}"
        bid, ask = (Decimal(f"{price / 100:.2f}") for price in (ticks[symbol], ticks[symbol] + 1))
        sides = (bid, Decimal(sizes[symbol][0]), ask, Decimal(sizes[symbol][1]))
        made.append(
            Quote("binance", f"S{symbol}USD", 1, number, *sides, live=True, exchange_time_us=None, received_time_us=T0)
        )
    return made


def order(seq: int, symbol: str, side: Side, price: str, size: str) -> Order:
    """Return an order that rests until it is filled."""
    numbers = (Decimal(price), Decimal(size))
    return Order(seq, str(seq), "", "", symbol, side, *numbers, TimeInForce.GTC, None, None)


def fed(pairs: Instruments, orders: Sequence[Order]) -> Book:
    """Return a book whose venue Binance is fed, with these orders in it."""
    book = Book(pairs)
    result = book.step(T0, items=[Mark("binance", 1, T0)], orders=orders)
    while result.more:
        result = book.step(T0)
    return book


def rate(book: Book, given: Sequence[Quote], batch: int) -> tuple[float, int]:
    """Return quotes a second of CPU time, fed so many a step, and the splits that came of them."""
    splits, began = 0, time.process_time()
    for start in range(0, len(given), batch):
        result = book.step(T0 + start, items=given[start : start + batch])
        splits += sum(len(outcome.splits) for outcome in result.outcomes)
        while result.more:
            result = book.step(T0 + start)
            splits += sum(len(outcome.splits) for outcome in result.outcomes)
    return len(given) / (time.process_time() - began), splits


def _apart(batch: int) -> float:
    far = ((Side.SELL, "90000"), (Side.BUY, "10000"))
    book = fed(instruments(10), [order(seq, f"S{seq % 10}-USD", *far[seq % 2], "1") for seq in range(1_000)])
    found, splits = rate(book, quotes(50_000, 10), batch)
    assert not splits
    return found


def _crossing(orders: int, size: str, batch: int) -> float:
    count = 10_000
    book = fed(instruments(1), [order(seq, "S0-USD", Side.SELL, "10000", size) for seq in range(orders)])
    bid, ask = Decimal("64123.41"), Decimal("64123.42")
    given = [
        Quote(
            "binance",
            "S0USD",
            1,
            number,
            bid,
            number * HALF,
            ask,
            HALF,
            live=True,
            exchange_time_us=None,
            received_time_us=T0,
        )
        for number in range(1, count + 1)
    ]
    found, splits = rate(book, given, batch)
    assert splits == count
    return found


def main(rounds: int = 5) -> None:
    """Print a table: quotes a second by what they do and by how many come with a step."""
    cases: dict[str, Callable[[int], float]] = {
        "cross nothing": _apart,
        "fill one order in parts": lambda batch: _crossing(1, "5000", batch),
        "fill an order each": lambda batch: _crossing(10_000, "0.5", batch),
    }
    best: dict[tuple[str, int], float] = {}
    for _ in range(rounds):
        for name, run in cases.items():
            for batch in BATCHES:
                best[name, batch] = max(best.get((name, batch), 0), run(batch))
    print("| quotes that | " + " | ".join(f"{batch:,} a step" for batch in BATCHES) + " | aim | reached |")
    print("|---|" + "--:|" * (len(BATCHES) + 1) + "---|")
    for name, aim in AIMS.items():
        found = [best[name, batch] for batch in BATCHES]
        reached = "yes" if max(found) >= aim else "**no**"
        print(f"| {name} | " + " | ".join(f"{each:,.0f}" for each in found) + f" | {aim:,} | {reached} |")


if __name__ == "__main__":
    main()
