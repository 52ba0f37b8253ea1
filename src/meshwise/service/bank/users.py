"""users: who they are (read through the cache) and how much they may still pay (reserved and released by
sagas)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwise.service.bank import calls, ledger
from meshwise.service.bank.cache import profile_key
from meshwise.service.bank.calls import Answer, Body
from meshwise.service.bank.domain import Hold
from meshwise.service.bank.resources import Resources
from meshwise.service.bank.serving import Handler, number, text


def handlers(held: Resources) -> Mapping[str, Handler]:
    async def profile(body: Body) -> Answer:
        user = number(body, "user")

        async def load() -> Any:
            row = await held.pool.fetchrow("SELECT name, muted, allowance FROM users WHERE id = $1", user)
            return None if row is None else {"user": user, **dict(row)}

        found = await held.cache.read(profile_key(user), load)
        return Answer(calls.OK, found) if found else Answer(calls.MISSING, {"error": f"no user {user}"})

    async def reserve(body: Body) -> Answer:
        saga, user, amount = text(body, "key"), number(body, "source"), number(body, "amount")
        hold = await ledger.reserve(held.pool, saga, user, amount)
        await held.cache.invalidate(profile_key(user))
        return Answer(calls.OK if hold is Hold.HELD else calls.REFUSED, {"hold": hold})

    async def release(body: Body) -> Answer:
        saga, user, amount = text(body, "key"), number(body, "source"), number(body, "amount")
        async with held.pool.acquire() as connection, connection.transaction():
            await ledger.release(connection, saga, user, amount)
        await held.cache.invalidate(profile_key(user))
        return Answer()

    return {"profile": profile, "reserve": reserve, "release": release}
