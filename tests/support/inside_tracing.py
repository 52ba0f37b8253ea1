"""Program of the tests of tracing with real proxies: `inside_tracing.py SCENE [WORDS]`; JSON lines."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from meshwise.core.errors import MeshwiseError
from meshwise.core.patience import USUAL
from meshwise.load.traced import Tracing
from meshwise.measure.spans import SPAN_COLUMNS, WHOLE, measure_spans, traces
from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.mesh.linkerd import binary
from meshwise.mesh.linkerd.mesh import LinkerdMesh
from meshwise.mesh.none.mesh import NoneMesh
from meshwise.study.design.blocks import design_block
from meshwise.study.model import (
    LADDER,
    Arrangement,
    Arrivals,
    BankOperation,
    Cell,
    MeshName,
    Protocol,
    Study,
    TopologyKind,
    Trial,
    TrialPlan,
)
from meshwise.telemetry.spans import read
from meshwise.telemetry.spans.read import Found
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import LiveProgress, Measurement
from tests.support.inside_world import say
from tests.support.studies import cell, study

STRICT = LADDER[2]
PATIENT = TrialPlan(400_000_000, 600_000_000, Arrivals.CONSTANT, 5 * 10**9)
MESHES = {MeshName.NONE: NoneMesh, MeshName.ISTIO: IstioMesh, MeshName.LINKERD: LinkerdMesh}


def nothing(_: LiveProgress) -> None:
    return


def measured(bed: LocalTestbed, question: Study) -> dict[Trial, Measurement]:
    """One round of all arms."""
    arms = design_block(question, 0)
    for one in arms:
        bed.apply(one)
        proof = bed.prove(one)
        assert proof.passed, [str(check) for check in proof.checks if not check.passed]
    found = bed.measure(arms, nothing)
    return {one: found[one.trial_id] for one in arms}


def tell(one: Trial, outcome: Measurement) -> None:
    requests = outcome.requests
    facts: dict[str, object] = {
        "mesh": str(one.cell.mesh), "share": one.cell.traced_share, "failure": outcome.failure,
        "flags": list(outcome.flags), "requests": requests.num_rows,
        "errors": sorted(set(requests["error"].to_pylist())),
        "traced": sum(map(Tracing(one.cell.traced_share, "1" * 16).traces, range(requests.num_rows))),
        "receiver": "receiver" in set(outcome.telemetry["source"].to_pylist()),
    }  # fmt: skip
    if outcome.spans is not None:
        frame = pl.from_arrow(outcome.spans)
        assert isinstance(frame, pl.DataFrame)
        frame = frame.with_columns(pl.col(pl.Categorical).cast(pl.String))
        rows = Counter(f"{row['source'].split('/', 2)[2]} {row['kind']}" for row in frame.to_dicts())
        numbers = measure_spans(frame.select(SPAN_COLUMNS))
        whole, begun = traces(frame.select(SPAN_COLUMNS))
        facts |= {
            "spans": rows, "whole": numbers.values.get(WHOLE), "begun": begun,
            "parts": {
                key.part: value for key, value in numbers.values.items() if key.metric == "span_own_p50_us"
            },
            "shape": _shape(whole[0].root) if whole else None,
            "inside": all(
                child.begun_ns >= node.begun_ns
                for trace in whole
                for node in trace.spans
                for child in node.children
            ),
        }  # fmt: skip
    say(**facts)


def _shape(node: object) -> Mapping[str, object]:
    """`who kind` -> the same of its children."""
    name = f"{node.workload}/{node.role} {node.kind}"  # type: ignore[attr-defined]
    return {name: [_shape(child) for child in node.children]}  # type: ignore[attr-defined]


def cells_of(protocol: Protocol, length: int) -> list[Cell]:
    alike = {"length": length, "rate_rps": 100.0}
    found = [cell(protocol=protocol, traced_share=0.25, **alike)]
    found += [cell(STRICT, protocol, traced_share=share, **alike) for share in (0.0, 0.25)]
    try:
        binary.proxy_path()
    except MeshwiseError:
        return found
    linkerd = {"mesh": MeshName.LINKERD, **alike}
    return [*found, *(cell(STRICT, protocol, traced_share=share, **linkerd) for share in (0.0, 0.25))]


def traced(protocol: str, length: str) -> int:
    """Traced and untraced arms of every mesh at the same time."""
    question = study(
        cells_of(Protocol(protocol), int(length)), arrangement=Arrangement.TOGETHER,
        trial=PATIENT,
    )  # fmt: skip
    with LocalTestbed(question, {name: MESHES[name]() for name in question.environments}) as bed:
        bed.restart(0)
        say(fidelity=[each["code"] for each in bed.environment()["fidelity"]])  # type: ignore[attr-defined]
        found = measured(bed, question)
        for one, outcome in found.items():
            tell(one, outcome)
        came = Found()
        read.of_otlp((bed._home / "spans/taken").read_bytes(), 0, came)
        known = {row for each in found.values() if each.spans for row in each.spans["trace_id"].to_pylist()}
        say(foreign=sum(span.trace_id not in known for span in came.spans))
    return 0


def faults() -> int:
    """The receiver is killed within a trial; the next trial has another, with little room."""
    question = study([cell(STRICT, traced_share=1.0, rate_rps=100.0)], trial=PATIENT)
    with LocalTestbed(question, {MeshName.ISTIO: IstioMesh()}) as bed:
        bed.restart(0)
        (trial,) = design_block(question, 0)
        collector = bed._spans
        assert collector is not None

        def kill(_: LiveProgress) -> None:
            if collector.process.running:
                os.kill(collector.process.pid, signal.SIGKILL)

        for observe in (kill, nothing):
            bed.apply(trial)
            bed.prove(trial)
            tell(trial, bed.measure([trial], observe)[trial.trial_id])
            collector._most_bytes = 20_000
    return 0


def bank() -> int:
    """Services that export by the SDK."""
    one = cell(
        STRICT, traced_share=1.0, rate_rps=40.0, shape=TopologyKind.BANK, request_bytes=0, response_bytes=0
    )
    plan = replace(
        PATIENT, duration_ns=10**9, mix=((BankOperation.PROFILE, 1.0), (BankOperation.STATEMENT, 1.0))
    )
    question = study([one], trial=plan)
    with LocalTestbed(question, {MeshName.ISTIO: IstioMesh()}, patience=replace(USUAL, ready_s=150.0)) as bed:
        bed.restart(0)
        for trial, outcome in measured(bed, question).items():
            tell(trial, outcome)
    return 0


SCENES = {scene.__name__: scene for scene in (traced, faults, bank)}

if __name__ == "__main__":
    scene, *words = sys.argv[1:]
    sys.exit(enter_world(lambda: SCENES[scene](*words)))
