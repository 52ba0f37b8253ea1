"""The processes of one environment: services and sidecars, started, waited for, watched.

Rules of this file:
- Every start has an environment of another size and another place in the order: both move the stack and the
  heap, and would otherwise bias all trials of an execution the same way (Mytkowicz et al., ASPLOS 2009).
- A process of a mesh inherits nothing of the user's environment but where programs are found.
- All are started before any is waited for.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from meshwise.core import messages
from meshwise.core.process import LaunchPlan, OwnedProcess
from meshwise.mesh.seam import ProcessPlan, Ready
from meshwise.testbed.layout import Environment
from meshwise.testbed.local.pod import Pod

_PADDING_BYTES = 4096
"""A page: the initial stack position varies over all its offsets."""
_OPEN_FILES = 65536
_LOG_BYTES = 256 << 20
"""A log lies in memory: a process that writes too much is ended before memory is used up."""
_INHERITED = ("PATH", "PYTHONPATH")


@dataclass(frozen=True)
class Cpus:
    """Who runs where; empty: wherever the kernel likes."""

    instrument: tuple[int, ...] = ()
    others: tuple[int, ...] = ()


def assign_cpus(available: Iterable[int], *, pin: bool) -> Cpus:
    """With pinning the instrument has the first CPU for itself and everything else shares the rest."""
    cpus = sorted(available)
    if not pin or len(cpus) < 2:
        return Cpus()
    return Cpus((cpus[0],), tuple(cpus[1:]))


@dataclass(frozen=True)
class Start:
    """One process that is due in one environment."""

    environment: Environment
    plan: ProcessPlan


def due_starts(environment: Environment, plans: Sequence[ProcessPlan], chance: random.Random) -> list[Start]:
    """All processes of an environment, in a random order."""
    return [Start(environment, plan) for plan in chance.sample(plans, len(plans))]


def start(
    due: Start,
    pods: Mapping[str, Pod],
    logs: Path,
    cpus: Cpus,
    chance: random.Random,
    *,
    privileged: bool,
    under: Callable[[LaunchPlan], LaunchPlan] | None = None,
) -> OwnedProcess:
    """Start one process in its pod; the caller owns it. `under`: a counter, whose processes all have an
    environment of the same size."""
    plan = due.plan
    pod = pods[due.environment.pod_name(plan.pod)]
    return pod.start(
        plan.role,
        plan.argv,
        {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            **plan.environment,
            "MESHWISE_PADDING": "" if under else "x" * chance.randrange(_PADDING_BYTES),
        },
        logs / f"{due.environment.name}/{plan.pod}-{plan.role}.log",
        uid=plan.uid if privileged else None,
        directory=plan.directory,
        cpus=cpus.others,
        open_files=_OPEN_FILES,
        file_bytes=_LOG_BYTES,
        under=under,
    )


def wait_ready(
    started: Sequence[tuple[Start, OwnedProcess]], pods: Mapping[str, Pod], ready_s: float
) -> None:
    """Wait for all of them, `ready_s` together. Raises MW211 or MW212 for the first that is not ready."""
    begun = time.monotonic()
    for due, process in started:
        if (ready := due.plan.ready) is not None:
            pod = pods[due.environment.pod_name(due.plan.pod)]
            left_s = ready_s - (time.monotonic() - begun)
            process.wait_until(partial(answers, pod, ready), "ready", max(round(left_s, 1), 0.0))


def answers(pod: Pod, ready: Ready) -> bool:
    """Whether GET `path` on the pod's loopback answers 200."""
    try:
        with pod.dial("127.0.0.1", ready.port) as connection:
            connection.sendall(
                f"GET {ready.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            return connection.recv(64).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def check_alive(processes: Iterable[OwnedProcess]) -> None:
    """Raises MW503 for the first process that has ended."""
    for process in processes:
        if not process.running:
            raise messages.PROCESS_GONE.error(
                name=process.name, ending=process.ending, tail=process.log_tail() or "(its log is empty)"
            )
