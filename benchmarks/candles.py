"""Candles: CPU time a trade for all seven intervals, with 3 and with 3,000 pairs.

Trades are made beforehand and come in order, with random gaps. With each the clock of its series advances, and once a
second that of every series, as the marks of quiet venues make it. All that closes is made into candles. Once each pair
trades as often however many there are; once all of them together do. CPU time, the best of rounds in turn.
"""

import random
import time
from decimal import Decimal
from itertools import groupby
from operator import itemgetter

import msgspec

from models.domain.candles import CandleMaker, MakerState

T0 = 1_700_000_000_000_000
PAIRS = (3, 3_000)
TRADES = 300_000
AIM_US = 3
FLAT = 1.25
Trade = tuple[int, int, Decimal, Decimal, str]  # second, time, price, size, taker's side


def trades(pairs: int, rate: float) -> list[tuple[int, Trade]]:
    """Return trades of so many pairs, each with its pair's number, at so many a second altogether."""
    chance = random.Random(1)
    prices = [Decimal(f"{chance.randrange(6_400_000, 6_420_000) / 100:.2f}") for _ in range(1_000)]
    sizes = [Decimal(f"{chance.randrange(1, 10**9) / 10**8:.8f}") for _ in range(1_000)]
    made, time_us = [], T0
    for _ in range(TRADES):
        time_us += round(chance.expovariate(rate) * 1_000_000)
        side = chance.choice(("buy", "sell"))
        trade = (time_us // 1_000_000, time_us, chance.choice(prices), chance.choice(sizes), side)
        made.append((chance.randrange(pairs), trade))
    return made


def run(pairs: int, given: list[tuple[int, Trade]]) -> tuple[float, int, list[CandleMaker]]:
    """Return CPU us a trade, the candles that closed, and the makers."""
    makers = [CandleMaker("binance", f"S{number}-USD", "simulated", MakerState(T0)) for number in range(pairs)]
    told, began = 0, time.process_time_ns()
    for second, together in groupby(given, key=lambda each: each[1][0]):
        for number, (_, time_us, price, size, side) in together:
            maker = makers[number]
            maker.trade(price, size, side, time_us)
            told += len(maker.advance(time_us))
        for maker in makers:
            told += len(maker.advance(second * 1_000_000))
    return (time.process_time_ns() - began) / 1_000 / len(given), told, makers


def each_us(call: object, times: int = 2_000) -> float:
    """Return the CPU us of a call."""
    assert callable(call)
    began = time.process_time_ns()
    for _ in range(times):
        call()
    return (time.process_time_ns() - began) / 1_000 / times


def main(rounds: int = 3) -> None:
    """Print a table, the ratios, and what a series' state takes."""
    cases = {
        (pairs, name): trades(pairs, rate * (pairs if name == "each" else 1))
        for name, rate in (("each", 2.0), ("altogether", 5_000.0))
        for pairs in PAIRS
    }
    best: dict[tuple[int, str], tuple[float, int, list[CandleMaker]]] = {}
    for _ in range(rounds):
        for (pairs, name), given in cases.items():
            found = run(pairs, given)
            best[pairs, name] = min(best.get((pairs, name), found), found, key=itemgetter(0))
    print("| trades | pairs | candles closed | us of CPU a trade | aim |\n|---|--:|--:|--:|---|")
    for (pairs, name), (spent_us, told, _) in best.items():
        rate = "2/s of each pair" if name == "each" else "5,000/s altogether"
        reached = "reached" if spent_us <= AIM_US else "**not reached**"
        print(f"| {rate} | {pairs:,} | {told:,} | {spent_us:.2f} | {AIM_US}: {reached} |")
    few, many = (best[pairs, "each"][0] for pairs in PAIRS)
    print(
        f"\n{PAIRS[1]:,} pairs cost {many / few:.2f} times as much a trade as {PAIRS[0]} that trade as often "
        f"(aim {FLAT}: {'reached' if many / few <= FLAT else '**not reached**'})."
    )
    [busiest, *_] = best[PAIRS[0], "altogether"][2]
    sizes = [len(msgspec.msgpack.encode(part)) for part in (busiest.state, busiest.settled)]
    spent = [
        each_us(lambda: msgspec.msgpack.encode(busiest.state)),
        each_us(lambda: msgspec.msgpack.encode(busiest.settled)),
        each_us(busiest.open_candles),
    ]
    print(
        f"\nA series that trades every second: the state of {sizes[0]:,} bytes is encoded in {spent[0]:.1f} us, the "
        f"settled part of {sizes[1]:,}, once a second, in {spent[1]:.1f}; open candles for display take {spent[2]:.1f}."
    )


if __name__ == "__main__":
    main()
