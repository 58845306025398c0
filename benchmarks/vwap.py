"""Sliding averages of the last trades: ours beside talipp, pandas and deques of floats.

CPU time of one thread, all in turn within each round, medians of the rounds. Each takes the same trades one at a
time, in a window that is full; theirs are floats that were made beforehand, ours the Decimals and ids that a decoder
makes, and ours also looks for duplicates and for order. Then what ten million updates leave behind, whether a larger
window costs more, and what the windows of time cost.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from decimal import Context, Decimal, localcontext, setcontext
from fractions import Fraction
from itertools import cycle, islice
from statistics import median

import pandas as pd
from talipp.indicators import VWMA
from talipp.ohlcv import OHLCV

from models.domain.decimals import EXACT, plain
from models.domain.vwap import MergedVwap, SlidingVwap, TimeWindows, time_vwaps

WINDOW = 200
WINDOWS = (200, 2_000, 20_000, 200_000)
UPDATES = 10_000_000
TRADES = 10_000
T0_US, STEP_US = 1_700_000_000_000_000, 20_000
Point = tuple[Decimal, Decimal, int, str]
Work = Callable[[int], int]  # takes so many trades, returns nanoseconds


class _Floats:
    """Running sums of floats; what leaves the deque is taken away again."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._held: deque[tuple[float, float]] = deque()
        self._quote = self._size = 0.0

    def add(self, price: float, size: float) -> None:
        """Add a trade."""
        held = self._held
        if len(held) == self._window:
            old_price, old_size = held.popleft()
            self._quote -= old_price * old_size
            self._size -= old_size
        held.append((price, size))
        self._quote += price * size
        self._size += size

    @property
    def value(self) -> float:
        """The average."""
        return self._quote / self._size


def points() -> list[tuple[Decimal, Decimal]]:
    """Return prices around 63,500 and sizes from dust to dozens, with 8 decimals, as Binance writes them."""
    chance = random.Random(1)
    made, price = [], 63_500.0
    for _ in range(TRADES):
        price += chance.choice((-0.01, 0, 0, 0.01)) * chance.randrange(1, 300)
        made.append((Decimal(f"{price:.2f}000000"), Decimal(f"{min(chance.lognormvariate(-5, 2), 90) + 1e-5:.5f}000")))
    return made


def stream(made: Sequence[tuple[Decimal, Decimal]]) -> Iterator[Point]:
    """Return trades without end, with times and ids that rise."""
    for number, (price, size) in enumerate(cycle(made), 6_486_989_273):
        yield price, size, T0_US + number * STEP_US, str(number)


def ours(made: Sequence[tuple[Decimal, Decimal]], mode: str, window: int = WINDOW, *, exact: bool = True) -> Work:
    """Return work for a sliding window, in the context in which the analyst runs or in the usual one."""
    trades, sliding = stream(made), SlidingVwap(window)
    for trade in islice(trades, window):
        sliding.add(*trade)

    def work(count: int) -> int:
        setcontext(EXACT if exact else Context())
        given = list(islice(trades, count))
        began = time.thread_time_ns()
        if mode == "update":
            for price, size, time_us, trade_id in given:
                sliding.add(price, size, time_us, trade_id)
        elif mode == "value":
            for price, size, time_us, trade_id in given:
                sliding.add(price, size, time_us, trade_id)
                _ = sliding.value
        else:
            for price, size, time_us, trade_id in given:
                sliding.add(price, size, time_us, trade_id)
                _ = str(sliding.value)
        return time.thread_time_ns() - began

    return work


def merged(made: Sequence[tuple[Decimal, Decimal]], mode: str) -> Work:
    """Return work for the window over all venues, which looks at no ids."""
    trades, window = stream(made), MergedVwap(WINDOW)
    for price, size, time_us, _ in islice(trades, WINDOW):
        window.add(price, size, time_us)

    def work(count: int) -> int:
        setcontext(EXACT)
        given = list(islice(trades, count))
        began = time.thread_time_ns()
        if mode == "update":
            for price, size, time_us, _ in given:
                window.add(price, size, time_us)
        elif mode == "value":
            for price, size, time_us, _ in given:
                window.add(price, size, time_us)
                _value = window.value
        else:
            for price, size, time_us, _ in given:
                window.add(price, size, time_us)
                _text = str(window.value)
        return time.thread_time_ns() - began

    return work


def floats(made: Sequence[tuple[Decimal, Decimal]], mode: str) -> Work:
    """Return work for running sums of floats."""
    trades, window = cycle([(float(price), float(size)) for price, size in made]), _Floats(WINDOW)
    for price, size in islice(trades, WINDOW):
        window.add(price, size)

    def work(count: int) -> int:
        given = list(islice(trades, count))
        began = time.thread_time_ns()
        if mode == "update":
            for price, size in given:
                window.add(price, size)
        elif mode == "value":
            for price, size in given:
                window.add(price, size)
                _ = window.value
        else:
            for price, size in given:
                window.add(price, size)
                _ = repr(window.value)
        return time.thread_time_ns() - began

    return work


def anew(made: Sequence[tuple[Decimal, Decimal]]) -> Work:
    """Return work for a deque of floats that is summed anew for each trade."""
    trades = cycle([(float(price), float(size)) for price, size in made])
    held = deque(islice(trades, WINDOW), WINDOW)

    def work(count: int) -> int:
        given = list(islice(trades, count))
        began = time.thread_time_ns()
        for trade in given:
            held.append(trade)
            quote = volume = 0.0
            for price, size in held:
                quote += price * size
                volume += size
            _ = quote / volume
        return time.thread_time_ns() - began

    return work


def sums(made: Sequence[tuple[Decimal, Decimal]]) -> Work:
    """Return work for the same as most would write it: two calls of `sum`."""
    trades = cycle([(float(price), float(size)) for price, size in made])
    held = deque(islice(trades, WINDOW), WINDOW)

    def work(count: int) -> int:
        given = list(islice(trades, count))
        began = time.thread_time_ns()
        for trade in given:
            held.append(trade)
            _ = sum(price * size for price, size in held) / sum(size for _, size in held)
        return time.thread_time_ns() - began

    return work


def talipp(made: Sequence[tuple[Decimal, Decimal]]) -> Work:
    """Return work for talipp's indicator, whose candles were made beforehand; it keeps all that it was given."""
    candles = cycle([OHLCV(*[float(price)] * 4, volume=float(size)) for price, size in made])
    indicator = VWMA(WINDOW, input_values=list(islice(candles, WINDOW)))

    def work(count: int) -> int:
        given = list(islice(candles, count))
        began = time.thread_time_ns()
        for candle in given:
            indicator.add(candle)
            _ = indicator[-1]
        return time.thread_time_ns() - began

    return work


def pandas(made: Sequence[tuple[Decimal, Decimal]]) -> Work:
    """Return work for `rolling` on the last trades of a frame that holds all of them already."""
    frame = pd.DataFrame({"size": [float(size) for _, size in made]})
    frame["quote"] = [float(price * size) for price, size in made]
    ends = cycle(range(WINDOW, TRADES))

    def work(count: int) -> int:
        given = list(islice(ends, count))
        began = time.thread_time_ns()
        for end in given:
            sums = frame.iloc[end - WINDOW : end].rolling(WINDOW).sum().iloc[-1]
            _ = sums["quote"] / sums["size"]
        return time.thread_time_ns() - began

    return work


def in_turn(works: dict[str, tuple[Work, int]], rounds: int) -> dict[str, float]:
    """Return updates a second of CPU time, the median of rounds in which each works once."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, count) in works.items():
            rates[name].append(count / work(count) * 1e9)
    return {name: median(found) for name, found in rates.items()}


def compare(made: Sequence[tuple[Decimal, Decimal]], rounds: int) -> None:
    """Print ours beside theirs."""
    modes = ("update", "value", "text")
    works: dict[str, tuple[Work, int]] = {}
    for mode in modes:
        works[f"ours {mode}"] = ours(made, mode), 5_000
        works[f"usual {mode}"] = ours(made, mode, exact=False), 5_000
        works[f"merged {mode}"] = merged(made, mode), 5_000
        works[f"floats {mode}"] = floats(made, mode), 5_000
    works |= {
        "sums value": (sums(made), 500),
        "anew value": (anew(made), 500),
        "talipp value": (talipp(made), 500),
        "pandas value": (pandas(made), 50),
    }
    rates = in_turn(works, rounds)
    names = {
        "ours": "**ours**",
        "usual": "ours, in the usual context",
        "merged": "ours over all venues, without ids",
        "floats": "a float deque, running sums",
        "sums": "a float deque summed anew, by `sum`",
        "anew": "a float deque summed anew, in one loop",
        "talipp": "talipp VWMA",
        "pandas": "pandas rolling",
    }
    print(f"Window {WINDOW}; updates a second of one core:\n")
    print("| | update | update and value | update and value as text |\n|---|--:|--:|--:|")
    for name, title in names.items():
        found = [rates.get(f"{name} {mode}") for mode in modes]
        print(f"| {title} | " + " | ".join(f"{rate:,.0f}" if rate else "" for rate in found) + " |")
    print("\n| ours beside | update | update and value | update and value as text | aim | reached |")
    print("|---|--:|--:|--:|--:|---|")
    for name, aim in (("talipp", 10), ("pandas", 10), ("sums", 10), ("anew", 10), ("floats", 0.4)):
        ratios = [
            rates[f"ours {mode}"] / rates[f"{name} {mode}"] if f"{name} {mode}" in rates else None for mode in modes
        ]
        cells = [f"{ratio:,.2f}" if ratio else "" for ratio in ratios]
        reached = [
            f"{mode}: {'yes' if ratio >= aim else '**no**'}" for mode, ratio in zip(modes, ratios, strict=True) if ratio
        ]
        print(f"| {names[name]} | " + " | ".join(cells) + f" | {aim} | {', '.join(reached)} |")


def drift(made: Sequence[tuple[Decimal, Decimal]]) -> None:
    """Print by how much floats and ours are wrong after many updates, by an exact sum of the last window."""
    setcontext(EXACT)
    sliding, running = SlidingVwap(WINDOW), _Floats(WINDOW)
    for trade in islice(stream(made), UPDATES):
        sliding.add(*trade)
        running.add(float(trade[0]), float(trade[1]))
    last = [made[number % TRADES] for number in range(UPDATES - WINDOW, UPDATES)]
    size = sum((Fraction(size) for _, size in last), Fraction(0))
    quote = sum((Fraction(price) * Fraction(size) for price, size in last), Fraction(0))
    anew_ = _Floats(WINDOW)
    for price, amount in last:
        anew_.add(float(price), float(amount))
    assert sliding.value is not None
    digits = Context(prec=60)
    exact = digits.divide(Decimal(quote.numerator), Decimal(quote.denominator))
    exact = digits.divide(exact, digits.divide(Decimal(size.numerator), Decimal(size.denominator)))
    off = digits.abs(digits.subtract(digits.create_decimal(running.value), exact))
    off_anew = digits.abs(digits.subtract(digits.create_decimal(anew_.value), exact))
    ours_off = abs(Fraction(sliding.quote_volume) - quote) + abs(Fraction(sliding.size) - size)
    print(f"\nAfter {UPDATES:,} updates the value of the last window, {exact:.30f}..., is wrong by\n")
    print("| | wrong by |\n|---|--:|")
    print(f"| running sums of floats | {float(off):.1e} |")
    print(f"| sums of floats made anew | {float(off_anew):.1e} |")
    print(f"| ours, before it is rounded to 28 digits ({plain(sliding.value)}) | {ours_off} |")


def flat(made: Sequence[tuple[Decimal, Decimal]], rounds: int) -> None:
    """Print whether a larger window costs more."""
    works = {str(window): (ours(made, "value", window), 5_000) for window in WINDOWS}
    rates = in_turn(works, rounds)
    print("\n| window | updates/s, with the value | of that of the smallest |\n|--:|--:|--:|")
    for window in WINDOWS:
        print(f"| {window:,} | {rates[str(window)]:,.0f} | {rates[str(window)] / rates[str(WINDOWS[0])]:.2f} |")


def of_time(made: Sequence[tuple[Decimal, Decimal]], rounds: int) -> None:
    """Print what the windows of time cost: fifty trades a second for an hour, then their eight averages."""
    trades, windows = stream(made), [TimeWindows() for _ in range(6)]
    for price, size, time_us, _ in islice(trades, 3_700 * 1_000_000 // STEP_US):
        windows[0].add(price, size, time_us)
    for window in windows[1:]:
        for price, size, time_us, _ in islice(stream(made), 200, 3_200):
            window.add(price, size, time_us)

    def add(count: int) -> int:
        given = list(islice(trades, count))
        began = time.thread_time_ns()
        for price, size, time_us, _ in given:
            windows[0].add(price, size, time_us)
        return time.thread_time_ns() - began

    def read(count: int, *, of: int) -> int:
        began = time.thread_time_ns()
        for _ in range(count):
            _told = [vwap.value for vwap in time_vwaps("all", "BTC-USD", "live", windows[:of], 0)]
        return time.thread_time_ns() - began

    works: dict[str, tuple[Work, int]] = {
        "a trade": (add, 5_000),
        "the eight averages of a venue": (lambda count: read(count, of=1), 100),
        "the eight averages of six venues together": (lambda count: read(count, of=6), 100),
    }
    print("\n| windows of time | us |\n|---|--:|")
    for name, rate in in_turn(works, rounds).items():
        print(f"| {name} | {1e6 / rate:,.1f} |")


def main(rounds: int = 15) -> None:
    """Print the tables."""
    made = points()
    with localcontext():  # what is set within is gone afterwards
        compare(made, rounds)
        drift(made)
        flat(made, rounds)
        of_time(made, rounds)


if __name__ == "__main__":
    main()
