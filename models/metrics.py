"""Metrics as Prometheus reads them. Each process has a registry of its own, made in its bootstrap and handed on.

The text is that of Prometheus 0.0.4, or of OpenMetrics where that is asked for. docs/metrics.md lists them all.
"""

import contextlib
import hmac
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from typing import Any, ClassVar

import structlog
from prometheus_client import CollectorRegistry, GCCollector, Info, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from models.settings import Settings

PATH = "/metrics"
# From a step of the book in microseconds to a commit that waits for a lock for as long as it may.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
RETRY_S = 5.0
REQUEST_S = 5.0  # for so long a client may take to ask

log = structlog.get_logger()


def new_registry(kind: str, settings: Settings) -> CollectorRegistry:
    """Return a process's registry, with what every process tells of itself."""
    disable_created_metrics()  # type: ignore[no-untyped-call] # the library forgot; it ends a second series for each, which says no more than the process's start
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    told = Info("crossfill_process", "What this process is, and which market its prices come from.", registry=registry)
    told.info({"kind": kind, "market": settings.market.value})
    return registry


def exposition(collected: Collector, accept: str | None) -> tuple[bytes, str]:
    """Return the text, and its content type."""
    encode, content_type = choose_encoder(accept or "")
    return encode(collected), content_type


def refusal(settings: Settings, authorization: str | None) -> tuple[int, str] | None:
    """Return why a request may not read metrics, as a status and a sentence; None where it may.

    With CROSSFILL_METRICS_TOKEN everybody gives it. Without, whoever reaches the loopback address may read.
    """
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else ""
    if not token:
        if is_loopback(settings.host):
            return None
        return 403, f"{settings.host} is not the loopback address: set CROSSFILL_METRICS_TOKEN to open {PATH} there"
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode()):
        return None
    return 401, "give the token: `Authorization: Bearer TOKEN`; it is CROSSFILL_METRICS_TOKEN of this process"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host of the settings."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Families(Collector):
    """What is told when it is asked for, and not counted all the time."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """Return what is true now."""
        return self._collect()


class Listener:
    """Serves /metrics of a process that has no HTTP server, on a thread of its own; nothing where the port is 0.

    Where the port is taken it tries again: a worker does not end for want of its metrics.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self._server: socketserver.TCPServer | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin."""
        if self._settings.metrics_port:
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
        if self._thread.is_alive():
            self._thread.join(REQUEST_S)

    def _run(self) -> None:
        warned = False
        while not self._stopping.is_set():
            try:
                self._server = _server(self._settings, self._registry)
            except OSError as error:
                if not warned:
                    log.warning("metrics cannot be served", port=self._settings.metrics_port, error=str(error))
                warned = True
                self._stopping.wait(RETRY_S)
                continue
            with self._server:
                if not self._stopping.is_set():
                    self._server.serve_forever()
            return


def _server(settings: Settings, registry: CollectorRegistry) -> socketserver.TCPServer:
    host, port = settings.host, settings.metrics_port

    # Not http.server's own class, which asks the name service what this machine is called.
    class Server(socketserver.ThreadingTCPServer):
        address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        allow_reuse_address = True
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 -- the library's signature
            """A client that goes away is its own affair."""

    class Handler(_Handler):
        asked = settings
        registry_ = registry

    return Server((host, port), Handler)


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_S
    asked: ClassVar[Settings]
    registry_: ClassVar[CollectorRegistry]

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self._answer(404, f"there is only {PATH}\n".encode())
        elif refused := refusal(self.asked, self.headers.get("Authorization")):
            self._answer(refused[0], f"{refused[1]}\n".encode())
        else:
            self._answer(200, *exposition(self.registry_, self.headers.get("Accept")))

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == 401:  # noqa: PLR2004 -- RFC 9110, section 15.5.2: it names the scheme
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
