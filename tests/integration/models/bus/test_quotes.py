"""Writer and reader over a real Redis."""

from collections.abc import Iterator
from decimal import Decimal

import pytest
import redis

from models.bus.client import BusUnavailableError, connect
from models.bus.latest import CollectorState, LatestPrice, read_collectors, read_latest
from models.bus.names import current_key, quotes_stream
from models.bus.quotes import BATCHES_MAX, QuoteReader, QuoteWriter
from models.domain.quotes import Mark, Quote
from tests.services import running_valkey


def quote(product_id: str, number: int, token: int = 1, venue: str = "binance") -> Quote:
    one = Decimal("1.50")
    return Quote(venue, product_id, token, number, Decimal(number), one, None, None, True, None, number)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


def test_a_reader_begins_with_the_newest_quote_of_each_product(client: redis.Redis) -> None:
    """A quiet product is not forgotten, and nothing of the history before comes again."""
    writer = QuoteWriter(client)
    writer.write({0: [quote("A", 1), quote("B", 2)]}, {})
    writer.write({0: [quote("A", 3), Mark("binance", 1, 9)]}, {})
    reader = QuoteReader(client, 0)
    assert reader.read(10) == [quote("B", 2), quote("A", 3)]
    assert reader.read(10) == []
    writer.write({0: [quote("A", 4), Mark("binance", 1, 10)]}, {})
    writer.write({0: [quote("A", 5)]}, {})
    assert reader.read(10) == [quote("A", 4), Mark("binance", 1, 10), quote("A", 5)]


def test_nothing_is_missed_between_the_hash_and_the_stream(client: redis.Redis) -> None:
    """The place in the stream is noted before the hash is read: what comes between may come twice, never not at all."""
    writer = QuoteWriter(client)
    writer.write({0: [quote("A", 1)]}, {})

    class Interrupted(redis.Redis):
        def hvals(self, name: str) -> list[bytes]:  # type: ignore[override] # redis's types allow for coroutines
            writer.write({0: [quote("A", 2)]}, {})
            return super().hvals(name)  # type: ignore[return-value] # likewise

    reader = QuoteReader(Interrupted(connection_pool=client.connection_pool), 0)
    assert [*reader.read(10), *reader.read(10)] == [quote("A", 2), quote("A", 2)]


def test_a_batch_that_was_held_up_has_not_the_last_word(client: redis.Redis) -> None:
    """Redis may work a write that its writer gave up after the one that followed; the higher number counts."""
    writer = QuoteWriter(client)
    writer.write({0: [quote("A", 2)]}, {})
    writer.write({0: [quote("A", 1)]}, {})
    assert QuoteReader(client, 0).read(10) == [quote("A", 2)]


def test_older_connections_come_first(client: redis.Redis) -> None:
    """So that a newer connection's quotes have the last word."""
    QuoteWriter(client).write({0: [quote("A", 7, token=2), quote("B", 9, token=1), quote("C", 1, venue="a")]}, {})
    found = [item for item in QuoteReader(client, 0).read(10) if isinstance(item, Quote)]
    assert [(item.venue, item.token, item.number) for item in found] == [
        ("a", 1, 1),
        ("binance", 1, 9),
        ("binance", 2, 7),
    ]


def test_shards_are_apart(client: redis.Redis) -> None:
    """What is written for one shard is read there only."""
    QuoteWriter(client).write({0: [quote("A", 1)], 1: [quote("B", 2)]}, {})
    assert QuoteReader(client, 1).read(10) == [quote("B", 2)]


def test_a_redis_that_was_emptied_knows_quiet_products_again(client: redis.Redis) -> None:
    """A mark carries the current quotes into the hash, and not into the stream."""
    writer = QuoteWriter(client)
    writer.write({0: [quote("A", 1)]}, {})
    client.flushall()
    writer.write({0: [Mark("binance", 1, 5)]}, {}, None, {0: [quote("A", 1)]})
    assert client.xlen(quotes_stream(0)) == 1
    assert QuoteReader(client, 0).read(10) == [quote("A", 1)]


def test_the_stream_is_bounded(client: redis.Redis) -> None:
    """Readers that stay away cost a bounded amount of memory."""
    writer = QuoteWriter(client)
    for number in range(BATCHES_MAX + 500):
        writer.write({0: [quote("A", number)]}, {})
    length = client.xlen(quotes_stream(0))
    assert isinstance(length, int)
    assert BATCHES_MAX <= length < BATCHES_MAX + 500
    assert client.hlen(current_key(0)) == 1


def test_latest_prices_and_states_are_read_as_written(client: redis.Redis) -> None:
    """By symbol and venue, with exact numbers."""
    price = LatestPrice("binance", "BTCUSDT", Decimal("1.10"), 5, None, None, Decimal(2), Decimal(3), True, 6, "live")
    state = CollectorState("binance", 3, 1, 2, "live", conflated=4, silent_streams=["x@trade"])
    QuoteWriter(client).write({}, {"BTC-USDT": price}, state)
    assert read_latest(client, "BTC-USDT") == {"binance": price}
    assert read_latest(client, "ETH-USDT") == {}
    assert read_collectors(client) == {"binance": state}


def test_a_reader_starts_over_after_redis_was_lost(tmp_path_factory: pytest.TempPathFactory) -> None:
    """It says that the bus is away, and afterwards takes the newest quotes of whatever is there."""
    with running_valkey(tmp_path_factory.mktemp("first")) as url:
        client = connect(url, timeout_s=1)
        QuoteWriter(client).write({0: [quote("A", 1)]}, {})
        reader = QuoteReader(client, 0)
        assert reader.read(10) == [quote("A", 1)]
    with pytest.raises(BusUnavailableError):
        reader.read(10)
    port = int(url.rsplit(":", 1)[1].split("/")[0])
    password = url.split(":")[2].split("@")[0]
    with running_valkey(tmp_path_factory.mktemp("second"), port, password):
        QuoteWriter(client).write({0: [quote("A", 2)]}, {})
        assert reader.read(10) == [quote("A", 2)]
    client.close()
