"""The bank's decisions hold for any transfer, any repetition, and any fate of a saga's steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwise.service.bank import domain
from meshwise.service.bank.domain import ActionResult, Conflict, Hold, SagaState, Transfer, TransferOutcome

ACCOUNTS = st.integers(0, 4)
AMOUNTS = st.integers(1, 500)
BALANCES = st.dictionaries(ACCOUNTS, st.integers(0, 1000), min_size=1)


@st.composite
def transfers(draw: st.DrawFn) -> Transfer:
    source = draw(ACCOUNTS)
    target = draw(ACCOUNTS.filter(lambda account: account != source))
    return Transfer(draw(st.sampled_from("abcdef")), source, target, draw(AMOUNTS))


@given(st.lists(transfers(), max_size=30), BALANCES)
def test_money_is_conserved_and_never_below_zero(asked: list[Transfer], balances: dict[int, int]) -> None:
    total = sum(balances.values())
    for transfer in asked:
        balances = domain.book(transfer, domain.decide(transfer, balances), balances)
        assert sum(balances.values()) == total
        assert all(balance >= 0 for balance in balances.values())


@given(transfers(), BALANCES)
def test_a_refused_transfer_changes_nothing(transfer: Transfer, balances: dict[int, int]) -> None:
    assert domain.book(transfer, TransferOutcome.REFUSED, balances) == balances


@given(transfers(), st.fixed_dictionaries({account: st.integers(0, 1000) for account in range(5)}))
def test_a_return_restores_every_balance_even_if_it_overdraws(
    transfer: Transfer, balances: dict[int, int]
) -> None:
    moved = domain.book(transfer, TransferOutcome.MOVED, balances)
    back = transfer.returned()
    assert domain.decide(back, moved, overdraft=True) is TransferOutcome.MOVED
    assert domain.book(back, TransferOutcome.MOVED, moved) == balances


@given(transfers(), transfers())
def test_a_key_belongs_to_the_terms_it_was_first_used_with(first: Transfer, second: Transfer) -> None:
    if first == second:
        domain.same_terms(second, first)
    else:
        with pytest.raises(Conflict):
            domain.same_terms(second, first)


@pytest.mark.parametrize(
    "terms", [("", 0, 1, 5), ("k" * 129, 0, 1, 5), ("k", 0, 1, 0), ("k", 0, 1, -5), ("k", 2, 2, 5)]
)
def test_terms_that_no_bank_takes(terms: tuple[str, int, int, int]) -> None:
    with pytest.raises(ValueError):
        Transfer(*terms)


class World:
    """What three services hold for one saga: effects that the state machine must bring to all or nothing."""

    def __init__(self) -> None:
        self.holds: dict[str, Hold | None] = {"allowance": None, "money": None, "notice": None}

    def act(self, state: SagaState, possible: bool) -> ActionResult:
        step = {"reserving": "allowance", "moving": "money", "notifying": "notice"}.get(state)
        if step:
            decided = self.holds[step] = domain.hold(self.holds[step], possible=possible)
            return ActionResult.DONE if decided is Hold.HELD else ActionResult.REFUSED
        step = {"cancelling": "notice", "returning": "money", "releasing": "allowance"}[state]
        self.holds[step], _ = domain.undo(self.holds[step])
        return ActionResult.DONE

    def held(self) -> set[str]:
        return {step for step, hold in self.holds.items() if hold is Hold.HELD}


FATES = st.sampled_from(["works", "impossible", "lost before", "lost after", "repeated"])


@given(st.lists(FATES, min_size=3, max_size=3), st.data())
def test_a_saga_ends_with_all_of_its_effects_or_none(fates: list[str], data: st.DataObject) -> None:
    world, state, late = World(), SagaState.RESERVING, list[SagaState]()
    fate = iter(fates)
    for _ in range(20):
        if state.ended:
            break
        what = "works" if state.compensating else next(fate)
        if what == "lost before":
            result = ActionResult.GAVE_UP
            late.append(state)
        else:
            result = world.act(state, what != "impossible")
            if what == "repeated":
                assert world.act(state, False) is result  # the first decision stays
            if what == "lost after":
                result = ActionResult.GAVE_UP
        state = domain.after(state, result)
    assert state.ended
    for step in data.draw(st.permutations(late)):  # requests that were given up arrive after all
        world.act(step, True)
    assert world.held() == ({"allowance", "money", "notice"} if state is SagaState.COMPLETED else set())


@given(st.sampled_from(SagaState), st.sampled_from(ActionResult))
def test_states_go_on_or_refuse_in_words(state: SagaState, result: ActionResult) -> None:
    if state.ended or (state.compensating and result is not ActionResult.DONE):
        with pytest.raises(ValueError, match="cannot go on"):
            domain.after(state, result)
    else:
        assert domain.after(state, result) is not state


@given(st.sampled_from([None, *Hold]), st.booleans())
def test_undone_stays_undone(stored: Hold | None, possible: bool) -> None:
    left, gives = domain.undo(stored)
    assert domain.hold(left, possible=possible) is left is not Hold.HELD
    assert gives == (stored is Hold.HELD)
    assert domain.undo(left) == (left, False)  # and it is given back only once
