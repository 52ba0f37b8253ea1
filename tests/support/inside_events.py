"""Program of the tests of events on real proxies: `inside_events.py SCENE`. Prints a line of JSON per trial.

Like `inside_testbed`; what is done to a trial is what its study declares.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import polars as pl

from meshwise.core.errors import MeshwiseError
from meshwise.measure.moments import Moments, happenings_of
from meshwise.measure.rule_change import rule_changes
from meshwise.mesh.istio.mesh import ISTIO_DRAIN_TIME_S, IstioMesh
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.linkerd.names import CONTROLLER_DIRECTORY
from meshwise.mesh.seam import LocalMesh
from meshwise.runner.trial import run_round
from meshwise.study.design.blocks import design_block
from meshwise.study.model import (
    LADDER,
    Arrangement,
    Arrivals,
    Cell,
    Control,
    ForbiddenBy,
    MeshName,
    Protocol,
    Study,
    Timeline,
    Trial,
    TrialPlan,
)
from meshwise.study.timeline import (
    Act,
    ChangePosture,
    Declared,
    Fail,
    Failing,
    PushPolicies,
    RenewalFault,
    Restart,
    Restarted,
    Rotate,
    Rotated,
)
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import LiveProgress
from tests.support.inside_testbed import nothing
from tests.support.inside_world import say
from tests.support.studies import cell, study

PLAINTEXT, PERMISSIVE, STRICT, NAMESPACE, FINE = LADDER
S = 10**9
LIFE_S = 6
ROW = ["intended_ns", "client", "error", "done_ns"]


def at(seconds: float, act: Act) -> Declared:
    return Declared(act, (round(seconds * S),))


def question(of: Cell, seconds: float, *declared: Declared, **more: Any) -> Study:
    plan = TrialPlan(300_000_000, round(seconds * S), Arrivals.CONSTANT, 2 * S, timeline=Timeline(declared))
    return study([of], trial=plan, **more)


def run(bed: LocalTestbed, arms: list[Trial]) -> None:
    for outcome in run_round(arms, bed, nothing):
        measured = outcome.measurement
        if measured is None:
            say(failure=outcome.failure, status=str(outcome.status))
            continue
        events = measured.events.to_pylist() if measured.events is not None else []
        say(
            role=str(outcome.trial.role),
            status=str(outcome.status),
            failure=outcome.failure,
            flags=list(measured.flags),
            events=[{**row, "detail": json.loads(row["detail"])} for row in events],
            failed=[
                [row["intended_ns"] / S, row["client"], row["error"], row["done_ns"]]
                for row in measured.requests.select(ROW).to_pylist()
                if row["error"] and row["intended_ns"] >= 0
            ],
            requests=measured.requests.num_rows,
        )


def again(of: Study) -> list[Trial]:
    return [replace(each, trial_id=f"again-{each.trial_id}") for each in design_block(of, 0)]


def changes() -> int:
    """Everything that Istio can change without a request noticing, beside a twin to which nothing happens;
    then the same once more, for which all of it must have been undone."""
    of = question(
        cell(STRICT, rate_rps=100.0),
        7,
        at(0.3, Rotate(Rotated.LEAF)),
        at(1.3, PushPolicies(50, relevant=True)),
        at(2.3, Rotate(Rotated.ISSUER, S // 2)),
        at(3.3, ChangePosture(NAMESPACE)),
        at(4, Rotate(Rotated.ANCHOR)),
        at(5, PushPolicies(20)),
        at(5.7, ChangePosture(STRICT)),
        at(6, Restart(Restarted.CONTROLLER)),
        control=Control(twin=(cell(STRICT, rate_rps=100.0),)),
        arrangement=Arrangement.TOGETHER,
    )
    # A busy machine keeps both arms waiting; only what an event does is to be a failure.
    of = replace(of, trial=replace(of.trial, timeout_ns=15 * S))
    with LocalTestbed(of, {MeshName.ISTIO: IstioMesh(drain_time_s=ISTIO_DRAIN_TIME_S, spare_keys=3)}) as bed:
        bed.restart(0)
        run(bed, design_block(of, 0))  # type: ignore[arg-type]
        for arm in again(of):
            bed.apply(arm)
            say(proven=bed.prove(arm).passed)
    return 0


def renewal() -> int:
    """Certificates expire while nobody signs; who starts anew then has no way until somebody does."""
    of = question(
        cell(STRICT, rate_rps=100.0, certificate_life_s=LIFE_S),
        10,
        at(0.3, Rotate(Rotated.LEAF)),
        at(1.5, Fail(Failing.RENEWAL, 7 * S, RenewalFault.GONE)),
        at(2.5, Rotate(Rotated.LEAF)),
        at(6.8, Restart(Restarted.PROXY, workload="client")),
        at(8.7, Rotate(Rotated.LEAF)),
    )
    with LocalTestbed(of, {MeshName.ISTIO: IstioMesh()}) as bed:
        bed.restart(0)
        run(bed, list(design_block(of, 0)))
    return 0


def transition() -> int:
    """Permissive to strict and back with a plaintext client that is still there."""
    of = question(
        cell(PERMISSIVE, rate_rps=100.0, plaintext_share=0.5),
        5.5,
        Declared(ChangePosture(STRICT), (S, 4 * S)),
    )
    # Who waits for a connection longer than that has failed, instead of being served when all is permissive.
    of = replace(of, trial=replace(of.trial, timeout_ns=S))
    with LocalTestbed(of, {MeshName.ISTIO: IstioMesh(drain_time_s=ISTIO_DRAIN_TIME_S)}) as bed:
        bed.restart(0)
        run(bed, list(design_block(of, 0)))
    return 0


def forbidden() -> int:
    """Strict to what forbids a client of another namespace, then to what forbids some of the requests, all on
    connections that are open; the first of opaque TCP too."""
    return _forbidden(MeshName.ISTIO, lambda: IstioMesh(drain_time_s=ISTIO_DRAIN_TIME_S))


def linkerd_forbidden() -> int:
    return _forbidden(MeshName.LINKERD, LinkerdMesh)


def _forbidden(name: MeshName, make: Callable[[], LocalMesh]) -> int:
    strict = replace(cell(STRICT, rate_rps=200.0), mesh=name, connections=4, forbidden_share=0.25)
    of = question(strict, 3.6, at(0.8, ChangePosture(NAMESPACE)), at(2, ChangePosture(FINE)))
    cells = [replace(strict, forbidden_by=by) for by in ForbiddenBy]
    if name is MeshName.ISTIO:
        cells.append(replace(strict, forbidden_by=ForbiddenBy.IDENTITY, protocol=Protocol.TCP))
    of = replace(of, cells=tuple(cells))
    with LocalTestbed(of, {name: make()}) as bed:
        bed.restart(0)
        for arm in design_block(of, 0):
            [outcome] = run_round([arm], bed, nothing)
            measured = outcome.measurement
            if measured is None or measured.events is None:
                say(failure=outcome.failure or "no events", status=str(outcome.status))
                continue
            requests, events = pl.from_arrow(measured.requests), pl.from_arrow(measured.events)
            assert isinstance(requests, pl.DataFrame)
            assert isinstance(events, pl.DataFrame)
            happened = happenings_of(events.with_columns(trial_id=pl.lit(arm.trial_id)))[arm.trial_id]
            found = rule_changes(requests, happened, Moments(happened, {}, of.window_ns(arm)), arm.cell)
            opened = pl.col("sent_ns").min()
            say(
                by=str(arm.cell.forbidden_by),
                protocol=str(arm.cell.protocol),
                failure=outcome.failure,
                passed=[
                    {**asdict(each), "event": each.happening.event, "done_ns": each.happening.done_ns}
                    for each in found
                ],
                rows=requests.select(
                    pl.coalesce("sent_ns", "intended_ns").alias("at_ns"),
                    pl.col("client").cast(pl.String),
                    pl.col("forbidden").fill_null(False),
                    "connection", "status", "done_ns",
                    pl.col("error").cast(pl.String),
                    first_ns=opened.over("connection", "client"),
                ).to_dicts(),
            )  # fmt: skip
    return 0


def gone() -> int:
    """A control plane that does not come back; then another execution, with another trial."""
    one = replace(cell(STRICT, rate_rps=50.0), mesh=MeshName.LINKERD)
    of = question(
        one,
        6,
        at(0.5, Fail(Failing.CONTROLLER, S, RenewalFault.GONE)),
        at(4, Restart(Restarted.PROXY)),
    )
    mesh: LocalMesh = LinkerdMesh()
    with LocalTestbed(of, {MeshName.LINKERD: mesh}) as bed:
        bed.restart(0)
        [arm] = design_block(of, 0)
        placement = bed._of(arm).placement
        bed.apply(arm)
        say(proven=bed.prove(arm).passed)

        def lose(_: LiveProgress) -> None:
            """What it needs for its start is not there any more."""
            shutil.rmtree(placement.directory / CONTROLLER_DIRECTORY, ignore_errors=True)

        measured = bed.measure([arm], lose)[arm.trial_id]
        events = measured.events.to_pylist() if measured.events is not None else []
        say(
            failure=measured.failure,
            flags=list(measured.flags),
            requests=measured.requests.num_rows,
            events=[{**row, "detail": json.loads(row["detail"])} for row in events],
        )
        bed.restart(0)
        run(bed, again(of))
    return 0


def linkerd_changes() -> int:
    """What Linkerd's own ways bring about, the anchor last, for which every proxy is started again; then the
    same cell once more, proven on what is left of it."""
    own = replace(cell(STRICT, rate_rps=100.0), mesh=MeshName.LINKERD)
    of = question(
        own,
        7,
        at(0.3, Rotate(Rotated.LEAF, S // 2)),
        at(1.3, PushPolicies(50, relevant=True)),
        at(2, ChangePosture(NAMESPACE)),
        at(2.6, Fail(Failing.POLICY, S, RenewalFault.GONE)),
        at(2.9, PushPolicies(20)),
        at(3.2, Fail(Failing.RENEWAL, S)),
        at(3.5, Rotate(Rotated.LEAF)),
        at(4.7, Rotate(Rotated.ISSUER)),
        at(5.4, Rotate(Rotated.ANCHOR)),
    )
    of = replace(of, trial=replace(of.trial, timeout_ns=S))
    with LocalTestbed(of, {MeshName.LINKERD: LinkerdMesh()}) as bed:
        bed.restart(0)
        run(bed, list(design_block(of, 0)))
        [arm] = again(of)
        bed.apply(arm)
        say(proven=bed.prove(arm).passed)
    return 0


SCENES = {
    scene.__name__: scene
    for scene in (changes, renewal, transition, forbidden, linkerd_forbidden, gone, linkerd_changes)
}


def main() -> int:
    try:
        return enter_world(SCENES[sys.argv[1]])
    except MeshwiseError as error:
        print(json.dumps({"error": error.code, "what": error.what}), flush=True)
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
