"""Sharing the shards: each fulfilment worker holds its even part of them, and takes over what others lose."""

import threading
import time
from collections.abc import Callable

import structlog

from models.domain.errors import CrossfillError
from models.store.database import Database
from models.store.shards import Lease, beat, claim, leave, processes_seen, release, renew, shards_count
from workers.fulfilment import FulfilmentLoop, clock_us

TICK_S = 1.0
SEEN_US = 5_000_000  # a worker that was not seen for so long does not count
# A loop whose commit hangs is left to itself: the shard's epoch refuses it.
LOOP_S_MAX = 10.0
STOP_S_MAX = 5.0  # a process must end within 8 s (cli/supervisor.py), whatever holds the database
KIND = "fulfilment"

log = structlog.get_logger()


class Leases:
    """Claims, renews and gives back leases, and runs a loop for each one held.

    `on_tick` is told the shards that are held, about once a second, from this object's own thread.
    """

    def __init__(
        self,
        database: Database,
        owner: str,
        lease_us: int,
        make_loop: Callable[[Lease], FulfilmentLoop],
        on_tick: Callable[[frozenset[int]], None],
    ) -> None:
        self._database = database
        self._owner = owner
        self._lease_us = lease_us
        self._make_loop = make_loop
        self._on_tick = on_tick
        self._loops: dict[int, FulfilmentLoop] = {}
        self._renewed_at = time.monotonic()
        self._started_us = clock_us()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Begin to claim shards."""
        self._thread.start()

    @property
    def loops(self) -> list[FulfilmentLoop]:
        """The loops of the shards that are held now."""
        return list(self._loops.values())

    def wake(self, shard: int) -> None:
        """Wake the loop of a shard, where it is ours."""
        loop = self._loops.get(shard)
        if loop is not None:
            loop.wake()

    def stop(self) -> None:
        """Finish the steps at hand and give every lease back; where that takes too long, leases run out."""
        self._stopping.set()
        for loop in self.loops:
            loop.halt()
        self._thread.join(STOP_S_MAX)

    def _run(self) -> None:
        while True:
            try:
                self._tick()
            except CrossfillError as error:
                log.warning("leases cannot be renewed", error=str(error))
                if time.monotonic() - self._renewed_at > self._lease_us / 1e6:
                    self._drop(list(self._loops))
            self._on_tick(frozenset(self._loops))
            if self._stopping.wait(TICK_S if self._loops else TICK_S / 4):
                break
        self._give_back(list(self._loops))
        try:
            leave(self._database, self._owner)
        except CrossfillError as error:
            log.warning("could not say good-bye", error=str(error))

    def _tick(self) -> None:
        beat(self._database, self._owner, KIND, self._started_us)
        leases = [loop.lease for loop in self._loops.values()]
        kept = {lease.shard for lease in renew(self._database, leases, self._lease_us)}
        self._renewed_at = time.monotonic()
        self._drop([shard for shard in self._loops if shard not in kept])
        self._give_back([shard for shard, loop in self._loops.items() if not loop.alive])
        self._share()

    def _share(self) -> None:
        """Hold as many shards as an even share comes to: claim what is free, give back what is too much."""
        with self._database.read() as connection:
            workers = processes_seen(connection, KIND, SEEN_US)
            shards = shards_count(connection)
        count = max(1, len(workers))
        place = workers.index(self._owner) if self._owner in workers else 0
        fair = shards // count + (1 if place < shards % count else 0)
        mine = len(self._loops)
        if mine > fair:
            self._give_back(sorted(self._loops)[fair:])
        elif mine < fair or not fair:
            # Where a share comes to nothing, a stand-by still takes what nobody holds.
            for lease in claim(self._database, self._owner, max(1, fair - mine), self._lease_us):
                loop = self._loops[lease.shard] = self._make_loop(lease)
                loop.start()

    def _drop(self, shards: list[int]) -> None:
        """Stop loops whose lease is lost: what they would commit is refused anyway."""
        stopped = [self._loops.pop(shard) for shard in shards]
        for loop in stopped:
            loop.halt()
        until = time.monotonic() + LOOP_S_MAX
        for loop in stopped:
            loop.stop(max(0.0, until - time.monotonic()))

    def _give_back(self, shards: list[int]) -> None:
        """Stop loops in order and free their shards for the next owner."""
        leases = [self._loops[shard].lease for shard in shards]
        self._drop(shards)
        try:
            release(self._database, leases)
        except CrossfillError as error:
            log.warning("leases could not be given back", error=str(error))
