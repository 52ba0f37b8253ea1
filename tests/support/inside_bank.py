"""Program of the tests of the bank in pods: `inside_bank.py SCENE [WORDS]`. Prints a line of JSON per trial.

Like `inside_testbed`; a scene does to the bank what happens in production.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import redis

from meshwise.core import linux
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.runner.trial import run_round
from meshwise.study.bank import BankOperation, Stores
from meshwise.study.design.blocks import design_block
from meshwise.study.model import (
    LADDER,
    NO_MESH,
    Arrangement,
    Arrivals,
    Cell,
    MeshName,
    Posture,
    Protocol,
    TopologyKind,
    Trial,
    TrialPlan,
)
from meshwise.study.timeline import Declared, Restart, Restarted, Timeline
from meshwise.testbed.applications.bank.application import BankApplication
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import LiveProgress, Measurement, Observe
from tests.support.inside_testbed import counts
from tests.support.inside_world import say
from tests.support.studies import cell, study, trial

MESHES = {MeshName.NONE: NoneMesh, MeshName.ISTIO: IstioMesh, MeshName.LINKERD: LinkerdMesh}
MIX = (
    (BankOperation.PROFILE, 40.0),
    (BankOperation.TRANSFER, 40.0),
    (BankOperation.NOTIFY, 15.0),
    (BankOperation.STATEMENT, 5.0),
)
PLAN = TrialPlan(500_000_000, 2 * 10**9, Arrivals.POISSON, 3 * 10**9, mix=MIX)
STRICT, FINE = LADDER[2], LADDER[4]
RESTARTS = Timeline((Declared(Restart(Restarted.PROXY), every_ns=1_500_000_000),))


def of_bank(posture: Posture = NO_MESH, protocol: Protocol = Protocol.HTTP1, **more: object) -> Cell:
    levels = {"shape": TopologyKind.BANK, "rate_rps": 30.0, "request_bytes": 0, "response_bytes": 0}
    return cell(posture, protocol, **{**levels, **more})


def bank_testbed(
    cells: Sequence[Cell], plan: TrialPlan = PLAN, application: BankApplication | None = None
) -> LocalTestbed:
    question = study(cells, trial=plan)
    meshes = {name: MESHES[name]() for name in question.environments}
    return LocalTestbed(question, meshes, application=application)


def tell(of: Trial, measured: Measurement) -> None:
    table = measured.requests
    events = measured.events.to_pylist() if measured.events is not None else []
    say(
        cell=of.cell.name,
        failure=measured.failure,
        flags=list(measured.flags),
        checks=[check.observed for check in measured.checks],
        passed=[check.passed for check in measured.checks],
        status=counts(table, "status"),
        error=counts(table, "error"),
        operation=counts(table, "operation"),
        cpu=sorted({row["source"] for row in measured.telemetry.to_pylist() if row["metric"] == "cpu_ns"}),
        events=[(row["kind"], row["target"]) for row in events],
    )


def nothing(_: LiveProgress) -> None:
    return


def run(bed: LocalTestbed, one: Trial, observe: Observe = nothing) -> None:
    bed.apply(one)
    proof = bed.prove(one)
    if not proof.passed:
        say(cell=one.cell.name, unproven=[str(check) for check in proof.checks if not check.passed])
        return
    tell(one, bed.measure([one], observe)[one.trial_id])


def trials(mesh: str) -> int:
    """Every way to talk to the bank, with one mesh or none."""
    cells = [of_bank(protocol=Protocol.HTTP1), of_bank(protocol=Protocol.GRPC)]
    if mesh == MeshName.NONE:
        cells.append(of_bank(protocol=Protocol.HTTP2))
    else:
        cells = [
            of_bank(STRICT),
            of_bank(FINE),
            of_bank(FINE, Protocol.GRPC),
            of_bank(STRICT, stores=Stores.DIRECT),
        ]
        cells = [replace(each, mesh=MeshName(mesh)) for each in cells]
    with bank_testbed(cells) as bed:
        bed.restart(0)
        for number, one in enumerate(cells):
            run(bed, trial(number, one))
    say(left=[path.name for path in Path(tempfile.gettempdir()).glob("meshwise-store-*")])
    return 0


def together() -> int:
    """A round of two banks; then one more, in which the database of one of them dies."""
    cells = [of_bank(rate_rps=20.0), of_bank(STRICT, rate_rps=20.0)]
    question = study(cells, trial=PLAN, arrangement=Arrangement.TOGETHER)
    meshes = {name: MESHES[name]() for name in question.environments}
    bank = BankApplication(question)
    first = design_block(question, 0)
    second = [replace(each, trial_id=f"again-{each.trial_id}") for each in first]
    with LocalTestbed(question, meshes, application=bank) as bed:
        bed.restart(0)
        for arms, act in ((first, nothing), (second, kill_database(bank, "istio/a"))):
            for outcome in run_round(arms, bed, act):
                if outcome.measurement is None:
                    say(cell=outcome.trial.cell.name, unproven=outcome.failure)
                else:
                    tell(outcome.trial, outcome.measurement)
    return 0


def kill_database(bank: BankApplication, environment: str) -> Observe:
    done: list[bool] = []

    def observe(_: LiveProgress) -> None:
        if not done:
            done.append(True)
            bank._running[environment].postgres.process.send(signal.SIGKILL)

    return observe


def accidents(mesh: str) -> int:
    """Sidecars are killed while money moves."""
    one = replace(of_bank(STRICT), mesh=MeshName(mesh))
    plan = replace(PLAN, duration_ns=8 * 10**9, timeline=RESTARTS)
    with bank_testbed([one], plan) as bed:
        bed.restart(0)
        run(bed, trial(0, one))
    return 0


def database_dies() -> int:
    """In a trial; the next one has a fresh one."""
    one = of_bank()
    with bank_testbed([one]) as bed:
        bed.restart(0)
        done: list[int] = []

        def observe(_: LiveProgress) -> None:
            if not done:
                done.append(pid_of(b"postgres"))
                os.kill(done[0], signal.SIGKILL)

        run(bed, trial(0, one), observe)
        try:
            bed.apply(trial(1, one))
        except MeshwiseError as error:
            say(refused=error.code, what=error.what)
        bed.restart(0)
        run(bed, trial(2, one))
    return 0


def disk_full(directory: str) -> int:
    """The database has a file system of its own, which is full for some seconds while money moves."""
    linux.mount("meshwise-test", Path(directory), "tmpfs", linux.MS_NOSUID, "size=160m,mode=1777")
    tempfile.tempdir = directory
    busy, ordinary = of_bank(rate_rps=150.0), of_bank()
    filler = Path(directory) / "filler"
    made_room: list[bool] = []
    with bank_testbed([busy, ordinary], replace(PLAN, duration_ns=5 * 10**9)) as bed:
        bed.restart(0)

        def observe(live: LiveProgress) -> None:
            if live.elapsed_s > 4 and filler.exists():
                filler.unlink()
                made_room.append(True)
            elif not made_room and not filler.exists():
                fill(filler)

        run(bed, trial(0, busy), observe)
        filler.unlink(missing_ok=True)
        bed.restart(0)
        run(bed, trial(1, ordinary))
    return 0


def fill(path: Path) -> None:
    """To the last page."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def evicting() -> int:
    """The cache may hold next to nothing."""
    one = of_bank()
    bank = BankApplication(study([one]), {"redis": ("--maxmemory", "1mb")})
    with bank_testbed([one], application=bank) as bed:
        bed.restart(0)
        run(bed, trial(0, one))
        with redis.Redis.from_url(bank._running["none/a"].redis.local) as cache:
            say(evicted=cache.info("stats")["evicted_keys"])
    return 0


def late() -> int:
    """The clients time out early: the bank answers after they gave up."""
    one = of_bank(rate_rps=60.0)
    with bank_testbed([one], replace(PLAN, timeout_ns=2_000_000)) as bed:
        bed.restart(0)
        run(bed, trial(0, one))
    return 0


def hold() -> int:
    """Trials without end, for the test that kills them."""
    one = of_bank()
    say(pid_namespace=Path("/proc/self/ns/pid").stat().st_ino)
    with bank_testbed([one]) as bed:
        bed.restart(0)
        say(homes=[path.name for path in Path(tempfile.gettempdir()).glob("meshwise-store-*")])
        for number in range(100):
            run(bed, trial(number, one))
    return 0


def pid_of(name: bytes) -> int:
    """The first process of this world whose program has that name."""
    for path in sorted(Path("/proc").iterdir(), key=lambda each: (len(each.name), each.name)):
        if path.name.isdigit() and (path / "cmdline").read_bytes().split(b"\0")[0].endswith(b"/" + name):
            return int(path.name)
    raise LookupError(name)


SCENES = {
    scene.__name__: scene
    for scene in (trials, together, accidents, database_dies, disk_full, evicting, late, hold)
}


def main() -> int:
    scene, *words = sys.argv[1:]
    try:
        return enter_world(lambda: SCENES[scene](*words), keep=map(Path, words))
    except MeshwiseError as error:
        print(json.dumps({"error": error.code, "what": error.what}), flush=True)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
