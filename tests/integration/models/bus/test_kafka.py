"""Topics on librdkafka's mock cluster, which is killed and stopped while records are published."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from pydantic import SecretStr
from structlog.testing import capture_logs

from models.bus.kafka import (
    KafkaOptionsError,
    KafkaReader,
    KafkaTopics,
    KafkaUnavailableError,
    check_options,
    make_topics,
    partitions_of,
)
from models.bus.topics import Kind, Record
from models.settings import Settings
from tests.kafka import BROKERS, Kafka, running_kafka

LIMIT_S = 30.0


@pytest.fixture(scope="module")
def _kafka() -> Iterator[Kafka]:
    with running_kafka() as kafka:
        yield kafka


@pytest.fixture
def kafka(_kafka: Kafka) -> Iterator[Kafka]:
    yield _kafka
    if _kafka.process.poll() is not None:
        _kafka.start()


def numbered(first: int, count: int, topic: str = "okx", keys: int = 5) -> list[Record]:
    names = [f"K{number}-USD" for number in range(keys)]
    return [Record(topic, names[number % keys], Kind.TRADE, b"%d" % number) for number in range(first, first + count)]


def until(what: Callable[[], object], limit_s: float = LIMIT_S) -> None:
    deadline = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def read(reader: KafkaReader, count: int) -> list[Record]:
    found: list[Record] = []
    deadline = time.monotonic() + LIMIT_S
    while len(found) < count:
        found += reader.read(0.1, 100)
        assert time.monotonic() < deadline
    return found


def in_order(records: Sequence[Record]) -> bool:
    by_key: dict[str, list[int]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(int(record.value))
    return all(values == sorted(set(values)) for values in by_key.values())


def test_records_come_once_and_in_order_for_each_pair(kafka: Kafka) -> None:
    """Through several brokers: from the beginning all of them, from now what comes; others' messages are left out."""
    assert kafka.brokers.count(",") == BROKERS - 1
    topics, sent = KafkaTopics(kafka.brokers), numbered(0, 1_000, "binance")
    topics.publish(sent[:600])
    topics.send("binance", "K0-USD", b"not ours")
    until(lambda: topics.sent == 601)
    late = KafkaReader(kafka.brokers, ["binance"])
    topics.publish(sent[600:])
    topics.close()
    assert (topics.sent, topics.lost, topics.waiting) == (1_001, 0, 0)
    early = KafkaReader(kafka.brokers, ["binance"], beginning=True)
    everything, after = read(early, 1_000), read(late, 400)
    assert in_order(everything)
    assert sorted(everything, key=lambda each: int(each.value)) == sent
    assert sorted(after, key=lambda each: int(each.value)) == sent[600:]
    early.close()
    late.close()


def test_the_members_of_a_group_share_and_keep_what_was_done(kafka: Kafka) -> None:
    """Each record goes to one of them; the group's place is behind what was done, not behind what was read."""
    topics = KafkaTopics(kafka.brokers)
    topics.publish(numbered(0, 20, "kraken", keys=20))
    until(lambda: topics.sent == 20)
    members = [KafkaReader(kafka.brokers, ["kraken"], group="g", beginning=True) for _ in range(2)]
    found: list[list[int]] = [[], []]

    def share() -> None:
        for member, values in zip(members, found, strict=True):
            values.extend(int(record.value) for record in member.read(0.1, 7))

    def all_there() -> bool:
        share()
        return all(len(member._consumer.assignment()) == 2 for member in members)

    def kept() -> int:
        places = [TopicPartition("kraken", number) for number in range(4)]
        return sum(max(0, place.offset) for place in members[0]._consumer.committed(places, 5))

    def all_read(first: int, end: int) -> bool:
        share()
        return {*found[0], *found[1]} == set(range(first, end))

    until(all_there)
    until(lambda: all_read(0, 20))  # some twice, where the first member read before the other came
    for values in found:
        values.clear()
    topics.publish(numbered(20, 200, "kraken", keys=20))
    until(lambda: all_read(20, 220))
    assert len(found[0]) + len(found[1]) == 200
    assert all(found), "one took everything"
    for member in members:
        member.done()
        member.done()  # with nothing new, nothing happens
    assert kept() == 220
    topics.publish(numbered(220, 20, "kraken", keys=20))
    until(lambda: all_read(20, 240))
    assert kept() == 220
    topics.close()
    for member in members:
        member.close()


def test_a_handshake_that_fails_is_told_and_delays_nobody(kafka: Kafka) -> None:
    """The cluster speaks no TLS: what waited for it is lost and counted, the log says why, and no password."""
    options = Settings(bus_url=SecretStr(f"kafka+ssl://user:s3cret@{kafka.brokers}")).kafka_client
    with capture_logs() as logs:
        topics = KafkaTopics(kafka.brokers, options=options, wait_s=1)
        assert topics._settings["security.protocol"] == "SASL_SSL"
        before = time.thread_time()
        topics.publish(numbered(0, 500))
        assert time.thread_time() - before < 1
        until(lambda: topics.lost == 500 and logs)
        topics.close()
    assert (topics.sent, topics.waiting) == (0, 0)
    assert logs[0]["event"] == "Kafka does not answer"
    assert "SSL handshake failed" in logs[0]["why"]
    assert "s3cret" not in str(logs)
    with pytest.raises(KafkaUnavailableError, match="SSL handshake failed"):
        KafkaReader(kafka.brokers, ["okx"], options=options)


def test_an_option_that_there_is_not_is_named() -> None:
    """Before anything is connected; of a value that is wrong what may be secret is left out."""
    check_options({"security.protocol": "SSL", "linger.ms": "5"})
    with pytest.raises(KafkaOptionsError, match='No such configuration property: "linger"'):
        check_options({"linger": "5"})
    failed = KafkaException(KafkaError(KafkaError._INVALID_ARG, "hunter2 is no PEM"))
    assert "hunter2" not in str(KafkaOptionsError(failed, {"ssl.key.pem": "hunter2"}))


def test_a_killed_cluster_costs_a_counted_gap_and_no_restart(kafka: Kafka) -> None:
    """Publishing never waits, what waited for too long is lost and counted, and what comes after is delivered."""
    topics = KafkaTopics(kafka.brokers, wait_s=3, queue_max=200)
    topics.publish(numbered(0, 100))
    until(lambda: topics.sent == 100)
    kafka.kill()
    before = time.thread_time()
    topics.publish(numbered(100, 500))
    assert time.thread_time() - before < 1
    assert topics.lost >= 300, "the queue has no bound"
    until(lambda: topics.lost == 500 and not topics.waiting)
    assert topics.sent == 100
    kafka.start()
    number = 600

    def delivered() -> bool:
        nonlocal number
        topics.publish(numbered(number, 5))
        number += 5
        return topics.sent > 100

    until(delivered)
    until(lambda: not topics.waiting)  # what was published before the cluster was back may still be lost
    lost = topics.lost
    topics.publish(numbered(number, 150))
    topics.close()
    assert topics.lost == lost
    assert topics.sent + lost == number + 150
    reader = KafkaReader(kafka.brokers, ["okx"], beginning=True)
    found = read(reader, topics.sent - 100)
    assert len(found) == topics.sent - 100
    assert in_order(found)
    assert {int(each.value) for each in found} >= set(range(number, number + 150))
    reader.close()


def test_a_cluster_that_stands_still_for_a_while_costs_nothing(kafka: Kafka) -> None:
    """Records wait for it, and come once each, though the client asks again for what was not answered."""
    topics = KafkaTopics(kafka.brokers)
    topics.publish(numbered(0, 50, "htx"))
    kafka.process.send_signal(signal.SIGSTOP)
    try:
        topics.publish(numbered(50, 50, "htx"))
        time.sleep(0.5)
        assert topics.waiting
    finally:
        kafka.process.send_signal(signal.SIGCONT)
    until(lambda: topics.sent == 100)
    topics.close()
    reader = KafkaReader(kafka.brokers, ["htx"], beginning=True)
    found = read(reader, 100)
    assert in_order(found)
    assert reader.read(0.5, 10) == []
    reader.close()


def test_an_error_that_ends_a_producer_costs_what_it_held(kafka: Kafka) -> None:
    """Another one takes over; the mock cluster brings no such error, so it is told here."""
    topics = KafkaTopics(kafka.brokers)
    ended = topics._producer
    topics._complained(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "made up", fatal=True))
    until(lambda: topics._producer is not ended)
    topics.publish(numbered(0, 10, "deribit"))
    until(lambda: topics.sent == 10)
    topics.close()


def test_without_kafka_publishing_goes_on_and_reading_says_so() -> None:
    """What could not be sent is counted at the end, too; a reader that cannot begin says why."""
    topics = KafkaTopics("127.0.0.1:1", wait_s=0.5, queue_max=10)
    topics.publish(numbered(0, 30))
    assert (topics.lost, topics.waiting) == (20, 10)
    topics.close()
    assert (topics.lost, topics.sent) == (30, 0)
    with pytest.raises(KafkaUnavailableError, match="Kafka is not available"):
        KafkaReader("127.0.0.1:1", ["okx"])


def test_the_mock_cluster_knows_no_create_topics(kafka: Kafka) -> None:
    """First use makes them then; a real cluster makes a venue's with several partitions, a pair's with one."""
    wanted = partitions_of(["okx"], ["ETH-USD"])
    assert wanted == {"okx": 6, "ETH-USD": 1}
    assert not make_topics(kafka.brokers, wanted, limit_s=1)
