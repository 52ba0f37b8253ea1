"""What a service holds while it runs: a database pool, a cache, connections to its peers.

All of it can be closed and opened again (`close`, `open`): between two trials of a study the mesh changes
beneath the connections, and each trial begins with none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from meshwise.service.bank.cache import Cache
from meshwise.service.bank.calls import Answer, Origin, PeerClient, Unreachable, origin_of_task
from meshwise.service.bank.spec import BankService, BankSpec
from meshwise.service.bank.tracing import CallTracing, tracing_of, without_context
from meshwise.study.bank import Stores

_CLOSE_S = 3.0


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Nothing is left in a session by a service, so a pool need not ask for its reset (a round trip each)."""

    def get_reset_query(self) -> str:
        return ""


class Peers:
    """Calls other services in the protocol, and with the headers, of the request that is being served."""

    def __init__(self, spec: BankSpec, tracing: CallTracing) -> None:
        self._tracing = tracing
        self._callers = {
            protocol: PeerClient(
                protocol,
                {service: f"{peer.address}:{peer.ports[protocol]}" for service, peer in spec.peers.items()},
                spec.deadline_s,
                {
                    service: f"{peer.host}:{peer.ports[protocol]}"
                    for service, peer in spec.peers.items()
                    if peer.host
                },
            )
            for protocol in spec.ports
        }
        self.latest = Origin(next(iter(spec.ports)))
        """Of the last request; for what is done in the background."""

    async def call(self, service: BankService, method: str, body: Mapping[str, Any]) -> Answer:
        """Raises Unreachable."""
        origin = origin_of_task()
        headers = without_context(self.latest.headers) if origin is None else origin.headers
        caller = self._callers[(origin or self.latest).protocol]
        with self._tracing.client(service, headers) as sent:
            return await caller.call(service, method, body, sent)

    async def open(self, stack: AsyncExitStack) -> None:
        for caller in self._callers.values():
            await stack.enter_async_context(caller)


class Resources:
    """See the head of the file. `pool` and `cache` raise Unreachable while it is closed."""

    def __init__(self, spec: BankSpec) -> None:
        self.spec = spec
        self.tracing = tracing_of(spec)
        self.peers = Peers(spec, self.tracing)
        self._pool: Any = None
        self._cache: Cache | None = None
        self._stack = AsyncExitStack()

    @property
    def pool(self) -> Any:
        if self._pool is None:
            raise Unreachable(f"{self.spec.service} rests")
        return self._pool

    @property
    def cache(self) -> Cache:
        if self._cache is None:
            raise Unreachable(f"{self.spec.service} rests")
        return self._cache

    async def open(self, way: Stores) -> None:
        """Nothing is dialled yet: stores and peers may start later than the service, or again."""
        await self.close()
        latest, self.peers = self.peers.latest, Peers(self.spec, self.tracing)
        self.peers.latest = latest
        await self.peers.open(self._stack)
        urls = self.spec.stores.get(way)
        if urls and urls.postgres:
            self._pool = await asyncpg.create_pool(
                urls.postgres,
                min_size=0,
                max_size=self.spec.pool,
                command_timeout=self.spec.deadline_s,
                timeout=self.spec.deadline_s,
                connection_class=_Connection,
            )
        if urls and urls.redis:
            self._cache = Cache(urls.redis, self.spec.cache_ttl_s)

    async def close(self) -> None:
        """Every connection is closed on return; what is under way may end, for 3 s."""
        pool, cache = self._pool, self._cache
        self._pool = self._cache = None
        if pool is not None:
            try:
                await asyncio.wait_for(pool.close(), _CLOSE_S)
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()
        if cache is not None:
            await cache.close()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()
