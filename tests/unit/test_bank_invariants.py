"""The judgement after a run finds every kind of damage; books that are whole pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

pytest.importorskip("asyncpg", reason="pip install 'meshwise[bank]'")

from meshwise.service.bank.domain import Hold, SagaState, Transfer, TransferOutcome
from meshwise.service.bank.invariants import Books, ClientAnswer, judge
from meshwise.service.bank.mix import BankOperation, BankRequest

PAID = Transfer("t", 0, 1, 30)
TOLD_OF = Transfer("n", 1, 2, 20)
BACK = Transfer("b", 2, 0, 10)

WHOLE = Books(
    balances={0: 70, 1: 110, 2: 120},
    allowances={0: 100, 1: 80, 2: 100},
    transfers={
        "t": (PAID, TransferOutcome.MOVED),
        "n": (TOLD_OF, TransferOutcome.MOVED),
        "b": (BACK, TransferOutcome.MOVED),
        "b/return": (BACK.returned(), TransferOutcome.MOVED),
    },
    sagas={"n": (TOLD_OF, SagaState.COMPLETED), "b": (BACK, SagaState.COMPENSATED)},
    reservations={"n": (1, 20, Hold.HELD), "b": (2, 10, Hold.UNDONE)},
    notifications={"n": Hold.HELD, "b": Hold.UNDONE},
)
ANSWERS = [
    ClientAnswer(BankRequest(BankOperation.TRANSFER, 0, 1, 30, "t"), 200),
    ClientAnswer(BankRequest(BankOperation.NOTIFY, 1, 2, 20, "n"), 200),
    ClientAnswer(BankRequest(BankOperation.NOTIFY, 2, 0, 10, "b"), 422),
    ClientAnswer(BankRequest(BankOperation.TRANSFER, 0, 1, 5, "never"), 0),
    ClientAnswer(BankRequest(BankOperation.PROFILE, 0), 200),
]


def test_whole_books_pass() -> None:
    verdict = judge(WHOLE, ANSWERS, 100, 100)
    assert verdict.violations == ()
    assert (verdict.acknowledged, verdict.unknown, verdict.moved, verdict.compensated) == (3, 1, 3, 1)


DAMAGES: dict[str, tuple[Callable[[Books], Books], str]] = {
    "money from nowhere": (lambda b: replace(b, balances={**b.balances, 0: 71}), "not conserved"),
    "money on the wrong account": (
        lambda b: replace(b, balances={0: 71, 1: 109, 2: 120}),
        "account 0 has 71",
    ),
    "a lost transfer": (
        lambda b: replace(
            b,
            balances={0: 100, 1: 80, 2: 120},
            transfers={key: value for key, value in b.transfers.items() if key != "t"},
        ),
        "transfer t was acknowledged and is lost",
    ),
    "a doubled transfer": (
        lambda b: replace(
            b,
            balances={0: 40, 1: 140, 2: 120},
            transfers={**b.transfers, "t2": (replace(PAID, key="t2"), TransferOutcome.MOVED)},
        ),
        "t2, which no client asked for",
    ),
    "an open saga": (
        lambda b: replace(b, sagas={**b.sagas, "b": (BACK, SagaState.RELEASING)}),
        "saga b did not end",
    ),
    "money not returned": (
        lambda b: replace(
            b,
            balances={0: 80, 1: 110, 2: 110},
            transfers={key: value for key, value in b.transfers.items() if key != "b/return"},
        ),
        "saga b was compensated, but moved=True returned=False",
    ),
    "a notification that was not withdrawn": (
        lambda b: replace(b, notifications={**b.notifications, "b": Hold.HELD}),
        "notified=True",
    ),
    "an allowance that was not given back": (
        lambda b: replace(b, allowances={**b.allowances, 2: 90}),
        "user 2 has the allowance 90",
    ),
    "a saga without its notification": (
        lambda b: replace(b, notifications={}),
        "saga n completed, but",
    ),
    "a lost saga": (
        lambda b: replace(b, sagas={"b": b.sagas["b"]}),
        "saga n was acknowledged and is lost",
    ),
    "other terms": (
        lambda b: replace(
            b, transfers={**b.transfers, "t": (replace(PAID, amount=31), TransferOutcome.MOVED)}
        ),
        "other terms",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(name: str) -> None:
    damage, words = DAMAGES[name]
    violations = judge(damage(WHOLE), ANSWERS, 100, 100).violations
    assert any(words in violation for violation in violations), violations


def test_a_promise_that_the_books_deny_is_found() -> None:
    lie = [replace(each, status=422) if each.request.key == "t" else each for each in ANSWERS]
    (violation,) = judge(WHOLE, lie, 100, 100).violations
    assert "the client was told 422" in violation
