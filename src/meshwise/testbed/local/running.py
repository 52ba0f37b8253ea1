"""The processes of one execution, by environment: started together, started again one by one, ended."""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from meshwise.core.patience import Patience
from meshwise.core.process import OwnedProcess, stop_all
from meshwise.mesh.seam import Drain
from meshwise.testbed.layout import Environment
from meshwise.testbed.local import processes
from meshwise.testbed.local.counting import CountedSidecars
from meshwise.testbed.local.pod import Pod
from meshwise.testbed.local.processes import Cpus, Start

ENDING_S = 0.3


class RunningProcesses:
    """Owner of every process of an execution but those that an application keeps. `stop` ends them all."""

    def __init__(
        self,
        pods: Mapping[str, Pod],
        home: Path,
        cpus: Cpus,
        patience: Patience,
        *,
        seed: int,
        privileged: bool,
        counting: CountedSidecars | None = None,
    ) -> None:
        """`home`: below it are logs and the counter's files. `counting`: sidecars run under its counter."""
        self._pods, self._home, self._cpus, self._patience = pods, home, cpus, patience
        self._seed, self._privileged, self._counting = seed, privileged, counting
        self._running: dict[str, list[OwnedProcess]] = {}
        self._started: dict[str, Start] = {}

    @property
    def logs(self) -> Path:
        return self._home / "logs"

    def clear_logs(self) -> None:
        """Those of an execution that has ended."""
        shutil.rmtree(self.logs, ignore_errors=True)

    def of(self, environment: str) -> list[OwnedProcess]:
        """By the environment's name; none before the first start."""
        return list(self._running.get(environment, ()))

    def start(self, due: Sequence[Start], chance: random.Random) -> None:
        """Returns when all are ready. Raises MW211 or MW212."""
        started = []
        for one in due:
            process = self._start(one, chance)
            self._running.setdefault(one.environment.name, []).append(process)
            self._started[process.name] = one
            started.append((one, process))
        processes.wait_ready(started, self._pods, self._patience.ready_s)
        if self._counting:
            self._counting.attach(process for _, process in started)

    def _start(self, due: Start, chance: random.Random) -> OwnedProcess:
        under = self._counting.start(due, self._home / "counted") if self._counting else None
        return processes.start(
            due, self._pods, self.logs, self._cpus, chance, privileged=self._privileged, under=under
        )

    def start_again(self, process: OwnedProcess, *, drain: bool = False) -> OwnedProcess:
        """End a process, as its mesh does or at once, and start it anew; returns when it is ready. Raises
        MW211 or MW212; where it drains also MW921."""
        process.asked_to_stop = True
        due = self._started[process.name]
        if drain and due.plan.drain is not None:
            self._drain(process, due, due.plan.drain)
        process.send(signal.SIGKILL)
        process.stop()
        again = self._start(due, random.Random(f"{self._seed} again {process.name} {time.monotonic_ns()}"))
        running = self._running[due.environment.name]
        running[running.index(process)] = again
        processes.wait_ready([(due, again)], self._pods, self._patience.ready_s)
        if self._counting:
            self._counting.attach([again])
        return again

    def _drain(self, process: OwnedProcess, due: Start, drain: Drain) -> None:
        """Returns when it has ended, or had its time."""
        if drain.path:
            self._pods[due.environment.pod_name(due.plan.pod)].tell(drain.port, drain.path)
            process.wait(drain.wait_s)  # the mesh has that time on a slow machine too
        process.send(signal.SIGTERM)
        process.wait(drain.end_s * self._patience.slowness)

    def revive(self, environment: Environment, silent: Collection[str]) -> Sequence[str]:
        """Start again what has ended, and the proxies of these workloads; each with how it had ended."""
        stuck = {f"{environment.pod_name(name)}/proxy" for name in silent}
        revived = []
        for process in self.of(environment.name):
            if process.running and process.name not in stuck:
                continue
            # What is ending has closed its sockets some time before its parent is told.
            ended = process.wait(ENDING_S * self._patience.slowness)
            ending = process.ending if ended else "fell silent"
            self.start_again(process)
            revived.append(f"{process.name} {ending}")
        return revived

    @contextmanager
    def without(self, environment: Environment, role: str) -> Iterator[str]:
        """Processes of this role have ended within, and are started again afterwards; why not, if there is
        none."""
        due = [each for each in self.of(environment.name) if each.name.endswith(f"/{role}")]
        for process in due:
            process.asked_to_stop = True
            process.send(signal.SIGKILL)
            process.stop()
        try:
            yield "" if due else f"no process here is the {role}"
        finally:
            for process in due:
                self.start_again(process)

    @contextmanager
    def still(self, environment: Environment, role: str) -> Iterator[None]:
        """Processes of this role stand still within: what is open stays open, and nobody answers."""
        due = [each for each in self.of(environment.name) if each.name.endswith(f"/{role}")]
        for process in due:
            process.send(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in due:
                process.send(signal.SIGCONT)

    def stop(self) -> None:
        everyone = [process for running in self._running.values() for process in running]
        self._running = {}
        if self._counting:
            self._counting.let_go()
        stop_all(everyone, self._patience.stop_s)
