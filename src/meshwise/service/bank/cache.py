"""Read-through with invalidation, on Redis.

Rules of this file:
- A reader that loaded a value before a change must not store it after the change. So each key has a mark
  beside it that every invalidation renews, and a value is stored only if the mark is what it was before the
  load.
- The cache may fail; then the database answers. An invalidation that fails is logged, and a stale value
  lives at most `ttl_s`: cache and database are two systems, and no transaction spans them.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio
import redis.exceptions

log = logging.getLogger(__name__)

_STORE_IF_UNCHANGED = """
local mark = redis.call('GET', KEYS[2]) or ''
if mark == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) return 1 end
return 0
"""
_INVALIDATE = """
for _, key in ipairs(KEYS) do
  redis.call('SET', key .. '/mark', ARGV[1], 'EX', ARGV[2])
  redis.call('DEL', key)
end
return 0
"""
_MARK_S = 3600
_TIMEOUT_S = 1.0


class Cache:
    """Values by key. `close` it at the end."""

    def __init__(self, url: str, ttl_s: int) -> None:
        self._redis: Any = redis.asyncio.Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
        )
        self._store: Any = self._redis.register_script(_STORE_IF_UNCHANGED)
        self._invalidate: Any = self._redis.register_script(_INVALIDATE)
        self._ttl_s = ttl_s
        self.hits = 0
        self.misses = 0

    async def read(self, key: str, load: Callable[[], Awaitable[Any]]) -> Any:
        """The value of `key`, from the cache or from `load` (JSON; None is not stored)."""
        try:
            stored, mark = await self._redis.mget(key, f"{key}/mark")
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            log.warning("cache not readable: %r", error)
            return await load()
        if stored is not None:
            self.hits += 1
            return json.loads(stored)
        self.misses += 1
        value = await load()
        if value is not None:
            try:
                await self._store(
                    keys=[key, f"{key}/mark"], args=[mark or b"", json.dumps(value), self._ttl_s]
                )
            except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
                log.warning("cache not writable: %r", error)
        return value

    async def invalidate(self, *keys: str) -> None:
        """After the change was committed."""
        try:
            await self._invalidate(keys=keys, args=[secrets.token_hex(8), _MARK_S])
        except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
            log.warning("cache not invalidated, %s may be stale for %d s: %r", keys, self._ttl_s, error)

    async def close(self) -> None:
        await self._redis.aclose()


def profile_key(user: int) -> str:
    return f"profile:{user}"


def balance_key(account: int) -> str:
    return f"balance:{account}"
