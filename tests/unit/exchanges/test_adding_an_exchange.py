"""docs/adding-an-exchange.md, taken at its word: its code reads its frames."""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

import exchanges
from exchanges.protocol import Acknowledged, Unknown, VenueProtocol
from models.domain.quotes import Quote, Trade
from tests.services import ROOT

DOCUMENT = (ROOT / "docs" / "adding-an-exchange.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture
def bitstamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VenueProtocol]:
    """The protocol of the document, for BTC-USD."""
    folder = tmp_path / "bitstamp"
    folder.mkdir()
    for name, text in zip(("wire.py", "protocol.py", "__init__.py"), (*blocks("python"), ""), strict=True):
        (folder / name).write_text(text)
    monkeypatch.setattr(exchanges, "__path__", [*exchanges.__path__, str(tmp_path)])
    made = importlib.import_module("exchanges.bitstamp.protocol").Bitstamp(None, ["btcusd"], 3)
    yield made
    for name in [name for name in sys.modules if name.startswith("exchanges.bitstamp")]:
        del sys.modules[name]


def test_its_code_reads_its_frames(bitstamp: VenueProtocol) -> None:
    """A quote, a trade and an acknowledgement, exact to the digit."""
    [frames] = blocks("json")
    read = [event for frame in frames.splitlines() for event in bitstamp.decode(frame.encode(), 5)]
    sides = (Decimal(97000), Decimal("0.5"), Decimal(97001), Decimal("0.25"))
    assert read == [
        Quote("bitstamp", "btcusd", 3, 0, *sides, True, 1_790_000_000_000_000, 5),
        Trade("bitstamp", "btcusd", 3, "412", Decimal("97000.5"), Decimal("0.01"), "buy", 1_790_000_000_000_001, 5),
        Acknowledged(),
    ]
    assert bitstamp.silent() == {}


def test_its_code_raises_for_nothing(bitstamp: VenueProtocol) -> None:
    """Whatever a frame lacks, it is unknown."""
    [frames] = blocks("json")
    for frame in frames.splitlines():
        data = json.loads(frame)["data"]
        for field in data:
            broken = json.dumps(json.loads(frame) | {"data": {**data, field: {}}})
            assert [type(event) for event in bitstamp.decode(broken.encode(), 5)] == [Unknown], broken
    assert [type(event) for event in bitstamp.decode(b"<html>", 5)] == [Unknown]


def test_it_asks_for_its_channels(bitstamp: VenueProtocol) -> None:
    """Those that the frames come in."""
    asked = [json.loads(frame)["data"]["channel"] for frame in bitstamp.subscribe_frames()]
    [frames] = blocks("json")
    assert {json.loads(frame)["channel"] for frame in frames.splitlines()} <= set(asked)
