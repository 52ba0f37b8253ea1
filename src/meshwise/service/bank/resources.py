"""What a service holds while it runs: a database pool, a cache, connections to its peers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from meshwise.service.bank.cache import Cache
from meshwise.service.bank.calls import Caller
from meshwise.service.bank.spec import BankSpec


@dataclass(frozen=True)
class Resources:
    """`pool` and `cache` are None in a service whose spec names none."""

    spec: BankSpec
    peers: Caller
    pool: Any
    cache: Any


@asynccontextmanager
async def opened(spec: BankSpec) -> AsyncIterator[Resources]:
    """Nothing is dialled yet: stores and peers may start later than the service, or again."""
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(Caller(spec.protocol, spec.peers, spec.deadline_s))
        pool: Any = None
        if spec.postgres:
            pool = await asyncpg.create_pool(
                spec.postgres,
                min_size=0,
                max_size=spec.pool,
                command_timeout=spec.deadline_s,
                timeout=spec.deadline_s,
            )
            stack.callback(pool.terminate)
        cache = Cache(spec.redis, spec.cache_ttl_s) if spec.redis else None
        if cache:
            stack.push_async_callback(cache.close)
        yield Resources(spec, caller, pool, cache)
