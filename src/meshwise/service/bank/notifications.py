"""notifications: delivered once for a saga, withdrawn when the saga is undone, listed for a statement."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.service.bank import calls, ledger
from meshwise.service.bank.calls import Answer, Body
from meshwise.service.bank.domain import Hold
from meshwise.service.bank.resources import Resources
from meshwise.service.bank.serving import Handler, number, text

RECENT = 10


def handlers(held: Resources) -> Mapping[str, Handler]:
    async def send(body: Body) -> Answer:
        saga, user, amount = text(body, "key"), number(body, "target"), number(body, "amount")
        words = f"{amount / 100:.2f} arrived from account {number(body, 'source')}"
        hold = await ledger.notify(held.pool, saga, user, words)
        return Answer(calls.OK if hold is Hold.HELD else calls.REFUSED, {"hold": hold})

    async def cancel(body: Body) -> Answer:
        async with held.pool.acquire() as connection, connection.transaction():
            await ledger.withdraw(connection, text(body, "key"), number(body, "target"))
        return Answer()

    async def recent(body: Body) -> Answer:
        rows = await held.pool.fetch(
            "SELECT saga, text FROM notifications WHERE user_id = $1 AND hold = 'held'"
            " ORDER BY at DESC LIMIT $2",
            *(number(body, "user"), RECENT),
        )
        return Answer(calls.OK, {"notifications": [dict(row) for row in rows]})

    return {"send": send, "cancel": cancel, "recent": recent}
