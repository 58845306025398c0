"""A simulated venue inside the test, with faults and timing at hand."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from models.domain.instruments import INSTRUMENTS
from simulator.market import Market
from simulator.replay import Replay
from simulator.server import Venue, drive
from simulator.wire import Timing, Wire


@dataclass
class Running:
    """A venue that listens, in a thread of its own."""

    venue: Venue
    url: str
    loop: asyncio.AbstractEventLoop

    def inject(self, fault: str, **options: float) -> None:
        """Let a fault begin, in the venue's thread."""
        done = threading.Event()

        def inject() -> None:
            self.venue.faults.inject(fault, **options)  # type: ignore[arg-type] # `count` is a whole number here
            done.set()

        self.loop.call_soon_threadsafe(inject)
        assert done.wait(5)


@contextmanager
def running(
    wire: Wire, replay: Replay | None = None, timing: Timing | None = None, start_us: int = 0
) -> Iterator[Running]:
    """Run a venue, synthetic or from a replay, on a free port."""
    market = Market(INSTRUMENTS, [] if replay else [wire.name], 7, start_us)
    venue = Venue(wire, replay or market.of_venue(wire.name), timing)
    ready = threading.Event()
    found: list[Running] = []
    stop: list[Callable[[], object]] = []

    async def serve() -> None:
        server = await venue.listen(0)
        driving = asyncio.create_task(drive(market, [venue]))
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        port = next(iter(server.sockets)).getsockname()[1]
        found.append(Running(venue, f"ws://127.0.0.1:{port}", loop))
        ready.set()
        await stopped.wait()
        driving.cancel()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield found[0]
    finally:
        stop[0]()
        thread.join(10)
        assert not thread.is_alive()
