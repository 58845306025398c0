"""Which of several collectors reads a venue: a lease in Redis, renewed with each mark.

It chooses, and proves nothing: two collectors that both believe are kept apart by the connection
tokens from the database.
"""

import redis

from models.bus.client import failures
from models.bus.names import venue_lease_key

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


class VenueLease:
    """One collector's claim to a venue."""

    def __init__(self, client: redis.Redis, venue: str, owner: str) -> None:
        self._client = client
        self._key = venue_lease_key(venue)
        self._owner = owner

    def hold(self) -> bool:
        """Take or renew the lease; return whether it is ours. Raises BusUnavailableError."""
        with failures():
            return bool(self._client.eval(_HOLD, 1, self._key, self._owner, str(LEASE_MS)))

    def release(self) -> None:
        """Give it back, so that a stand-by need not wait. Raises BusUnavailableError."""
        with failures():
            self._client.eval(_RELEASE, 1, self._key, self._owner)
