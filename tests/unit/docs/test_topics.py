"""docs/topics.md shows what is really told: each example has the keys that the code writes, in their order."""

import json
import re
from typing import Any

import pytest

from models.bus.records import (
    candle_records,
    quote_record,
    signal_record,
    ticker_record,
    trade_records,
    vwap_records,
)
from models.bus.topics import LENGTH, Kind
from models.domain.instruments import INSTRUMENTS
from models.settings import Settings
from tests.services import ROOT
from tests.unit.models.bus.test_records import CANDLE, QUOTE, SIGNAL, TRADE, VWAP

PAGE = (ROOT / "docs/topics.md").read_text()
EXAMPLES: list[dict[str, Any]] = [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)]
TOLD = {
    Kind.TRADE: trade_records(TRADE, "ETH-BTC", "simulated")[0],
    Kind.QUOTE: quote_record(QUOTE, "ETH-BTC", "simulated"),
    Kind.TICKER: ticker_record(QUOTE, INSTRUMENTS["ETH-BTC"], None),
    Kind.VWAP: vwap_records(VWAP)[0],
    Kind.CANDLE: candle_records(CANDLE)[0],
    Kind.SIGNAL: signal_record(SIGNAL),
}


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_has_its_example(kind: Kind) -> None:
    """With the keys and the order of what is told."""
    [example] = [each for each in EXAMPLES if each.get("type", "ticker") == kind]
    assert list(example) == list(json.loads(TOLD[kind].value))


def test_the_bound_is_the_one_that_is_said() -> None:
    """In the setting's default and on the page."""
    assert Settings().topic_length == LENGTH
    assert f"newest {LENGTH:,} entries" in PAGE
