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
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Self

import pyarrow as pa

from meshwise.core.errors import MeshwiseError
from meshwise.core.modes import PRIVATE_DIRECTORY, make_directory
from meshwise.core.patience import USUAL, Patience
from meshwise.core.process import OwnedProcess
from meshwise.load.spec import LoadSpec
from meshwise.mesh.dump import readable
from meshwise.mesh.expectations import Who
from meshwise.mesh.seam import OUTSIDER, LocalMesh, Proof
from meshwise.study.design import rounds
from meshwise.study.design.counting import counting_design
from meshwise.study.design.needs import needs_of
from meshwise.study.model import MeshName, Study, Trial
from meshwise.study.topology import CLIENT
from meshwise.telemetry.counting.seam import Counter as ProcessCounter
from meshwise.testbed.applications import choose
from meshwise.testbed.applications.seam import Application, ApplicationEnvironment
from meshwise.testbed.layout import Environment, lay_out
from meshwise.testbed.local import facts, instrument, links, listening, processes, spans
from meshwise.testbed.local.checks import require_room
from meshwise.testbed.local.counting import COUNTED_WORKERS, CountedSidecars, Surroundings
from meshwise.testbed.local.disturbed import disturbed_arm
from meshwise.testbed.local.going_through import go_through
from meshwise.testbed.local.happening import Happenings
from meshwise.testbed.local.measure import Arm, measure
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.profiled import Profilers
from meshwise.testbed.local.reach import LocalReach
from meshwise.testbed.local.running import RunningProcesses
from meshwise.testbed.local.spans import SpanCollector
from meshwise.testbed.local.stage import CONTROL_PLANE, LocalStage
from meshwise.testbed.local.world import current_world
from meshwise.testbed.seam import Measurement, Observe, ReachedPods

STATE_LOG_BYTES = 32 << 10
"""Of each process's log that is kept after a failure."""


class LocalTestbed:
    """See `meshwise.testbed.seam.Testbed`. Lives inside a world (`world.enter_world`)."""

    def __init__(
        self,
        study: Study,
        meshes: Mapping[MeshName, LocalMesh],
        directory: Path | None = None,
        application: Application | None = None,
        patience: Patience = USUAL,
        counter: ProcessCounter | None = None,
    ) -> None:
        """`directory`: memory-backed, for keys, configuration, logs; by default the world's own.
        `application`: instead of the study's own. `patience`: of all that waits. `counter`: for the study's
        counting trials, and for no others; sidecars run under it, and all that waits is as patient."""
        self._study = study
        self._meshes = meshes
        self._directory = directory
        self._slowness = patience.slowness
        self._patience = patience.slowed(counter.slowness) if counter else patience
        self._counting = CountedSidecars(counter) if counter else None
        self._workers = COUNTED_WORKERS if counter else study.proxy_workers
        self._cpus = processes.assign_cpus(os.sched_getaffinity(0), pin=study.pin_cpus)
        self._stack = ExitStack()
        self._rules: dict[str, list[str]] = {}
        self._starts = 0
        self._spans: SpanCollector | None = None
        self._application = application or choose.application_of(study)

    def __enter__(self) -> Self:
        """Make pods, links and rules. Raises MW201 outside a world, MW214 to MW216 where so many sidecars or
        connections cannot be, MW501 or MW502 if the kernel refuses."""
        world = current_world()
        self._privileged, self._own_users = world.privileged, world.own_users
        self._home = self._directory or world.secrets
        self._trace = instrument.replayed(self._study, self._home)
        counting = self._counting is not None
        environments = lay_out(self._study, self._home / "environments", self._patience, counting=counting)
        require_room(needs_of(self._study, counting=counting))
        self._environments = {(e.placement.mesh, e.placement.process_set): e for e in environments}
        with ExitStack() as stack:
            wanted = [pod for environment in environments for pod in environment.pods()]
            self._pods: dict[str, Pod] = stack.enter_context(links.network(wanted, self._patience))
            self._processes = RunningProcesses(
                self._pods, self._home, self._cpus, self._patience,
                seed=self._study.seed, privileged=self._privileged, counting=self._counting,
            )  # fmt: skip
            self._spans = spans.collector(
                self._home, environments, self._pods, self._cpus.instrument, self._patience, stack
            )
            stack.enter_context(self._application)
            self._hands = stack.enter_context(ThreadPoolExecutor(2 * len(environments), "event"))
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
        return {
            **facts.of_meshes(
                self._meshes,
                privileged=self._privileged,
                counting=self._counting is not None,
                traced=self._spans is not None,
            ),
            "privileged": self._privileged,
            "own_users": self._own_users,
            "slowness": self._slowness,  # the machine's; a counter's is no fact about it
            "workers": self._workers,
            **(self._counting.describe() if self._counting else {}),
            "cpus": asdict(self._cpus),
            "capture": self._rules,
            **self._application.describe(),
        }

    def restart(self, execution: int) -> None:
        self._stop_processes()
        self._starts += 1
        chance = random.Random(f"{self._study.seed} execution {execution} start {self._starts}")
        self._processes.clear_logs()
        due: list[processes.Start] = []
        for environment in self._in_execution(execution):
            mesh, placement = self._meshes[environment.placement.mesh], environment.placement
            shutil.rmtree(placement.directory, ignore_errors=True)
            make_directory(placement.directory, PRIVATE_DIRECTORY)
            mesh.prepare(placement, environment.first_cell)
            services = self._application.start(
                self._place(environment), f"{self._study.seed} execution {execution}"
            )
            plans = [*mesh.processes(placement, self._workers), *services]
            due += processes.due_starts(environment, plans, chance)
        chance.shuffle(due)
        self._processes.start(due, chance)
        if self._counting:
            go_through(
                [trial for trial in counting_design(self._study) if trial.execution == execution],
                self.apply,
                self.prove,
            )

    def apply(self, trial: Trial) -> None:
        environment = self._of(trial)
        place = self._place(environment)
        processes.check_alive(self._watched(environment))
        mesh = self._meshes[trial.cell.mesh]
        try:
            self._application.rest(place)
            with self._reach(environment) as reach:
                mesh.reset(environment.placement, trial.cell, reach)
            self._application.renew(place, trial.cell)
        except MeshwiseError:
            processes.check_alive(self._watched(environment))  # a proxy that ended is the better reason
            raise

    def prove(self, trial: Trial) -> Proof:
        environment = self._of(trial)
        processes.check_alive(self._watched(environment))
        mesh = self._meshes[trial.cell.mesh]
        try:
            with self._reach(environment) as reach:
                delivered = mesh.delivered(environment.placement)
                proof = mesh.model.judge(environment.placement, trial.cell, reach, delivered)
        except MeshwiseError:
            processes.check_alive(self._watched(environment))
            raise
        if not proof.passed:  # of a process that has just ended it says nothing
            processes.check_alive(self._watched(environment))
        return proof

    def resources(self, trial: Trial) -> str:
        model, placement = self._meshes[trial.cell.mesh].model, self._of(trial).placement
        return model.resources(trial.cell, placement.trust_domain)

    def state(self, trial: Trial) -> Mapping[str, str]:
        environment = self._of(trial)
        used = environment.part(trial.cell.topology)
        names = used.pod_names()
        found = {
            f"{process.name.replace('/', '.')}.log": readable(process.log_tail(STATE_LOG_BYTES))
            for process in self._watched(environment)
            if process.name.rpartition("/")[0] in names
        }
        with self._reach(environment) as reach:
            told = self._meshes[trial.cell.mesh].state(used.placement, trial.cell, reach)
        return {**found, **told}

    def measure(self, trials: Sequence[Trial], observe: Observe) -> Mapping[str, Measurement]:
        if self._counting is not None:
            around = [self._surroundings(trial) for trial in trials]
            return self._counting.count(self._study, trials, around, observe)
        directory = self._home / "trial"
        shutil.rmtree(directory, ignore_errors=True)
        make_directory(directory, PRIVATE_DIRECTORY)
        environments = [self._of(trial) for trial in trials]
        used = [each.part(trial.cell.topology) for each, trial in zip(environments, trials, strict=True)]
        clients = [self._clients(*pair) for pair in zip(trials, environments, strict=True)]
        asked = [
            self._application.ask(
                self._place(environment),
                trial,
                {name: spec for name, _, spec in own},
                directory / trial.trial_id / "asked",
            )
            for trial, environment, own in zip(trials, environments, clients, strict=True)
        ]

        def start_instruments(numbers: Sequence[int], owner: ExitStack) -> list[list[instrument.Instrument]]:
            wanted = [
                [
                    instrument.Client(
                        name, self._pods[environments[arm].pod_name(workload)], asked[arm].clients[name]
                    )
                    for name, workload, _ in clients[arm]
                ]
                for arm in numbers
            ]
            started = instrument.start_round(
                wanted, directory, self._cpus.instrument, self._seed(trials), owner
            )
            return [
                [replace(one, label=asked[arm].label) for one in own]
                for arm, own in zip(numbers, started, strict=True)
            ]

        with ExitStack() as stack:
            arms = [
                Arm(
                    trial.trial_id,
                    environment.name,
                    self._watched(environment),
                    part.pod_names(),
                    self._meshes[trial.cell.mesh].samplers(
                        part.placement, stack.enter_context(self._reach(environment))
                    ),
                )
                for trial, environment, part in zip(trials, environments, used, strict=True)
            ]
            happenings = self._happenings(trials, used, arms, stack)
            study, beside = self._study, None
            if self._spans:
                beside = self._spans.begin(map(self._place, environments))
            profilers, timing = Profilers.of(trials, directory), (study.sampling, study.trial.timeline)
            looking = profilers.looking
            measured = measure(arms, start_instruments, observe, happenings, *timing, beside, looking)
        measured = profilers.told(measured)
        if self._spans:
            parts = zip(trials, used, arms, map(self._place, environments), strict=True)
            measured = self._spans.with_spans(measured, parts)
        return {
            trial.trial_id: answer.judge(measured[trial.trial_id], self._once_more(environment))
            for trial, environment, answer in zip(trials, environments, asked, strict=True)
        }

    @contextmanager
    def reached(self, trial: Trial) -> Iterator[ReachedPods]:
        environment = self._of(trial)
        with self._reach(environment) as reach:
            mesh, placement = self._meshes[trial.cell.mesh], environment.placement
            ended = partial(self._processes.without, environment, CONTROL_PLANE)
            stage = LocalStage(mesh, placement, reach, ended)
            yield ReachedPods(placement, reach, stage)

    def revive(self, trial: Trial, silent: Collection[str] = ()) -> Sequence[str]:
        return self._processes.revive(self._of(trial), silent)

    def _surroundings(self, trial: Trial) -> Surroundings:
        environment = self._of(trial)
        (_, _, spec), *_ = self._clients(trial, environment)
        return Surroundings(
            environment,
            self._meshes[trial.cell.mesh].model.entrance(environment.placement, trial.cell),
            self._pods,
            spec,
            self._watched(environment),
        )

    def _in_execution(self, execution: int) -> list[Environment]:
        """Those whose processes live in it."""
        if self._counting is None:
            return list(self._environments.values())
        lives = [trial for trial in counting_design(self._study) if trial.execution == execution]
        return list({id(found): found for trial in lives if (found := self._of(trial))}.values())

    def _once_more(self, environment: Environment) -> Callable[[LoadSpec, Path], pa.Table]:
        """Asks some requests again, after a trial."""

        def ask(spec: LoadSpec, files: Path) -> pa.Table:
            client = instrument.Client("again", self._pods[environment.pod_name(CLIENT)], spec)
            return instrument.run_once(lambda: instrument.start(client, files, self._cpus.instrument))

        return ask

    def _seed(self, trials: Sequence[Trial]) -> int:
        """Of a round's arrivals and their order."""
        return zlib.crc32(f"{self._study.seed} round {trials[0].round} attempt {trials[0].attempt}".encode())

    # --- parts -------------------------------------------------------------------------------------

    def _clients(self, trial: Trial, environment: Environment) -> list[tuple[str, str, LoadSpec]]:
        """(client, workload in whose pod it is, its load)"""
        request = self._meshes[trial.cell.mesh].model.request(trial.cell)
        cpu = self._cpus.instrument[0] if self._cpus.instrument else None
        inside = instrument.load_spec(self._study, trial, environment, request, cpu, self._trace)
        wanted = [(instrument.MESH_CLIENT, CLIENT, inside)]
        if trial.cell.plaintext_share:
            outside = instrument.outside_spec(inside, trial, environment)
            wanted.append((instrument.OUTSIDE_CLIENT, OUTSIDER, outside))
        if trial.cell.stranger_share:
            model = self._meshes[trial.cell.mesh].model
            entrance = model.entrance(environment.placement, trial.cell, Who.OTHER_NAMESPACE)
            stranger = instrument.stranger_spec(inside, trial, entrance)
            wanted.append((instrument.STRANGE_CLIENT, OUTSIDER, stranger))
        return wanted

    def _happenings(
        self,
        trials: Sequence[Trial],
        used: Sequence[Environment],
        arms: Sequence[Arm],
        stack: ExitStack,
    ) -> Happenings | None:
        """What the study does to some of these arms; None: nothing."""
        found = [
            disturbed_arm(
                trial.cell,
                part,
                self._meshes[trial.cell.mesh],
                stack.enter_context(self._reach(part)),
                self._processes,
                arm.processes,
                partial(self._application.again, self._place(part), trial.cell),
            )
            for trial, part, arm in zip(trials, used, arms, strict=True)
            if rounds.disturbed(self._study, trial)
        ]
        window_ns = self._study.window_ns(trials[0])
        return Happenings(found, self._study.trial.timeline, window_ns, self._hands) if found else None

    def _capture(self, environment: Environment) -> None:
        mesh = self._meshes[environment.placement.mesh]
        for placed in environment.placement.workloads:
            rules = mesh.capture(placed.name)
            if rules is not None:
                rules = self._application.capture(rules, placed.name)
                pod = self._pods[environment.pod_name(placed.name)]
                chains = links.capture(pod, rules, privileged=self._privileged)
                self._rules[str(mesh.model.name)] = [str(chain) for chain in chains]

    def _stop_processes(self) -> None:
        try:
            self._processes.stop()
        finally:
            self._application.stop()

    def _watched(self, environment: Environment) -> list[OwnedProcess]:
        """Every process that must live while this environment is in use; none before its first start."""
        return [*self._processes.of(environment.name), *self._application.beside(environment)]

    def _of(self, trial: Trial) -> Environment:
        return self._environments[trial.cell.mesh, trial.process_set]

    def _place(self, environment: Environment) -> ApplicationEnvironment:
        def pod(workload: str) -> Pod:
            return self._pods[environment.pod_name(workload)]

        return ApplicationEnvironment(
            environment,
            lambda workload, port, path: pod(workload).tell(port, path),
            lambda workload: pod(workload).network_fd,
            self._home / "nodes" / environment.name,
            self._home / "logs",
        )

    def _reach(self, environment: Environment) -> LocalReach:
        def dial(pod: str, address: str, port: int) -> socket.socket:
            return self._pods[environment.pod_name(pod)].dial(address, port)

        def listen(pod: str) -> socket.socket:
            return listening.on_link(self._pods[environment.pod_name(pod)])

        return LocalReach(dial, self._patience, listen)
