"""Connections to Redis, each with time limits: without them a silent server is waited for for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from models.domain.errors import CrossfillError


class BusUnavailableError(CrossfillError):
    """Redis cannot be reached, or does not answer."""

    retryable = True

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"Redis is not available: {cause}")


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, 3),
        "socket_keepalive": True,
        "health_check_interval": 10,
        # With them the library's pools hand out connections that have ended meanwhile, and a command fails.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def connect(url: str, *, timeout_s: float = 5) -> redis.Redis:
    """Return a client that answers in bytes and never retries by itself; it connects when first used."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_options(timeout_s))


def connect_async(url: str, *, timeout_s: float = 5) -> redis.asyncio.Redis:
    """Return the same for asyncio."""
    return redis.asyncio.Redis.from_url(url, retry=redis.asyncio.retry.Retry(NoBackoff(), 0), **_options(timeout_s))


@contextmanager
def failures() -> Iterator[None]:
    """Turn the client's errors into BusUnavailableError."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise BusUnavailableError(error) from error
