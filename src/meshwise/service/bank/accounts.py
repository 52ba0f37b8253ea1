"""accounts: balances, read through the cache; `transactions` says when they changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwise.service.bank import calls
from meshwise.service.bank.cache import balance_key
from meshwise.service.bank.calls import Answer, Body
from meshwise.service.bank.resources import Resources
from meshwise.service.bank.serving import Handler, number


def handlers(held: Resources) -> Mapping[str, Handler]:
    async def balance(body: Body) -> Answer:
        account = number(body, "user")

        async def load() -> Any:
            return await held.pool.fetchval("SELECT balance FROM accounts WHERE id = $1", account)

        found = await held.cache.read(balance_key(account), load)
        if found is None:
            return Answer(calls.MISSING, {"error": f"no account {account}"})
        return Answer(calls.OK, {"account": account, "balance": found})

    return {"balance": balance}
