"""transactions: moves money, once per idempotency key, and drives the sagas, also those that an ended process
left.

Rules of this file:
- The answer follows the commit and the invalidation: who was told of a transfer also reads it.
- A step whose outcome is unknown is tried `attempts` times; then the saga is undone. A compensation that
  fails is left in its state, the client is told 503, and `take_up` goes on with it until it succeeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict

from meshwise.service.bank import calls, domain, ledger
from meshwise.service.bank.cache import balance_key
from meshwise.service.bank.calls import Answer, Body, Unreachable
from meshwise.service.bank.domain import ActionResult, SagaState, Transfer, TransferOutcome
from meshwise.service.bank.notifications import RECENT
from meshwise.service.bank.resources import Resources
from meshwise.service.bank.serving import STORE_ERRORS, BadRequest, Handler, number, text
from meshwise.service.bank.spec import BankService

log = logging.getLogger(__name__)

_STEPS: Mapping[SagaState, tuple[BankService, str]] = {
    SagaState.RESERVING: (BankService.USERS, "reserve"),
    SagaState.NOTIFYING: (BankService.NOTIFICATIONS, "send"),
    SagaState.CANCELLING: (BankService.NOTIFICATIONS, "cancel"),
    SagaState.RELEASING: (BankService.USERS, "release"),
}
_PAUSE_S = 0.1
_LOOK_EVERY_S = 1.0
_LEFT_BEHIND_S = 3.0
_AT_ONCE = 50


def handlers(held: Resources) -> Mapping[str, Handler]:
    async def transfer(body: Body) -> Answer:
        asked = _terms(body)
        outcome = await ledger.transfer(held.pool, asked)
        await _changed(held, asked)
        return Answer(calls.OK if outcome is TransferOutcome.MOVED else calls.REFUSED, {"outcome": outcome})

    async def notify(body: Body) -> Answer:
        state = await drive(held, _terms(body))
        if not state.ended:
            return Answer(calls.UNAVAILABLE, {"state": state, "error": "the saga is still being undone"})
        return Answer(calls.OK if state is SagaState.COMPLETED else calls.REFUSED, {"state": state})

    async def recent(body: Body) -> Answer:
        rows = await held.pool.fetch(
            "SELECT key, target, amount FROM transfers WHERE source = $1 AND outcome = 'moved'"
            " ORDER BY at DESC LIMIT $2",
            *(number(body, "user"), RECENT),
        )
        return Answer(calls.OK, {"transfers": [dict(row) for row in rows]})

    return {"transfer": transfer, "notify": notify, "recent": recent}


async def drive(held: Resources, asked: Transfer) -> SagaState:
    """Drive a saga to its end; the state it came to, which is not an end if a compensation failed."""
    state = await ledger.open_saga(held.pool, asked)
    while not state.ended:
        if state in (SagaState.MOVING, SagaState.RETURNING):
            state = await _book(held, asked, state)
            continue
        result = await _ask(held, asked, state)
        if result is not ActionResult.DONE and state.compensating:
            return state
        state = await ledger.advance_saga(held.pool, asked.key, state, domain.after(state, result))
    return state


async def take_up(held: Resources) -> None:
    """For ever: continue the sagas that an ended process or a lost peer left behind."""
    while True:
        try:
            left = await ledger.open_sagas(held.pool, _LEFT_BEHIND_S, _AT_ONCE)
            for saga in left:
                state = await drive(held, saga)
                log.info("saga %s taken up: %s", saga.key, state)
        except (*STORE_ERRORS, Unreachable) as error:
            log.info("sagas not taken up: %r", error)
        await asyncio.sleep(_LOOK_EVERY_S)


async def _book(held: Resources, asked: Transfer, state: SagaState) -> SagaState:
    """Money and state change in one transaction, so this step is never in doubt."""
    if state is SagaState.MOVING:
        following = await ledger.move_for_saga(held.pool, asked)
    else:
        async with held.pool.acquire() as connection, connection.transaction():
            await ledger.give_back(connection, asked)
            following = await ledger.advance_saga(
                connection, asked.key, state, domain.after(state, ActionResult.DONE)
            )
    await _changed(held, asked)
    return following


async def _ask(held: Resources, asked: Transfer, state: SagaState) -> ActionResult:
    """One step of another service, repeated while its outcome is unknown."""
    service, method = _STEPS[state]
    for attempt in range(held.spec.attempts):
        try:
            answer = await held.peers.call(service, method, asdict(asked))
        except Unreachable as error:
            log.info("%s of saga %s, attempt %d: %s", method, asked.key, attempt + 1, error)
            await asyncio.sleep(_PAUSE_S * 2**attempt)
        else:
            return ActionResult.DONE if answer.ok else ActionResult.REFUSED
    return ActionResult.GAVE_UP


async def _changed(held: Resources, moved: Transfer) -> None:
    await held.cache.invalidate(balance_key(moved.source), balance_key(moved.target))


def _terms(body: Body) -> Transfer:
    try:
        return Transfer(
            text(body, "key"), number(body, "source"), number(body, "target"), number(body, "amount")
        )
    except ValueError as error:
        raise BadRequest(str(error)) from error
