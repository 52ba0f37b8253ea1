"""Program of the test of service graphs on real proxies: one trial of a graph in a world of its own.

    inside_graph.py GRAPH_FILE PROTOCOL POSTURE RATE

Prints one line of JSON: what the proof said, how requests ended, and how many requests each service was
asked, as its own sidecar counted them.
"""

from __future__ import annotations

import re
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from meshwise.mesh.istio.mesh import IstioMesh
from meshwise.study.graph.read import read_graph
from meshwise.study.model import LADDER, Arrivals, MeshName, Protocol, TopologyKind, TrialPlan
from meshwise.testbed.local.testbed import LocalTestbed
from meshwise.testbed.local.world import enter_world
from meshwise.testbed.seam import LiveProgress, Measurement
from tests.support.inside_world import say
from tests.support.studies import cell, study, trial

COUNTED = "upstream_requests_total"


def nothing(_: LiveProgress) -> None:
    return


def inside(file: str, protocol: str, posture: str, rate: str) -> int:
    graph = read_graph(Path(file)).graph
    rung = next(rung for rung in LADDER if rung.name == posture)
    one = cell(
        rung,
        Protocol(protocol),
        shape=TopologyKind.GRAPH,
        graph=graph,
        rate_rps=float(rate),
        request_bytes=32,
    )
    question = replace(
        study([one]), trial=TrialPlan(200_000_000, 2_000_000_000, Arrivals.CONSTANT, 2 * 10**9)
    )
    with LocalTestbed(question, {MeshName.ISTIO: IstioMesh()}) as bed:
        bed.restart(0)
        bed.apply(trial(0, one))
        proof = bed.prove(trial(0, one))
        measured = bed.measure([trial(0, one)], nothing)[trial(0, one).trial_id]
    table = measured.requests
    say(
        passed=proof.passed,
        failing=[str(check) for check in proof.checks if not check.passed],
        failure=measured.failure,
        requests=table.num_rows,
        statuses={str(status): n for status, n in Counter(table.column("status").to_pylist()).items()},
        bytes={str(size): n for size, n in Counter(table.column("bytes").to_pylist()).items()},
        fastest_ns=min(
            done - sent
            for sent, done, error in zip(
                *(table.column(name).to_pylist() for name in ("sent_ns", "done_ns", "error")), strict=True
            )
            if not error and done is not None
        ),
        visits=visits(measured),
    )
    return 0


def visits(measured: Measurement) -> dict[str, float]:
    """Requests that each sidecar passed to its own service, between the first and the last reading."""
    read: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in measured.telemetry.to_pylist():
        if row["metric"] == COUNTED and re.search(r"name=inbound", row["labels"] or ""):
            read[row["source"].split("/")[2]].append((row["t_ns"], row["value"]))
    found = {}
    for name, values in read.items():
        by_time: Counter[int] = Counter()
        for t_ns, value in values:
            by_time[t_ns] += int(value)
        found[name] = float(by_time[max(by_time)] - (by_time[min(by_time)] if len(by_time) > 1 else 0))
    return found


if __name__ == "__main__":
    words = sys.argv[1:]
    sys.exit(enter_world(lambda: inside(*words)))
