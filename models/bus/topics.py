"""Topics: every trade, quote, average, candle and signal, for others to build on. One a venue and one a pair."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from models.bus.names import topic_stream


class Kind(StrEnum):
    """What a record tells; a venue's topic carries its quotes as tickers."""

    TRADE = "trade"
    QUOTE = "quote"
    TICKER = "ticker"
    VWAP = "vwap"
    CANDLE = "candle"
    SIGNAL = "signal"


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record. `topic` is a venue or a symbol, `key` the symbol, `value` a JSON object in UTF-8."""

    topic: str
    key: str
    kind: Kind
    value: bytes


class Topics(Protocol):
    """Where records are published."""

    def publish(self, records: Sequence[Record]) -> None:
        """Append records to their topics, in order. Raises BusUnavailableError; what was sent is then unknown."""

    def close(self) -> None:
        """Send what waits, for some seconds, and end."""


def tell(pipeline: Any, records: Sequence[Record]) -> None:  # noqa: ANN401 -- redis's pipelines carry no types
    """Append records to the streams of their topics, within a pipeline."""
    for record in records:
        fields = {b"kind": record.kind, b"key": record.key, b"value": record.value}
        pipeline.xadd(topic_stream(record.topic), fields, maxlen=2_000, approximate=True)
