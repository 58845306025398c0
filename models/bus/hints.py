"""Hints: "look", and nothing more. A lost hint costs a second, because everyone looks once a second anyway."""

from collections.abc import AsyncIterator, Iterable

import redis
import redis.asyncio

from models.bus.client import failures
from models.bus.names import HINTS


def publish(client: redis.Redis, owner_ids: Iterable[str]) -> None:
    """Say that these owners have new events. Raises BusUnavailableError."""
    message = "\n".join(sorted(set(owner_ids)))
    if message:
        with failures():
            client.publish(HINTS, message)


async def subscribe(client: redis.asyncio.Redis) -> AsyncIterator[list[str]]:
    """Yield the owners of each hint, as it comes. Raises BusUnavailableError when the connection goes."""
    with failures():
        async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(HINTS)
            while True:
                message = await pubsub.get_message(timeout=5)
                if message is not None:
                    yield message["data"].decode().split("\n")
