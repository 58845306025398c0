"""Topics: what a record costs its publisher, and Valkey, by the ways there are; by CPU time, in turn, in one process.

A batch is what 40 trades make: for each a trade and two averages, on a venue's topic and a pair's.
"""

import tempfile
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil

from models.bus.client import connect
from models.bus.kafka import KafkaTopics
from models.bus.names import topic_stream
from models.bus.records import trade_records, vwap_records
from models.bus.topics import LENGTH, GroupReader, Record, TopicReader, tell
from models.domain.candles import EVERY_VENUE
from models.domain.quotes import Trade
from models.domain.vwap import Vwap
from tests.kafka import running_kafka
from tests.services import running_valkey

TRADES = 40
BATCHES = 40
ROUNDS = 6
AIM = 3.0  # times cheaper than an XADD each


def made() -> list[Record]:
    """Make the records of a batch."""
    records: list[Record] = []
    for number in range(TRADES):
        price, size = Decimal("63508.21") + number, Decimal("0.0132")
        trade = Trade("coinbase", "BTC-USD", 1, str(number), price, size, "buy", 1, 2)
        own = Vwap("coinbase", "BTC-USD", 200, 200, size * 7, price * size, 1, 2, "live")
        every = Vwap(EVERY_VENUE, "BTC-USD", 200, 200, size * 7, price * size, 1, 2, "live")
        records += [*trade_records(trade, "BTC-USD", "live"), *vwap_records(own), *vwap_records(every)]
    return records


def _each(pipeline: Any, records: list[Record]) -> None:  # noqa: ANN401 -- redis's pipelines carry no types
    for record in records:
        fields = {"kind": record.kind.value, "key": record.key, "value": record.value}
        pipeline.xadd(topic_stream(record.topic), fields, maxlen=LENGTH, approximate=True)


def main() -> None:
    """Print the table."""
    records = made()
    with tempfile.TemporaryDirectory(prefix="crossfill-bench-") as name, running_valkey(Path(name)) as url:
        bus = connect(url)
        server = psutil.Process(bus.info("server")["process_id"])

        def within(append: Callable[[Any, list[Record]], None]) -> int:
            pipeline = bus.pipeline(transaction=True)
            append(pipeline, records)
            pipeline.execute()
            return len(records)

        def read(reader: TopicReader | GroupReader) -> int:
            count = 0
            while found := reader.read(0.001, 64):
                reader.done()
                count += len(found)
            return count

        with running_kafka() as kafka:
            topics = KafkaTopics(kafka.brokers)

            def publish() -> int:
                topics.publish(records)
                return len(records)

            ways: dict[str, Callable[[], int]] = {
                "an XADD each, within MULTI": lambda: within(_each),
                "`tell`: one script a batch, within MULTI": lambda: within(tell),
                "`KafkaTopics.publish`": publish,
                "make a record": lambda: len(made()),
                "`TopicReader`, all that is kept": lambda: read(TopicReader(bus, ["BTC-USD"], beginning=True)),
                "`GroupReader`, with XACK": lambda: read(GroupReader(bus, ["BTC-USD"], uuid4().hex, beginning=True)),
            }
            ours: dict[str, list[float]] = {way: [] for way in ways}
            theirs: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, work in ways.items():
                    before, began = sum(server.cpu_times()[:2]), time.thread_time_ns()
                    count = sum(work() for _ in range(BATCHES))
                    ours[way].append((time.thread_time_ns() - began) / count / 1e3)
                    theirs[way].append((sum(server.cpu_times()[:2]) - before) / count * 1e6)
            topics.close()
        bus.close()
    least = {way: min(each) for way, each in ours.items()}
    print(
        f"{len(records)} records a batch.\n\n| way | us a record | a second of a core | Valkey, us |\n|---|--:|--:|--:|"
    )
    for way, us in least.items():
        print(f"| {way} | {us:.2f} | {1e6 / us:,.0f} | {sum(theirs[way]) / ROUNDS:.1f} |")
    [each, script, *_] = least.values()
    word = "reached" if each / script >= AIM else "NOT REACHED"
    print(f"\nOne script: {each / script:.1f} times cheaper than an XADD each; aim {AIM:.0f}: {word}.")


if __name__ == "__main__":
    main()
