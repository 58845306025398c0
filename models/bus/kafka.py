"""Topics on Kafka: a record's key is its pair, its value the JSON, and the header `kind` says what it is.

Delivery is at least once and in order for each pair of a topic. Publishing never waits: what Kafka cannot take
within WAIT_S, or what finds the queue full, is lost and counted, and prices go on.
"""

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # it is, by its documentation

from models.bus.client import BusUnavailableError
from models.bus.topics import Kind, Record
from models.domain.errors import CrossfillError

# A short outage loses nothing; after a long one a reader has the newest minute and not an hour to catch up with.
WAIT_S = 60.0
QUEUE_MAX = 100_000  # records that wait for Kafka, and
QUEUE_KB_MAX = 65_536
CLOSE_S = 5.0
POLL_S = 0.1
ASK_S = 5.0  # for an answer about topics
BEGIN_S = 2.0  # for the first answer to a reader, whom somebody waits for
SESSION_MS = 6_000  # a group's member that is silent for so long is taken for dead; brokers take no less by default
WARN_S = 60.0  # that Kafka does not answer is said no more often
VENUE_PARTITIONS = 6  # a venue's topic has many keys; a pair's has one, and what has one needs one partition

Headers = list[tuple[str, str | bytes | None]]

_SECRET = re.compile("password|secret|token|pem|config|jaas")  # of an option's name
_KIND = "kind"
_HEADERS: dict[Kind, Headers] = {kind: [(_KIND, kind.value.encode())] for kind in Kind}
_KINDS: dict[str | bytes | None, Kind] = {kind.value.encode(): kind for kind in Kind}

log = structlog.get_logger()


class KafkaOptionsError(CrossfillError):
    """The client does not take an option; the sentence says which, and holds no password."""

    def __init__(self, cause: KafkaException, options: Mapping[str, str]) -> None:
        why = cause.args[0].str()
        for name, value in options.items():
            if value and _SECRET.search(name):
                why = why.replace(value, "***")
        super().__init__(f"CROSSFILL_KAFKA_OPTIONS, or CROSSFILL_BUS_URL: {why}")


class KafkaUnavailableError(BusUnavailableError):
    """Kafka cannot be reached, or refuses."""

    def __init__(self, cause: object) -> None:
        CrossfillError.__init__(self, f"Kafka is not available: {cause}")


def _options(brokers: str, more: Mapping[str, str] | None) -> dict[str, Any]:
    # Its own lines on standard error say in ten what we log in one.
    return {"reconnect.backoff.max.ms": 2_000, **(more or {}), "bootstrap.servers": brokers, "log_level": 0}


def check_options(options: Mapping[str, str]) -> None:
    """Raise KafkaOptionsError where the client does not take these options; nothing is connected."""
    try:
        AdminClient(_options("", options))
    except KafkaException as error:
        raise KafkaOptionsError(error, options) from None


def partitions_of(venues: Iterable[str], symbols: Iterable[str]) -> dict[str, int]:
    """Return how many partitions each topic is to have."""
    return dict.fromkeys(venues, VENUE_PARTITIONS) | dict.fromkeys(symbols, 1)


def make_topics(
    brokers: str, partitions: Mapping[str, int], limit_s: float = ASK_S, options: Mapping[str, str] | None = None
) -> bool:
    """Make the topics that are not there yet, with so many partitions, replicated as the cluster does by default.

    Return whether all are there. What cannot be made so (no answer within `limit_s`, no permission) is made by the
    first record, where the cluster allows that.
    """
    client = AdminClient(_options(brokers, options))
    wanted = [NewTopic(topic, count, replication_factor=-1) for topic, count in partitions.items()]
    problems: dict[str, str] = {}
    for topic, made in client.create_topics(wanted, request_timeout=limit_s).items():
        try:
            made.result(2 * limit_s)
        except KafkaException as error:
            problem: KafkaError = error.args[0]
            if problem.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                problems[topic] = problem.str()
    if problems:
        topic, why = next(iter(problems.items()))
        log.warning("topics could not be made; first use may", topics=len(problems), first=topic, why=why)
    return not problems


class KafkaTopics:
    """Publishes by an idempotent producer: what the client sends again is not there twice, and order stays.

    `wait_s` is how long a record may wait for Kafka; `options` are more of the client's, as check_options takes them.
    A thread hears what became of records. After an error
    that no producer survives, another one takes over.
    """

    def __init__(
        self,
        brokers: str,
        *,
        options: Mapping[str, str] | None = None,
        wait_s: float = WAIT_S,
        queue_max: int = QUEUE_MAX,
    ) -> None:
        self._settings = _options(brokers, options) | {
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "message.timeout.ms": int(wait_s * 1_000),
            "queue.buffering.max.messages": queue_max,
            "queue.buffering.max.kbytes": QUEUE_KB_MAX,
            "partitioner": "murmur2_random",  # that of Kafka's own client: other producers' keys lie with ours
            "on_delivery": self._reported,
            "error_cb": self._complained,
        }
        self.sent = 0  # records that Kafka has taken
        self._published = 0
        self._refused = 0  # by the queue
        self._undelivered = 0
        self._fatal = False
        self._warn_at = 0.0
        self._producer = Producer(self._settings)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="kafka", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many records did not reach Kafka, as far as anybody can tell: the gap."""
        return self._refused + self._undelivered

    @property
    def waiting(self) -> int:
        """How many records wait for Kafka."""
        return self._published - self.sent - self.lost

    def publish(self, records: Sequence[Record]) -> None:
        """Queue records, in order. Raises nothing: see `lost`."""
        for record in records:
            self.send(record.topic, record.key, record.value, _HEADERS[record.kind])

    def send(self, topic: str, key: str, value: bytes, headers: Headers | None = None) -> None:
        """Queue one message."""
        self._published += 1
        try:
            self._producer.produce(topic, value, key, headers=headers)
        except (BufferError, KafkaException):  # the queue is full, or this producer is at its end
            self._refused += 1

    def close(self) -> None:
        """Send what waits, for CLOSE_S at most, and end."""
        self._stopping.set()
        self._thread.join()
        self._producer.flush(CLOSE_S)
        if self.waiting:
            self._give_up(self._producer)
        if self.lost:
            log.warning("records did not reach Kafka", lost=self.lost, sent=self.sent)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(POLL_S)
            if self._fatal:
                self._fatal = False
                ended, self._producer = self._producer, Producer(self._settings)
                self._give_up(ended)

    def _give_up(self, producer: Producer) -> None:
        """Count as lost what a producer still has."""
        producer.purge()
        producer.flush(1)

    def _reported(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self.sent += 1
        else:
            self._undelivered += 1

    def _complained(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = True
            log.warning("Kafka ended this producer; the next one takes over", why=error.str())
        elif time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + WARN_S
            log.warning("Kafka does not answer", why=error.str(), waiting=self.waiting, lost=self.lost)


class KafkaReader:
    """Reads topics on Kafka, alone or as a member of a group. Raises KafkaUnavailableError where it cannot begin.

    Alone it reads the partitions that are there now, from their beginning or what comes from now on. A group goes
    on where it was.
    """

    def __init__(
        self,
        brokers: str,
        topics: Sequence[str],
        *,
        group: str | None = None,
        beginning: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._grouped = group is not None
        self._problem: KafkaError | None = None  # met behind records, which go first
        self._complaint: KafkaError | None = None  # what it says by itself: why there is no answer
        self._consumer = Consumer(
            _options(brokers, options)
            | {
                "error_cb": self._complained,
                "group.id": group or f"alone-{uuid4().hex}",  # it asks for one even where none is used
                "auto.offset.reset": "earliest" if beginning else "latest",
                "enable.auto.commit": False,
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": SESSION_MS // 3,
            }
        )
        try:
            # What is not there yet would be waited for without a word.
            places = [place for topic in topics for place in self._places(topic, beginning=beginning)]
            if group is None:
                self._consumer.assign(places)
            else:
                self._consumer.subscribe(list(topics))
        except BaseException as error:
            self._consumer.poll(0)  # for what it has to complain of
            self._consumer.close()
            if isinstance(error, KafkaException):
                raise KafkaUnavailableError((self._complaint or error.args[0]).str()) from error
            raise

    def _complained(self, error: KafkaError) -> None:
        # The first one says why; that all brokers are down follows from it.
        self._complaint = self._complaint or error

    def _places(self, topic: str, *, beginning: bool) -> list[TopicPartition]:
        found = self._consumer.list_topics(topic, timeout=BEGIN_S).topics[topic]
        if found.error is not None or not found.partitions:
            raise KafkaUnavailableError(f"it has no topic {topic} yet; its first record makes it")
        places = [TopicPartition(topic, number) for number in found.partitions]
        for place in [] if self._grouped else places:
            # The end is asked for now: what comes between this call and the first read is new.
            _, end = self._consumer.get_watermark_offsets(place, timeout=ASK_S)
            place.offset = OFFSET_BEGINNING if beginning else end
        return places

    def read(self, wait_s: float, most: int) -> list[Record]:
        """Return what has come since the last call; see Reader. Messages of others, without our header, are left out.

        Raises KafkaUnavailableError, and may be called again then.
        """
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise KafkaUnavailableError(problem.str())
        first = self._consumer.poll(wait_s)
        if first is None:
            return []
        messages = [first, *(self._consumer.consume(most - 1, 0) if most > 1 else [])]
        self._problem = next(filter(None, (message.error() for message in messages)), None)
        records = [_record(message) for message in messages if message.error() is None]
        return [record for record in records if record is not None]

    def done(self) -> None:
        """Keep for the group that what was read has been worked. Raises KafkaUnavailableError; it comes again then."""
        if not self._grouped:
            return
        try:
            self._consumer.commit(asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._NO_OFFSET:  # noqa: SLF001 -- the library's name for it
                raise KafkaUnavailableError(error.args[0].str()) from error

    def close(self) -> None:
        """Leave the group, and end."""
        self._consumer.close()


def _record(message: Message) -> Record | None:
    topic, key, value, headers = message.topic(), message.key(), message.value(), dict(message.headers() or ())
    kind = _KINDS.get(headers.get(_KIND))
    if kind is None or topic is None or key is None or value is None:
        return None
    return Record(topic, key.decode(errors="replace"), kind, value)
