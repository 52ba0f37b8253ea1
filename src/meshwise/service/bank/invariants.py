"""After a run: does the bank's book agree with itself and with what its clients were told?

Rules of this file:
- `judge` is pure: the books and the clients' log in, violations in words out. No violation is explained away.
- Only what a client was told binds the bank. A transfer whose outcome the client never learnt may have
  happened, but at most once, and the books must add up with it.
- The books are read when every saga has ended (`settled`); one that does not end is a violation.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from meshwise.service.bank import calls
from meshwise.service.bank.domain import Hold, SagaState, Transfer, TransferOutcome, return_key
from meshwise.service.bank.mix import BankOperation, BankRequest


@dataclass(frozen=True)
class Books:
    """What the database says."""

    balances: Mapping[int, int]
    allowances: Mapping[int, int]
    transfers: Mapping[str, tuple[Transfer, TransferOutcome]]
    sagas: Mapping[str, tuple[Transfer, SagaState]]
    reservations: Mapping[str, tuple[int, int, Hold]]
    """By saga: user, amount, state."""
    notifications: Mapping[str, Hold]


@dataclass(frozen=True)
class ClientAnswer:
    """What a client asked and was told; status 0: nothing."""

    request: BankRequest
    status: int


@dataclass(frozen=True)
class BooksVerdict:
    violations: tuple[str, ...]
    acknowledged: int
    """Transfers and sagas whose outcome a client was told."""
    unknown: int
    moved: int
    """Transfers in the books, without returns."""
    compensated: int


def judge(books: Books, answers: Sequence[ClientAnswer], balance: int, allowance: int) -> BooksVerdict:
    """`balance` and `allowance`: what every account and user began with, in cents."""
    asked = [each for each in answers if each.request.operation.moves_money]
    violations = [
        *_money(books, balance),
        *_allowances(books, allowance),
        *_sagas(books),
        *_unasked(books, {each.request.key for each in asked}),
        *(words for each in asked for words in _compared(books, each)),
    ]
    return BooksVerdict(
        tuple(violations),
        acknowledged=sum(each.status in (calls.OK, calls.REFUSED) for each in asked),
        unknown=sum(each.status not in (calls.OK, calls.REFUSED) for each in asked),
        moved=sum(
            outcome is TransferOutcome.MOVED and not key.endswith("/return")
            for key, (_, outcome) in books.transfers.items()
        ),
        compensated=sum(state is SagaState.COMPENSATED for _, state in books.sagas.values()),
    )


def _money(books: Books, balance: int) -> Iterable[str]:
    total = sum(books.balances.values())
    start = balance * len(books.balances)
    if total != start:
        yield f"money is not conserved: {total} cents in the accounts, {start} at the start"
    flow: Counter[int] = Counter()
    for transfer, outcome in books.transfers.values():
        if outcome is TransferOutcome.MOVED:
            flow[transfer.source] -= transfer.amount
            flow[transfer.target] += transfer.amount
    for account, has in books.balances.items():
        if has != balance + flow[account]:
            yield f"account {account} has {has}, its transfers say {balance + flow[account]}"


def _allowances(books: Books, allowance: int) -> Iterable[str]:
    held: Counter[int] = Counter()
    for user, amount, hold in books.reservations.values():
        if hold is Hold.HELD:
            held[user] += amount
    for user, left in books.allowances.items():
        if left != allowance - held[user]:
            yield f"user {user} has the allowance {left}, the reservations say {allowance - held[user]}"


def _sagas(books: Books) -> Iterable[str]:
    for key, (_, state) in books.sagas.items():
        moved = _moved(books, key)
        returned = _moved(books, return_key(key))
        reserved = key in books.reservations and books.reservations[key][2] is Hold.HELD
        notified = books.notifications.get(key) is Hold.HELD
        if not state.ended:
            yield f"saga {key} did not end: {state}"
        elif state is SagaState.COMPLETED and not (moved and reserved and notified and not returned):
            yield f"saga {key} completed, but {moved=} {returned=} {reserved=} {notified=}"
        elif state is SagaState.COMPENSATED and (moved != returned or reserved or notified):
            yield f"saga {key} was compensated, but {moved=} {returned=} {reserved=} {notified=}"


def _unasked(books: Books, keys: set[str]) -> Iterable[str]:
    for key in books.transfers:
        if key.removesuffix("/return") not in keys:
            yield f"the books have the transfer {key}, which no client asked for"


def _compared(books: Books, answer: ClientAnswer) -> Iterable[str]:
    """What one client was told, against the books."""
    request, key = answer.request, answer.request.key
    if answer.status not in (calls.OK, calls.REFUSED):
        return
    saga = request.operation is BankOperation.NOTIFY
    if saga and key not in books.sagas:
        yield f"saga {key} was acknowledged and is lost"
        return
    if saga:
        happened = books.sagas[key][1] is SagaState.COMPLETED
    elif key not in books.transfers:
        yield f"transfer {key} was acknowledged and is lost"
        return
    else:
        happened = _moved(books, key)
    if happened != (answer.status == calls.OK):
        yield f"{request.operation} {key}: the client was told {answer.status}, the books say {happened=}"
    stored = books.transfers.get(key)
    if stored and stored[0] != Transfer(key, request.user, request.target, request.amount):
        yield f"transfer {key} has other terms than the client asked: {stored[0]}"


def _moved(books: Books, key: str) -> bool:
    return key in books.transfers and books.transfers[key][1] is TransferOutcome.MOVED


# --- reading ----------------------------------------------------------------------------------


async def settled(url: str, timeout_s: float) -> bool:
    """Wait until every saga has ended; False if one has not after `timeout_s`."""
    connection: Any = await asyncpg.connect(url)
    try:
        until = time.monotonic() + timeout_s
        while await connection.fetchval(
            "SELECT count(*) FROM sagas WHERE state NOT IN ('completed', 'compensated')"
        ):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.2)
        return True
    finally:
        await connection.close()


async def read_books(url: str) -> Books:
    """All of it, in one snapshot."""
    connection: Any = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            users = await connection.fetch("SELECT id, allowance FROM users")
            accounts = await connection.fetch("SELECT id, balance FROM accounts")
            transfers = await connection.fetch("SELECT * FROM transfers")
            sagas = await connection.fetch("SELECT * FROM sagas")
            reservations = await connection.fetch("SELECT * FROM reservations")
            notifications = await connection.fetch("SELECT saga, hold FROM notifications")
    finally:
        await connection.close()
    return Books(
        balances={row["id"]: row["balance"] for row in accounts},
        allowances={row["id"]: row["allowance"] for row in users},
        transfers={row["key"]: (_terms(row), TransferOutcome(row["outcome"])) for row in transfers},
        sagas={row["key"]: (_terms(row), SagaState(row["state"])) for row in sagas},
        reservations={
            row["saga"]: (row["user_id"], row["amount"], Hold(row["hold"])) for row in reservations
        },
        notifications={row["saga"]: Hold(row["hold"]) for row in notifications},
    )


def _terms(row: Any) -> Transfer:
    return Transfer(row["key"], row["source"], row["target"], row["amount"])
