"""Istio as a `LocalMesh`: real Envoy sidecars on this machine.

`model` says what a posture is, `mesh.delivery` brings it.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from meshwise.mesh import dump
from meshwise.mesh.changes import NOT_DONE, Change, Disturbance, InForce, RestartProxy, Taken
from meshwise.mesh.delivery.names import CONTROLLER_DIRECTORY
from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.delivery.stream import SOURCES, StreamDelivery
from meshwise.mesh.files import hand_over, private_directory, write_private
from meshwise.mesh.identity import IdentityFiles, form_of
from meshwise.mesh.istio import binary, bootstrap, fidelity, settling, taken_up, tls
from meshwise.mesh.istio.admin import EnvoyAdmin, Stats, fetch_from
from meshwise.mesh.istio.clusters import INBOUND_SOURCE_IP
from meshwise.mesh.istio.listeners import INBOUND_PORT, OUTBOUND_PORT
from meshwise.mesh.istio.model import IstioModel
from meshwise.mesh.istio.native import whole
from meshwise.mesh.istio.possible import why_not
from meshwise.mesh.istio.rotating import Rotation
from meshwise.mesh.istio.translate import Configure, translated
from meshwise.mesh.istio.view import Options
from meshwise.mesh.istio.workloads import WorkloadIdentities
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import Capture, Delivered, Drain, Fidelity, Placement, ProcessPlan, Ready
from meshwise.mesh.together import together
from meshwise.study.model import Cell
from meshwise.study.timeline import Act, Rotate, Skew
from meshwise.telemetry.envoy import EnvoySampler
from meshwise.telemetry.seam import Sampler
from meshwise.telemetry.source import Source

if TYPE_CHECKING:
    from meshwise.mesh.istio.istiod.control_plane import IstiodControlPlane  # which imports grpc

PROXY_UID = 1337
ISTIO_DRAIN_TIME_S = 45
"""Istio's own (ProxyConfig.drainDuration)."""
DRAIN_TIME_S = 0
"""Not Istio's. Here a replaced configuration must be gone before the next trial; `fidelity` says so."""
DRAIN_PATH = "/drain_listeners?inboundonly&graceful"
TERMINATION_DRAIN_S = 5.0
"""What Istio's agent asks of Envoy when it is told to end, and how long it waits (pkg/envoy/agent.go;
ProxyConfig.terminationDrainDuration)."""

_INHERITED = ("PATH", "PYTHONPATH")
"""What the control plane, a Python program, needs of the user's environment."""
_STATE = {"config_dump.json": "/config_dump", "clusters.txt": "/clusters", "listeners.txt": "/listeners"}


class IstioMesh:
    """See `meshwise.mesh.seam.LocalMesh`. Holds the keys of its authority, a count of its pushes, the last
    reset of each process set and what has changed since, and how many workers it was asked for."""

    def __init__(
        self,
        options: Options | None = None,
        drain_time_s: int = DRAIN_TIME_S,
        spare_keys: int = 0,
        istiod: IstiodControlPlane | None = None,
    ) -> None:
        """`drain_time_s`: how long proxies let connections of a replaced configuration go on; Istio's own is
        45, for configuration that is pushed within trials. `spare_keys`: of authorities
        that come within a trial, made before. `istiod`: generates the configuration, in the place of our
        translation; its owner ends it."""
        self._istiod = istiod
        self._configure: Configure = istiod or translated
        self._given = options
        self._drain_time_s = drain_time_s
        self._identities = WorkloadIdentities(spare_keys)
        self._deliveries: dict[str, StreamDelivery] = {}
        self._pushes = itertools.count(1)
        self._generations: dict[str, str] = {}
        self._workers: dict[str, int] = {}
        self._in_force: dict[str, InForce] = {}
        self._brought: dict[str, _Brought] = {}
        self._foreseen: dict[str, dict[InForce, _Made]] = {}

    @cached_property
    def model(self) -> IstioModel:
        """With the options given, or those of a default Istio with all of its filters that the binary has."""
        options = self._given or Options(native=binary.istio_filters(binary.envoy_path()))
        return IstioModel(replace(options, native=whole(options.native)) if self._istiod else options)

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        envoy = binary.envoy_path()
        self._workers[placement.process_set] = workers
        controller = ProcessPlan(
            pod=placement.workloads[0].name,
            role="controller",
            argv=(sys.executable, "-m", "meshwise.mesh.delivery.controller", str(_controller(placement))),
            environment={name: os.environ[name] for name in _INHERITED if name in os.environ},
        )
        return [
            controller,
            *(self._sidecar(placement, placed.name, envoy, workers) for placed in placement.workloads),
        ]

    def _sidecar(self, placement: Placement, name: str, envoy: Path, workers: int) -> ProcessPlan:
        directory = placement.directory / name
        return ProcessPlan(
            pod=name,
            role="proxy",
            argv=bootstrap.arguments(envoy, directory / "bootstrap.json", workers, self._drain_time_s),
            uid=PROXY_UID,
            directory=directory,
            ready=Ready(bootstrap.READY_PORT, bootstrap.READY_PATH),
            drain=Drain(bootstrap.ADMIN_PORT, DRAIN_PATH, TERMINATION_DRAIN_S),
        )

    def capture(self, workload: str) -> Capture | None:
        return Capture(
            inbound_port=INBOUND_PORT,
            outbound_port=OUTBOUND_PORT,
            proxy_uid=PROXY_UID,
            proxy_gid=PROXY_UID,
            inbound_exempt_ports=(bootstrap.TUNNEL_PORT, *bootstrap.EXEMPT_PORTS),
            inbound_source=INBOUND_SOURCE_IP,
            tunnel_port=bootstrap.TUNNEL_PORT,
        )

    def prepare(self, placement: Placement, cell: Cell) -> None:
        hand_over(placement.directory, PROXY_UID)
        self._identities.issue_all(placement, form_of(cell), PROXY_UID)
        self._forget(placement)
        version = self._next_version(placement, cell)
        self._generations[placement.process_set] = version
        delivery = StreamDelivery(
            _controller(placement), tls.CERTIFICATE_SECRET, tls.ROOT_SECRET, PROXY_UID,
            placement.patience.control_s,
        )  # fmt: skip
        self._deliveries[placement.process_set] = delivery
        for service in self.model.view(placement, cell, version, SOURCES).services:
            directory = private_directory(placement.directory / service.name, PROXY_UID)
            delivery.lay_out(directory)
            config = bootstrap.bootstrap(service, counted=placement.counted)
            write_private(directory / "bootstrap.json", json.dumps(config), PROXY_UID)
        self._bring(placement, cell, version)

    def reset(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        """A new generation: every inbound chain and every cluster of a service is replaced."""
        self._forget(placement)
        self._identities.forget(placement, form_of(cell), PROXY_UID)
        version = self._next_version(placement, cell)
        self._generations[placement.process_set] = version
        self._apply(placement, cell, reach, version, empty=True)

    def push(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        self._apply(placement, cell, reach, self._next_version(placement, cell), empty=False)

    def cannot(self, cell: Cell, act: Act) -> str | None:
        return why_not(cell, act)

    def foresee(self, placement: Placement, cell: Cell, changes: Sequence[Change]) -> None:
        """All but what istiod generates, which takes the time that it takes."""
        if self._istiod is not None:
            return
        in_force = InForce()
        found = self._foreseen[placement.process_set] = {}
        for change in changes:
            if not isinstance(change, Rotate):
                in_force = in_force.after(change)
                if in_force not in found:
                    found[in_force] = self._made(placement, cell, in_force, within_trial=True)

    def carry_out(
        self, placement: Placement, cell: Cell, act: Change, reach: Reach, restart: RestartProxy
    ) -> Sequence[Taken]:
        """While the control plane answers nothing, nothing is taken up, and the authority, which is the same
        process, signs nothing; what was pushed is handed out when it is back."""
        own = placement.process_set
        names = [placed.name for placed in placement.of(cell.topology)]
        silent = self._deliveries[own].silence(placement.patience.slowness)
        if isinstance(act, Rotate):
            if silent:
                return [Taken(name, None, {NOT_DONE: silent}) for name in names]

            def deliver(files: Mapping[str, IdentityFiles]) -> Mapping[str, int]:
                return self._renew(placement, cell, reach, files)

            return Rotation(placement, cell, reach, self._identities, deliver, PROXY_UID).carry_out(act)
        self._in_force[own] = self._in_force.get(own, InForce()).after(act)
        version = self._next_version(placement, cell)
        if silent:
            self._bring(placement, cell, version, within_trial=True, heard=False)
            return [Taken(name, None, {"version": version, NOT_DONE: silent}) for name in names]
        done = self._apply(placement, cell, reach, version, empty=False)
        return [Taken(name, at_ns, {"version": version}) for name, at_ns in done.items()]

    def failing(self, placement: Placement, act: Disturbance) -> AbstractContextManager[None]:
        if isinstance(act, Skew):
            return self._identities.skewed(placement, act.by_ns)
        return self._identities.failing(placement, act.how)

    def guard(self, guarded: bool) -> None:
        self.model = replace(self.model, guarded=guarded)

    def delivered(self, placement: Placement) -> Delivered:
        status = self._deliveries[placement.process_set].status()
        silent = len(placement.workloads) - len(status["connected"])
        return Delivered(self._workers[placement.process_set], behind=status["behind"] + silent)

    def state(self, placement: Placement, cell: Cell, reach: Reach) -> Mapping[str, str]:
        used = [placed.name for placed in placement.of(cell.topology)]
        return dump.ask_all(reach, bootstrap.ADMIN_PORT, used, _STATE)

    def samplers(self, placement: Placement, reach: Reach) -> Sequence[Sampler]:
        return [
            EnvoySampler(
                str(Source(placement.mesh, placement.process_set, placed.name, "proxy")),
                fetch_from(placed.name, reach),
            )
            for placed in placement.workloads
        ]

    def describe(self) -> Mapping[str, str]:
        found = binary.facts(binary.envoy_path())
        facts = {"proxy": "Envoy", "worker_model": "one event loop per worker (--concurrency)", **found}
        if self._istiod:
            istiod = self._istiod.facts()
            facts["control_plane"] = f"istiod {istiod['version']} {istiod['digest']} ({istiod['path']})"
        return facts

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        return fidelity.differences(
            self.model.options,
            privileged=privileged,
            istiod=self._istiod is not None,
            drains=self._drain_time_s == ISTIO_DRAIN_TIME_S,
        )

    # --- how a posture gets there ------------------------------------------------------------------

    def _forget(self, placement: Placement) -> None:
        self._in_force.pop(placement.process_set, None)
        self._foreseen.pop(placement.process_set, None)

    def _next_version(self, placement: Placement, cell: Cell) -> str:
        in_force = self._in_force.get(placement.process_set, InForce())
        prefix = self._with(in_force).fingerprint(in_force.cell(cell), placement.trust_domain)
        return f"{prefix}-{next(self._pushes)}"

    def _with(self, in_force: InForce) -> IstioModel:
        return replace(self.model, pushed=in_force.pushed) if in_force.pushed else self.model

    def _apply(
        self, placement: Placement, cell: Cell, reach: Reach, version: str, *, empty: bool
    ) -> Mapping[str, int]:
        """When each proxy of the cell had taken it up (CLOCK_MONOTONIC). `empty`: wait as well until nothing
        of the former configuration is left."""
        used = [placed.name for placed in placement.of(cell.topology)]
        return self._taken_up(
            placement,
            cell,
            reach,
            used,
            lambda: self._bring(placement, cell, version, within_trial=not empty),
            empty=empty,
        )

    def _renew(
        self, placement: Placement, cell: Cell, reach: Reach, files: Mapping[str, IdentityFiles]
    ) -> Mapping[str, int]:
        """These proxies get other certificates and nothing else; when each had taken them up."""
        last = self._brought[placement.process_set]

        def bring() -> dict[str, taken_up.Pushed]:
            own = {name: placement.directory / name for name in files}
            brought = self._deliveries[placement.process_set].bring(
                {directory: last.configs[name] for name, directory in own.items()},
                last.version,
                {directory: files[name] for name, directory in own.items()},
            )
            return {name: replace(last.pushed[name], brought=brought[own[name]]) for name in files}

        return self._taken_up(placement, cell, reach, list(files), bring, empty=False)

    def _taken_up(
        self,
        placement: Placement,
        cell: Cell,
        reach: Reach,
        used: Sequence[str],
        bring: Callable[[], Mapping[str, taken_up.Pushed]],
        *,
        empty: bool,
    ) -> Mapping[str, int]:
        pushed = bring()
        delivery = self._deliveries[placement.process_set]
        own = {name: placement.directory / name for name in used}
        told = settling.acknowledged(delivery, own, cell, placement.patience.settle_s)
        settle_s = placement.patience.settle_s
        deadline = time.monotonic() + settle_s

        def settle(name: str) -> int:
            def waiting(stats: Stats) -> list[str]:
                missing = taken_up.missing(stats, pushed[name])
                at_once = self._drain_time_s == 0
                return missing + (taken_up.left(stats, pushed[name], drains_at_once=at_once) if empty else [])

            settling.settle(EnvoyAdmin(name, reach), cell, waiting, settle_s, deadline)
            return told[name].done_ns or time.monotonic_ns()

        return dict(zip(used, together(settle, used), strict=True))

    def _bring(
        self,
        placement: Placement,
        cell: Cell,
        version: str,
        *,
        within_trial: bool = False,
        heard: bool = True,
    ) -> Mapping[str, taken_up.Pushed]:
        own = placement.process_set
        in_force = self._in_force.get(own, InForce())
        ready = self._foreseen.get(own, {}).get(in_force) if within_trial else None
        made = ready or self._made(placement, cell, in_force, within_trial=within_trial)
        at = {name: placement.directory / name for name in made.configs}
        brought = self._deliveries[own].bring(
            {at[name]: config for name, config in made.configs.items()},
            version,
            {directory: self._files(placement, name, cell) for name, directory in at.items()},
            heard=heard,
        )
        pushed = {
            name: taken_up.Pushed(brought[directory], made.stores, name in made.is_store)
            for name, directory in at.items()
        }
        self._brought[own] = _Brought(version, made.configs, pushed)
        return pushed

    def _made(self, placement: Placement, cell: Cell, in_force: InForce, *, within_trial: bool) -> _Made:
        model, changed = self._with(in_force), in_force.cell(cell)
        generation = self._generations[placement.process_set]
        view = model.view(placement, changed, generation, SOURCES)
        resources = model.resources(changed, placement.trust_domain)
        return _Made(
            self._configure(view, resources, within_trial),
            view.stores,
            frozenset(service.name for service in view.services if service.is_store),
        )

    def _files(self, placement: Placement, name: str, cell: Cell) -> IdentityFiles:
        files = self._identities.current(placement, name, form_of(cell))
        if files.chain.exists():
            return files
        return self._identities.issue(placement, name, form_of(cell), PROXY_UID)


@dataclass(frozen=True)
class _Made:
    """The configuration of all proxies of a process set."""

    configs: Mapping[str, ProxyConfig]
    """By workload."""
    stores: frozenset[int]
    """Ports of services that carry no requests."""
    is_store: frozenset[str]
    """Workloads that are such services."""


@dataclass(frozen=True)
class _Brought:
    """What the proxies of a process set were last brought, by workload."""

    version: str
    configs: Mapping[str, ProxyConfig]
    pushed: Mapping[str, taken_up.Pushed]


def _controller(placement: Placement) -> Path:
    return placement.directory / CONTROLLER_DIRECTORY
