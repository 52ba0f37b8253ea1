"""Program of the tests of counting on real proxies: `inside_counting.py SCENE`. Prints one line of JSON per
thing told. The counter is a fake: it runs nothing under valgrind, so a scene takes seconds."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from itertools import groupby

from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.runner.trial import run_round
from meshwise.study.counting import Counting
from meshwise.study.design.counting import counting_design
from meshwise.study.model import LADDER, MeshName, Protocol, Study, Trial
from meshwise.telemetry.counting.fake import FakeCounter
from meshwise.telemetry.counting.seam import Count
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import LiveProgress
from tests.support.inside_world import say
from tests.support.studies import cell, study

PLAINTEXT, _, STRICT, *_, FINE = LADDER


def question(*cells: object, executions: int = 2) -> Study:
    counting = Counting(8, 2, 4, 3, executions, at_once=2)
    return study([cell(STRICT), *cells], counting=counting, timed=False)  # type: ignore[list-item]


def bed_of(asked: Study) -> LocalTestbed:
    counter = FakeCounter(lambda name: Count(time.monotonic_ns(), None, {"read": 3}), slowness=2.0)
    return LocalTestbed(asked, {MeshName.ISTIO: IstioMesh()}, counter=counter)


def nothing(_: LiveProgress) -> None:
    return


def rounds(asked: Study) -> list[list[Trial]]:
    return [list(arms) for _, arms in groupby(counting_design(asked), key=lambda trial: trial.round)]


def windows() -> int:
    """Every protocol, two lives at once."""
    asked = question(
        cell(PLAINTEXT), cell(FINE, length=2), cell(FINE, Protocol.GRPC), cell(STRICT, Protocol.HTTP2),
        cell(STRICT, Protocol.TCP),
    )  # fmt: skip
    with bed_of(asked) as bed:
        facts = bed.environment()
        say(counter=facts["counter"], workers=facts["workers"], slowness=facts["slowness"])
        bed.restart(asked.executions)
        for arms in rounds(asked):
            for outcome in run_round(arms, bed, nothing):
                found = outcome.measurement
                say(
                    cell=outcome.trial.cell.name,
                    nodes=outcome.trial.cell.length,
                    life=outcome.trial.process_set,
                    failure=outcome.failure,
                    status=outcome.status,
                    flags=found.flags if found else (),
                    requests=found.requests.num_rows if found else 0,
                    warmup=sum(each < 0 for each in found.requests["sent_ns"].to_pylist()) if found else 0,
                    errors=sorted(set(found.requests["error"].to_pylist())) if found else [],
                    counts=found.counts.to_pylist() if found and found.counts is not None else [],
                )
    return 0


def killed() -> int:
    """A sidecar ends within a window; then all afresh."""
    asked = question(executions=3)
    with bed_of(asked) as bed:
        bed.restart(asked.executions)
        victim = bed._processes.of("istio/b")[0]

        def end_it(_: LiveProgress) -> None:
            victim.send(signal.SIGKILL)

        arms = rounds(asked)[0]
        idle = Counting(8, 200, 4, 0, 3, at_once=2)
        bed._study = study([cell(STRICT)], counting=idle, timed=False)
        for outcome in run_round(arms, bed, end_it):
            say(
                life=outcome.trial.process_set,
                status=outcome.status,
                failure=outcome.failure,
                killed=victim.name,
            )
        bed._study = asked
        bed.restart(asked.executions + 1)
        (outcome,) = run_round(rounds(asked)[1], bed, nothing)
        say(status=outcome.status, failure=outcome.failure)
    return 0


SCENES: dict[str, Callable[[], int]] = {each.__name__: each for each in (windows, killed)}

if __name__ == "__main__":
    sys.exit(enter_world(SCENES[sys.argv[1]]))
