"""Connections to Redis: a command is tried once, and a connection that has ended is not what it is tried on."""

import asyncio
import contextlib
import socketserver
import threading
from collections.abc import Iterator

import pytest
import redis

from models.bus.client import connect, connect_async


class _Refusing(socketserver.ThreadingTCPServer):
    """Ends each connection with the first word that comes, and counts them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Ending)
        self.asked = 0


class _Ending(socketserver.BaseRequestHandler):
    server: _Refusing

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.server.asked += bool(self.request.recv(1))


@pytest.fixture
def refusing() -> Iterator[_Refusing]:
    with _Refusing() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_command_that_fails_is_not_tried_again(refusing: _Refusing) -> None:
    """By neither client: the library would try ten times, with pauses, and who called knows better."""
    url = f"redis://127.0.0.1:{refusing.server_address[1]}/0"

    async def ask() -> None:
        async with connect_async(url) as client:
            with pytest.raises(redis.ConnectionError):
                await client.get("x")

    asyncio.run(ask())
    assert refusing.asked == 1
    with connect(url) as client, pytest.raises(redis.ConnectionError):
        client.get("x")
    assert refusing.asked == 2


def test_a_connection_that_was_ended_meanwhile_is_replaced(redis_url: str) -> None:
    """As after a restart of Redis: the next command costs a connection and no error."""

    async def ask() -> None:
        async with connect_async(redis_url) as client:
            await client.set("x", 1)
            with connect(redis_url) as other:
                other.get("x")
                async with connect_async(redis_url) as third:
                    await third.client_kill_filter(_type="normal", skipme=True)
                [connection] = client.connection_pool._available_connections
                assert connection._reader is not None
                while not connection._reader.at_eof():  # noqa: ASYNC110 -- nothing tells of it
                    await asyncio.sleep(0.01)  # until what happened has come here
                assert await client.get("x") == b"1"
                assert other.get("x") == b"1"

    asyncio.run(ask())
