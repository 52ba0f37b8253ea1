"""The local testbed: every environment of a study side by side on this machine, in one world.

    world (namespaces) -> network (pods) -> capture (rules) -> execution (processes) -> trial (instrument)

What is made once lives as long as the `with` block; processes live for one execution. Idle environments
carry no traffic. Everything is owned here, and the world takes the rest with it when it ends.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Self

from meshwise import __version__
from meshwise.core.errors import MeshwiseError
from meshwise.core.process import OwnedProcess, stop_all
from meshwise.mesh.seam import OUTSIDER, Dial, Fidelity, Mesh, Proof
from meshwise.study.model import MeshName, Study, Trial
from meshwise.testbed.local import host, instrument, links, measure, processes
from meshwise.testbed.local.layout import Environment, lay_out
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.world import current_world
from meshwise.testbed.seam import Measurement, Observe

FIDELITY = (
    Fidelity(
        "local-one-machine",
        "client, sidecars and services share this machine's CPUs and its loopback of virtual links",
        "latencies include competition for the CPU and no network distance; CPU per request is unaffected",
    ),
)


class LocalTestbed:
    """See `meshwise.testbed.seam.Testbed`. Lives inside a world (`world.enter_world`)."""

    def __init__(self, study: Study, meshes: Mapping[MeshName, Mesh], directory: Path | None = None) -> None:
        """`directory`: memory-backed, for keys, configuration, logs; by default the world's own."""
        self._study = study
        self._meshes = meshes
        self._directory = directory
        self._cpus = processes.assign_cpus(os.sched_getaffinity(0), pin=study.pin_cpus)
        self._stack = ExitStack()
        self._running: dict[str, list[OwnedProcess]] = {}
        """By environment; those of the current execution."""
        self._rules: dict[str, list[str]] = {}
        self._starts = 0

    def __enter__(self) -> Self:
        """Make pods, links and rules. Raises MW201 outside a world, MW501 or MW502 if the kernel refuses."""
        world = current_world()
        self._privileged = world.privileged
        self._home = self._directory or world.secrets
        environments = lay_out(self._study, self._home / "environments")
        self._environments = {(e.placement.mesh, e.placement.process_set): e for e in environments}
        with ExitStack() as stack:
            wanted = [pod for environment in environments for pod in environment.pods()]
            self._pods: dict[str, Pod] = stack.enter_context(links.network(wanted))
            for environment in environments:
                self._capture(environment)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._stop_processes()
        finally:
            self._stack.close()

    def environment(self) -> Mapping[str, object]:
        """Facts for `environment.json`."""
        fidelity: list[dict[str, str]] = [asdict(item) for item in FIDELITY]
        for name, mesh in self._meshes.items():
            fidelity += [
                {**asdict(item), "mesh": str(name)} for item in mesh.fidelity(privileged=self._privileged)
            ]
        return {
            "testbed": "local",
            "meshwise": __version__,
            "machine": host.facts(),
            "privileged": self._privileged,
            "proxies": {str(name): dict(mesh.describe()) for name, mesh in self._meshes.items()},
            "traits": {
                str(name): found for name, mesh in self._meshes.items() if (found := dict(mesh.traits()))
            },
            "workers": self._study.proxy_workers,
            "cpus": asdict(self._cpus),
            "capture": self._rules,
            "fidelity": fidelity,
        }

    def restart(self, execution: int) -> None:
        self._stop_processes()
        self._starts += 1
        chance = random.Random(f"{self._study.seed} execution {execution} start {self._starts}")
        logs = self._home / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        due: list[processes.Start] = []
        for environment in self._environments.values():
            mesh, placement = self._meshes[environment.placement.mesh], environment.placement
            shutil.rmtree(placement.directory, ignore_errors=True)
            placement.directory.mkdir(parents=True, mode=0o700)
            mesh.prepare(placement, environment.first_cell)
            specs = self._home / "nodes" / environment.name
            due += processes.due_starts(environment, mesh, self._study.proxy_workers, specs, chance)
        chance.shuffle(due)
        started = []
        for one in due:
            process = processes.start(one, self._pods, logs, self._cpus, chance, privileged=self._privileged)
            self._running.setdefault(one.environment.name, []).append(process)
            started.append((one, process))
        processes.wait_ready(started, self._pods)

    def apply(self, trial: Trial) -> None:
        environment = self._of(trial)
        processes.check_alive(self._running[environment.name])
        mesh = self._meshes[trial.cell.mesh]
        try:
            mesh.apply(environment.placement, trial.cell, self._dial(environment))
        except MeshwiseError:
            processes.check_alive(self._running[environment.name])  # a proxy that ended is the better reason
            raise

    def prove(self, trial: Trial) -> Proof:
        environment = self._of(trial)
        processes.check_alive(self._running[environment.name])
        mesh = self._meshes[trial.cell.mesh]
        try:
            proof = mesh.prove(environment.placement, trial.cell, self._dial(environment))
        except MeshwiseError:
            processes.check_alive(self._running[environment.name])
            raise
        if not proof.passed:  # of a process that has just ended it says nothing
            processes.check_alive(self._running[environment.name])
        return proof

    def resources(self, trial: Trial) -> str:
        return self._meshes[trial.cell.mesh].resources(trial.cell, self._of(trial).placement)

    def measure(self, trial: Trial, observe: Observe) -> Measurement:
        environment = self._of(trial)
        mesh = self._meshes[trial.cell.mesh]
        used = environment.part(trial.cell.topology)
        samplers = mesh.samplers(used.placement, self._dial(environment))
        directory = self._home / "trial"
        shutil.rmtree(directory, ignore_errors=True)

        def start_instruments(stack: ExitStack) -> list[instrument.Instrument]:
            return self._start_instruments(stack, trial, environment, directory)

        running = self._running[environment.name]
        return measure.measure(start_instruments, running, used.pod_names(), samplers, observe)

    # --- parts -------------------------------------------------------------------------------------

    def _start_instruments(
        self, stack: ExitStack, trial: Trial, environment: Environment, directory: Path
    ) -> list[instrument.Instrument]:
        request = self._meshes[trial.cell.mesh].request(trial.cell)
        cpu = self._cpus.instrument[0] if self._cpus.instrument else None
        inside = instrument.load_spec(self._study, trial, environment, request, cpu)
        wanted = [(instrument.MESH_CLIENT, "client", inside)]
        if trial.cell.plaintext_share:
            outside = instrument.outside_spec(inside, trial, environment)
            wanted.append((instrument.OUTSIDE_CLIENT, OUTSIDER, outside))
        started = []
        for client, workload, spec in wanted:
            pod = self._pods[environment.pod_name(workload)]
            one = instrument.Instrument.start(client, pod, spec, directory / client, self._cpus.instrument)
            stack.enter_context(one.process)
            started.append(one)
        return started

    def _capture(self, environment: Environment) -> None:
        mesh = self._meshes[environment.placement.mesh]
        for placed in environment.placement.workloads:
            rules = mesh.capture(placed.name)
            if rules is not None:
                pod = self._pods[environment.pod_name(placed.name)]
                chains = links.capture(pod, rules, privileged=self._privileged)
                self._rules[str(mesh.name)] = [str(chain) for chain in chains]

    def _stop_processes(self) -> None:
        everyone = [process for running in self._running.values() for process in running]
        self._running = {}
        stop_all(everyone)

    def _of(self, trial: Trial) -> Environment:
        return self._environments[trial.cell.mesh, trial.process_set]

    def _dial(self, environment: Environment) -> Dial:
        def dial(pod: str, address: str, port: int) -> socket.socket:
            return self._pods[environment.pod_name(pod)].dial(address, port)

        return dial
