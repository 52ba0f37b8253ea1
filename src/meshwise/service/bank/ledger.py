"""The SQL of requests: a transfer, the stored states of sagas and of their steps. Tables: `schema`.

Rules of this file:
- The idempotency key is the primary key of `transfers`; the row is inserted first, so of two concurrent
  requests with one key the second waits for the first and then reads its decision.
- Accounts are locked in the order of their numbers: two opposite transfers cannot wait for each other.
- A saga's state changes only from the state that was read (compare and set): two that drive one saga do no
  harm.
- What happens in ordinary operation is one call of one function of the database (`schema`), hence one round
  trip and one transaction; what undoes is rare, and written here as statements.
"""

from __future__ import annotations

from typing import Any

from meshwise.service.bank import domain
from meshwise.service.bank.domain import ActionResult, Conflict, Hold, SagaState, Transfer, TransferOutcome

_CONFLICT = "conflict"


async def transfer(connection: Any, asked: Transfer, *, overdraft: bool = False) -> TransferOutcome:
    """Decide and book it, once for its key. Raises Conflict."""
    outcome = await connection.fetchval("SELECT book_transfer($1, $2, $3, $4, $5)", *_terms(asked), overdraft)
    return TransferOutcome(_no_conflict(outcome, asked))


async def move_for_saga(connection: Any, asked: Transfer) -> SagaState:
    """The step MOVING of a saga: money and state change together, so this step is never in doubt. Raises
    Conflict."""
    following = await connection.fetchval(
        "SELECT book_step($1, $2, $3, $4, $5, $6, $7)",
        *_terms(asked),
        SagaState.MOVING,
        domain.after(SagaState.MOVING, ActionResult.DONE),
        domain.after(SagaState.MOVING, ActionResult.REFUSED),
    )
    return SagaState(_no_conflict(following, asked))


async def give_back(connection: Any, moved: Transfer) -> None:
    """Undo a transfer, in the caller's transaction. One that was never decided is decided now: refused, so
    that a late one cannot move the money after all."""
    await connection.execute(
        "INSERT INTO transfers VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING",
        *(*_terms(moved), TransferOutcome.REFUSED),
    )
    stored = await connection.fetchval("SELECT outcome FROM transfers WHERE key = $1", moved.key)
    if TransferOutcome(stored) is TransferOutcome.MOVED:
        await transfer(connection, moved.returned(), overdraft=True)


async def open_saga(connection: Any, asked: Transfer) -> SagaState:
    """The stored state of the saga; a new one begins. Raises Conflict."""
    row = await connection.fetchrow(
        "SELECT * FROM open_saga($1, $2, $3, $4, $5)", *_terms(asked), SagaState.RESERVING
    )
    domain.same_terms(asked, Transfer(row["key"], row["source"], row["target"], row["amount"]))
    return SagaState(row["state"])


async def advance_saga(connection: Any, key: str, state: SagaState, following: SagaState) -> SagaState:
    """Store the next state and return it; if somebody else was faster, return what is stored."""
    return SagaState(await connection.fetchval("SELECT advance_saga($1, $2, $3)", key, state, following))


async def open_sagas(connection: Any, older_than_s: float, limit: int) -> list[Transfer]:
    """Sagas that have not been continued for a while."""
    rows = await connection.fetch(
        "SELECT * FROM sagas WHERE state NOT IN ('completed', 'compensated')"
        " AND at < now() - make_interval(secs => $1) ORDER BY at LIMIT $2",
        *(older_than_s, limit),
    )
    return [Transfer(row["key"], row["source"], row["target"], row["amount"]) for row in rows]


async def reserve(connection: Any, saga: str, user: int, amount: int) -> Hold:
    """Take `amount` from the user's allowance for a saga, once."""
    return Hold(await connection.fetchval("SELECT reserve($1, $2, $3)", saga, user, amount))


async def release(connection: Any, saga: str, user: int, amount: int) -> None:
    """Give it back, once. In the caller's transaction."""
    await connection.execute("SELECT 1 FROM users WHERE id = $1 FOR UPDATE", user)
    stored = await connection.fetchval("SELECT hold FROM reservations WHERE saga = $1", saga)
    left, give = domain.undo(None if stored is None else Hold(stored))
    await connection.execute(
        "INSERT INTO reservations VALUES ($1, $2, $3, $4) ON CONFLICT (saga) DO UPDATE SET hold = $4",
        *(saga, user, amount, left),
    )
    if give:
        await connection.execute("UPDATE users SET allowance = allowance + $2 WHERE id = $1", user, amount)


async def notify(connection: Any, saga: str, user: int, words: str) -> Hold:
    """Deliver a notification, once."""
    return Hold(await connection.fetchval("SELECT notify_user($1, $2, $3)", saga, user, words))


async def withdraw(connection: Any, saga: str, user: int) -> None:
    """Withdraw a notification; one that never arrived will not be delivered. In the caller's transaction."""
    await connection.execute(
        "INSERT INTO notifications VALUES ($1, $2, '', $3) ON CONFLICT (saga) DO NOTHING",
        *(saga, user, Hold.UNDONE),
    )
    stored = await connection.fetchval("SELECT hold FROM notifications WHERE saga = $1 FOR UPDATE", saga)
    await connection.execute(
        "UPDATE notifications SET hold = $2 WHERE saga = $1", saga, domain.undo(Hold(stored))[0]
    )


def _terms(asked: Transfer) -> tuple[str, int, int, int]:
    return asked.key, asked.source, asked.target, asked.amount


def _no_conflict(said: str, asked: Transfer) -> str:
    if said == _CONFLICT:
        raise Conflict(f"the key {asked.key} belongs to another transfer")
    return said
