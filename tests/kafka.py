"""Kafka for tests: librdkafka's mock cluster in a process of its own (`python -m tests.kafka`).

It picks its ports and knows no create_topics (no controller answers); a topic is made by its first use, with four
partitions; a member that leaves its group is missed only when its session has run out. Before each broker stands a
proxy, so that a cluster that was killed comes again at the same addresses.
"""

import contextlib
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from tests.services import ROOT

BROKERS = 3


class Proxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a broker; what the broker says is translated."""

    def __init__(self, translate: Callable[[bytes], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port: int = self.server_address[1]
        self.target = 0
        self.translate = translate
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        """End it, and every connection."""
        self.shutdown()
        self._thread.join()
        for each in list(self.open):
            _end(each)
        self.server_close()  # waits for the connections' threads


class _Passing(socketserver.BaseRequestHandler):
    server: Proxy
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server.target)) as broker:
            ends = {self.request, broker}
            self.server.open |= ends
            forth = threading.Thread(target=_copy, args=(self.request, broker, bytes))
            forth.start()
            _copy(broker, self.request, self.server.translate)
            forth.join()
            self.server.open -= ends


def _copy(source: socket.socket, to: socket.socket, translate: Callable[[bytes], bytes]) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            to.sendall(translate(piece))
    _end(source)
    _end(to)


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


class Kafka:
    """A cluster that can be killed, started again (empty), stopped and woken."""

    def __init__(self) -> None:
        self._proxies = [Proxy(self._translated) for _ in range(BROKERS)]
        self.start()

    @property
    def brokers(self) -> str:
        """The addresses, as a client takes them."""
        return ",".join(f"127.0.0.1:{proxy.port}" for proxy in self._proxies)

    def start(self) -> None:
        """Start an empty cluster."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kafka"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        ports = [int(port) for port in self.process.stdout.readline().split()]
        for proxy, port in zip(self._proxies, ports, strict=True):
            proxy.target = port

    def kill(self) -> None:
        """Kill it, and with it all that it holds."""
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        """End cluster and proxies."""
        self.kill()
        for proxy in self._proxies:
            proxy.close()

    def _translated(self, piece: bytes) -> bytes:
        """Put the proxies' addresses for those of the brokers, of which any broker tells all."""
        for proxy in self._proxies:
            piece = piece.replace(_address(proxy.target), _address(proxy.port))
        return piece


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
