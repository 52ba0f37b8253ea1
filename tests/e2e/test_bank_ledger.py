"""The functions in the database decide as `domain` does: the same requests in the same order, on a real
PostgreSQL and on a model that knows `domain` alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("asyncpg", reason="pip install 'meshwise[bank]'")

import asyncpg

from meshwise.core.errors import MeshwiseError
from meshwise.service.bank import domain, ledger, schema, stores
from meshwise.service.bank.domain import ActionResult, Conflict, Hold, SagaState, Transfer, TransferOutcome

try:
    stores.postgres_binaries()
except MeshwiseError as error:
    pytest.skip(f"{error.what}: {error.remedy}", allow_module_level=True)

ACCOUNTS, BALANCE, ALLOWANCE = 52, 300, 200
MUTED = schema.MUTED_EVERY - 1
USERS = (0, 1, MUTED, ACCOUNTS)  # the last does not exist
COMPARED = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stores.postgres(tmp_path_factory.mktemp("ledger"), "127.0.0.1", stores.free_port()) as store:
        asyncio.run(schema.prepare(store.url, ACCOUNTS, BALANCE, ALLOWANCE))
        yield store.url


@asynccontextmanager
async def undone(url: str) -> AsyncIterator[Any]:
    """A connection whose every change is rolled back: each example begins with the same books."""
    connection: Any = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


@st.composite
def transfers(draw: st.DrawFn) -> Transfer:
    source, target = draw(st.permutations(USERS))[:2]
    return Transfer(draw(st.sampled_from("abc")), source, target, draw(st.sampled_from((1, 150, 250))))


@dataclass
class Model:
    """The books as `domain` keeps them."""

    balances: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(ACCOUNTS), BALANCE))
    decided: dict[str, tuple[Transfer, TransferOutcome]] = field(default_factory=dict)
    allowances: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(ACCOUNTS), ALLOWANCE))
    held: dict[str, Hold] = field(default_factory=dict)
    told: dict[str, Hold] = field(default_factory=dict)

    def transfer(self, asked: Transfer, *, overdraft: bool = False) -> TransferOutcome:
        if asked.key in self.decided:
            stored, outcome = self.decided[asked.key]
            domain.same_terms(asked, stored)
            return outcome
        outcome = domain.decide(asked, self.balances, overdraft=overdraft)
        self.balances = domain.book(asked, outcome, self.balances)
        self.decided[asked.key] = asked, outcome
        return outcome

    def give_back(self, moved: Transfer) -> None:
        _, outcome = self.decided.setdefault(moved.key, (moved, TransferOutcome.REFUSED))
        if outcome is TransferOutcome.MOVED:
            self.transfer(moved.returned(), overdraft=True)

    def reserve(self, saga: str, user: int, amount: int) -> Hold:
        before = self.held.get(saga)
        after = domain.hold(before, possible=self.allowances.get(user, -1) >= amount)
        if before is None and after is Hold.HELD:
            self.allowances[user] -= amount
        self.held[saga] = after
        return after

    def release(self, saga: str, user: int, amount: int) -> None:
        self.held[saga], give = domain.undo(self.held.get(saga))
        if give:
            self.allowances[user] += amount

    def notify(self, saga: str, user: int) -> Hold:
        deaf = user not in self.balances or user % schema.MUTED_EVERY == MUTED
        self.told[saga] = domain.hold(self.told.get(saga), possible=not deaf)
        return self.told[saga]

    def withdraw(self, saga: str) -> None:
        self.told[saga], _ = domain.undo(self.told.get(saga))


async def balances(connection: Any) -> dict[int, int]:
    return {row["id"]: row["balance"] for row in await connection.fetch("SELECT id, balance FROM accounts")}


async def allowances(connection: Any) -> dict[int, int]:
    return {row["id"]: row["allowance"] for row in await connection.fetch("SELECT id, allowance FROM users")}


@COMPARED
@given(st.lists(st.tuples(st.sampled_from(("transfer", "overdraft", "back")), transfers()), max_size=12))
def test_a_transfer_is_decided_and_booked_alike(database: str, asked: Sequence[tuple[str, Transfer]]) -> None:
    async def compare() -> None:
        model = Model()
        async with undone(database) as connection:
            for what, transfer in asked:
                if what == "back":
                    if transfer.key not in model.decided or model.decided[transfer.key][0] == transfer:
                        await ledger.give_back(connection, transfer)
                        model.give_back(transfer)
                    continue
                overdraft = what == "overdraft" and transfer.source in model.balances
                try:
                    wanted = model.transfer(transfer, overdraft=overdraft)
                except Conflict:
                    with pytest.raises(Conflict):
                        await ledger.transfer(connection, transfer, overdraft=overdraft)
                else:
                    assert await ledger.transfer(connection, transfer, overdraft=overdraft) is wanted
            assert await balances(connection) == model.balances

    asyncio.run(compare())


@COMPARED
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("reserve", "release", "notify", "withdraw")),
            st.sampled_from(
                (("a", 0, 150), ("b", 0, 100), ("c", 1, 250), ("d", MUTED, 5), ("e", ACCOUNTS, 5))
            ),
        ),
        max_size=16,
    )
)
def test_a_step_is_held_and_undone_alike(
    database: str, asked: Sequence[tuple[str, tuple[str, int, int]]]
) -> None:
    async def compare() -> None:
        model = Model()
        async with undone(database) as connection:
            for what, (saga, user, amount) in asked:
                match what:
                    case "reserve":
                        assert await ledger.reserve(connection, saga, user, amount) is model.reserve(
                            saga, user, amount
                        )
                    case "release":
                        await ledger.release(connection, saga, user, amount)
                        model.release(saga, user, amount)
                    case "notify":
                        assert await ledger.notify(connection, saga, user, "words") is model.notify(
                            saga, user
                        )
                    case "withdraw":
                        await ledger.withdraw(connection, saga, user)
                        model.withdraw(saga)
            assert await allowances(connection) == model.allowances

    asyncio.run(compare())


@COMPARED
@given(st.sampled_from(SagaState), transfers())
def test_the_money_and_the_state_of_a_saga_move_together(
    database: str, stands: SagaState, asked: Transfer
) -> None:
    """MOVING goes on as `domain.after` says; from any other state the money's decision stands and the state
    stays."""

    async def compare() -> None:
        model = Model()
        async with undone(database) as connection:
            assert await ledger.open_saga(connection, asked) is SagaState.RESERVING
            assert await ledger.advance_saga(connection, asked.key, SagaState.RESERVING, stands) is stands
            outcome = model.transfer(asked)
            result = ActionResult.DONE if outcome is TransferOutcome.MOVED else ActionResult.REFUSED
            wanted = domain.after(stands, result) if stands is SagaState.MOVING else stands
            for _ in range(2):
                assert await ledger.move_for_saga(connection, asked) is wanted
            assert await ledger.open_saga(connection, asked) is wanted
            assert await balances(connection) == model.balances

    asyncio.run(compare())
