"""Hints over a real Redis."""

import asyncio

import pytest

from models.bus import hints
from models.bus.client import BusUnavailableError, connect, connect_async


def test_a_hint_names_each_owner_once(redis_url: str) -> None:
    """Whoever listens is told; saying nothing is nothing."""

    async def listen() -> list[str]:
        client = connect_async(redis_url)
        publisher = connect(redis_url)
        try:
            stream = hints.subscribe(client)
            heard = asyncio.ensure_future(anext(stream))
            while not heard.done():
                await asyncio.to_thread(hints.publish, publisher, [])
                await asyncio.to_thread(hints.publish, publisher, ["bob", "alice", "bob"])
                await asyncio.wait([heard], timeout=0.05)
            await stream.aclose()  # type: ignore[attr-defined] # an async generator
            return heard.result()
        finally:
            publisher.close()
            await client.aclose()

    assert asyncio.run(listen()) == ["alice", "bob"]


def test_a_hint_that_cannot_be_sent_says_so() -> None:
    """The caller decides what a lost hint is worth: nothing, but a line in the log."""
    client = connect("redis://127.0.0.1:1/0", timeout_s=1)
    with pytest.raises(BusUnavailableError):
        hints.publish(client, ["alice"])
    client.close()
