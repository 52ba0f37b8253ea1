"""Thirty services with sidecars: start, prove the posture, run a trial; under 60 s and 8 GiB for either mesh.

    python benchmarks/thirty_services.py [--mesh istio] [--mesh linkerd] [--json]

The study is `studies/thirty.yaml`, one mesh at a time in a world of its own, in `strict`. Time is from an
empty machine (no pod, no key, no process) to the end of the first trial. Memory is the sum of the
proportional set sizes of all processes of the trial: services, sidecars, control plane, instrument. Exit
status 1 when a mesh misses a figure or its posture is not proven; a mesh whose proxy is absent is left out,
and said.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

from meshwise.cli.wiring import meshes_of
from meshwise.core.errors import MeshwiseError
from meshwise.study.file.read import load_study
from meshwise.study.model import LADDER, Control, MeshName, Study, Trial
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import LiveProgress, Measurement

CHECKOUT = Path(__file__).resolve().parent.parent
LIMIT_S = 60.0
LIMIT_BYTES = 8 << 30
STRICT = LADDER[2]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mesh", action="append", choices=["istio", "linkerd"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    missed = False
    for name in arguments.mesh or ["istio", "linkerd"]:
        try:
            missed |= bool(enter_world(lambda name=name: inside(MeshName(name), as_json=arguments.json)))
        except MeshwiseError as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            missed |= error.code not in ("MW403", "MW811")
    return int(missed)


def inside(mesh: MeshName, *, as_json: bool) -> int:
    question = one_cell(mesh)
    trial = Trial("b000-p00", 0, 0, 0, question.cells[0])
    marks = [("begin", time.monotonic())]

    def passed(what: str) -> None:
        marks.append((what, time.monotonic()))

    with LocalTestbed(question, meshes_of(question)) as bed:
        passed("pods and rules")
        bed.restart(0)
        passed("keys and processes")
        bed.apply(trial)
        passed("posture")
        proof = bed.prove(trial)
        passed("proof")
        if not proof.passed:
            print(f"{mesh}: not proven: {'; '.join(str(c) for c in proof.checks if not c.passed)}")
            return 1
        measured = bed.measure([trial], nothing)[trial.trial_id]
        passed("trial")
    result = figures(mesh, marks, measured, len(proof.checks))
    print(json.dumps(result) if as_json else told(result))
    return int(not result["reached"])


def one_cell(mesh: MeshName) -> Study:
    whole = load_study(CHECKOUT / "studies" / "thirty.yaml")
    cells = tuple(cell for cell in whole.cells if cell.mesh is mesh and cell.posture == STRICT)
    return replace(whole, environments=(mesh,), cells=cells, control=Control())


def nothing(_: LiveProgress) -> None:
    return


def figures(
    mesh: MeshName, marks: list[tuple[str, float]], measured: Measurement, checks: int
) -> dict[str, Any]:
    frame = pl.from_arrow(measured.telemetry)
    assert isinstance(frame, pl.DataFrame)
    last = (
        frame.with_columns(pl.col("source", "metric").cast(pl.String))
        .filter(pl.col("metric") == "pss_bytes")
        .sort("t_ns")
        .group_by("source")
        .last()
    )
    held: dict[str, list[float]] = defaultdict(list)
    for source, value in zip(last["source"], last["value"], strict=True):
        held[source.rpartition("/")[2]].append(value)
    total_s = marks[-1][1] - marks[0][1]
    total_bytes = sum(map(sum, held.values()))
    answered = measured.requests.num_rows - measured.requests.column("done_ns").null_count
    failed = sum(error != "" for error in measured.requests.column("error").to_pylist())
    return {
        "mesh": str(mesh),
        "total_s": total_s,
        "parts_s": {what: at - before for (_, before), (what, at) in pairwise(marks)},
        "pss_bytes": total_bytes,
        "pss_by_role_bytes": {role: sum(values) for role, values in held.items()},
        "processes": {role: len(values) for role, values in held.items()},
        "checks": checks,
        "requests": answered,
        "failed": failed,
        "failure": measured.failure,
        "reached": total_s < LIMIT_S and total_bytes < LIMIT_BYTES and not measured.failure and not failed,
    }


def told(result: dict[str, Any]) -> str:
    parts = ", ".join(f"{what} {seconds:.1f}" for what, seconds in result["parts_s"].items())
    roles = ", ".join(
        f"{result['processes'][role]} {role} {held / 2**20 / result['processes'][role]:.1f} MiB each"
        for role, held in result["pss_by_role_bytes"].items()
    )
    return (
        f"{result['mesh']}: {result['total_s']:.1f} s ({parts}),"
        f" {result['pss_bytes'] / 2**30:.2f} GiB ({roles}),"
        f" {result['checks']} checks passed, {result['requests']} requests, {result['failed']} failed"
        f"{'; ' + result['failure'] if result['failure'] else ''};"
        f" figure: under {LIMIT_S:g} s and {LIMIT_BYTES >> 30} GiB,"
        f" {'reached' if result['reached'] else 'MISSED'}"
    )


if __name__ == "__main__":
    sys.exit(main())
