"""edge: the only service that clients call. It keeps nothing; a statement asks four services at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from meshwise.service.bank import calls
from meshwise.service.bank.calls import Answer, Body
from meshwise.service.bank.mix import BankOperation
from meshwise.service.bank.resources import Resources
from meshwise.service.bank.serving import Handler
from meshwise.service.bank.spec import BankService

_STATEMENT = (
    (BankService.USERS, "profile"),
    (BankService.ACCOUNTS, "balance"),
    (BankService.TRANSACTIONS, "recent"),
    (BankService.NOTIFICATIONS, "recent"),
)


def handlers(held: Resources) -> Mapping[str, Handler]:
    async def profile(body: Body) -> Answer:
        return await held.peers.call(BankService.USERS, "profile", body)

    async def transfer(body: Body) -> Answer:
        return await held.peers.call(BankService.TRANSACTIONS, "transfer", body)

    async def notify(body: Body) -> Answer:
        return await held.peers.call(BankService.TRANSACTIONS, "notify", body)

    async def statement(body: Body) -> Answer:
        parts = await asyncio.gather(
            *(held.peers.call(service, method, body) for service, method in _STATEMENT)
        )
        for part in parts:
            if not part.ok:
                return part
        return Answer(calls.OK, {name: value for part in parts for name, value in part.body.items()})

    return {
        BankOperation.PROFILE: profile,
        BankOperation.TRANSFER: transfer,
        BankOperation.NOTIFY: notify,
        BankOperation.STATEMENT: statement,
    }
