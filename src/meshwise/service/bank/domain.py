"""What the bank decides: values in, values out; no socket, clock or database.

Rules of this file:
- Money is a whole number of cents. What leaves one account enters another; nothing else changes a balance.
- A transfer is named by its idempotency key. The first decision about a key is the decision for ever; a later
  request with the same key and other terms is a mistake of the caller (`Conflict`).
- A saga moves only forward along `after`; each state has one action, which may be repeated without harm, so a
  service that was started again continues the saga from its stored state.
- "Gave up" means that the outcome is unknown; then the step is undone too, for it may have happened.

The saga follows Garcia-Molina and Salem, "Sagas" (SIGMOD 1987): backward recovery with one compensation per
step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Conflict(Exception):
    """An idempotency key used twice for different transfers."""


class TransferOutcome(StrEnum):
    """What became of a transfer; both are final."""

    MOVED = "moved"
    REFUSED = "refused"


@dataclass(frozen=True)
class Transfer:
    """Terms of a transfer. Raises ValueError for terms that no bank takes."""

    key: str
    source: int
    target: int
    amount: int
    """Cents, above zero."""

    def __post_init__(self) -> None:
        if not 0 < len(self.key) <= 128:
            raise ValueError("an idempotency key has 1 to 128 characters")
        if self.amount <= 0:
            raise ValueError("the amount is not above zero")
        if self.source == self.target:
            raise ValueError("source and target are one account")

    def returned(self) -> Transfer:
        """The transfer that undoes this one."""
        return Transfer(return_key(self.key), self.target, self.source, self.amount)


def return_key(key: str) -> str:
    return f"{key}/return"


def decide(transfer: Transfer, balances: Mapping[int, int], *, overdraft: bool = False) -> TransferOutcome:
    """Whether the money may move. `overdraft` is for returns, which must not fail for want of money: the
    target may have spent it meanwhile, and owes it then."""
    if transfer.source not in balances or transfer.target not in balances:
        return TransferOutcome.REFUSED
    if not overdraft and balances[transfer.source] < transfer.amount:
        return TransferOutcome.REFUSED
    return TransferOutcome.MOVED


def book(transfer: Transfer, outcome: TransferOutcome, balances: Mapping[int, int]) -> dict[int, int]:
    """The balances after it. The sum over all accounts is the same."""
    after = dict(balances)
    if outcome is TransferOutcome.MOVED:
        after[transfer.source] -= transfer.amount
        after[transfer.target] += transfer.amount
    return after


def same_terms(asked: Transfer, stored: Transfer) -> None:
    """Raises Conflict if a key that is already decided is now used for another transfer."""
    if asked != stored:
        raise Conflict(f"the key {asked.key} belongs to another transfer")


# --- the saga: reserve the payer's allowance, move the money, tell the payee ---------------------


class SagaState(StrEnum):
    """Where a saga stands: the action that is due next, or an end."""

    RESERVING = "reserving"
    MOVING = "moving"
    NOTIFYING = "notifying"
    COMPLETED = "completed"
    CANCELLING = "cancelling"
    """Withdraw the notification, which may have been sent."""
    RETURNING = "returning"
    """Return the money, if it was moved."""
    RELEASING = "releasing"
    """Give the allowance back, if it was reserved."""
    COMPENSATED = "compensated"

    @property
    def ended(self) -> bool:
        return self in (SagaState.COMPLETED, SagaState.COMPENSATED)

    @property
    def compensating(self) -> bool:
        """Compensation is never given up: the only way out is its success."""
        return self in (SagaState.CANCELLING, SagaState.RETURNING, SagaState.RELEASING)


class ActionResult(StrEnum):
    """What came of one action."""

    DONE = "done"
    REFUSED = "refused"
    """Certain: it did not happen and will not."""
    GAVE_UP = "gave-up"
    """Unknown: it may have happened, or may happen yet."""


_AFTER: Mapping[tuple[SagaState, ActionResult], SagaState] = {
    (SagaState.RESERVING, ActionResult.DONE): SagaState.MOVING,
    (SagaState.RESERVING, ActionResult.REFUSED): SagaState.COMPENSATED,
    (SagaState.RESERVING, ActionResult.GAVE_UP): SagaState.RELEASING,
    (SagaState.MOVING, ActionResult.DONE): SagaState.NOTIFYING,
    (SagaState.MOVING, ActionResult.REFUSED): SagaState.RELEASING,
    (SagaState.MOVING, ActionResult.GAVE_UP): SagaState.RETURNING,
    (SagaState.NOTIFYING, ActionResult.DONE): SagaState.COMPLETED,
    (SagaState.NOTIFYING, ActionResult.REFUSED): SagaState.RETURNING,
    (SagaState.NOTIFYING, ActionResult.GAVE_UP): SagaState.CANCELLING,
    (SagaState.CANCELLING, ActionResult.DONE): SagaState.RETURNING,
    (SagaState.RETURNING, ActionResult.DONE): SagaState.RELEASING,
    (SagaState.RELEASING, ActionResult.DONE): SagaState.COMPENSATED,
}


def after(state: SagaState, result: ActionResult) -> SagaState:
    """The next state. Raises ValueError for a saga that has ended or a compensation that did not succeed."""
    if (state, result) not in _AFTER:
        raise ValueError(f"a saga that is {state} cannot go on after `{result}`")
    return _AFTER[state, result]


class Hold(StrEnum):
    """A step that another service keeps for a saga, so that a late or repeated request changes nothing."""

    HELD = "held"
    REFUSED = "refused"
    UNDONE = "undone"


def hold(stored: Hold | None, *, possible: bool) -> Hold:
    """Ask for a step: what was decided before stays, and what was undone is never done after all."""
    if stored is not None:
        return stored
    return Hold.HELD if possible else Hold.REFUSED


def undo(stored: Hold | None) -> tuple[Hold, bool]:
    """Undo a step: its state after that, and whether something that was held must be given back now.
    Undoing what never arrived leaves a mark, for it may arrive late."""
    return (Hold.REFUSED if stored is Hold.REFUSED else Hold.UNDONE), stored is Hold.HELD
