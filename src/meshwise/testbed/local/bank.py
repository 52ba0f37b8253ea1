"""The bank in pods: its stores and services in every environment, begun anew for each trial.

Laws of this file:
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
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import redis

from meshwise.core import messages
from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory
from meshwise.core.process import OwnedProcess
from meshwise.mesh.seam import ProcessPlan, Ready
from meshwise.service.bank import schema, stores
from meshwise.service.bank.spec import SPOKEN, BankSpec, Peer, Service, StoreUrls
from meshwise.service.bank.stores import Cluster, Store
from meshwise.study.bank import Stores
from meshwise.study.model import Cell, MeshName, Study, Workload
from meshwise.study.topology import POSTGRES_PORT, REDIS_PORT
from meshwise.testbed.local.bank_ports import DIRECT, POSTGRES, REDIS
from meshwise.testbed.local.layout import Environment
from meshwise.testbed.local.pod import Pod

CONTROL_PORT = 15980
"""Of a service, on its pod's 127.0.0.1."""
STORE = "store"
"""Role of a store's process."""
ACCOUNTS, BALANCE, ALLOWANCE = 1000, 1_000_000, 1_000_000
_ANYWHERE = "0.0.0.0"
_CONTROL_S = 10.0


@dataclass(frozen=True)
class Running:
    """The stores of one environment in one execution."""

    postgres: Store
    redis: Store


class Bank:
    """Owner of the stores. A context manager; `start` and `stop` once per execution."""

    def __init__(self, study: Study, settings: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """`settings`: further ones for `postgres` and `redis`."""
        self._protocols = tuple(p for p in SPOKEN if any(cell.protocol is p for cell in study.cells))
        self._settings = settings or {}
        self._stack = ExitStack()
        self._stores = ExitStack()
        self._cluster: Cluster | None = None
        self._running: dict[str, Running] = {}

    def __enter__(self) -> Bank:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.stop()
        finally:
            self._stack.close()

    # --- of an execution ---------------------------------------------------------------------------

    def start(self, environment: Environment, pods: Mapping[str, Pod], logs: Path) -> None:
        """Its stores, empty and ready. Raises MW911 to MW913, MW211, MW212."""
        here = logs / environment.name
        if self._cluster is None:
            self._cluster = self._stack.enter_context(stores.cluster(here))
        made = []
        for workload, start in ((POSTGRES, self._postgres), (REDIS, self._redis)):
            pod = environment.pod_name(workload)
            made.append(start(here, f"{pod}/{STORE}", pods[pod].network_fd))
        database, cache = made
        asyncio.run(schema.prepare(database.local, ACCOUNTS, BALANCE, ALLOWANCE))
        self._running[environment.name] = Running(database, cache)

    def _postgres(self, logs: Path, name: str, network_fd: int) -> Store:
        return self._stores.enter_context(
            stores.postgres(
                logs / POSTGRES, _ANYWHERE, POSTGRES_PORT, name=name, network_fd=network_fd,
                settings=self._settings.get(POSTGRES, ()), like=self._cluster,
            )
        )  # fmt: skip

    def _redis(self, logs: Path, name: str, network_fd: int) -> Store:
        return self._stores.enter_context(
            stores.redis(
                logs / REDIS, _ANYWHERE, REDIS_PORT, name=name, network_fd=network_fd,
                settings=self._settings.get(REDIS, ()),
            )
        )  # fmt: skip

    def stop(self) -> None:
        """After the services: every store ends and its files are removed."""
        self._running = {}
        self._stores.close()

    def processes(self, environment: Environment) -> tuple[OwnedProcess, ...]:
        running = self._running[environment.name]
        return running.postgres.process, running.redis.process

    def builds(self) -> Mapping[str, str]:
        """Which programs the stores are."""
        return {
            "postgres": stores.build_of(stores.postgres_binaries() / "postgres"),
            "redis": stores.build_of(stores.redis_binary()),
        }

    def service_plans(self, environment: Environment, directory: Path) -> list[ProcessPlan]:
        """The five services, which hold no connection until their first trial begins."""
        make_directory(directory, PRIVATE_DIRECTORY)
        plans = []
        for service in Service:
            path = directory / f"{service}.json"
            self.spec(environment, service).write(path)
            plans.append(
                ProcessPlan(
                    pod=service,
                    role="service",
                    argv=(sys.executable, "-m", "meshwise.service.bank", "--spec", str(path)),
                    environment=dict(os.environ),
                    ready=Ready(CONTROL_PORT, "/healthz", timeout_s=30.0),
                )
            )
        return plans

    def spec(self, environment: Environment, service: Service) -> BankSpec:
        workload = environment.placement[service].workload
        ports = {protocol: workload.port(protocol) for protocol in self._protocols}
        peers = {
            Service(name): Peer(environment.address(name), ports, environment.placement[name].workload.host)
            for name in workload.calls
            if name in tuple(Service)
        }
        return BankSpec(
            service, ports, peers,
            stores=self._urls(environment, workload),
            control_port=CONTROL_PORT,
            begin=False,
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

    def rest(self, environment: Environment, pods: Mapping[str, Pod]) -> None:
        """Every service lets go of every connection. Raises MW921."""
        for service in Service:
            tell(pods[environment.pod_name(service)], "/rest")

    def begin(self, environment: Environment, pods: Mapping[str, Pod], cell: Cell) -> None:
        """The books as at the start, an empty cache, and services that may dial. Raises MW921, MW922."""
        running = self._running[environment.name]
        try:
            asyncio.run(schema.begin_anew(running.postgres.local, ACCOUNTS, BALANCE, ALLOWANCE))
            with redis.Redis.from_url(running.redis.local) as cache:
                cache.flushall()
        except (redis.RedisError, *schema.ERRORS) as error:
            raise messages.STORE_SILENT.error(environment=environment.name, reason=error) from error
        for service in Service:
            tell(pods[environment.pod_name(service)], f"/begin/{cell.stores}")

    def cache_url(self, environment: str) -> str:
        """Of the cache of an environment, by its name."""
        return self._running[environment].redis.local

    def books(self, environment: Environment) -> str:
        """Where the judge reads."""
        return self._running[environment.name].postgres.local


def tell(pod: Pod, path: str) -> None:
    """One request to the control port of a service. Raises MW921 when it is not obeyed."""
    begun = time.monotonic()
    try:
        with pod.dial("127.0.0.1", CONTROL_PORT) as connection:
            connection.settimeout(_CONTROL_S)
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            said = connection.recv(64)
    except OSError as error:
        raise messages.SERVICE_SILENT.error(
            name=pod.name, asked=path, reason=f"{error} after {time.monotonic() - begun:.1f} s"
        ) from error
    if not said.startswith(b"HTTP/1.1 200 "):
        raise messages.SERVICE_SILENT.error(name=pod.name, asked=path, reason=f"it answered {said!r}")
