"""The SQL: tables, the transfer in one transaction, the stored states of sagas and of their steps.

Laws of this file:
- The idempotency key is the primary key of `transfers`; the row is inserted first, so of two concurrent
  requests with one key the second waits for the first and then reads its decision.
- Accounts are locked in the order of their numbers: two opposite transfers cannot wait for each other.
- A saga's state changes only from the state that was read (compare and set): two that drive one saga do no
  harm.
"""

from __future__ import annotations

from typing import Any

import asyncpg

from meshwise.service.bank import domain
from meshwise.service.bank.domain import Hold, Outcome, State, Transfer

MUTED_EVERY = 50
"""Every so many users take no notifications: their sagas are compensated in ordinary operation."""

_SCHEMA = """
CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL, muted boolean NOT NULL,
                    allowance bigint NOT NULL);
CREATE TABLE reservations (saga text PRIMARY KEY, user_id bigint NOT NULL, amount bigint NOT NULL,
                           hold text NOT NULL);
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE transfers (key text PRIMARY KEY, source bigint NOT NULL, target bigint NOT NULL,
                        amount bigint NOT NULL, outcome text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON transfers (source, at);
CREATE TABLE sagas (key text PRIMARY KEY, source bigint NOT NULL, target bigint NOT NULL,
                    amount bigint NOT NULL, state text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON sagas (at) WHERE state NOT IN ('completed', 'compensated');
CREATE TABLE notifications (saga text PRIMARY KEY, user_id bigint NOT NULL, text text NOT NULL,
                            hold text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE INDEX ON notifications (user_id, at);
"""


async def prepare(url: str, accounts: int, balance: int, allowance: int) -> None:
    """Make the tables and fill them: every account with `balance` cents, every user with `allowance`."""
    connection: Any = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(_SCHEMA)
            await connection.execute(
                "INSERT INTO users SELECT n, 'user ' || n, n % $1 = $1 - 1, $2 FROM generate_series(0, $3) n",
                *(MUTED_EVERY, allowance, accounts - 1),
            )
            await connection.execute(
                "INSERT INTO accounts SELECT n, $1 FROM generate_series(0, $2) n", balance, accounts - 1
            )
    finally:
        await connection.close()


async def transfer(connection: Any, asked: Transfer, *, overdraft: bool = False) -> Outcome:
    """Decide and book it, once for its key, in the caller's transaction. Raises Conflict."""
    terms = (asked.key, asked.source, asked.target, asked.amount)
    new = await connection.fetchval(
        "INSERT INTO transfers VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING RETURNING 1",
        *(*terms, Outcome.MOVED),
    )
    if not new:
        row = await connection.fetchrow("SELECT * FROM transfers WHERE key = $1", asked.key)
        domain.same_terms(asked, Transfer(row["key"], row["source"], row["target"], row["amount"]))
        return Outcome(row["outcome"])
    rows = await connection.fetch(
        "SELECT id, balance FROM accounts WHERE id = ANY($1) ORDER BY id FOR UPDATE",
        [asked.source, asked.target],
    )
    balances = {row["id"]: row["balance"] for row in rows}
    outcome = domain.decide(asked, balances, overdraft=overdraft)
    if outcome is Outcome.REFUSED:
        await connection.execute("UPDATE transfers SET outcome = $2 WHERE key = $1", asked.key, outcome)
        return outcome
    booked = domain.book(asked, outcome, balances)
    await connection.execute(
        "UPDATE accounts a SET balance = n.balance FROM unnest($1::bigint[], $2::bigint[]) n(id, balance)"
        " WHERE a.id = n.id",
        *(list(booked), list(booked.values())),
    )
    return outcome


async def give_back(connection: Any, moved: Transfer) -> None:
    """Undo a transfer, in the caller's transaction. One that was never decided is decided now: refused, so
    that a late one cannot move the money after all."""
    await connection.execute(
        "INSERT INTO transfers VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING",
        *(moved.key, moved.source, moved.target, moved.amount, Outcome.REFUSED),
    )
    stored = await connection.fetchval("SELECT outcome FROM transfers WHERE key = $1", moved.key)
    if Outcome(stored) is Outcome.MOVED:
        await transfer(connection, moved.returned(), overdraft=True)


async def open_saga(connection: Any, asked: Transfer) -> State:
    """The stored state of the saga; a new one begins. Raises Conflict."""
    await connection.execute(
        "INSERT INTO sagas VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO NOTHING",
        *(asked.key, asked.source, asked.target, asked.amount, State.RESERVING),
    )
    row = await connection.fetchrow("SELECT * FROM sagas WHERE key = $1", asked.key)
    domain.same_terms(asked, Transfer(row["key"], row["source"], row["target"], row["amount"]))
    return State(row["state"])


async def advance_saga(connection: Any, key: str, state: State, following: State) -> State:
    """Store the next state and return it; if somebody else was faster, return what is stored."""
    done = await connection.fetchval(
        "UPDATE sagas SET state = $3, at = now() WHERE key = $1 AND state = $2 RETURNING state",
        *(key, state, following),
    )
    if done is None:
        done = await connection.fetchval("SELECT state FROM sagas WHERE key = $1", key)
    return State(done)


async def open_sagas(connection: Any, older_than_s: float, limit: int) -> list[Transfer]:
    """Sagas that nobody has driven on for a while."""
    rows = await connection.fetch(
        "SELECT * FROM sagas WHERE state NOT IN ('completed', 'compensated')"
        " AND at < now() - make_interval(secs => $1) ORDER BY at LIMIT $2",
        *(older_than_s, limit),
    )
    return [Transfer(row["key"], row["source"], row["target"], row["amount"]) for row in rows]


async def reserve(connection: Any, saga: str, user: int, amount: int) -> Hold:
    """Take `amount` from the user's allowance for a saga, once. In the caller's transaction."""
    allowance = await connection.fetchval("SELECT allowance FROM users WHERE id = $1 FOR UPDATE", user)
    stored = await connection.fetchval("SELECT hold FROM reservations WHERE saga = $1", saga)
    decided = domain.hold(
        None if stored is None else Hold(stored), possible=allowance is not None and allowance >= amount
    )
    if stored is None:
        await connection.execute(
            "INSERT INTO reservations VALUES ($1, $2, $3, $4)", saga, user, amount, decided
        )
        if decided is Hold.HELD:
            await connection.execute(
                "UPDATE users SET allowance = allowance - $2 WHERE id = $1", user, amount
            )
    return decided


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
    """Deliver a notification, once. In the caller's transaction."""
    muted = await connection.fetchval("SELECT muted FROM users WHERE id = $1", user)
    decided = domain.hold(None, possible=muted is False)
    stored = await connection.fetchval(
        "INSERT INTO notifications VALUES ($1, $2, $3, $4) ON CONFLICT (saga) DO NOTHING RETURNING hold",
        *(saga, user, words, decided),
    )
    if stored is None:
        stored = await connection.fetchval("SELECT hold FROM notifications WHERE saga = $1", saga)
    return domain.hold(Hold(stored), possible=True)


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
