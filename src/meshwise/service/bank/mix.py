"""What clients ask for: operations with weights, drawn from a seed. Pure.

`profile` reads a user (cache); `transfer` moves money in one database transaction; `notify` is a transfer as
a saga over users, transactions and notifications; `statement` gathers from four services at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from meshwise.study.bank import DEFAULT_WEIGHTS as DEFAULT_WEIGHTS
from meshwise.study.bank import BankOperation as BankOperation


@dataclass(frozen=True)
class Mix:
    """Weights need not add up to anything. Raises ValueError for a negative weight or none above zero."""

    weights: Mapping[BankOperation, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    accounts: int = 1000
    """Users and accounts are numbered from 0; each user has the account of the same number."""
    largest_amount: int = 10_000
    """Cents; amounts are uniform from 1 to this."""

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.weights.values()) or not sum(self.weights.values()) > 0:
            raise ValueError("the weights of a mix are not negative, and one is above zero")
        if self.accounts < 2 or self.largest_amount < 1:
            raise ValueError("a mix needs two accounts and an amount of at least 1 cent")


@dataclass(frozen=True)
class BankRequest:
    """One request of a client."""

    operation: BankOperation
    user: int
    target: int = 0
    amount: int = 0
    key: str = ""
    """Idempotency key, of operations that move money."""

    def body(self) -> dict[str, object]:
        if self.operation.moves_money:
            return {"key": self.key, "source": self.user, "target": self.target, "amount": self.amount}
        return {"user": self.user}


def draw(mix: Mix, count: int, seed: int, run: str) -> list[BankRequest]:
    """`count` requests. Keys are unique within `run`; equal arguments give equal requests."""
    random = np.random.default_rng(seed)
    operations = list(mix.weights)
    shares = np.array([mix.weights[operation] for operation in operations], dtype=np.float64)
    chosen = random.choice(len(operations), size=count, p=shares / shares.sum())
    users = random.integers(0, mix.accounts, size=count)
    steps = random.integers(1, mix.accounts, size=count)
    amounts = random.integers(1, mix.largest_amount + 1, size=count)
    requests = []
    for number in range(count):
        operation = operations[int(chosen[number])]
        user = int(users[number])
        if operation.moves_money:
            target = (user + int(steps[number])) % mix.accounts
            request = BankRequest(operation, user, target, int(amounts[number]), f"{run}-{number}")
        else:
            request = BankRequest(operation, user)
        requests.append(request)
    return requests
