"""Which of several processes does what only one should: a lease in Redis, renewed all the time.

It chooses, and proves nothing: two collectors that both believe are kept apart by the connection
tokens from the database, two analysts by the position in the stream.
"""

import redis

from models.bus.client import failures

LEASE_MS = 1_500

_HOLD = """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0
"""


class BusLease:
    """One process's claim to what a key names."""

    def __init__(self, client: redis.Redis, key: str, owner: str) -> None:
        self._client = client
        self._key = key
        self._owner = owner

    def hold(self) -> bool:
        """Take or renew the lease; return whether it is ours. Raises BusUnavailableError."""
        with failures():
            return bool(self._client.eval(_HOLD, 1, self._key, self._owner, str(LEASE_MS)))

    def held(self) -> bool:
        """Say whether it is ours now, without renewing it. Raises BusUnavailableError."""
        with failures():
            return self._client.get(self._key) == self._owner.encode()

    def release(self) -> None:
        """Give it back, so that a stand-by need not wait. Raises BusUnavailableError."""
        with failures():
            self._client.eval(_RELEASE, 1, self._key, self._owner)
