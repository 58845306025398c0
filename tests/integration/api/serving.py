"""The API on a free port, in this process, as uvicorn runs it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from api.__main__ import KEEP_ALIVE_S
from api.app import create_app
from api.crowding import crowded
from api.orders import PLACE
from cli.valkey import free_port
from models.settings import Settings


@contextmanager
def serving(settings: Settings) -> Iterator[httpx.Client]:
    """Serve, and yield a client that is signed in."""
    port = free_port()
    app = create_app(settings)
    http = crowded(app, PLACE)
    config = uvicorn.Config(app, port=port, log_level="critical", http=http, timeout_keep_alive=KEEP_ALIVE_S)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        headers = {"Authorization": "Bearer secret"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=40) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(15)
