"""Each rule of a chaos run finds what breaks it: records of a real run in small, spoilt one by one."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.checks import Record, violations
from tests.chaos.load import Placed


@dataclass
class Case:
    """A record, what clients were told, and what the venue showed: (token, number, price, size, live)."""

    record: Record
    placed: list[Placed]
    quotes: list[tuple[int, int, str | None, str | None, bool]]


def _order(seq: int, size: str, filled: str, **more: Any) -> Any:
    values = {
        "seq": seq,
        "id": f"o{seq}",
        "job_id": f"j{seq}",
        "side": "sell",
        "price": Decimal(9),
        "size": Decimal(size),
        "filled_size": Decimal(filled),
        "state": "filled" if size == filled else "expired",
        "time_in_force": "GTD",
        "venues": None,
        "deadline_us": 1_000,
        "cancel_us": None,
        "ended_us": 900,
    }
    return SimpleNamespace(**{**values, **more})


def _split(number: int, seq: int, before: str, size: str, shown: str, quote: int) -> Any:
    return SimpleNamespace(
        id=f"0-1-{number}-0",
        order_seq=seq,
        venue="binance",
        product_id="LTCBTC",
        side="sell",
        price=Decimal(10),
        size=Decimal(size),
        taken_before=Decimal(before),
        shown=Decimal(shown),
        token=1,
        quote_number=quote,
        created_us=500,
    )


def _told(seq: int, kind: str, order: int, split: str | None = None) -> dict[str, Any]:
    message = {"seq": seq, "type": kind, "job_id": f"j{order}", "order_id": f"o{order}"}
    return message if split is None else {**message, "split_id": split}


def _case() -> Case:
    events = [
        _told(1, "order.split", 1, "0-1-1-0"),
        _told(2, "order.filled", 1),
        _told(3, "job.done", 1),
        _told(4, "order.split", 2, "0-1-2-0"),
        _told(5, "order.expired", 2),
        _told(6, "job.done", 2),
    ]
    jobs = [SimpleNamespace(id=f"j{seq}", state="done", ended_us=900) for seq in (1, 2)]
    placed = [Placed("local", f"k{seq}", "/order/limit", {}, f"j{seq}", f"o{seq}") for seq in (1, 2)]
    splits = [_split(1, 1, "0", "3", "5", 1), _split(2, 2, "3", "4", "7", 3)]
    record = Record(jobs, [_order(1, "3", "3"), _order(2, "5", "4")], splits, {"local": events})
    # Five are shown; the price goes away in front and comes back behind it, and the level has grown to seven.
    quotes = [(1, 1, "10", "5", True), (1, 2, "11", "1", True), (1, 3, "10", "7", True)]
    return Case(record, placed, [*quotes])


def _found(case: Case, folder: Path) -> list[str]:
    items = [
        ["quote", "binance", "LTCBTC", token, number, price, size, None, None, live, None, 0]
        for token, number, price, size, live in case.quotes
    ]
    lines = [json.dumps({"items": [item]}) for item in items]
    # What a killed owner saw counts, and half a line of it does not.
    (folder / "000-000001.jsonl").write_text("\n".join([*lines[:2], lines[2][:20]]))
    (folder / "000-000002.jsonl").write_text("\n".join(lines[1:]))
    return list(violations(case.record, case.placed, folder))


def _second_end(case: Case) -> None:
    case.record.events["local"].append(_told(7, "job.done", 1))


def _no_end(case: Case) -> None:
    case.record.jobs[1].state, case.record.jobs[1].ended_us = "running", None


def _lost_job(case: Case) -> None:
    case.placed.append(Placed("local", "k3", "/order/limit", {}, "j3", "o3"))


def _job_of_nobody(case: Case) -> None:
    del case.placed[1]


def _one_job_of_two_keys(case: Case) -> None:
    case.placed.append(replace(case.placed[0], key="other"))


def _lost_cancel(case: Case) -> None:
    case.placed[1].cancelled = True


def _over_its_size(case: Case) -> None:
    case.record.orders[0].size = Decimal(2)


def _sum_of_splits(case: Case) -> None:
    case.record.orders[1].filled_size = Decimal(5)


def _outside_the_limit(case: Case) -> None:
    case.record.orders[1].price = Decimal(11)


def _outside_the_venues(case: Case) -> None:
    case.record.orders[1].venues = "coinbase,kraken"


def _after_the_deadline(case: Case) -> None:
    case.record.orders[1].deadline_us = 500


def _fok_in_part(case: Case) -> None:
    case.record.orders[1].time_in_force = "FOK"


def _oversold(case: Case) -> None:
    # Five and two more are seven; three are sold before, and these five.
    case.record.splits[1].size = Decimal(5)
    case.record.orders[1].size, case.record.orders[1].filled_size = Decimal(20), Decimal(5)


def _forgotten(case: Case) -> None:
    # An owner that starts without what was taken sells the same units again; the level has shown enough all the time.
    case.quotes[1] = (1, 2, "10", "6", True)
    case.record.splits[1].taken_before = Decimal(0)


def _unseen_quote(case: Case) -> None:
    case.record.splits[1].quote_number = 4


def _hole(case: Case) -> None:
    case.record.events["local"][-1]["seq"] = 8


def _split_told_twice(case: Case) -> None:
    case.record.events["local"].append(_told(7, "order.split", 1, "0-1-1-0"))


SPOILT: dict[Callable[[Case], None], str] = {
    _second_end: "has 2 ends",
    _no_end: "is running",
    _lost_job: "is gone",
    _job_of_nobody: "nobody was told",
    _one_job_of_two_keys: "two keys",
    _lost_cancel: "the cancel of order o2",
    _over_its_size: "of 2 is filled",
    _sum_of_splits: "4 in splits",
    _outside_the_limit: "is outside of order o2",
    _outside_the_venues: "is outside of order o2",
    _after_the_deadline: "came after the deadline",
    _fok_in_part: "is FOK",
    _oversold: "which showed",
    _forgotten: "where 3 had been sold",
    _unseen_quote: "names a quote that nobody saw",
    _hole: "have holes",
    _split_told_twice: "each split once",
}


def test_a_record_in_which_all_is_well_has_no_violation(tmp_path: Path) -> None:
    """Two orders, a level that grows while it is hidden, and what each step told."""
    assert _found(_case(), tmp_path) == []


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__.strip("_"))
def test_what_breaks_a_rule_is_found(spoil: Callable[[Case], None], tmp_path: Path) -> None:
    """The sentence says which rule, and of what."""
    case = _case()
    spoil(case)
    found = _found(case, tmp_path)
    assert any(SPOILT[spoil] in sentence for sentence in found), found
