"""docs/metrics.md and what the processes tell are the same metrics, with the same labels."""

import re
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from api.figures import PROBED, Counters
from models.domain.orders import Reason
from models.metrics import new_registry
from models.settings import Settings
from notifier.metrics import NotifierMetrics
from tests.services import ROOT
from workers.analyst import Analysed
from workers.archivist import Archivist
from workers.inbox import Inbox
from workers.jobs import WORKS
from workers.metrics import Account, LoopMetrics, Tally, of_analyst, of_shards, of_venues

NOTHING: Any = None
ARCHIVIST = Archivist(NOTHING, NOTHING, 30)  # which does nothing yet
Told = set[tuple[str, str]]  # process, metric
SUFFIXES = {"counter": "_total", "info": "_info"}


def documented() -> dict[tuple[str, str], set[str]]:
    """Return the labels by process and metric."""
    rows = re.findall(
        r"^\| ([a-z, ]+) \| `(\w+)` \| ([^|]*)\|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
    return {
        (process, name): set(re.findall(r"`(\w+)`", labels))
        for processes, name, labels in rows
        for process in processes.split(", ")
    }


def names(process: str, families: Iterable[Metric]) -> Told:
    return {
        (process, family.name + SUFFIXES.get(family.type, ""))
        for family in families
        if not family.name.startswith(("process", "python"))
    }


def told() -> Told:
    registries = {process: CollectorRegistry() for process in ("api", "fulfilment", "notifier")}
    Counters(registries["api"])
    LoopMetrics(registries["fulfilment"])
    NotifierMetrics(registries["notifier"])
    found = {each for process, registry in registries.items() for each in names(process, registry.collect())}
    found |= {("api", name) for name in PROBED}
    found |= names("fulfilment", of_shards([]))
    found |= names("collectors", of_venues({}))
    found |= names("analyst", of_analyst(Analysed(), [_producer()]))
    found |= names("jobs", Tally(WORKS).collect())
    found |= names("archivist", ARCHIVIST.collect())
    return found | names("each", new_registry("api", Settings()).collect())


def test_the_table_is_what_the_processes_tell() -> None:
    """Nothing is told that is not documented, and nothing documented is not told."""
    assert set(documented()) == told()


def test_the_labels_are_those_of_the_table() -> None:
    """They are the same words, and none of them is an id of an order, an owner or a client."""
    registry = CollectorRegistry()
    Counters(registry), LoopMetrics(registry), NotifierMetrics(registry)
    made: dict[str, set[str]] = {
        f"{collector._name}{SUFFIXES.get(collector._type, '')}": set(collector._labelnames)
        for collector in map(_any, registry._collector_to_names)
    }
    loop: Any = SimpleNamespace(
        lease=SimpleNamespace(shard=0, epoch=1), waiting={Reason.OUTSIDE_LIMIT: 1}, inbox=Inbox()
    )
    account = Account()
    account.state, account.quoted_us = _any(SimpleNamespace(connected_since_us=1)), 1
    for name in ("messages", "reconnects", "gaps", "conflated", "trades_lost"):
        setattr(account.state, name, 1)
    for family in (
        *of_shards([loop]),
        *of_venues({"okx": account}),
        *of_analyst(Analysed(), [_producer()]),
        *Tally(WORKS).collect(),
        *ARCHIVIST.collect(),
    ):
        assert family.samples
        made[family.name + SUFFIXES.get(family.type, "")] = {label for each in family.samples for label in each.labels}
    made |= {name: set(labels) for name, (_, labels) in PROBED.items()}
    made["crossfill_process_info"] = {"kind", "market"}
    assert {name: labels for (_, name), labels in documented().items()} == made
    assert set.union(*made.values()) <= {
        *("kind", "market", "side", "reason", "part", "state", "queue", "stream", "venue", "shard", "end", "type"),
    }


def test_names_follow_the_conventions() -> None:
    """The prefix, base units, and `_total` for counters alone."""
    for _, name in told():
        assert name.startswith("crossfill_")
        assert not re.search(r"_(ms|us|millis\w*|micro\w*|minutes)(_|$)", name)


def _producer() -> Any:
    return SimpleNamespace(sent=1, lost=1)


def _any(value: object) -> Any:
    return value
