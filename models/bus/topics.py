"""Topics: every trade, quote, average, candle and signal, for others to build on. One a venue and one a pair.

They are Redis streams here, and Kafka's topics in models.bus.kafka. docs/topics.md is for who reads them.
"""

import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import chain
from typing import Any, Protocol
from uuid import uuid4

import msgspec
import redis

from models.bus.client import BusUnavailableError, failures
from models.bus.names import topic_stream

LENGTH = 2_000  # entries of a stream, about: Redis trims whole nodes of a hundred
CLAIM_MS = 30_000  # a member of a group that has not finished a record for so long is taken for dead
# One script for a batch takes a fifth of the client's time of an XADD each, and as much of the server's. Its records
# come in one argument: 1.3 us a record less of the client's time than four each, and 0.7 of the server's. Its text
# goes along: an EVALSHA that the server does not know would fail alone within a transaction. All records are appended
# or, without memory, none.
APPEND = """
local function append(length, packed)
  local told = cmsgpack.unpack(packed)
  for at = 1, #told, 4 do
    redis.call('XADD', told[at], 'MAXLEN', '~', length, '*',
      'kind', told[at + 1], 'key', told[at + 2], 'value', told[at + 3])
  end
end
"""
_TELL = f"{APPEND}append(ARGV[1], ARGV[2])"

_pack = msgspec.msgpack.Encoder().encode


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


class Reader(Protocol):
    """Where records are read: alone, or as a member of a group that shares them."""

    def read(self, wait_s: float, most: int) -> Sequence[Record]:
        """Return what has come, `most` records at most, waiting for the first. Raises BusUnavailableError.

        A client's own time limit must be longer than the wait.
        """

    def done(self) -> None:
        """Say that all that was read has been worked; what a group was not told of comes again to a member of it.

        Raises BusUnavailableError.
        """

    def close(self) -> None:
        """Leave the group, and end."""


def tell(pipeline: Any, records: Iterable[Record], length: int = LENGTH) -> None:  # noqa: ANN401 -- redis's pipelines carry no types
    """Append records to their streams, within a pipeline."""
    told = packed(records)
    if told is not None:
        pipeline.eval(_TELL, 0, length, told)


def packed(records: Iterable[Record]) -> bytes | None:
    """Return records as APPEND takes them; None where there are none."""
    # As text, because the server's side knows no other kind of bytes.
    told = [(topic_stream(each.topic), each.kind, each.key, each.value.decode()) for each in records]
    return _pack([*chain.from_iterable(told)]) if told else None


class RedisTopics:
    """Topics as streams of about `length` entries."""

    def __init__(self, client: redis.Redis, length: int = LENGTH) -> None:
        self._client = client
        self._length = length

    def publish(self, records: Sequence[Record]) -> None:
        """Append records in order, all in one step. Raises BusUnavailableError; what was sent is then unknown."""
        with failures():
            tell(self._client, records, self._length)

    def close(self) -> None:
        """Do nothing: nothing waits here, and the client is its owner's."""


class TopicReader:
    """Reads topics that are streams, alone: from their beginning, or what comes from now on."""

    def __init__(self, client: redis.Redis, topics: Sequence[str], *, beginning: bool = False) -> None:
        self._client = client
        self._beginning = beginning
        self._after: dict[str, bytes] = {}  # by stream: the last entry that was read
        self._streams = [topic_stream(topic) for topic in topics]

    def read(self, wait_s: float, most: int) -> list[Record]:
        """Return what has come since the last call; see Reader."""
        with failures():
            if not self._after:
                self._after = {stream: b"0" if self._beginning else self._last(stream) for stream in self._streams}
            # COUNT is each stream's, so one that is busy does not hold up the others.
            count = max(1, most // len(self._streams))
            after: dict[Any, Any] = dict(self._after)
            answer: Any = self._client.xread(after, count=count, block=_block_ms(wait_s))
        records: list[Record] = []
        for stream, entries in answer:
            taken = entries[: most - len(records)]
            records += [_record(stream, fields) for _, fields in taken]
            if taken:
                self._after[stream.decode()] = taken[-1][0]
        return records

    def _last(self, stream: str) -> bytes:
        newest: Any = self._client.xrevrange(stream, count=1)
        return newest[0][0] if newest else b"0"

    def done(self) -> None:
        """Do nothing: nobody else is told of what was read."""

    def close(self) -> None:
        """Do nothing: the client is its owner's."""


class GroupReader:
    """Reads topics that are streams as a member of a group, whose members share the records.

    A group begins where its first member says, and goes on where it was. A record that was not done comes
    to another member when CLAIM_MS have passed, and again to this one after a failure: at least once. One that the
    stream has meanwhile dropped does not. Where Redis was emptied, the group begins with all that it has then.
    """

    def __init__(
        self,
        client: redis.Redis,
        topics: Sequence[str],
        group: str,
        *,
        beginning: bool = False,
        member: str | None = None,
        claim_ms: int = CLAIM_MS,
    ) -> None:
        self._client = client
        self._group = group
        self._begin = "0" if beginning else "$"
        self._member = member or f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        self._claim_ms = claim_ms
        self._claim_at = 0.0
        self._streams = [topic_stream(topic) for topic in topics]
        self._there = False  # whether the group is known to be
        self._own = dict.fromkeys(self._streams, b"0")  # where to read on in what was given to us before
        self._open: dict[bytes, list[bytes]] = {}  # by stream: the entries that were read and are not done

    def read(self, wait_s: float, most: int) -> list[Record]:
        """Return what has come for this member; see Reader."""
        try:
            with failures():
                self._ensure()
                return self._again(most) or self._claimed(most) or self._new(wait_s, most)
        except BusUnavailableError as error:
            # It may have forgotten the group, and we cannot know what it has given to us without our hearing it.
            self._there = False
            self._own = dict.fromkeys(self._streams, b"0")
            self._open.clear()
            if not _forgotten(error):
                raise
            return []

    def done(self) -> None:
        """Acknowledge what was read. Raises BusUnavailableError; it comes again then."""
        with failures():
            pipeline = self._client.pipeline(transaction=False)
            for stream, entries in self._open.items():
                pipeline.xack(stream, self._group, *entries)
            pipeline.execute()
        self._open.clear()

    def close(self) -> None:
        """Leave the group, unless something given to this member is not done: that would be lost with it."""
        with failures():
            for stream in self._streams:
                self._client.eval(_LEAVE, 1, stream, self._group, self._member)

    def _ensure(self) -> None:
        if self._there:
            return
        for stream in self._streams:
            try:
                self._client.xgroup_create(stream, self._group, self._begin, mkstream=True)
            except redis.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        self._there = True
        self._begin = "0"  # where the group is gone one day, nothing that is there then was read

    def _again(self, most: int) -> list[Record]:
        """Return what was given to this member before, in order, and once after each failure."""
        while self._own:
            stream, after = next(iter(self._own.items()))
            answer: Any = self._client.xreadgroup(self._group, self._member, {stream: after}, count=most)
            entries = answer[0][1] if answer else []
            if not entries:
                del self._own[stream]
                continue
            self._own[stream] = entries[-1][0]
            if records := self._taken(stream.encode(), entries):
                return records
        return []

    def _claimed(self, most: int) -> list[Record]:
        """Return what another member was given and has not finished for long."""
        if time.monotonic() < self._claim_at:
            return []
        for stream in self._streams:
            _, entries, *_ = self._client.xautoclaim(
                stream, self._group, self._member, self._claim_ms, "0-0", count=most
            )
            if records := self._taken(stream.encode(), entries):
                return records
        self._claim_at = time.monotonic() + self._claim_ms / 2_000
        return []

    def _new(self, wait_s: float, most: int) -> list[Record]:
        self._streams.append(self._streams.pop(0))  # each is first in its turn, where there is room for a few only
        wanted: dict[Any, Any] = dict.fromkeys(self._streams[:most], ">")
        count, block_ms = max(1, most // len(wanted)), _block_ms(min(wait_s, self._claim_ms / 2_000))
        answer: Any = self._client.xreadgroup(self._group, self._member, wanted, count=count, block=block_ms)
        return [record for stream, entries in answer for record in self._taken(stream, entries)]

    def _taken(self, stream: bytes, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Record]:
        """Remember entries until they are done; those that the stream has dropped have no fields any more."""
        if entries:
            self._open.setdefault(stream, []).extend(entry for entry, _ in entries)
        return [_record(stream, fields) for _, fields in entries if fields]


# A member goes and nothing is lost with it only where both are one step.
_LEAVE = """
if #redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.pcall('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
"""


def _forgotten(error: BusUnavailableError) -> bool:
    # The latter is what older servers say to who waits while the stream goes.
    return "NOGROUP" in str(error) or "UNBLOCKED" in str(error)


def _block_ms(wait_s: float) -> int:
    return max(1, int(wait_s * 1_000))  # 0 would wait for ever


def _record(stream: bytes, fields: Mapping[bytes, bytes]) -> Record:
    topic = stream.decode().removeprefix(topic_stream(""))
    return Record(topic, fields[b"key"].decode(), Kind(fields[b"kind"].decode()), fields[b"value"])
