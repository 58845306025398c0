"""Topics as streams of a real server: order, bounds, and groups whose members come and go."""

import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain

import pytest
import redis

from models.bus.client import BusUnavailableError, connect
from models.bus.topics import GroupReader, Kind, Record, RedisTopics, TopicReader, tell

TOPIC = "ETH-USD"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    made = connect(redis_url)
    yield made
    made.close()


def numbered(first: int, count: int, topic: str = TOPIC) -> list[Record]:
    return [Record(topic, TOPIC, Kind.TRADE, b"%d" % number) for number in range(first, first + count)]


def values(records: Sequence[Record]) -> list[int]:
    return [int(record.value) for record in records]


def test_what_is_published_is_read_in_order(client: redis.Redis) -> None:
    """From the beginning all that is kept, from now what comes; more than one read takes goes on in the next."""
    topics, late = RedisTopics(client), TopicReader(client, [TOPIC])
    topics.publish(numbered(0, 5))
    early = TopicReader(client, [TOPIC], beginning=True)
    assert late.read(0.01, 10) == []
    topics.publish([*numbered(5, 2), Record("okx", TOPIC, Kind.VWAP, b"{}")])
    assert early.read(0.01, 4) == numbered(0, 4)
    assert early.read(0.01, 4) == numbered(4, 3)
    assert late.read(0.01, 10) == numbered(5, 2)
    assert TopicReader(client, ["okx"], beginning=True).read(0.01, 9) == [Record("okx", TOPIC, Kind.VWAP, b"{}")]


def test_several_topics_are_read_at_once(client: redis.Redis) -> None:
    """A busy one does not hold up the other, and no record is passed over where few are asked for."""
    RedisTopics(client).publish([*numbered(0, 50), *numbered(50, 3, "okx")])
    reader = TopicReader(client, [TOPIC, "okx"], beginning=True)
    first = reader.read(0.01, 10)
    assert {record.topic for record in first} == {TOPIC, "okx"}
    found = values(first)
    while records := reader.read(0.01, 3):
        found += values(records)
    assert sorted(found) == list(range(53))


def test_a_topic_is_bounded(client: redis.Redis) -> None:
    """By about so many records as it was made with."""
    RedisTopics(client, length=500).publish(numbered(0, 3_000))
    assert 500 <= client.xlen(f"topic:{TOPIC}") <= 600
    assert values(TopicReader(client, [TOPIC], beginning=True).read(0.01, 3_000))[-1] == 2_999


def test_records_are_told_with_the_rest_of_a_transaction_or_not_at_all(client: redis.Redis) -> None:
    """Whoever was overtaken publishes nothing, and a server without memory takes neither half."""
    client.set("position", 1)
    with client.pipeline() as pipeline:
        pipeline.watch("position")  # type: ignore[no-untyped-call] # redis's pipelines carry no types
        client.set("position", 2)  # somebody else's
        pipeline.multi()
        tell(pipeline, numbered(0, 2))
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert client.xlen(f"topic:{TOPIC}") == 0
    client.config_set("maxmemory", int(client.info("memory")["used_memory"]) - 1)
    try:
        with client.pipeline() as pipeline:
            tell(pipeline, numbered(0, 2))
            pipeline.set("position", 3)
            with pytest.raises(redis.ResponseError):
                pipeline.execute()
        with pytest.raises(BusUnavailableError, match="memory"):
            RedisTopics(client).publish(numbered(0, 2))
    finally:
        client.config_set("maxmemory", 0)
    assert client.xlen(f"topic:{TOPIC}") == 0
    assert client.get("position") == b"2"
    with client.pipeline() as pipeline:
        tell(pipeline, [])
        tell(pipeline, numbered(0, 2))
        pipeline.execute()
    assert client.xlen(f"topic:{TOPIC}") == 2


def test_members_of_a_group_share_the_records(redis_url: str) -> None:
    """Each record goes to one of them, however many read at once."""
    clients = [connect(redis_url) for _ in range(3)]
    RedisTopics(clients[0]).publish(numbered(0, 500))
    found: list[list[int]] = [[], [], []]
    all_began = threading.Barrier(3)

    def work(place: int) -> None:
        reader = GroupReader(clients[place], [TOPIC], "g", beginning=True)
        while records := reader.read(0.2, 7):
            found[place] += values(records)
            reader.done()
            if len(found[place]) == len(records):
                all_began.wait(10)
        reader.close()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chain.from_iterable(found)) == list(range(500))
    assert all(found), "one took everything"
    assert clients[0].xpending(f"topic:{TOPIC}", "g")["pending"] == 0
    assert clients[0].xinfo_consumers(f"topic:{TOPIC}", "g") == []
    for each in clients:
        each.close()


def test_what_a_dead_member_had_comes_to_another(client: redis.Redis) -> None:
    """After a while, before what is new to it, and once; what it had done does not."""
    RedisTopics(client).publish(numbered(0, 6))
    dead = GroupReader(client, [TOPIC], "g", beginning=True)
    assert values(dead.read(0.01, 2)) == [0, 1]
    dead.done()
    assert values(dead.read(0.01, 2)) == [2, 3]
    other = GroupReader(client, [TOPIC], "g", claim_ms=200)
    found: list[int] = []
    while len(found) < 4:
        found += values(other.read(0.1, 4))
        other.done()
    assert sorted(found) == [2, 3, 4, 5]
    assert other.read(0.01, 4) == []


def test_a_member_that_leaves_with_something_open_is_not_forgotten_with_it(client: redis.Redis) -> None:
    """The records that it was given stay claimable."""
    RedisTopics(client).publish(numbered(0, 2))
    leaver = GroupReader(client, [TOPIC], "g", beginning=True)
    leaver.read(0.01, 2)
    leaver.close()
    heir = GroupReader(client, [TOPIC], "g", claim_ms=10)
    found: list[int] = []
    while not found:
        found = values(heir.read(0.01, 2))
    assert found == [0, 1]


def test_a_member_by_the_same_name_goes_on_with_what_it_had(client: redis.Redis) -> None:
    """At once: nobody needs to take it for dead."""
    RedisTopics(client).publish(numbered(0, 3))
    GroupReader(client, [TOPIC], "g", beginning=True, member="me").read(0.01, 2)
    again = GroupReader(client, [TOPIC], "g", member="me")
    assert values(again.read(0.01, 10)) == [0, 1]
    again.done()
    assert values(again.read(0.01, 10)) == [2]


def test_a_group_goes_on_where_it_was(client: redis.Redis) -> None:
    """Whatever its next member says of the beginning; a new group begins with what comes."""
    topics = RedisTopics(client)
    topics.publish(numbered(0, 2))
    first = GroupReader(client, [TOPIC], "g", beginning=True)
    first.read(0.01, 10)
    first.done()
    first.close()
    topics.publish(numbered(2, 2))
    assert values(GroupReader(client, [TOPIC], "g").read(0.01, 10)) == [2, 3]
    fresh = GroupReader(client, [TOPIC], "h")
    assert fresh.read(0.01, 10) == []
    topics.publish(numbered(4, 1))
    assert values(fresh.read(0.01, 10)) == [4]


def test_a_group_begins_anew_where_the_server_was_emptied(client: redis.Redis, redis_url: str) -> None:
    """With all that the server has then: none of it was read."""
    topics, reader = RedisTopics(client), GroupReader(client, [TOPIC], "g")
    assert reader.read(0.01, 10) == []
    client.flushall()
    topics.publish(numbered(0, 3))
    assert reader.read(0.01, 10) == []
    assert values(reader.read(0.01, 10)) == [0, 1, 2]
    waiting: list[Record] = []
    thread = threading.Thread(target=lambda: waiting.extend(reader.read(20, 10)))
    thread.start()
    with connect(redis_url) as other:
        while not other.info("clients")["blocked_clients"]:
            time.sleep(0.01)
        other.flushall()
        RedisTopics(other).publish(numbered(3, 1))
    thread.join()
    assert values(waiting + reader.read(0.01, 10)) == [3]


def test_what_the_stream_has_dropped_is_passed_over(client: redis.Redis) -> None:
    """A member that comes back too late goes on with what is there."""
    topics = RedisTopics(client)
    topics.publish(numbered(0, 2))
    GroupReader(client, [TOPIC], "g", beginning=True, member="me").read(0.01, 2)
    client.xtrim(f"topic:{TOPIC}", maxlen=0, approximate=False)
    topics.publish(numbered(2, 2))
    again = GroupReader(client, [TOPIC], "g", member="me")
    assert values(again.read(0.01, 10)) == [2, 3]
    again.done()
    assert client.xpending(f"topic:{TOPIC}", "g")["pending"] == 0


def test_a_server_that_is_away_is_said_so() -> None:
    """By one error, for writing and reading alike; nobody waits for long."""
    client = connect("redis://127.0.0.1:1/0")
    for call in (
        lambda: RedisTopics(client).publish(numbered(0, 1)),
        lambda: TopicReader(client, [TOPIC]).read(0.01, 1),
        lambda: GroupReader(client, [TOPIC], "g").read(0.01, 1),
    ):
        with pytest.raises(BusUnavailableError):
            call()
