"""Strategies over HTTP: open to everybody, put by an admin."""

from typing import Any

import httpx
import pytest

from models.domain.instruments import INSTRUMENTS
from models.domain.quotes import Market
from models.domain.strategies import GOLDEN_CROSS
from models.settings import Settings
from models.store.candles import Series
from models.store.database import Database
from models.store.pasts import PastRow, put_pasts
from models.store.strategies import ensure_strategy, put_strategy
from tests.integration.api.serving import serving

FAST = {"interval": "5m", "pairs": ["btc/usdt", "ETHUSD"], "variants": {"x": {"kind": "ema", "fast": 5, "slow": 20}}}
OPEN = {"Authorization": ""}


@pytest.fixture(autouse=True)
def _default(database: Database) -> None:
    put_strategy(database, GOLDEN_CROSS)


def test_the_strategies_are_listed_in_their_newest_versions(client: httpx.Client) -> None:
    """With all that they say."""
    [only] = client.get("/strategies", headers=OPEN).json()["strategies"]
    assert only.pop("created").endswith("Z")
    assert only.pop("warm") == {name: {"warm": 0, "series": len(list(INSTRUMENTS))} for name in "ab"}
    assert only == {
        "name": "golden-cross",
        "version": 1,
        "stopped": None,
        "interval": "1h",
        "venue": "all",
        "pairs": None,
        "variants": {
            "a": {"kind": "sma", "fast": 50, "slow": 200, "seed": None},
            "b": {"kind": "ema", "fast": 50, "slow": 200, "seed": "sma"},
        },
    }
    client.put("/strategies/another", json=FAST)
    client.put("/strategies/golden-cross", json=FAST)
    shown = client.get("/strategies", headers=OPEN).json()["strategies"]
    assert [(each["name"], each["version"]) for each in shown] == [("another", 1), ("golden-cross", 2)]


def test_it_is_said_how_warm_a_strategy_is_and_why_no_more(client: httpx.Client, database: Database) -> None:
    """For each variant and pair: closes known of those that are needed, and the venues that tell nothing."""
    series = Series("simulated", "all", "BTC-USDT", 3_600)
    refused = PastRow(series=series._replace(venue="okx"), problem="the answer is 503 Service Unavailable")
    put_pasts(database, [PastRow(series=series, wanted=1_000, closes=720), refused])
    answer = client.get("/strategies/golden-cross/warmth", headers=OPEN).json()
    of_pair = [each for each in answer.pop("warmth") if each["pair"] == "BTC-USDT"]
    assert answer == {"strategy": "golden-cross", "version": 1, "market": "simulated", "interval": "1h"}
    shown = {"pair": "BTC-USDT", "venue": "all", "problems": {"okx": "the answer is 503 Service Unavailable"}}
    assert of_pair == [
        {**shown, "variant": "a", "closes": 200, "needed": 200},
        {**shown, "variant": "b", "closes": 720, "needed": 1_000},
    ]
    [listed] = client.get("/strategies", headers=OPEN).json()["strategies"]
    assert {name: each["warm"] for name, each in listed["warm"].items()} == {"a": 1, "b": 0}
    assert client.get("/strategies/nothing/warmth", headers=OPEN).status_code == 404


def test_a_replay_says_that_it_has_no_past(settings: Settings) -> None:
    """A recording begins when it begins."""
    with serving(settings.model_copy(update={"market": Market.REPLAY})) as client:
        answer = client.get("/strategies/golden-cross/warmth").json()
    assert answer["problem"].startswith("a recording has no past")
    assert {each["closes"] for each in answer["warmth"]} == {None}


def test_what_is_put_is_a_new_version_unless_it_says_the_same(client: httpx.Client) -> None:
    """Pairs in any spelling, what is left out by its default; older versions stay."""
    answer = client.put("/strategies/golden-cross", json=FAST)
    assert answer.status_code == 200
    assert answer.json()["version"] == 2
    assert answer.json()["pairs"] == ["BTC-USDT", "ETH-USD"]
    assert answer.json()["variants"] == {"x": {"kind": "ema", "fast": 5, "slow": 20, "seed": "sma"}}
    again = client.put("/strategies/golden-cross", json={**FAST, "venue": "all", "pairs": ["BTC-USDT", "ETH-USD"]})
    assert again.json() == answer.json()
    shown = client.get("/strategies/golden-cross", headers=OPEN).json()
    assert [each["version"] for each in shown.pop("versions")] == [1, 2]
    assert shown == answer.json()
    assert client.get("/strategies/golden-cross?version=1", headers=OPEN).json()["interval"] == "1h"


def test_a_strategy_is_stopped_and_goes_on_with_the_next_version(client: httpx.Client, database: Database) -> None:
    """Once; it stays on record, and what is put afterwards is new, though it says the same."""
    assert client.delete("/strategies/golden-cross", headers=OPEN).status_code == 401
    assert client.delete("/strategies/golden-cross", headers={"Authorization": "Bearer another"}).status_code == 403
    assert client.get("/strategies/golden-cross").json()["stopped"] is None
    stopped = client.delete("/strategies/golden-cross")
    assert (stopped.status_code, stopped.json()["stopped"][-1]) == (200, "Z")
    assert client.delete("/strategies/golden-cross").json() == stopped.json()
    [listed] = client.get("/strategies", headers=OPEN).json()["strategies"]
    assert {name: value for name, value in listed.items() if name != "warm"} == stopped.json()
    assert client.get("/strategies/golden-cross/report").status_code == 200
    ensure_strategy(database, GOLDEN_CROSS)
    assert put_strategy(database, GOLDEN_CROSS).strategy.version == 2
    shown = client.get("/strategies/golden-cross").json()
    assert [(each["version"], each["stopped"] is None) for each in shown["versions"]] == [(1, False), (2, True)]
    answer = client.delete("/strategies/silver-cross")
    assert (answer.status_code, answer.json()["near"]) == (404, ["golden-cross"])


def test_what_cannot_be_put_is_named(client: httpx.Client) -> None:
    """The field, what was wrong and what would be right; nothing is stored."""
    variant = {"kind": "sma", "fast": 50, "slow": 200}
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "variants", "must be a JSON object"),
        ({"variants": {}}, "variants", "must be 1 to 8"),
        ({"variants": {"a": {**variant, "fast": 200}}}, "variants.a.fast", "must be less than slow"),
        ({"variants": {"a": {**variant, "fast": 0}}}, "variants.a.fast", "whole number from 1 to"),
        ({"variants": {"a": {**variant, "fast": 1.5}}}, "variants.a.fast", "not '1.5'"),
        ({"variants": {"a": {**variant, "fast": "5"}}}, "variants.a.fast", "not '5'"),
        ({"variants": {"a": {**variant, "slow": 10**30}}}, "variants.a.slow", "whole number from 1 to"),
        ({"variants": {"a": {**variant, "kind": "wma"}}}, "variants.a.kind", "must be one of sma, ema"),
        ({"variants": {"a": variant}, "interval": "2h"}, "interval", "must be one of 1s, 1m, 5m, 15m, 1h, 4h, 1d"),
        ({"variants": {"a": variant}, "venue": "mtgox"}, "venue", "'mtgox' is unknown; one of all, binance"),
        ({"variants": {"a": variant}, "pairs": ["BTC-USD", "LTCBTX"]}, "pairs[1]", "did you mean LTC-BTC"),
        ({"variants": {"a": variant}, "pairs": []}, "pairs", "must be a list of 1 to"),
        ({"variants": {"a": variant}, "version": 3}, "version", "is unknown"),
    ]
    for body, field, words in cases:
        answer = client.put("/strategies/golden-cross", json=body)
        assert answer.status_code == 422, body
        [problem] = answer.json()["errors"]
        assert (problem["field"], words in problem["problem"]) == (field, True), problem
    assert client.put("/strategies/Golden", json=FAST).json()["errors"][0]["field"] == "name"
    assert client.put("/strategies/golden-cross", content=b"[]").status_code == 400
    assert client.get("/strategies/golden-cross").json()["version"] == 1


def test_only_an_admin_puts(client: httpx.Client) -> None:
    """Others may look."""
    put = client.put("/strategies/golden-cross", json=FAST, headers=OPEN)
    assert put.status_code == 401
    assert client.put("/strategies/x", json=FAST, headers={"Authorization": "Bearer another"}).status_code == 403
    assert len(client.get("/strategies").json()["strategies"]) == 1


def test_what_is_not_there_is_told_with_what_is(client: httpx.Client) -> None:
    """As a problem."""
    answer = client.get("/strategies/silver-cross")
    assert (answer.status_code, answer.json()["near"]) == (404, ["golden-cross"])
    assert answer.json()["detail"] == "there is no strategy 'silver-cross'; there are golden-cross"
    answer = client.get("/strategies/golden-cross?version=2")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no version 2 of 'golden-cross'; the newest is 1"
    assert client.get("/strategies/golden-cross?version=0").status_code == 422
