"""One service of the bank, from its spec to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from meshwise.service.bank import accounts, edge, notifications, transactions, users
from meshwise.service.bank.control import controlled
from meshwise.service.bank.resources import Resources
from meshwise.service.bank.serving import Handler, serve, stop_asked
from meshwise.service.bank.spec import BankService, BankSpec
from meshwise.study.bank import Stores

_HANDLERS: Mapping[BankService, Callable[[Resources], Mapping[str, Handler]]] = {
    BankService.EDGE: edge.handlers,
    BankService.USERS: users.handlers,
    BankService.ACCOUNTS: accounts.handlers,
    BankService.TRANSACTIONS: transactions.handlers,
    BankService.NOTIFICATIONS: notifications.handlers,
}


async def run(spec: BankSpec) -> None:
    """Serve until SIGTERM."""
    stop = stop_asked()
    held = Resources(spec)
    try:
        if spec.begin:
            await held.open(Stores.MESHED)
        async with controlled(held), _background(held):
            await serve(held, _HANDLERS[spec.service](held), stop)
    finally:
        await held.close()
        await asyncio.to_thread(held.tracing.close)


@asynccontextmanager
async def _background(held: Resources) -> AsyncIterator[None]:
    if held.spec.service is not BankService.TRANSACTIONS:
        yield
        return
    task = asyncio.create_task(transactions.take_up(held))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
