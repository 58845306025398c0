"""The analyst's side of the bus: what all collectors say, read once and in order, and what it makes of it.

What is published and how far that is read change in one step, so a record is published once whoever is
killed. Once a second what a restart needs is kept too, a part of the symbols at a time, each with how far that was
read: who starts takes it, reads on from where the oldest part was kept, gives no part what it has already,
and publishes nothing before it comes to what was not published. Who finds that somebody else published further
was overtaken, and begins anew.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any

import msgspec
import redis

from models.bus.analysis import tell_candles, tell_vwaps
from models.bus.client import failures
from models.bus.names import (
    FORGOTTEN,
    KEEPER,
    PENDING,
    PUBLISHED,
    STATE,
    open_candles_key,
    quotes_stream,
    vwap_key,
    window_key,
)
from models.bus.quotes import decode
from models.bus.topics import APPEND, Record, packed
from models.domain.analysis import series_in
from models.domain.candles import Candle
from models.domain.errors import CrossfillError
from models.domain.quotes import BusItem
from models.domain.vwap import Vwap

READ_MAX = 64  # batches of a shard taken at once
PENDING_MAX = 200_000  # candles that wait for the database; beyond it the oldest are lost
START = b"0-0"
# All that an analyst writes, in one step, unless another one has published further: then nothing. WATCH, MULTI and
# EXEC can do that in three round trips; they, and what a command takes of the client's time, cost each turn a third of
# a millisecond more. Each command comes as the number of its words and these.
_WRITE = f"""{APPEND}
local function number(position)
  local milliseconds, sequence = string.match(position, '(%d+)%-?(%d*)')
  return tonumber(milliseconds), tonumber(sequence) or 0
end
local known = 1
for shard, mine in pairs(cmsgpack.unpack(ARGV[1])) do
  local there = redis.call('HGET', KEYS[1], shard)
  if there ~= mine then
    known = 0
    if there then
      local a, b = number(there)
      local c, d = number(mine)
      if a > c or (a == c and b > d) then return -1 end
    end
  end
end
if ARGV[3] ~= '' then append(ARGV[2], ARGV[3]) end
local last = #ARGV
if known == 0 then last = last - tonumber(ARGV[4]) end
local at = 6
while at < last do
  local count = tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, at + count))
  at = at + count + 1
end
local over = redis.call('LLEN', KEYS[2]) - ARGV[5]
if over > 0 then
  redis.call('LTRIM', KEYS[2], over, -1)
  redis.call('INCRBY', KEYS[3], over)
end
return known
"""
_OVERTAKEN = -1
_WORDS_MAX = 1_000  # of a command: what a script may give on at once is bounded
_POSITION = "at:"
_KEPT = "state:"
_OF = "of"  # which market it was kept of

_encoder = msgspec.msgpack.Encoder()
_pack = _encoder.encode
_pending = msgspec.msgpack.Decoder(Candle)


class OvertakenError(CrossfillError):
    """Another analyst has published further: this one must begin anew."""

    def __init__(self) -> None:
        super().__init__("another analyst reads the market now")


@dataclass
class Batch:
    """What one shard's collectors said.

    `published`: that was told before; `having`: parts that were kept after it, or with it; `gap`: something before it
    is lost; `behind`: more waits than was read.
    """

    items: list[BusItem]
    published: bool
    having: Collection[int]
    gap: bool
    behind: bool


@dataclass(frozen=True)
class Changes:
    """What batches came to, to be told now: records of topics, averages and open candles by symbol."""

    records: Sequence[Record] = ()
    vwaps: Mapping[str, Mapping[str, Vwap]] = field(default_factory=dict)
    candles: Mapping[str, Mapping[str, Candle]] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """What a restart needs and has changed in some parts, as of where everything was read up to (`Tape.reached`).

    States, trades to append to windows of `window`, windows that are new, candles that closed.
    """

    parts: Collection[int]
    reached: Mapping[int, bytes]
    states: Mapping[str, bytes]
    appended: Mapping[str, Sequence[bytes]]
    replaced: Mapping[str, Sequence[bytes]]
    window: int
    pending: Sequence[Candle]


class Tape:
    """Reads the streams of all shards by one connection, and writes by another.

    `market` is the market, or one replay of several: what was kept of another is of no use. Every method raises
    BusUnavailableError; those that write OvertakenError. After either: begin again.
    """

    def __init__(self, reading: redis.Redis, writing: redis.Redis, shards: int, topic_length: int, market: str) -> None:
        self._reading = reading
        self._writing = writing
        self._market = market.encode()
        self._topic_length = topic_length
        self._streams = {quotes_stream(shard).encode(): shard for shard in range(shards)}
        self._read: dict[int, bytes] = {}
        self._published: dict[int, bytes] = {}
        self._kept: dict[int, dict[int, bytes]] = {}  # by shard: how far each part is ahead of what was read
        self._gaps: set[int] = set()

    def forget_others(self, keys: Iterable[str]) -> bool:
        """Forget what was kept of another market, and `keys` with it; return whether there was anything."""
        with failures():
            fields: Any = self._writing.hgetall(STATE)
            if not fields or fields.get(_OF.encode()) == self._market:
                return False
            series = series_in(name.decode().removeprefix(_KEPT) for name in fields)
            symbols = {name.partition("/")[2] for name in series}
            told = [key(symbol) for symbol in symbols for key in (vwap_key, open_candles_key)]
            self._writing.delete(STATE, PUBLISHED, *map(window_key, series), *told, *keys)
        return True

    def begin(self) -> dict[str, bytes]:
        """Return the states that were kept, by name. Reading goes on from there."""
        with failures():
            fields: Any = self._writing.hgetall(STATE)
            published: Any = self._writing.hgetall(PUBLISHED)
            pipeline = self._writing.pipeline(transaction=False)
            for stream in self._streams:
                pipeline.xrevrange(stream, count=1)
            newest = pipeline.execute()
            kept = {name.decode(): value for name, value in fields.items()}
            kept.pop(_OF, None)
            self._published = {int(shard): position for shard, position in published.items()}
            self._gaps = set()
            self._kept = {}
            for shard, entries in zip(self._streams.values(), newest, strict=True):
                ends = f":{shard}"
                names = [name for name in kept if name.startswith(_POSITION) and name.endswith(ends)]
                ahead = {int(name.removeprefix(_POSITION).removesuffix(ends)): kept.pop(name) for name in names}
                known = min(ahead.values(), key=_number, default=None)
                if known is not None:
                    self._kept[shard] = ahead
                # Who knows nothing begins with what comes now.
                self._read[shard] = known or (entries[0][0] if entries else START)
                self._published.setdefault(shard, self._read[shard])
                self._writing.hsetnx(PUBLISHED, str(shard), self._published[shard])
                if known is not None and self._trimmed(shard):
                    self._gaps.add(shard)
            return {name.removeprefix(_KEPT): value for name, value in kept.items()}

    def forget(self) -> None:
        """Drop the states that were kept."""
        with failures():
            self._writing.delete(STATE)
        self._kept.clear()

    @property
    def replaying(self) -> bool:
        """Whether there still are parts that have what is read: none is kept meanwhile."""
        return bool(self._kept)

    @property
    def reached(self) -> dict[int, bytes]:
        """How far each shard was read."""
        return dict(self._read)

    def windows(self, series: Sequence[str]) -> dict[str, list[bytes]]:
        """Return the trades that were kept of each series' window, oldest first."""
        with failures():
            pipeline = self._writing.pipeline(transaction=False)
            for name in series:
                pipeline.lrange(window_key(name), 0, -1)
            return dict(zip(series, pipeline.execute(), strict=True))

    def read(self, block_ms: int) -> list[Batch]:
        """Return what has come since the last call, waiting up to `block_ms` for something (0: not at all)."""
        asked: Any = {stream: self._read[shard] for stream, shard in self._streams.items()}
        batches, more = [], set()
        with failures():
            answer: Any = self._reading.xread(asked, count=READ_MAX, block=block_ms or None)
            for stream, entries in _by_stream(answer):
                shard = self._streams[stream]
                behind = len(entries) == READ_MAX
                if behind and self._trimmed(shard):
                    self._gaps.add(shard)
                for (published, having), part in groupby(entries, lambda entry: self._known(shard, entry[0])):  # noqa: B023 -- called at once
                    items = [item for _, fields in part for item in decode(fields[b"b"])]
                    batches.append(Batch(items, published, having, shard in self._gaps, behind))
                    self._gaps.discard(shard)
                self._read[shard] = entries[-1][0]
                if behind:
                    more.add(shard)
        for shard, parts in [*self._kept.items()]:
            ahead = max(parts.values(), key=_number)
            if shard not in more or _number(self._read[shard]) >= _number(ahead):
                # Else all is read that there is: what a part has beyond it the stream has lost.
                self._read[shard] = max(self._read[shard], ahead, key=_number)
                del self._kept[shard]
        return batches

    def _known(self, shard: int, position: bytes) -> tuple[bool, frozenset[int]]:
        """Say whether a batch was told before, and which parts have it."""
        number = _number(position)
        having = frozenset(part for part, kept in self._kept.get(shard, {}).items() if _number(kept) >= number)
        return number <= _number(self._published[shard]), having

    def publish(self, changes: Changes, checkpoints: Iterable[Checkpoint] = ()) -> bool:
        """Tell what the batches came to that were read; return whether Redis still knew what was told before.

        With it, keep what a restart needs of some parts. Where Redis did not know (it was emptied, or is back with
        older data), nothing was kept, and all that a restart needs is to be kept anew.
        """
        reached = self._reached()
        told = _Commands()
        told.hset(PUBLISHED, _named(reached))
        for symbol, vwaps in changes.vwaps.items():
            tell_vwaps(told, symbol, vwaps)
        for symbol, candles in changes.candles.items():
            tell_candles(told, symbol, candles)
        known = self._write(changes.records, told, self._kept_by(checkpoints))
        self._published = reached
        return known

    def keep(self, checkpoints: Iterable[Checkpoint]) -> None:
        """Keep what a restart needs."""
        told = self._kept_by(checkpoints)
        told.hset(PUBLISHED, _named(self._published))
        self._write((), told, _Commands())

    def _kept_by(self, checkpoints: Iterable[Checkpoint]) -> "_Commands":
        kept = _Commands()
        for each in checkpoints:
            positions = each.reached.items()
            kept.hset(STATE, {position_of(part, shard): at for part in each.parts for shard, at in positions})
            kept.hset(STATE, {f"{_KEPT}{name}": state for name, state in each.states.items()} | {_OF: self._market})
            for series in each.replaced:
                kept.delete(window_key(series))
            for series, trades in (*each.replaced.items(), *each.appended.items()):
                kept.rpush(window_key(series), trades)
                kept.ltrim(window_key(series), -each.window)
            kept.rpush(PENDING, [*map(_encoder.encode, each.pending)])
        return kept

    def _write(self, records: Iterable[Record], told: "_Commands", kept: "_Commands") -> bool:
        """Write unless another has published further; return whether Redis knew what was told. Else `kept` is not."""
        keys, positions = (PUBLISHED, PENDING, FORGOTTEN), _pack(_named(self._published))
        numbers = (self._topic_length, packed(records) or b"", len(kept.words), PENDING_MAX)
        with failures():
            answer: Any = self._writing.eval(_WRITE, 3, *keys, positions, *numbers, *told.words, *kept.words)
        if answer == _OVERTAKEN:
            raise OvertakenError
        return bool(answer)

    def _reached(self) -> dict[int, bytes]:
        """Return how far everything is published once what was read is."""
        return {shard: max(read, self._published[shard], key=_number) for shard, read in self._read.items()}

    def _trimmed(self, shard: int) -> bool:
        """Say whether batches that were not read may be gone from a shard's stream."""
        oldest: Any = self._writing.xrange(quotes_stream(shard), count=1)
        return bool(oldest) and _number(oldest[0][0]) > _number(self._read[shard]) != _number(START)


class _Commands:
    # Like a pipeline, for those who tell within one.

    def __init__(self) -> None:
        self.words: list[Any] = []

    def hset(self, key: str, mapping: Mapping[str, bytes | str]) -> None:
        self._add("HSET", key, [*chain.from_iterable(mapping.items())])

    def rpush(self, key: str, values: Sequence[bytes]) -> None:
        self._add("RPUSH", key, values)

    def ltrim(self, key: str, begin: int) -> None:
        self._add("LTRIM", key, (begin, -1))

    def delete(self, key: str) -> None:
        self.words += (2, "DEL", key)

    def _add(self, name: str, key: str, words: Sequence[Any]) -> None:
        for at in range(0, len(words), _WORDS_MAX):
            part = words[at : at + _WORDS_MAX]
            self.words += (len(part) + 2, name, key, *part)


class Pending:
    """Closed candles on their way to the database, oldest first. Raises BusUnavailableError.

    Of several who take them the last who claimed them succeeds, the others raise OvertakenError.
    """

    def __init__(self, client: redis.Redis, owner: str) -> None:
        self._client = client
        self._owner = owner.encode()

    def claim(self) -> bool:
        """Become the one who takes them; return whether that was so before, and nobody else has taken any since."""
        with failures():
            before: Any = self._client.set(KEEPER, self._owner, get=True)
        return bool(before == self._owner)

    @contextmanager
    def taken(self, count: int) -> Iterator[tuple[list[Candle], Any]]:
        """Yield the oldest, and a transaction to tell of them in; it ends with the block, and forgets them."""
        with failures(), self._client.pipeline(transaction=True) as fence:
            fence.watch(KEEPER, FORGOTTEN)  # type: ignore[no-untyped-call] # the library forgot
            if fence.get(KEEPER) != self._owner:
                raise OvertakenError
            texts: Any = fence.lrange(PENDING, 0, count - 1)
            fence.multi()
            yield [_pending.decode(text) for text in texts], fence
            if not texts:
                return
            fence.ltrim(PENDING, len(texts), -1)
            fence.incrby(FORGOTTEN, len(texts))
            try:
                fence.execute()
            except redis.exceptions.WatchError as error:
                raise OvertakenError from error


def position_of(part: int, shard: int) -> str:
    """Return the field of the state that says up to where in a shard's stream a part was kept."""
    return f"{_POSITION}{part}:{shard}"


def _named(positions: Mapping[int, bytes]) -> dict[str, str]:
    return {str(shard): position.decode() for shard, position in positions.items()}


def _number(position: bytes) -> tuple[int, int]:
    """Return an entry's id as numbers, which compare as the entries are ordered."""
    milliseconds, _, sequence = position.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _by_stream(answer: Any) -> list[tuple[bytes, list[Any]]]:  # noqa: ANN401 -- redis's answers carry no types
    """Return the entries of each stream that was read, whichever protocol answered."""
    if not answer:
        return []
    if isinstance(answer, dict):
        return [(name, part[0] if part and isinstance(part[0], list) else part) for name, part in answer.items()]
    return [(name, entries) for name, entries in answer]
