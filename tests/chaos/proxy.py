"""A TCP proxy that can drop connections, delay what passes, and fall silent with them open."""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK = 65_536


class _Pair:
    """A client's connection and the one to the server that it stands for."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ends = (client, server)
        self.lost = False  # bytes were swallowed: it can only end

    def abort(self) -> None:
        for end in self.ends:
            end.transport.abort()


class Proxy:
    """Stands before a server on a port of its own, in a thread of its own.

    `cut_at` is looked for in what clients send: the piece that holds it still reaches the server, and
    the client is cut off before any answer, once.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.passed = 0  # bytes, both ways
        self.delay_s = 0.0
        self.cut_at: bytes | None = None
        self._refusing = False
        self._silent = False
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._run(asyncio.start_server(self._connected, sock=self._listener))

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._pairs)

    def drop(self) -> None:
        """Cut every connection, and each new one at once, until `heal`."""
        self._refusing = True
        self._loop.call_soon_threadsafe(self._abort_all)

    def sever(self) -> None:
        """Cut every connection; new ones are served."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def half_open(self) -> None:
        """Swallow what is sent, either way, with every connection left open, until `heal`."""
        self._silent = True

    def heal(self) -> None:
        """Serve again. A connection that lost bytes is reset, as by a peer that has forgotten it."""
        self._refusing = self._silent = False
        self.delay_s = 0.0
        self._loop.call_soon_threadsafe(lambda: self._abort_all(lost=True))

    def close(self) -> None:
        """End it."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        self.drop()  # whoever is just connecting too
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _abort_all(self, *, lost: bool = False) -> None:
        for pair in list(self._pairs):
            if pair.lost or not lost:
                pair.abort()

    async def _connected(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self._refusing:
            to_client.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            to_client.transport.abort()
            return
        pair = _Pair(to_client, to_server)
        if self._refusing:
            pair.abort()
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pass(pair, from_client, to_server, up=True), self._pass(pair, from_server, to_client, up=False)
            )
        finally:
            self._pairs.discard(pair)
            pair.abort()

    async def _pass(self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        cut = False
        try:
            while data := await reader.read(CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self._silent or pair.lost:
                    pair.lost = True
                    continue
                cut = up and self.cut_at is not None and self.cut_at in data
                if cut:
                    self.cut_at, pair.lost = None, True  # its answer is swallowed
                self.passed += len(data)
                writer.write(data)
                await writer.drain()
                if cut:
                    pair.ends[0].transport.abort()
                    break
            else:
                pair.lost = pair.lost or self._silent
            if not pair.lost or cut:
                writer.write_eof()
        except OSError:  # a reset, which the other end must hear of too: a killed client leaves one behind
            if not pair.lost:
                pair.abort()
