"""The audit: it finds nothing in what the book does, and each rule that is broken by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.domain.audit import check_chain, check_levels
from models.domain.journal import entry
from models.domain.ledger import EachQuote
from models.domain.orders import JobState, OrderState, Reason, Side, TimeInForce
from models.domain.records import GENESIS, Link, chained
from tests.unit.models.domain.audited import Stored, stored_of
from tests.unit.models.domain.test_book import SECOND, T0, journal_of, mark, moves, order, quote


@settings(max_examples=150, deadline=None)
@given(st.lists(moves, min_size=5, max_size=60), st.integers(3, 60))
def test_whatever_the_book_does_verifies(script: list[tuple[Any, ...]], restart_every: int) -> None:
    """Orders, splits, levels and chain of any run hold, also where the book was dropped and made anew."""
    assert stored_of(journal_of(script), restart_every).violations() == []


def _run(ledger: Any = None) -> Stored:
    """Two sales over three quotes of two levels, one that expires with nothing, and an IOC that gets a part."""
    steps: list[dict[str, Any]] = [
        {"items": [mark()], "orders": [order(1, "6"), order(2, "4", deadline_us=T0 + 9 * SECOND)]},
        {"items": [mark(), quote(1, "0.0009", "5")]},
        {"items": [mark(), quote(2, "0.0009", "8")]},
        {"items": [mark(), quote(3, "0.0009", "8")], "orders": [order(3, "1", deadline_us=T0 + 2 * SECOND)]},
        {"items": [mark(), quote(4, "0.0008", "4")], "orders": [order(4, "9", time_in_force=TimeInForce.IOC)]},
        {"items": [mark()]},
    ]
    made = []
    for number, step in enumerate(steps):
        given = {"items": [], "orders": []} | step
        made.append(entry(T0 + number * SECOND // 2, given["items"], [], [], given["orders"]))
    return stored_of(made) if ledger is None else stored_of(made, ledger=ledger)


@pytest.fixture
def stored() -> Stored:
    made = _run()
    assert made.violations() == []
    assert [[int(split.size) for split in splits] for splits in made.splits.values()] == [[5, 1], [2, 2], [], [2]]
    return made


def test_a_ledger_that_forgets_is_found() -> None:
    """The same units sold again with every quote overlap on their level."""
    assert _run(EachQuote).rules() == {"level.overlap"}


def _split(stored: Stored, seq: int = 1, place: int = 0, **values: Any) -> None:
    stored.splits[seq][place] = msgspec.structs.replace(stored.splits[seq][place], **values)


def _progress(stored: Stored, seq: int = 1, **values: Any) -> None:
    now = stored.orders[seq]
    stored.orders[seq] = replace(now, progress=msgspec.structs.replace(now.progress, **values))


def _facts(stored: Stored, seq: int = 1, **values: Any) -> None:
    now = stored.orders[seq]
    stored.orders[seq] = replace(now, order=msgspec.structs.replace(now.order, **values))


def _now(stored: Stored, seq: int = 1, **values: Any) -> None:
    stored.orders[seq] = replace(stored.orders[seq], **values)


D = Decimal
BROKEN: list[tuple[str, Callable[[Stored], None]]] = [
    ("split.limit", lambda s: _split(s, price=D("0.00005"))),
    ("split.size", lambda s: _split(s, size=D(0))),
    ("split.shown", lambda s: _split(s, shown=D(4))),
    ("split.shown", lambda s: _split(s, size=D(7))),
    ("split.fee", lambda s: _split(s, fee=D(1))),
    ("split.deadline", lambda s: _split(s, seq=2, created_us=T0 + 9 * SECOND)),
    ("split.venue", lambda s: _facts(s, venues=("coinbase",))),
    ("split.product", lambda s: _split(s, product_id="BTCUSDT")),
    ("split.side", lambda s: _split(s, side=Side.BUY)),
    ("split.market", lambda s: _split(s, market="live")),
    ("split.id", lambda s: _split(s, id="1-1-2-0")),
    ("split.changed", lambda s: _split(s, quote_number=9)),
    ("split.changed", lambda s: _split(s, exchange_time_us=9)),
    ("split.inserted", lambda s: s.splits[1].append(msgspec.structs.replace(s.splits[1][0], id="0-1-77-0"))),
    ("split.deleted", lambda s: s.splits[1].clear()),
    ("order.filled_size", lambda s: _progress(s, filled_size=D(9))),
    ("order.filled_value", lambda s: _progress(s, filled_value=D(9))),
    ("order.avg_price", lambda s: _progress(s, avg_price=D(9))),
    ("order.progress", lambda s: _progress(s, seq=4, reason=Reason.FOK)),
    ("order.state", lambda s: _progress(s, state=OrderState.WORKING)),
    ("order.end", lambda s: _now(s, ended_us=None)),
    ("order.ended_us", lambda s: _now(s, ended_us=5)),
    ("order.fok", lambda s: _facts(s, seq=4, time_in_force=TimeInForce.FOK)),
    ("order.size", lambda s: _facts(s, size=D(5))),
    ("order.limit", lambda s: _facts(s, limit=D("0.0002"))),
    ("order.deadline_us", lambda s: _facts(s, deadline_us=T0 + 99 * SECOND)),
    ("order.shard", lambda s: _now(s, shard=1)),
    ("job.state", lambda s: _now(s, job_state=JobState.RUNNING)),
    ("job.result", lambda s: _now(s, job_result={})),
    ("level.gap", lambda s: _split(s, taken_before=D("0.5"))),
    ("level.overlap", lambda s: _split(s, seq=1, place=1, taken_before=D(4))),
    ("level.time", lambda s: _split(s, seq=1, place=1, created_us=T0)),
]


@pytest.mark.parametrize(
    ("rule", "breaks"), BROKEN, ids=[f"{number}-{rule}" for number, (rule, _) in enumerate(BROKEN)]
)
def test_each_rule_that_is_broken_is_found(stored: Stored, rule: str, breaks: Callable[[Stored], None]) -> None:
    """Of one value that was changed the violation names the rule, the id and both values."""
    breaks(stored)
    found = [each for each in stored.violations() if each.rule == rule]
    assert found
    assert all(each.sentence.count(" ") > 4 and each.sentence.isprintable() for each in found)


def test_a_level_that_showed_less_for_a_second_begins_again() -> None:
    """Taken falls after a full second and not a microsecond sooner, and never with the same quote."""
    steps = [(T0, 1, "5"), (T0 + 1, 2, "1"), (T0 + 1 + SECOND, 3, "1"), (T0 + 2 + SECOND, 4, "3")]
    journal = [entry(T0, [mark()], [], [], [order(1, "20")])]
    journal += [entry(time, [mark(), quote(number, "0.0009", size)], [], [], []) for time, number, size in steps]
    splits = stored_of(journal).by_level()
    assert [(split.taken_before, split.size) for split in splits] == [(D(0), D(5)), (D(1), D(2))]
    first, second = splits
    assert list(check_levels(splits)) == []
    for changed in ({"created_us": first.created_us + SECOND - 1}, {"quote_number": 1}):
        other = msgspec.structs.replace(second, **changed)
        assert "level.overlap" in {each.rule for each in check_levels([first, other])}


def test_splits_of_one_quote_say_the_same_of_it(stored: Stored) -> None:
    """What a quote showed, and when it came, is the same for all that was taken from it."""
    second = stored.splits[2][0]
    assert stored.splits[1][1].quote_number == second.quote_number
    for changed in ({"shown": D(9)}, {"received_time_us": 1}, {"exchange_time_us": 1}):
        stored.splits[2][0] = msgspec.structs.replace(second, **changed)
        assert {each.rule for each in check_levels(stored.by_level())} == {"quote.same"}


def _rules(links: list[Link], kept: dict[int, str] | None = None, stored: Stored | None = None) -> set[str]:
    head = stored.head if stored is not None else None
    return {each.rule for each in check_chain(0, links, head, kept or {})}


def test_rows_of_the_chain_cannot_be_changed(stored: Stored) -> None:
    """Changed, swapped, deleted, inserted and cut-off rows are each found, also where hashes were made to fit."""
    links = stored.links
    text = links[1].record.replace('"seq":', '"seq": ')
    assert _rules([links[0], replace(links[1], record=text), *links[2:]], stored=stored) == {"chain.hash"}
    fitted = replace(links[1], record=text, hash=chained(links[1].previous, 0, 2, text))
    assert _rules([links[0], fitted, *links[2:]], stored=stored) == {"chain.previous"}
    swapped = [replace(links[1], number=1), replace(links[0], number=2), *links[2:]]
    assert {"chain.hash", "chain.previous", "chain.order_of_outcomes"} <= _rules(swapped, stored=stored)
    assert _rules([links[0], *links[2:]], stored=stored) == {"chain.number"}
    more = replace(links[-1], number=links[-1].number + 1, previous=links[-1].hash)
    assert {"chain.hash", "chain.head"} <= _rules([*links, more], stored=stored)
    assert _rules(links[:-1], stored=stored) == {"chain.head"}
    assert _rules([replace(links[0], order_seq=7), *links[1:]], stored=stored) == {"chain.order"}
    assert _rules(links) == {"chain.shard"}


def _rewrite(stored: Stored, number: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change one record and make the whole chain fit again."""
    again, before = [], GENESIS
    for link in stored.links:
        record = json.dumps(change(json.loads(link.record))) if link.number == number else link.record
        again.append(replace(link, record=record, previous=before, hash=chained(before, 0, link.number, record)))
        before = again[-1].hash
    stored.links = again


# What is changed in the first record with a split, and what finds that.
REWRITTEN: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("chain.record", lambda record: record | {"more": 1}),
    ("chain.record", lambda _: []),
    ("chain.rules", lambda record: record | {"rules": 2}),
    ("chain.order", lambda record: record | {"order": record["order"] | {"seq": 2}}),
    ("order.venues", lambda record: record | {"order": record["order"] | {"venues": ["binance"]}}),
    ("record.before", lambda record: record | {"before": record["before"] | {"filled_size": "1"}}),
    ("record.state", lambda record: record | {"before": record["before"] | {"state": "expired"}}),
    ("record.after", lambda record: record | {"after": record["after"] | {"filled_value": "1"}}),
    ("record.reason", lambda record: record | {"after": record["after"] | {"reason": "deadline"}}),
    ("record.split", lambda record: record | {"number": record["number"] + 40}),
    ("split.fee", lambda record: record | {"fee_bps": "2"}),
    ("split.changed", lambda record: record | {"splits": [record["splits"][0] | {"token": 7}]}),
    ("split.inserted", lambda record: record | {"splits": []}),
]


@pytest.mark.parametrize(("rule", "change"), REWRITTEN, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(REWRITTEN)])
def test_a_record_that_was_rewritten_is_found_by_what_it_says(
    stored: Stored, rule: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    """Where every hash was made to fit, the record still contradicts the tables, the record before it, or itself."""
    number = next(link.number for link in stored.links if json.loads(link.record)["splits"])
    _rewrite(stored, number, lambda record: record)
    assert stored.violations() == []
    _rewrite(stored, number, change)
    assert rule in stored.rules()


def test_a_chain_that_was_made_anew_is_found_by_a_head_that_was_kept(stored: Stored) -> None:
    """Nothing in the database tells a chain that was cut or written anew, head and all; the kept hash does."""
    kept = {stored.head.number: stored.head.hash}
    assert _rules(stored.links, kept, stored) == set()
    full = stored.links
    _rewrite(stored, 1, lambda record: record | {"fee_bps": "0"})
    assert _rules(stored.links, stored=stored) == set()
    assert _rules(stored.links, kept, stored) == {"chain.kept"}
    stored.links = full[:-1]
    assert _rules(stored.links, stored=stored) == set()
    assert _rules(stored.links, kept, stored) == {"chain.cut"}


def test_an_order_from_before_the_log_is_taken_as_it_is(stored: Stored) -> None:
    """Its records begin where they begin; its older splits are not asked for in the log."""
    for link in [link for link in stored.links if link.order_seq == 1][:-1]:
        stored.links.remove(link)
    assert stored.rules() == {"split.inserted", "record.before", "chain.number"}
    _now(stored, before_the_log=True)
    assert stored.rules() == {"split.inserted", "chain.number"}
    _now(stored, chained_from=1)
    assert stored.rules() == {"chain.number"}


def test_a_record_is_read_back_as_it_was_written(stored: Stored) -> None:
    """It is JSON with sorted keys, and every decimal is a text."""
    record = json.loads(stored.links[-1].record, parse_float=pytest.fail)
    assert json.dumps(record, sort_keys=True, separators=(",", ":")) == stored.links[-1].record
    assert record["rules"] == 1
