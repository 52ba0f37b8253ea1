"""The whole bank on loopback ports: five services, PostgreSQL and Redis, each its own process.

For tests and benchmarks without a mesh, and for trying it out. Everything ends with the `with` block.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from meshwise.core.patience import USUAL
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.service.bank import schema, stores
from meshwise.service.bank.calls import PeerClient, Unreachable
from meshwise.service.bank.serving import HEALTH
from meshwise.service.bank.spec import BankService, BankSpec, Peer, StoreUrls
from meshwise.service.bank.stores import Store
from meshwise.study.bank import Stores
from meshwise.study.model import Protocol

_HOST = "127.0.0.1"
_NO_STORES = (BankService.EDGE,)


@dataclass
class LoopbackBank:
    """A running bank. `kill` and `start` change its processes."""

    protocol: Protocol
    postgres: Store
    redis: Store
    specs: Mapping[BankService, BankSpec]
    directory: Path
    balance: int
    allowance: int
    _running: dict[BankService, OwnedProcess] = field(default_factory=dict)

    @property
    def edge(self) -> str:
        return self.where(BankService.EDGE)

    def where(self, service: BankService) -> str:
        """`host:port`"""
        return f"{_HOST}:{self.specs[service].ports[self.protocol]}"

    def start(self, service: BankService) -> None:
        """Start a service; it need not be ready when this returns."""
        path = self.directory / f"{service}.json"
        self.specs[service].write(path)
        inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        argv = (sys.executable, "-m", "meshwise.service.bank", "--spec", str(path))
        self._running[service] = OwnedProcess(
            LaunchPlan(f"bank/{service}", argv, inherited, self.directory / f"{service}.log")
        )

    def kill(self, service: BankService) -> None:
        """SIGKILL, as an out-of-memory kill would."""
        self._running[service].send(signal.SIGKILL)
        self._running[service].stop()

    def pid(self, service: BankService) -> int:
        return self._running[service].pid

    def log(self, service: BankService) -> str:
        return self._running[service].log_tail()

    def wait_ready(self) -> None:
        """Raises MW211 or MW212 for a service that does not answer."""
        for service, process in self._running.items():
            where = {service: self.where(service)}
            process.wait_until(partial(_answers, self.protocol, where), "ready", USUAL.ready_s)

    def stop(self) -> None:
        for process in self._running.values():
            process.stop()


@contextmanager
def running(
    directory: Path,
    protocol: Protocol,
    *,
    accounts: int = 1000,
    balance: int = 1_000_000,
    allowance: int = 1_000_000,
) -> Iterator[LoopbackBank]:
    """The bank, ready. `directory` takes the logs; the stores' data and the specs, with passwords, are
    removed at the end. Raises what `stores.postgres` and `stores.redis` raise, MW211 and MW212."""
    with ExitStack() as stack:
        secret = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meshwise-bank-")))
        postgres = stack.enter_context(stores.postgres(directory, _HOST, stores.free_port()))
        redis = stack.enter_context(stores.redis(directory, _HOST, stores.free_port()))
        asyncio.run(schema.prepare(postgres.url, accounts, balance, allowance))
        ports = {service: {protocol: stores.free_port()} for service in BankService}
        peers = {service: Peer(_HOST, ports[service]) for service in BankService}
        urls = {Stores.MESHED: StoreUrls(postgres.url, redis.url)}
        specs = {
            service: BankSpec(
                service,
                ports[service],
                peers,
                listen=_HOST,
                stores={} if service in _NO_STORES else urls,
            )
            for service in BankService
        }
        bank = LoopbackBank(protocol, postgres, redis, specs, secret, balance, allowance)
        stack.callback(bank.stop)
        for service in BankService:
            bank.start(service)
        bank.wait_ready()
        yield bank


def _answers(protocol: Protocol, where: Mapping[BankService, str]) -> bool:
    async def ask() -> bool:
        async with PeerClient(protocol, where, 1.0) as caller:
            try:
                return (await caller.call(next(iter(where)), HEALTH, {})).ok
            except Unreachable:
                return False

    return asyncio.run(ask())
