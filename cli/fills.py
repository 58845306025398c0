"""What a replay gave each order: as JSON lines that are equal for equal fills, as tables, and against another rule."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

from cli.tables import plain_table, short
from models.domain.decimals import EXACT, plain
from models.domain.replay import Played
from models.store.events import rfc3339
from models.store.rows import average

ROWS_MAX = 40  # of a table; the JSON has all of them
Record = dict[str, Any]
GOT = ("state", "reason", "filled_size", "avg_price", "ended")  # what two rules are compared by, beside the splits
SPLIT = ("time", "venue", "product_id", "price", "size")


def record(played: Played, client_order_id: str | None) -> Record:
    """Return what became of an order, with the quote behind each split, as its JSON line has it."""
    order, price = played.order, average(played.filled_value, played.filled_size)
    return {
        "order": order.id,
        "client_order_id": client_order_id,
        "symbol": order.symbol,
        "side": order.side.value,
        "price": plain(order.price),
        "order_size": plain(order.size),
        "time_in_force": order.time_in_force.value,
        "venues": sorted(order.venues) if order.venues else None,
        "placed": rfc3339(played.placed_us),
        "deadline": rfc3339(order.deadline_us),
        "state": played.state.value,
        "reason": played.reason.value if played.reason else None,
        "filled_size": plain(played.filled_size),
        "avg_price": None if price is None else plain(price),
        "ended": rfc3339(played.ended_us),
        "splits": [
            {
                "time": rfc3339(time_us),
                "venue": split.venue,
                "product_id": split.product_id,
                "price": plain(split.price),
                "size": plain(split.size),
                "token": split.token,
                "quote_number": split.quote_number,
                "shown": plain(split.shown),
                "taken_before": plain(split.taken_before),
                "exchange_time": rfc3339(split.exchange_time_us),
                "received_time": rfc3339(split.received_time_us),
            }
            for time_us, split in played.splits
        ],
    }


def as_bytes(records: Iterable[Record]) -> bytes:
    """Return records as JSON lines, without a space that need not be there."""
    return "".join(json.dumps(each, separators=(",", ":")) + "\n" for each in records).encode()


@dataclass
class Total:
    """Sums over orders of one pair and side. `parts` counts those that ended or wait with only a part filled."""

    orders: int = 0
    states: Counter[str] = field(default_factory=Counter)
    parts: int = 0
    size: Decimal = Decimal(0)
    filled: Decimal = Decimal(0)
    value: Decimal = Decimal(0)
    splits: int = 0

    def add(self, each: Record) -> None:
        """Count one order."""
        filled = Decimal(each["filled_size"])
        self.orders += 1
        self.states[each["state"]] += 1
        self.parts += bool(filled) and each["state"] != "filled"
        with localcontext(EXACT):
            self.size += Decimal(each["order_size"])
            self.filled += filled
            self.value += sum(Decimal(split["price"]) * Decimal(split["size"]) for split in each["splits"])
        self.splits += len(each["splits"])

    @property
    def average(self) -> str | None:
        """The average price of what was filled."""
        price = average(self.value, self.filled)
        return None if price is None else plain(price)

    def as_json(self) -> Record:
        """Return it as a line of JSON has it."""
        return {
            "orders": self.orders,
            "states": dict(sorted(self.states.items())),
            "partly_filled": self.parts,
            "order_size": plain(self.size),
            "filled_size": plain(self.filled),
            "avg_price": self.average,
            "splits": self.splits,
        }


def totals(records: Iterable[Record]) -> dict[tuple[str, str], Total]:
    """Return the sums by pair and side, sorted."""
    sums: dict[tuple[str, str], Total] = {}
    for each in records:
        sums.setdefault((each["symbol"], each["side"]), Total()).add(each)
    return dict(sorted(sums.items()))


def summary(records: Sequence[Record]) -> Any:  # noqa: ANN401 -- Rich is loaded only where it is shown
    """Return a table of the sums."""
    table = plain_table("pair", "side", "size", "filled", "average", "splits", "orders")
    for (symbol, side), total in totals(records).items():
        states = ", ".join(f"{count} {state}" for state, count in sorted(total.states.items()))
        stand = f"{states}; {total.parts} in part" if total.parts else states
        sizes = (short(plain(total.size)), short(plain(total.filled)), short(total.average))
        table.add_row(symbol, side, *sizes, str(total.splits), stand)
    return table


@dataclass(frozen=True)
class Comparison:
    """Two rules on one session: (present, other) of each order that they serve differently, and the sums of both."""

    orders: int
    differing: Sequence[tuple[Record, Record]]
    totals: Mapping[tuple[str, str], tuple[Total, Total]]

    def lines(self, present: Record, other: Record) -> list[Record]:
        """Return a record for each of these orders, and a last one with the sums; the arguments name the rules."""
        shown = ("order", "client_order_id", "symbol", "side", "price", "order_size")
        differing = [
            {**{name: mine[name] for name in shown}, "present": _got(mine), "other": _got(theirs)}
            for mine, theirs in self.differing
        ]
        sums = [
            {"symbol": symbol, "side": side, "present": mine.as_json(), "other": theirs.as_json()}
            for (symbol, side), (mine, theirs) in self.totals.items()
        ]
        rules = {"present": present, "other": other}
        return [*differing, {"orders": self.orders, "differ": len(self.differing), "rules": rules, "totals": sums}]

    def tables(self, present: str, other: str) -> list[Any]:
        """Return a table of the orders that differ, where there are any, and one of the sums."""
        count = f"{len(self.differing):,} of {self.orders:,} orders are served differently by {other}"
        each = plain_table("order", "pair", "side", "size", "filled", "then", "average", "then", title=count)
        for one, another in self.differing[:ROWS_MAX]:
            got = [short(record[name]) for name in ("filled_size", "avg_price") for record in (one, another)]
            each.add_row(one["order"], one["symbol"], one["side"], short(one["order_size"]), *got)
        if len(self.differing) > ROWS_MAX:
            each.add_row("...")
        sums = plain_table("pair", "side", "rule", "filled", "average", "splits", "times")
        for (symbol, side), (mine, theirs) in self.totals.items():
            times = f"{theirs.filled / mine.filled:.3f}" if mine.filled else ""
            for rule, total, ratio in ((present, mine, "1"), (other, theirs, times)):
                sizes = (short(plain(total.filled)), short(total.average), str(total.splits))
                sums.add_row(symbol, side, rule, *sizes, ratio)
        return [each, sums]


def _got(one: Record) -> Record:
    return {name: one[name] for name in GOT} | {
        "splits": [{name: split[name] for name in SPLIT} for split in one["splits"]]
    }


def compare(present: Sequence[Record], other: Sequence[Record]) -> Comparison:
    """Return how two replays of the same orders differ."""
    pairs = list(zip(present, other, strict=True))
    sums = totals(present), totals(other)
    return Comparison(
        orders=len(pairs),
        differing=[(mine, theirs) for mine, theirs in pairs if _got(mine) != _got(theirs)],
        totals={key: (total, sums[1][key]) for key, total in sums[0].items()},
    )
