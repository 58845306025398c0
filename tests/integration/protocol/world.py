"""Owners, collectors, clients and their faults around the real book and the real store, in simulated time.

Everybody is a generator that yields how long it waits, in microseconds; between two yields nothing else
happens. So whoever waits can be stopped there, or killed, and goes on later believing what it believed
before. The loop and the collector follow workers/fulfilment.py, leases.py and collector.py act by act;
Book, `commit_outcomes`, `claim`, `renew`, `release`, `accept`, `request_cancel` and `next_token` are the
real ones, on a real SQLite file whose clock is this world's.
"""

import shutil
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, event, select
from sqlalchemy.exc import SQLAlchemyError

from models.domain.book import Book
from models.domain.errors import CrossfillError
from models.domain.instruments import Instrument, Instruments, Product
from models.domain.orders import Order, Side, TimeInForce
from models.domain.outcomes import StepResult, VenueSwitch
from models.domain.quotes import BusItem, Mark, Market, Quote
from models.store import book as stored
from models.store.database import CommitUnknownError, Database, StoreUnavailableError
from models.store.orders import Accepted, NewOrder, accept, request_cancel
from models.store.outcomes import commit_outcomes
from models.store.owners import ensure_owner
from models.store.schema import fix_shards, migrate
from models.store.shards import Lease, claim, release, renew
from models.store.tables import orders
from models.store.venues import ensure_venues, next_token, set_enabled, switches

MS = 1_000
SECOND = 1_000_000
T0 = 1_790_000_000 * SECOND
CHAOS = 30 * SECOND
CALM = 36 * SECOND  # longer than any stop, any lease and any deadline
LEASE = 5 * SECOND
SILENCE = 3 * SECOND
STILL = 3 * SECOND
# How often what goes wrong, each time it can: every seed draws one of each and leaves a third of them out (`rates`).
RATES = {
    "stop": (0.005, 0.02),  # of a thread or its process, between any two acts
    "hang": (0.03, 0.15),  # of a process, between a step and its commit
    "sleep": (0.01, 0.03),  # of a process, before its loop reads
    "kill": (0.05, 0.08),
    "hand over": (0.2, 0.4),
    "commit": (0.04, 0.12),
    "answer lost": (0.05, 0.1),
    "batch lost": (0.02, 0.05),
    "batch late": (0.06, 0.2),
    "batch twice": (0.05, 0.2),
    "stream": (0.1, 0.3),
    "reconnect": (0.01, 0.03),
}
IDLE = 0.7  # of an owner that could take another shard
# Likewise the kinds of orders. Those that rest bind a book to their rows, which hides much.
WORDS = (
    tuple(TimeInForce),
    (TimeInForce.GTC, TimeInForce.GTD),
    (TimeInForce.GTD, TimeInForce.IOC),
    (TimeInForce.IOC,),
)
STOPS = (300 * MS, 1_500 * MS, 4 * SECOND, 7 * SECOND, 12 * SECOND)
TICK, LOT = Decimal("0.0001"), Decimal(1)
SHARD_OF = {"LTC-BTC": 0, "ETH-BTC": 1}
PRODUCTS = {
    "binance": {"LTC-BTC": "LTCBTC", "ETH-BTC": "ETHBTC"},
    "coinbase": {"LTC-BTC": "LTC-BTC", "ETH-BTC": "ETH-BTC"},
}
PAIRS = Instruments(
    Instrument(symbol[:3], symbol[4:], tuple(Product(venue, ids[symbol], TICK, LOT) for venue, ids in PRODUCTS.items()))
    for symbol in SHARD_OF
)
CLIENTS = ("ann", "bob")

Acts = Generator[int, None, None]
Sides = tuple[Decimal, Decimal, Decimal, Decimal]  # bid price and size, ask price and size
Journal = list[tuple[int, Sequence[BusItem]]]
Socket = deque[tuple[int, str, Sides]]  # when it was sent, the symbol


def rates(seed: int, random: Random) -> dict[str, float]:
    """Draw how often what goes wrong in a seed.

    What is left out cannot hide what the others lead to. Of three seeds in a row each leaves another third out, by
    lot: so whatever can go wrong does in two of three seeds.
    """
    names = list(RATES)
    Random(seed // 3).shuffle(names)
    left_out = names[seed % 3 :: 3]
    return {name: 0.0 if name in left_out else random.choice(each) for name, each in RATES.items()}


@dataclass(eq=False)
class Process:
    """What is stopped and killed as a whole."""

    name: str
    dead: bool = False
    stopped_until: int = 0


@dataclass
class Plan:
    """What a run is made of; tests take fences out by handing in weaker parts."""

    make_book: Callable[..., Book] = Book
    loop: "type[Loop] | None" = None
    load_levels: bool = True
    load_tokens: bool = True
    keys: bool = True  # clients say their Idempotency-Key again when they repeat


class FaultyDatabase(Database):
    """A database whose transactions fail: before they begin, or at COMMIT, then done or not."""

    world: "World"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one write transaction, or fail in one of three ways."""
        fault = self.world.fault()
        if fault == "before":
            raise StoreUnavailableError(ConnectionError("made to fail"))
        with super().write() as connection:
            yield connection
            if fault == "undone":
                raise CommitUnknownError(ConnectionError("made to fail, and rolled back"))
        if fault == "done":
            raise CommitUnknownError(ConnectionError("made to fail, though it is done"))


class Stream:
    """What Redis is to one shard: batches in order, and each product's newest quote."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[BusItem]]] = []
        self.newest: dict[tuple[str, str], Quote] = {}
        self.older: dict[tuple[str, str], Quote] = {}  # as it was saved some time ago
        self.restarts = 0
        self._ids = count(1)

    def add(self, items: Sequence[BusItem]) -> None:
        """Append a batch."""
        self.batches.append((next(self._ids), list(items)))
        self.newest.update({(item.venue, item.product_id): item for item in items if isinstance(item, Quote)})

    def read(self, last: int) -> list[tuple[int, list[BusItem]]]:
        """Return the batches after one."""
        start = len(self.batches)
        while start and self.batches[start - 1][0] > last:
            start -= 1
        return self.batches[start:]

    def restart(self, how: str, lost: int) -> None:
        """Lose the newest batches and go back to older quotes, or lose everything."""
        self.restarts += 1
        if how == "emptied":
            self.batches, self.newest = [], {}
        else:
            self.batches = self.batches[: max(0, len(self.batches) - lost)]
            self.newest = dict(self.older)


class Venue:
    """A venue's market: few prices that come and go, and whoever listens to them."""

    def __init__(self, name: str, random: Random) -> None:
        self.name = name
        self.random = random
        self.now: dict[str, Sides] = {}  # by symbol
        self.sockets: list[Socket] = []
        for symbol in SHARD_OF:
            self.move(symbol, 0)

    def move(self, symbol: str, now_us: int) -> None:
        """Show other best prices, or the same in another size."""
        random = self.random
        bid, bid_size, ask, ask_size = self.now.get(symbol, (10 * TICK, Decimal(4), 14 * TICK, Decimal(4)))
        if random.random() < 0.4:
            bid = random.choice((10, 11)) * TICK
        if random.random() < 0.4:
            ask = random.choice((13, 14)) * TICK
        if random.random() < 0.4:
            bid_size, ask_size = (Decimal(random.choice((0, 0, 4, 6))) for _ in range(2))
        self.now[symbol] = (bid, bid_size, ask, ask_size)
        for socket in self.sockets:
            socket.append((now_us, symbol, self.now[symbol]))

    def connect(self) -> Socket:
        """Return a socket, with what is shown now as its first frames."""
        socket = deque((0, symbol, sides) for symbol, sides in self.now.items())
        self.sockets.append(socket)
        return socket


class World:
    """One run of a seed."""

    def __init__(self, seed: int, template: Path, folder: Path, plan: Plan | None = None) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.plan = plan or Plan()
        self.now_us = T0
        self.chaos = True
        self.rates = {"idle": IDLE, **rates(seed, self.random)}
        self.words = self.random.choice(WORDS)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        path = folder / f"{seed}.db"
        shutil.copy(template, path)
        self.database = FaultyDatabase.open(f"sqlite:///{path}", pool_size=1)
        assert isinstance(self.database, FaultyDatabase)
        self.database.world = self
        event.listen(self.database.engine, "connect", self._prepare)
        self.streams = {shard: Stream() for shard in SHARD_OF.values()}
        self.venues = {name: Venue(name, self.random) for name in PRODUCTS}
        self.published: dict[tuple[str, str], dict[tuple[int, int], Quote]] = defaultdict(dict)
        # By shard what each book was shown under which epoch: its load, then its steps, and when.
        self.journals: dict[int, list[tuple[int, Journal]]] = defaultdict(list)
        self.promised: list[tuple[str, str]] = []  # owner, order
        self.requests: set[str] = set()  # those whose client repeats until it has an answer
        self.leases: dict[int, tuple[Lease, int]] = {}  # by shard: held by whom, surely until when
        self._due: list[tuple[int, int, Process, Acts]] = []
        self._numbers = count()
        self._ids = count(1)

    def _prepare(self, connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF").close()
        # The database's own clock reads this; see models.store.database.now_us.
        connection.create_function("julianday", 1, lambda _now: self.now_us / (86_400 * SECOND) + 2_440_587.5)

    # Time and faults

    def spawn(self, process: Process, acts: Acts, after: int = 0) -> None:
        """Let somebody act from now on."""
        heappush(self._due, (self.now_us + after, next(self._numbers), process, acts))

    def run_until(self, end: int) -> None:
        """Let everybody act in turn up to a time."""
        while self._due and self._due[0][0] <= end:
            when, _, process, acts = heappop(self._due)
            if process.dead:
                continue
            self.now_us = max(self.now_us, when)
            stop = self._stop(process)
            if stop:
                heappush(self._due, (self.now_us + stop, next(self._numbers), process, acts))
                continue
            try:
                pause = next(acts)
            except StopIteration:
                continue
            heappush(self._due, (self.now_us + pause, next(self._numbers), process, acts))
        self.now_us = end

    def _stop(self, process: Process) -> int:
        if process.stopped_until > self.now_us:
            # Its threads do not wake at the same instant.
            return process.stopped_until - self.now_us + self.random.choice((0, 200 * MS, SECOND))
        if not self.chance("stop"):
            return 0
        stop = self.random.choice(STOPS)
        if self.random.random() < 0.5:  # the whole process, and not one thread of it
            process.stopped_until = self.now_us + stop
        return stop

    def pause(self, process: Process, how: str) -> None:
        """Stop a process, perhaps."""
        if self.chance(how):
            process.stopped_until = self.now_us + self.random.choice(STOPS)

    def chance(self, name: str) -> bool:
        """Say whether a fault happens."""
        happens = self.chaos and self.random.random() < self.rates[name]
        self.counts[name] += happens
        return happens

    def fault(self) -> str | None:
        """Return how a transaction fails."""
        if not self.chance("commit"):
            return None
        fault = self.random.choice(("before", "undone", "done"))
        self.counts[f"commit {fault}"] += 1
        return fault

    def run(self) -> None:
        """Run the seed: chaos, then calm until all that was promised must be done."""
        network = Process("network")
        for name in ("w1", "w2", "w3"):
            Keeper(self, name).start()
        for venue in PRODUCTS:
            for number in (1, 2):
                process = Process(f"{venue}-{number}")
                self.spawn(process, Collector(self, venue, second=number == 2).acts())
            self.spawn(network, self._market(self.venues[venue]))
        for owner in CLIENTS:
            self.spawn(network, client(self, owner))
        self.spawn(network, self._operator())
        self.spawn(network, self._redis())
        self.run_until(T0 + CHAOS)
        self.chaos = False
        # Whoever is stopped goes on, and clients have their answers; then what would wait for ever is cancelled.
        self.run_until(T0 + CHAOS + 14 * SECOND)
        for venue in PRODUCTS:
            set_enabled(self.database, venue, enabled=True)
        with self.database.read() as connection:
            waiting = connection.execute(select(orders).where(orders.c.ended_us.is_(None))).all()
        for row in waiting:
            if row.deadline_us is None:
                request_cancel(self.database, row.owner_id, row.id, self.now_us)
        self.run_until(T0 + CHAOS + CALM)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # Venues, the operator, Redis

    def _market(self, venue: Venue) -> Acts:
        while self.chaos:
            venue.move(self.random.choice(list(SHARD_OF)), self.now_us)
            yield self.random.choice((50 * MS, 400 * MS, 900 * MS))

    def _operator(self) -> Acts:
        while self.chaos:
            yield self.random.choice((2 * SECOND, 6 * SECOND))
            try:
                set_enabled(self.database, self.random.choice(list(PRODUCTS)), enabled=self.random.random() < 0.85)
            except CrossfillError:
                continue

    def _redis(self) -> Acts:
        while self.chaos:
            yield self.random.choice((1 * SECOND, 3 * SECOND))
            for stream in self.streams.values():
                if self.chance("stream"):
                    how = self.random.choice(("emptied", "older"))
                    stream.restart(how, self.random.randrange(1, 20))
                    self.counts[f"stream {how}"] += 1
                elif self.random.random() < 0.4:
                    stream.older = dict(stream.newest)

    def publish(self, shard: int, items: Sequence[BusItem], *, after: int) -> Acts:
        """Let a batch arrive, perhaps late."""
        yield after
        self.streams[shard].add(items)

    def next_id(self) -> str:
        """Return a name that nothing has yet."""
        return f"id-{next(self._ids)}"


class Collector:
    """A collector of a venue; the second one comes and goes, and knows nothing of the first."""

    def __init__(self, world: World, venue: str, *, second: bool) -> None:
        self.world = world
        self.venue = venue
        self.second = second
        self.token = 0
        self.numbers = count(1)
        self.current: dict[str, Sides] = {}
        self.marked = 0
        self.network = Process("network")

    def acts(self) -> Acts:
        world, random = self.world, self.world.random
        if self.second:
            yield random.choice((4 * SECOND, 10 * SECOND))
        while world.chaos or not self.second:
            try:
                self.token = next_token(world.database, self.venue)
            except CrossfillError:
                yield 300 * MS
                continue
            yield random.choice((5 * MS, 50 * MS))
            socket = world.venues[self.venue].connect()
            yield from self._read(socket)
            open_ones = world.venues[self.venue].sockets
            open_ones[:] = [each for each in open_ones if each is not socket]
            if self.second:
                yield random.choice((2 * SECOND, 8 * SECOND))

    def _read(self, socket: Socket) -> Acts:
        """Read a connection until it ends, or this process has stood still: then what is buffered is old."""
        world = self.world
        self.numbers, self.current, self.marked = count(1), {}, 0
        lag = world.random.choice((0, 0, 0, 1_500 * MS, 2_500 * MS))  # how far behind the venue it is
        ticked, again = world.now_us, False
        while world.now_us - ticked <= STILL:
            ticked = world.now_us
            frames = list(self.current.items()) if again else []
            while socket and (not self.current or world.now_us - socket[0][0] >= lag):
                frames.append(socket.popleft()[1:])
            batches = self._batches(frames)
            yield MS
            again = self._write(batches)
            yield 100 * MS
            if world.chance("reconnect"):
                break

    def _batches(self, frames: list[tuple[str, Sides]]) -> dict[int, list[BusItem]]:
        world = self.world
        batches: dict[int, list[BusItem]] = defaultdict(list)
        for symbol, sides in frames:
            self.current[symbol] = sides
            product, number = PRODUCTS[self.venue][symbol], next(self.numbers)
            quote = Quote(self.venue, product, self.token, number, *sides, True, None, world.now_us)
            world.published[self.venue, product][self.token, number] = quote
            batches[SHARD_OF[symbol]].append(quote)
        if world.now_us - self.marked >= SECOND // 2:
            self.marked = world.now_us
            for shard in SHARD_OF.values():
                batches[shard].append(Mark(self.venue, self.token, world.now_us))
        return batches

    def _write(self, batches: dict[int, list[BusItem]]) -> bool:
        """Write batches; some come late, or twice. Return whether one was lost, so that current quotes go again."""
        world, lost = self.world, False
        for shard, items in batches.items():
            if world.chance("batch lost"):
                lost = True
                continue
            late = world.random.choice((300 * MS, 2 * SECOND)) if world.chance("batch late") else 0
            world.spawn(self.network, world.publish(shard, items, after=late))
            if world.chance("batch twice"):
                late = world.random.choice((0, 1_300 * MS, 2_500 * MS))
                world.spawn(self.network, world.publish(shard, items, after=late))
        return lost


class Reader:
    """A loop's cursor in its stream: first the newest quotes, then what comes."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.restarts = stream.restarts
        self.last: int | None = None

    def read(self) -> Generator[int, None, list[BusItem]]:
        if self.restarts != self.stream.restarts:
            self.restarts, self.last = self.stream.restarts, None
        if self.last is None:
            self.last = self.stream.batches[-1][0] if self.stream.batches else 0
            yield MS
            newest = sorted(self.stream.newest.values(), key=lambda quote: (quote.venue, quote.token, quote.number))
            return list(newest)
        batches = self.stream.read(self.last)
        if batches:
            self.last = batches[-1][0]
        return [item for _, items in batches for item in items]


class Loop:
    """The fulfilment loop of one lease."""

    def __init__(self, world: World, lease: Lease, process: Process) -> None:
        self.world = world
        self.process = process
        self.lease = lease
        self.alive = True
        self.stopping = False
        self.number = 0
        self.journal: Journal = []

    def acts(self) -> Acts:
        try:
            yield from self._work()
        except (CrossfillError, SQLAlchemyError) as error:
            self.world.counts[type(error).__name__] += 1
        finally:
            self.alive = False

    def _work(self) -> Acts:
        world, database, shard = self.world, self.world.database, self.lease.shard
        with database.read() as connection:
            loaded, working = stored.load(connection, shard), stored.working(connection, shard, 2_000)
        yield MS
        levels = loaded.levels if world.plan.load_levels else []
        known_tokens = loaded.tokens if world.plan.load_tokens else {}
        book = world.plan.make_book(
            PAIRS, levels=levels, disabled=loaded.disabled, tokens=known_tokens, silence_us=SILENCE
        )
        world.counts["book loaded"] += 1
        self.journal.append((world.now_us, ()))
        world.journals[shard].append((self.lease.epoch, self.journal))
        known = dict.fromkeys(loaded.disabled, False)
        yield from self._step(book, orders=working)
        reader, look_at = Reader(world.streams[shard]), 0
        while not self.stopping:
            world.pause(self.process, "sleep")
            yield MS
            items = yield from reader.read()
            yield MS
            fresh: list[Order] = []
            cancels: list[int] = []
            changed: list[VenueSwitch] = []
            if world.now_us >= look_at:
                look_at = world.now_us + SECOND
                with database.read() as connection:
                    fresh = stored.queued(connection, shard, 2_000)
                    cancels = stored.cancels(connection, shard)
                    now_on = switches(connection)
                changed = [VenueSwitch(name, on) for name, on in now_on.items() if known.get(name, True) is not on]
                known = now_on
                yield MS
            yield from self._step(book, items=items, switches=changed, cancels=cancels, orders=fresh)
            yield 100 * MS

    def _step(self, book: Book, **inputs: Any) -> Acts:
        bound = self.world.random.choice((2, 500))
        self.journal.append((self.world.now_us, inputs.get("items", ())))
        result = book.step(self.world.now_us, **inputs, outcomes_max=bound)
        while True:
            if result.outcomes:
                self.world.pause(self.process, "hang")
                yield MS
                self.commit(result)
                yield MS
            if not result.more:
                return
            result = book.step(self.world.now_us, outcomes_max=bound)

    def commit(self, result: StepResult) -> None:
        """Commit what a step did; any error ends the loop and drops the book."""
        commit_outcomes(
            self.world.database, self.lease, self.number, result.outcomes, result.levels, market=Market.SIMULATED
        )
        self.number += len(result.outcomes)
        self.world.counts["committed"] += 1


class Keeper:
    """An owner's leases, and a loop for each."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.loops: dict[int, Loop] = {}
        self.process = Process(name)
        self.renewed_at = world.now_us

    def start(self, after: int = 0) -> None:
        self.world.spawn(self.process, self._acts(), after)

    def _acts(self) -> Acts:
        world = self.world
        while True:
            try:
                yield from self._tick()
            except CrossfillError:
                if world.now_us - self.renewed_at > LEASE:
                    yield from self._drop(list(self.loops))
            if world.chance("kill"):
                # With all its loops; another worker is started sooner or later.
                self.process.dead = True
                Keeper(world, f"{self.name}'").start(after=world.random.choice((SECOND, 6 * SECOND)))
            yield 1_500 * MS

    def _tick(self) -> Acts:
        world = self.world
        until = world.now_us + LEASE  # the database's clock cannot be behind by the time it answers
        kept = renew(world.database, [loop.lease for loop in self.loops.values()], LEASE)
        self.renewed_at = world.now_us
        for lease in kept:
            world.leases[lease.shard] = (lease, until)
        yield MS
        shards_kept = {lease.shard for lease in kept}
        yield from self._drop([shard for shard in self.loops if shard not in shards_kept])
        yield from self._give_back([shard for shard, loop in self.loops.items() if not loop.alive])
        if self.loops and world.chance("hand over"):
            yield from self._give_back(sorted(self.loops)[:1])
            yield world.random.choice((MS, 3 * SECOND))
        elif len(self.loops) < len(SHARD_OF) and (not self.loops or not world.chance("idle")):
            self._claim()

    def _claim(self) -> None:
        world = self.world
        until = world.now_us + LEASE
        for lease in claim(world.database, self.name, 1, LEASE):
            before = world.leases.get(lease.shard)
            if before is not None and before[1] > world.now_us:
                world.violations.append(f"a running lease was overtaken: {before[0]} by {lease}")
            world.leases[lease.shard] = (lease, until)
            world.counts["claimed"] += 1
            make = world.plan.loop or Loop
            loop = self.loops[lease.shard] = make(world, lease, self.process)
            world.spawn(self.process, loop.acts())

    def _drop(self, gone: list[int]) -> Acts:
        """Stop loops, and wait a while for the step at hand: one that hangs is left to itself."""
        stopped = [self.loops.pop(shard) for shard in gone]
        for loop in stopped:
            loop.stopping = True
        limit = self.world.now_us + 10 * SECOND
        while any(loop.alive for loop in stopped) and self.world.now_us < limit:
            yield 200 * MS

    def _give_back(self, gone: list[int]) -> Acts:
        leases = [self.loops[shard].lease for shard in gone]
        yield from self._drop(gone)
        for lease in leases:
            held = self.world.leases.get(lease.shard)
            if held is not None and held[0] == lease:
                del self.world.leases[lease.shard]
        try:
            release(self.world.database, leases)
        except CrossfillError:
            return


def client(world: World, owner: str) -> Acts:
    """Place orders and cancel some; repeat what was not answered."""
    random = world.random
    placed: list[str] = []
    while world.chaos:
        order = _draw_order(world, owner)
        while True:
            try:
                [answer] = accept(world.database, [order])
                # The API is killed between its commit and its 202 now and then.
                answered = not world.chance("answer lost")
            except CrossfillError:
                answered = False
            if answered:
                assert isinstance(answer, Accepted)
                world.promised.append((owner, answer.order_id))
                placed.append(answer.order_id)
                world.counts["key seen again"] += answer.existing
                break
            if order.idempotency_key is None:
                break
            yield random.choice((50 * MS, SECOND))
            key = order.idempotency_key if world.plan.keys else None
            order = replace(order, id=world.next_id(), job_id=world.next_id(), idempotency_key=key)
        if placed and random.random() < 0.2:
            try:
                request_cancel(world.database, owner, random.choice(placed[-5:]), world.now_us)
            except CrossfillError:
                world.counts["cancel failed"] += 1
        yield random.choice((50 * MS, 200 * MS, 700 * MS))


def _draw_order(world: World, owner: str) -> NewOrder:
    random = world.random
    symbol, side = random.choice(list(SHARD_OF)), random.choice(list(Side))
    word = random.choice(world.words)
    timeout = random.choice((SECOND, 3 * SECOND, 8 * SECOND, 20 * SECOND)) if word is TimeInForce.GTD else None
    request = f"{owner}-{world.next_id()}"
    key = request if random.random() < 0.7 else None
    if key is not None:
        world.requests.add(request)
    return NewOrder(
        id=world.next_id(),
        job_id=world.next_id(),
        owner_id=owner,
        shard=SHARD_OF[symbol],
        symbol=symbol,
        side=side,
        # Most take whatever there is, and together more than there is: what is sold twice shows at once.
        price=random.choice((10, 10, 11, 13) if side is Side.SELL else (14, 14, 13, 11)) * TICK,
        size=Decimal(random.choice((1, 3, 12, 40))),
        time_in_force=word,
        venues=random.choice((None, None, None, ("binance",), ("coinbase",))),
        client_order_id=None,
        market=Market.SIMULATED.value,
        created_us=world.now_us,
        deadline_us=None if timeout is None else world.now_us + timeout,
        idempotency_key=key,
        fingerprint=request,
        task_id=request,  # the same for each repetition: by it a request that became two orders is seen
    )


def make_template(path: Path) -> Path:
    """Make a database with two shards, two venues and two owners, to be copied for each seed."""
    url = f"sqlite:///{path}"
    migrate(url)
    database = Database.open(url)
    fix_shards(database, len(SHARD_OF))
    ensure_venues(database, PRODUCTS)
    for name in CLIENTS:
        ensure_owner(database, name, "user", f"token of {name}")
    database.close()
    return path
