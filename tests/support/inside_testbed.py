"""Program of the tests of the local testbed with real proxies: `inside_testbed.py SCENE [WORDS]`.

Like `inside_world`, for scenes that run trials. Prints one line of JSON per trial.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest

from meshwise.archive.outcome import TrialOutcome
from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import Patience
from meshwise.mesh.istio.bootstrap import ADMIN_PORT
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.runner.trial import run_round
from meshwise.study.design.blocks import design_block
from meshwise.study.model import (
    LADDER,
    Arrangement,
    Arrivals,
    Control,
    MeshName,
    Protocol,
    Role,
    Study,
    Trial,
    TrialPlan,
)
from meshwise.testbed.local import calibration
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import LiveProgress, Measurement, Observe, Testbed
from tests.support.inside_world import say
from tests.support.studies import cell, study, trial

PLAINTEXT, PERMISSIVE, STRICT, _, FINE = LADDER
MESHES = {MeshName.NONE: NoneMesh, MeshName.ISTIO: IstioMesh}


def testbed(question: Study) -> LocalTestbed:
    return LocalTestbed(question, {name: MESHES[name]() for name in question.environments})


def tell(of: Trial, measured: Measurement) -> None:
    table, telemetry = measured.requests, measured.telemetry
    say(
        trial=of.trial_id,
        status=counts(table, "status"),
        clients=counts(table, "client"),
        lost=table.column("done_ns").null_count,
        first_ns=table.column("intended_ns").to_pylist()[:1],
        cpu=sorted({row["source"] for row in telemetry.to_pylist() if row["metric"] == "cpu_ns"}),
        metrics=sorted(set(telemetry.column("metric").to_pylist())),
        instrument=sorted(measured.instrument),
        failure=measured.failure,
        log_tail=measured.log_tail,
    )


def counts(table: pa.Table, column: str) -> dict[str, int]:
    values = table.column(column).to_pylist()
    return {str(value): values.count(value) for value in sorted(set(values))}


def nothing(_: LiveProgress) -> None:
    return


def run(bed: LocalTestbed, one: Trial, observe: Observe = nothing) -> None:
    bed.apply(one)
    proof = bed.prove(one)
    if not proof.passed:
        say(trial=one.trial_id, unproven=[str(check) for check in proof.checks if not check.passed])
        return
    tell(one, bed.measure([one], observe)[one.trial_id])


def ladder() -> int:
    """One trial of each kind, then all processes afresh and one more."""
    cells = [
        cell(),
        cell(PLAINTEXT),
        cell(FINE, length=2),
        cell(FINE, Protocol.HTTP2),
        cell(STRICT, Protocol.GRPC),
    ]
    cells.append(cell(PERMISSIVE, plaintext_share=0.5))
    cells.append(cell(PERMISSIVE, Protocol.TCP, plaintext_share=0.5))
    with testbed(
        study(cells, control=Control(twin=(cells[1],)), pin_cpus=len(os.sched_getaffinity(0)) > 1)
    ) as bed:
        say(environment=bed.environment())
        bed.restart(0)
        for number, one in enumerate(cells):
            run(bed, trial(number, one))
        run(bed, replace(trial(10, cells[1], Role.TWIN), process_set="b"))
        bed.restart(1)
        run(bed, trial(11, cells[1]))
    say(left=[name for name in os.listdir("/proc") if name.isdigit() and int(name) > 2])  # noqa: PTH208
    return 0


def fault(role: str) -> int:
    """Kill one process while a trial runs; then start afresh and measure again."""
    one = cell(STRICT)
    long = TrialPlan(
        400_000_000, 2_100_000_000, Arrivals.CONSTANT, 10**9
    )  # not at its end when it is watched
    with testbed(study([one], trial=long)) as bed:
        bed.restart(0)
        run(bed, trial(0, one), observe=kill_once(lambda: pid_of(role)))
        try:
            bed.apply(trial(1, one))
            say(applied=True)
        except MeshwiseError as error:
            say(refused=error.code, fault=error.fault, what=error.what)
        bed.restart(0)
        run(bed, trial(2, one))
    return 0


def kill_once(pid: Callable[[], int]) -> Observe:
    done: list[int] = []

    def observe(_: LiveProgress) -> None:
        if not done:
            done.append(pid())
            os.kill(done[0], signal.SIGKILL)

    return observe


MARKS = {"proxy": b"--concurrency", "service": b"meshwise.service", "instrument": b"meshwise.load"}


def pid_of(role: str) -> int:
    """The first process of that role in this world."""
    for name in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):  # noqa: PTH208
        with open(f"/proc/{name}/cmdline", "rb") as file:  # noqa: PTH123
            if MARKS[role] in file.read().split(b"\0"):
                return int(name)
    raise LookupError(role)


class Meanwhile:
    """A testbed to which something happens between the last proof of a round and its start."""

    def __init__(self, bed: LocalTestbed, happens: Callable[[], None]) -> None:
        self._bed, self._happens = bed, happens

    def __getattr__(self, name: str) -> object:
        return getattr(self._bed, name)

    def measure(self, trials: Sequence[Trial], observe: Observe) -> Mapping[str, Measurement]:
        self._happens()
        return self._bed.measure(trials, observe)


def gone() -> int:
    """Arms to which there is no connection any more after their proof: one, two, all."""
    cells = [cell(), cell(PLAINTEXT), cell(STRICT)]
    question = study(cells, arrangement=Arrangement.TOGETHER)
    arms = {one.cell.posture.name: one for one in design_block(question, 0)}
    with testbed(question) as bed:

        def stop_listening(posture: str) -> None:
            """The proxy lives, and takes no connection."""
            pod = f"istio/{arms[posture].process_set}/client"
            bed._pods[pod].tell(ADMIN_PORT, "/drain_listeners")

        def end_service() -> None:
            os.kill(pid_in("none/a/node-1"), signal.SIGKILL)

        def pid_in(pod: str) -> int:
            return next(each.pid for each in bed._processes.of("none/a") if each.name.startswith(pod))

        def happen(*gone: str) -> None:
            for posture in gone:
                end_service() if posture == "none" else stop_listening(posture)

        postures = list(arms)
        for lost in (["strict"], ["none", "strict"], postures):
            bed.restart(0)
            watched = cast(Testbed, Meanwhile(bed, partial(happen, *lost)))
            outcomes = run_round(list(arms.values()), watched, nothing)
            say(lost=lost, arms={one.trial.cell.posture.name: summary(one) for one in outcomes})
    return 0


def summary(outcome: TrialOutcome) -> dict[str, object]:
    measured = outcome.measurement
    assert measured is not None
    return {
        "status": outcome.status,
        "failure": outcome.failure,
        "flags": list(measured.flags),
        "answers": counts(measured.requests, "status"),
        "cpu": sorted({r["source"] for r in measured.telemetry.to_pylist() if r["metric"] == "cpu_ns"}),
    }


def hold() -> int:
    """Trials without end, for the test that kills them."""
    one = cell(FINE)
    say(pid_namespace=os.stat("/proc/self/ns/pid").st_ino)  # noqa: PTH116
    with testbed(study([one])) as bed:
        for execution in range(100):
            bed.restart(execution)
            say(restarted=execution)
            run(bed, trial(execution, one))
    return 0


def slow_start() -> int:
    """MESHWISE_ENVOY names one that takes seconds to start: too long for a run that does not know it."""
    hasty = Patience(ready_s=1.0)
    found = calibration.slowness(study([cell(STRICT)]))
    for patience in (hasty, hasty.slowed(found.factor)):
        question = study([cell(STRICT)])
        with LocalTestbed(question, {MeshName.ISTIO: IstioMesh()}, patience=patience) as bed:
            try:
                bed.restart(0)
            except MeshwiseError as error:
                say(refused=error.code, what=error.what)
                continue
            say(slowness=bed.environment()["slowness"], measured=found.factor, of=found.of)
            run(bed, trial(0, cell(STRICT)))
    return 0


def conform() -> int:
    """The suite of the seam, with a report in the output."""
    return int(
        pytest.main(
            ["-q", "-x", "-p", "no:cacheprovider", str(Path(__file__).with_name("inside_conformance.py"))]
        )
    )


SCENES = {scene.__name__: scene for scene in (ladder, fault, gone, hold, slow_start, conform)}

if __name__ == "__main__":
    scene, *words = sys.argv[1:]
    sys.exit(enter_world(lambda: SCENES[scene](*words)))
