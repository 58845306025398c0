"""Kafka for tests: librdkafka's mock cluster in a process of its own (`python -m tests.kafka`).

It picks its ports and knows no create_topics (no controller answers); a topic is made by its first use, with four
partitions; a member that leaves its group is missed only when its session has run out. Before each broker stands a
proxy, so that a cluster that was killed comes again at the same addresses.
"""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import Producer

from tests.services import ROOT

BROKERS = 3

T = TypeVar("T")


class Kafka:
    """A cluster that can be killed, started again (empty), stopped and woken."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self._targets: list[int] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka proxies")
        self._thread.start()
        self._servers = [self._run(self._listen(place)) for place in range(BROKERS)]
        self.start()

    @property
    def brokers(self) -> str:
        """The addresses, as a client takes them."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self) -> None:
        """Start an empty cluster."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kafka"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        self._targets = [int(port) for port in self.process.stdout.readline().split()]
        assert len(self._targets) == BROKERS

    def kill(self) -> None:
        """Kill it, and with it all that it holds."""
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        """End cluster and proxies."""
        self.kill()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self, place: int) -> asyncio.Server:
        server = await asyncio.start_server(lambda *ends: self._pass(place, *ends), "127.0.0.1", 0)
        self.ports.append(next(iter(server.sockets)).getsockname()[1])
        return server

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        passing = asyncio.all_tasks() - {asyncio.current_task()}
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _pass(self, place: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._targets[place])
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        await asyncio.gather(self._copy(reader, forth), self._copy(back, writer, told=True))

    async def _copy(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, *, told: bool = False) -> None:
        """Pass bytes on. In what a broker says the addresses of all brokers become those of their proxies."""
        try:
            while piece := await source.read(65_536):
                if told:
                    for target, port in zip(self._targets, self.ports, strict=True):
                        piece = piece.replace(_address(target), _address(port))
                to.write(piece)
                await to.drain()
        except OSError:
            pass
        finally:
            to.transport.abort()


def _address(port: int) -> bytes:
    """Return how the protocol writes it: the host's text, and the port in four bytes."""
    return b"127.0.0.1" + port.to_bytes(4, "big")


@contextmanager
def running_kafka() -> Iterator[Kafka]:
    """Run a cluster; end it afterwards."""
    kafka = Kafka()
    try:
        yield kafka
    finally:
        kafka.close()


def main() -> None:
    """Be the cluster: tell the brokers' ports, and stay until standard input ends."""
    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": BROKERS, "log_level": 0})
    brokers = cluster.list_topics(timeout=10).brokers.values()
    print(*(broker.port for broker in brokers), flush=True)  # noqa: T201 -- the one who started it reads it
    sys.stdin.read()


if __name__ == "__main__":
    main()
