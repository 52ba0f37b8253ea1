"""The bank as an application: its stores and services in every environment, begun anew for each trial.

Rules of this file:
- PostgreSQL and Redis are started with the services, once per execution, in pods of their own; their files
  are in the machine's temporary directory, on its disk, and gone afterwards (`service.bank.stores`).
- Each trial begins with the same books, an empty cache and no connection, whatever ran before it. A change of
  posture needs that too: a mesh has taken it up when no connection of the former configuration is left.
- Services reach a store through the sidecars at its service address, or past them at the pod's own address
  and at a port that no rule captures (`DIRECT`); which of the two a trial wants they are told as it begins.
- We reach the stores by their Unix sockets, so nothing of ours passes a sidecar.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import redis

from meshwise.core import messages
from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory
from meshwise.core.patience import Patience
from meshwise.core.process import OwnedProcess
from meshwise.load.spec import LoadSpec
from meshwise.mesh.seam import Capture, ProcessPlan, Ready
from meshwise.service.bank import schema, stores
from meshwise.service.bank.spec import SPOKEN, BankService, BankSpec, Peer, StoreUrls
from meshwise.service.bank.stores import Cluster, Store
from meshwise.study.bank import Stores
from meshwise.study.model import Cell, MeshName, Study, Trial, Workload
from meshwise.study.topology import POSTGRES_PORT, REDIS_PORT
from meshwise.telemetry.spans import COLLECTOR_PORT
from meshwise.testbed.applications.bank.books import ACCOUNTS, ALLOWANCE, BALANCE
from meshwise.testbed.applications.bank.ports import DIRECT, POSTGRES, REDIS, with_direct_way
from meshwise.testbed.applications.bank.trial import BankTrial
from meshwise.testbed.applications.seam import ApplicationEnvironment, TrialLoad
from meshwise.testbed.layout import SERVICE, Environment

CONTROL_PORT = 15980
"""Of a service, on its pod's 127.0.0.1."""
STORE = "store"
"""Role of a store's process."""
_ANYWHERE = "0.0.0.0"


@dataclass(frozen=True)
class Running:
    """The stores of one environment in one execution."""

    postgres: Store
    redis: Store


class BankApplication:
    """See `applications.seam.Application`. Owner of the stores."""

    def __init__(self, study: Study, settings: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """`settings`: further ones for `postgres` and `redis`."""
        self._mix = dict(study.trial.mix)
        self._protocols = tuple(p for p in SPOKEN if any(cell.protocol is p for cell in study.cells))
        self._settings = settings or {}
        self._stack = ExitStack()
        self._stores = ExitStack()
        self._cluster: Cluster | None = None
        self._running: dict[str, Running] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.stop()
        finally:
            self._stack.close()

    # --- of an execution ---------------------------------------------------------------------------

    def describe(self) -> Mapping[str, object]:
        """Which programs the stores are."""
        return {
            "stores": {
                "postgres": stores.build_of(stores.postgres_binaries() / "postgres"),
                "redis": stores.build_of(stores.redis_binary()),
            }
        }

    def capture(self, rules: Capture, workload: str) -> Capture:
        return with_direct_way(rules, workload)

    def start(self, place: ApplicationEnvironment, draws: str) -> Sequence[ProcessPlan]:
        """Stores, empty and ready; five services, which hold no connection until their first trial begins.

        Raises MW911 to MW913, MW211, MW212.
        """
        environment = place.environment
        here = place.logs / environment.name
        if self._cluster is None:
            self._cluster = self._stack.enter_context(stores.cluster(here, environment.patience))
        made = []
        for workload, start in ((POSTGRES, self._postgres), (REDIS, self._redis)):
            name = f"{environment.pod_name(workload)}/{STORE}"
            made.append(start(here, name, place.network_fd(workload), environment.patience))
        database, cache = made
        asyncio.run(schema.prepare(database.local, ACCOUNTS, BALANCE, ALLOWANCE))
        self._running[environment.name] = Running(database, cache)
        return self._plans(environment, place.files)

    def _postgres(self, logs: Path, name: str, network_fd: int | None, patience: Patience) -> Store:
        return self._stores.enter_context(
            stores.postgres(
                logs / POSTGRES, _ANYWHERE, POSTGRES_PORT, name=name, network_fd=network_fd,
                settings=self._settings.get(POSTGRES, ()), like=self._cluster, patience=patience,
            )
        )  # fmt: skip

    def _redis(self, logs: Path, name: str, network_fd: int | None, patience: Patience) -> Store:
        return self._stores.enter_context(
            stores.redis(
                logs / REDIS, _ANYWHERE, REDIS_PORT, name=name, network_fd=network_fd,
                settings=self._settings.get(REDIS, ()), patience=patience,
            )
        )  # fmt: skip

    def stop(self) -> None:
        """After the services: every store ends and its files are removed."""
        self._running = {}
        self._stores.close()

    def beside(self, environment: Environment) -> Sequence[OwnedProcess]:
        running = self._running[environment.name]
        return running.postgres.process, running.redis.process

    def _plans(self, environment: Environment, directory: Path) -> list[ProcessPlan]:
        make_directory(directory, PRIVATE_DIRECTORY)
        plans = []
        for service in BankService:
            path = directory / f"{service}.json"
            self.spec(environment, service).write(path)
            plans.append(
                ProcessPlan(
                    pod=service,
                    role=SERVICE,
                    argv=(sys.executable, "-m", "meshwise.service.bank", "--spec", str(path)),
                    environment=dict(os.environ),
                    ready=Ready(CONTROL_PORT, "/healthz"),
                )
            )
        return plans

    def spec(self, environment: Environment, service: BankService) -> BankSpec:
        workload = environment.placement[service].workload
        ports = {protocol: workload.port(protocol) for protocol in self._protocols}
        peers = {
            BankService(name): Peer(
                environment.address(name), ports, environment.placement[name].workload.host
            )
            for name in workload.calls
            if name in tuple(BankService)
        }
        return BankSpec(
            service, ports, peers,
            stores=self._urls(environment, workload),
            control_port=CONTROL_PORT,
            begin=False,
            collector=f"127.0.0.1:{COLLECTOR_PORT}" if environment.placement.traced else "",
            deadline_s=environment.patience.call_s,
        )  # fmt: skip

    def _urls(self, environment: Environment, workload: Workload) -> Mapping[Stores, StoreUrls]:
        if POSTGRES not in workload.calls:
            return {}
        running, placement = self._running[environment.name], environment.placement
        ways: Mapping[Stores, Callable[[str], str]] = {
            Stores.MESHED: environment.address,
            Stores.DIRECT: lambda name: placement[name].pod_ip,
        }
        direct = placement.mesh is not MeshName.NONE
        ports = {Stores.MESHED: {port: port for port in DIRECT}, Stores.DIRECT: DIRECT if direct else {}}
        return {
            way: StoreUrls(
                running.postgres.at(address(POSTGRES), ports[way].get(POSTGRES_PORT, POSTGRES_PORT)),
                running.redis.at(address(REDIS), ports[way].get(REDIS_PORT, REDIS_PORT))
                if REDIS in workload.calls
                else "",
            )
            for way, address in ways.items()
        }

    # --- of a trial --------------------------------------------------------------------------------

    def rest(self, place: ApplicationEnvironment) -> None:
        """Every service lets go of every connection. Raises MW921."""
        for service in BankService:
            place.tell(service, CONTROL_PORT, "/rest")

    def again(self, place: ApplicationEnvironment, cell: Cell, workload: str) -> None:
        """It may dial the stores, as the others may. Raises MW921."""
        place.tell(workload, CONTROL_PORT, f"/begin/{cell.stores}")

    def renew(self, place: ApplicationEnvironment, cell: Cell) -> None:
        """The books as at the start, an empty cache, and services that may dial. Raises MW921, MW922."""
        environment = place.environment
        running = self._running[environment.name]
        try:
            asyncio.run(schema.begin_anew(running.postgres.local, ACCOUNTS, BALANCE, ALLOWANCE))
            with redis.Redis.from_url(running.redis.local) as cache:
                cache.flushall()
        except (redis.RedisError, *schema.ERRORS) as error:
            raise messages.STORE_SILENT.error(environment=environment.name, reason=error) from error
        for service in BankService:
            place.tell(service, CONTROL_PORT, f"/begin/{cell.stores}")

    def ask(
        self, place: ApplicationEnvironment, trial: Trial, clients: Mapping[str, LoadSpec], files: Path
    ) -> TrialLoad:
        asked = BankTrial(trial.trial_id, self._mix, files, place.environment.patience)
        scripted = {client: asked.scripted(client, spec) for client, spec in clients.items()}
        books, inside = self._running[place.environment.name].postgres.local, next(iter(scripted.values()))
        return TrialLoad(
            scripted,
            asked.labelled,
            lambda measurement, send: asked.judged(measurement, books, inside, send),
        )
